//! criu, which the OCI runtime runs to checkpoint and to restore: whether it is there, where it works, what it said.
//!
//! Decides that a runtime is not asked for what it could only fail at, and which of criu's many words are told.
//! Must not know containers' states.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use crate::options::{RuntimeOptions, look_up};
use crate::runtime::CriuPlaces;

/// Its name, under which every OCI runtime looks for it.
const NAME: &str = "criu";
/// Where it works, in the bundle, for as long as one call takes.
const FOLDER: &str = "criu-work";

/// What a container's options say of criu.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criu {
    /// A path, or a name looked up in `PATH`; empty for `criu`.
    path: String,
    /// Where it works at a restore; empty for a place in the bundle.
    work: PathBuf,
}

/// There is no criu: its name, which has not been found.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no {0:?}; install criu on the node (the package criu of Debian, Ubuntu, Fedora and SUSE), or name it by CriuPath in the handler's options"
)]
pub struct NoCriu(String);

/// The folders of one call of criu. Dropped, those that were made for it are gone.
#[derive(Debug)]
pub struct Workplace {
    /// Ours, in the bundle.
    folder: PathBuf,
    /// Where it works: in ours, or where the caller wants it.
    work: PathBuf,
    kept: bool,
    programs: Option<PathBuf>,
}

impl Criu {
    /// What `options` say of it.
    pub fn of(options: &RuntimeOptions) -> Self {
        Self { path: options.criu_path.clone(), work: options.criu_work_path.clone().into() }
    }

    /// Where it works at a restore; empty for a place in the bundle.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Looks for the program. `None` where it is what the runtime finds by itself.
    ///
    /// # Errors
    /// [`NoCriu`]
    pub fn find(&self) -> Result<Option<PathBuf>, NoCriu> {
        let name = if self.path.is_empty() { NAME } else { &self.path };
        match look_up(name) {
            Some(program) => Ok(Some(program).filter(|_| name != NAME)),
            None => Err(NoCriu(name.to_owned())),
        }
    }
}

impl Workplace {
    /// Makes a place in `bundle` to run `program` in (as found by [`Criu::find`]); `work`, if not empty, is where the caller
    /// wants criu to work.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn make(bundle: &Path, program: Option<&Path>, work: &Path) -> io::Result<Self> {
        let folder = bundle.join(FOLDER);
        remove(&folder)?;
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        let kept = !work.as_os_str().is_empty();
        let mut place = Self {
            work: if kept { work.to_owned() } else { folder.join("work") },
            folder,
            kept,
            programs: None,
        };
        make(&place.work)?;
        if let Some(program) = program {
            let programs = place.folder.join("bin");
            make(&programs)?;
            symlink(program, programs.join(NAME))?;
            place.programs = Some(programs);
        }
        Ok(place)
    }

    /// What the runtime is told.
    pub fn places<'a>(&'a self, image: &'a Path) -> CriuPlaces<'a> {
        CriuPlaces { image, work: &self.work, programs: self.programs.as_deref() }
    }

    /// Why criu failed, in its words, and its whole log, which stays in `bundle` as `kept_as`, or where the caller
    /// wanted it. `None` where it did not come so far.
    pub fn words(&self, log: &str, bundle: &Path, kept_as: &str) -> Option<(String, PathBuf)> {
        let written = self.work.join(log);
        let text = String::from_utf8_lossy(&fs::read(&written).ok()?).into_owned();
        let log = if self.kept {
            written
        } else {
            let log = bundle.join(kept_as);
            fs::rename(&written, &log).ok()?;
            log
        };
        Some((reason(&text).to_owned(), log))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // In the bundle, with which it goes at the latest.
        let _ = remove(&self.folder);
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where criu begins to take back what it did before it failed.
const TAKES_BACK: &str = "Running network-unlock scripts";
/// Errors that say only that something failed: what its callers say, and its helper programs.
const SAYS_LITTLE: [&str; 3] = ["FAILED", "failed with", "exited, status="];

/// Why criu failed, from a log of lines such as `(00.041) Error (criu/files.c:12): words`: the last error that says why. There may be
/// others before it, which were no reason to stop.
fn reason(log: &str) -> &str {
    let log = log.split_once(TAKES_BACK).map_or(log, |(before, _)| before);
    let errors = || log.lines().rev().filter_map(|line| Some(line.split_once("Error (")?.1));
    let says_why = |error: &&str| !SAYS_LITTLE.iter().any(|little| error.contains(little));
    let error = errors().find(says_why).or_else(|| errors().next()).unwrap_or_default();
    error.split_once("): ").map_or(error, |(_, words)| words).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told() {
        let log = "(00.08) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self\n\
            (00.10) Warn  (criu/kerndat.c:1): no\n\
            (00.11) Error (criu/files-reg.c:1031): Can't dump ghost file /g of 2097152 size, increase limit\n\
            (00.11) Error (criu/cr-dump.c:1681): Dump files (pid: 21828) failed with -1\n\
            (00.13) Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
        assert_eq!(reason(log), "Can't dump ghost file /g of 2097152 size, increase limit");
        let log = "(00.39) Error (criu/util.c:656): exited, status=1\n\
            (00.40) Error (criu/net.c:3282): net: Locking network failed\n\
            (00.40) Running network-unlock scripts\n\
            Error (criu/util.c:641): execvp(\"ip6tables-restore\", ...) failed\n\
            (00.46) Error (criu/cr-dump.c:2111): Dumping FAILED.";
        assert_eq!(reason(log), "net: Locking network failed");
        assert_eq!(reason("Error (criu/cr-dump.c:2111): Dumping FAILED.\n"), "Dumping FAILED.");
        assert_eq!(reason("(00.01) all well\n"), "");
        assert_eq!(reason("Error (cut"), "cut");
    }

    #[test]
    fn what_is_not_there_is_named_with_a_way_out() {
        let named = |path: &str| Criu { path: path.into(), work: PathBuf::new() };
        let error = named("/no/such/criu").find().expect_err("not there").to_string();
        assert!(error.contains("\"/no/such/criu\"") && error.contains("install"), "{error}");
        assert_eq!(named("/proc/self/exe").find().expect("there"), Some("/proc/self/exe".into()));
    }

    #[test]
    fn a_place_has_the_named_program_as_criu_and_leaves_with_its_owner() {
        let bundle = tempfile::tempdir().expect("a temporary directory");
        let made = Workplace::make(bundle.path(), Some(Path::new("/opt/criu-4")), Path::new(""));
        let place = made.expect("writable");
        let places = place.places(Path::new("/image"));
        let programs = places.programs.expect("one was named");
        let link = fs::read_link(programs.join("criu")).expect("a link");
        assert_eq!(link, Path::new("/opt/criu-4"));
        fs::write(places.work.join("dump.log"), "Error (a:1): why\n").expect("writable");
        let (words, log) = place.words("dump.log", bundle.path(), "kept.log").expect("written");
        assert_eq!((words.as_str(), log.clone()), ("why", bundle.path().join("kept.log")));
        assert_eq!(place.words("dump.log", bundle.path(), "kept.log"), None);
        drop(place);
        let left: Vec<_> = fs::read_dir(bundle.path()).expect("there").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(log.exists());
    }

    #[test]
    fn a_place_that_the_caller_named_stays() {
        let bundle = tempfile::tempdir().expect("a temporary directory");
        let work = bundle.path().join("mine");
        let place = Workplace::make(bundle.path(), None, &work).expect("writable");
        assert_eq!(place.places(Path::new("/image")).work, work);
        fs::write(work.join("dump.log"), "").expect("writable");
        let said = place.words("dump.log", bundle.path(), "kept.log");
        assert_eq!(said, Some((String::new(), work.join("dump.log"))));
        drop(place);
        assert!(work.join("dump.log").exists());
    }
}
