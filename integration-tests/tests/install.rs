//! `make install` and `make uninstall`, as a packager and an administrator run them: into temporary folders, without cargo.
//!
//! What is built is played by small files, since where they go is what counts; one trial looks at the programs themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};

use anyhow::{Context, Result, ensure};
use integration_tests::suite::{Lacking, Suite};
use tempfile::TempDir;

/// Below `PREFIX`, with modes; the documents' list is that of the checkout.
const INSTALLED: [(&str, u32); 14] = [
    ("bin/berth", 0o755),
    ("bin/containerd-shim-berth-v2", 0o755),
    ("share/bash-completion/completions/berth", 0o644),
    ("share/doc/berth/CHANGELOG.md", 0o644),
    ("share/doc/berth/LICENSE", 0o644),
    ("share/doc/berth/README.md", 0o644),
    ("share/doc/berth/docs/berth.md", 0o644),
    ("share/doc/berth/packaging/config/config.toml", 0o644),
    ("share/doc/berth/packaging/containerd/berth-v2.toml", 0o644),
    ("share/doc/berth/packaging/containerd/berth-v3.toml", 0o644),
    ("share/doc/berth/packaging/kubernetes/one-gpu.yaml", 0o644),
    ("share/doc/berth/packaging/kubernetes/runtimeclass.yaml", 0o644),
    ("share/fish/vendor_completions.d/berth.fish", 0o644),
    ("share/zsh/site-functions/_berth", 0o644),
];

const SHIM: &str = "bin/containerd-shim-berth-v2";
/// The default that is changed where a configuration is to differ.
const CHANGED: &str = "[node]\nmig-linger = 5\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A machine without cargo, on which something was built.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Result<Place> {
        let place = Place { dir: tempfile::Builder::new().prefix("berth install ").tempdir()? };
        // Whoever calls one of these leaves a trace.
        for name in ["cargo", "rustc", "systemctl", "containerd", "ctr"] {
            let trace = place.path("called");
            place.program(
                &format!("tools/{name}"),
                &format!("echo {name} >>'{}'; exit 1", trace.display()),
            )?;
        }
        place.program("target/dist/containerd-shim-berth-v2", "exit 0")?;
        place.program("target/dist/berth", "exit 0")?;
        for shell in ["bash", "zsh", "fish"] {
            fs::write(place.path(&format!("target/dist/berth.{shell}")), shell)?;
        }
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, script: &str) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?)
    }

    /// Runs `make TARGET`, with these variables, under a umask that hides everything from others.
    fn make(&self, target: &str, variables: &[(&str, &Path)]) -> Result<Output> {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec make \"$@\"", "make", "-C"]).arg(root()).arg(target);
        for (name, value) in variables {
            command.arg(format!("{name}={}", value.display()));
        }
        command.env_clear().stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("tools").display()));
        command.env("CARGO_TARGET_DIR", self.path("target"));
        Ok(command.output()?)
    }

    fn staged(&self, target: &str) -> Result<String> {
        said(&self.make(target, &[("DESTDIR", &self.path("dest"))])?)
    }

    fn config(&self) -> PathBuf {
        self.path("dest/etc/berth/config.toml")
    }

    /// Every file below, with its mode.
    fn files(&self, below: &str) -> Result<BTreeMap<String, u32>> {
        let below = self.path(below);
        let mut found = BTreeMap::new();
        for (path, metadata) in walk(&below)? {
            if !metadata.is_dir() {
                let name = path.strip_prefix(&below)?.to_string_lossy().into_owned();
                found.insert(name, metadata.mode() & 0o7777);
            }
        }
        Ok(found)
    }
}

/// What a run that succeeded has said, both ways.
fn said(output: &Output) -> Result<String> {
    let words = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let words = words.concat();
    ensure!(output.status.success(), "{words}");
    Ok(words)
}

/// What a run that failed has said.
fn refused(output: &Output) -> Result<String> {
    ensure!(!output.status.success(), "it succeeded");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn walk(from: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>> {
    let Ok(metadata) = from.symlink_metadata() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    if metadata.is_dir() {
        for entry in fs::read_dir(from)? {
            found.extend(walk(&entry?.path())?);
        }
    }
    found.push((from.to_owned(), metadata));
    Ok(found)
}

/// What an installation that forgot DESTDIR would change, and the checkout's own files.
fn outside() -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    let checkout = ["packaging", "docs", "scripts"].map(|name| root().join(name));
    let places = ["/usr/local/bin", "/usr/local/share", "/etc/berth", "/etc/containerd"];
    for place in checkout.iter().map(PathBuf::as_path).chain(places.map(Path::new)) {
        for (path, metadata) in walk(place)? {
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            seen.insert(format!("{} {} {changed:?}", path.display(), metadata.ino()));
        }
    }
    ensure!(seen.len() > 10, "{seen:?}");
    Ok(seen)
}

/// Every file at its place, readable by everybody, with the bytes of its source, and nothing anywhere else.
fn everything_goes_below_destdir_and_nothing_elsewhere() -> Result<()> {
    let (place, before) = (Place::new()?, outside()?);
    place.staged("install")?;
    let mut files = place.files("dest/usr/local")?;
    for (name, mode) in INSTALLED {
        ensure!(files.remove(name) == Some(mode), "{name}: {:?}", place.files("dest")?);
    }
    let documents = |name: &String| {
        name.strip_prefix("share/doc/berth/").is_some_and(|name| {
            let here = root().join(name);
            let there = place.path("dest/usr/local/share/doc/berth").join(name);
            here.is_file() && fs::read(here).ok() == fs::read(there).ok()
        })
    };
    ensure!(files.iter().all(|(name, mode)| *mode == 0o644 && documents(name)), "{files:?}");
    ensure!(place.files("dest/etc")? == [("berth/config.toml".to_owned(), 0o644)].into());
    let packaged = root().join("packaging/config/config.toml");
    ensure!(fs::read(place.config())? == fs::read(packaged)?);
    for (installed, built) in [(SHIM, "containerd-shim-berth-v2"), ("bin/berth", "berth")] {
        let there = place.path("dest/usr/local").join(installed);
        ensure!(fs::read(there)? == fs::read(place.path("target/dist").join(built))?, "{built}");
    }
    for (path, metadata) in walk(&place.path("dest"))? {
        let mode = metadata.mode() & 0o777;
        ensure!(!metadata.is_dir() || mode == 0o755, "{}: {mode:o}", path.display());
    }
    place.staged("uninstall")?;
    ensure!(outside()? == before, "something outside of DESTDIR has changed");
    let called = fs::read_to_string(place.path("called"));
    ensure!(called.is_err(), "it needs {called:?}");
    Ok(())
}

fn prefix_and_sysconfdir_say_where() -> Result<()> {
    let (place, dest) = (Place::new()?, PathBuf::from("dest"));
    let dest = place.path("").join(dest);
    let variables: [(&str, &Path); 3] =
        [("DESTDIR", &dest), ("PREFIX", Path::new("/opt/b/")), ("SYSCONFDIR", Path::new("/conf"))];
    said(&place.make("install", &variables)?)?;
    let top: BTreeSet<String> = place
        .files("dest")?
        .into_keys()
        .map(|name| name.split('/').take(2).collect::<Vec<_>>().join("/"))
        .collect();
    ensure!(top == ["conf/berth", "opt/b"].map(str::to_owned).into(), "{top:?}");
    said(&place.make("uninstall", &variables)?)?;
    ensure!(place.files("dest")?.is_empty());
    Ok(())
}

fn a_second_install_leaves_the_same() -> Result<()> {
    let place = Place::new()?;
    place.staged("install")?;
    let first = place.files("dest")?;
    place.staged("install")?;
    ensure!(place.files("dest")? == first);
    Ok(())
}

fn a_configuration_that_is_there_is_kept_by_both() -> Result<()> {
    let place = Place::new()?;
    place.staged("install")?;
    fs::write(place.config(), CHANGED)?;
    let words = place.staged("install")?;
    let new = place.path("dest/etc/berth/config.toml.new");
    ensure!(words.contains(&format!("{}", new.display())), "{words}");
    ensure!(fs::read_to_string(place.config())? == CHANGED);
    ensure!(fs::read(new)? == fs::read(root().join("packaging/config/config.toml"))?);
    let words = place.staged("uninstall")?;
    ensure!(words.contains(&format!("kept {}", place.config().display())), "{words}");
    ensure!(place.files("dest")?.into_keys().eq(["etc/berth/config.toml"]));
    ensure!(fs::read_to_string(place.config())? == CHANGED);
    // A link that leads nowhere (yet) is somebody's, too.
    fs::remove_file(place.config())?;
    symlink("/nowhere/config.toml", place.config())?;
    place.staged("install")?;
    place.staged("uninstall")?;
    ensure!(place.config().is_symlink());
    Ok(())
}

fn uninstall_takes_what_was_installed_and_no_more() -> Result<()> {
    let place = Place::new()?;
    for file in ["bin/other", "share/doc/other", "share/doc/berth/mine"] {
        let path = place.path("dest/usr/local").join(file);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, "")?;
    }
    let before = place.files("dest")?;
    place.staged("install")?;
    place.staged("uninstall")?;
    ensure!(place.files("dest")? == before, "{:?}", place.files("dest")?);
    ensure!(!place.path("dest/etc/berth").exists(), "Berth's own folder");
    let words = place.staged("uninstall")?;
    ensure!(words.contains("nothing of Berth's is installed"), "{words}");
    Ok(())
}

fn what_was_not_built_is_said_and_nothing_is_installed() -> Result<()> {
    for missing in ["containerd-shim-berth-v2", "berth", "berth.fish"] {
        let place = Place::new()?;
        fs::remove_file(place.path("target/dist").join(missing))?;
        let words = refused(&place.make("install", &[("DESTDIR", &place.path("dest"))])?)?;
        ensure!(words.contains(missing) && words.contains("`make build` first"), "{words}");
        ensure!(place.files("dest")?.is_empty());
    }
    Ok(())
}

fn a_place_that_cannot_be_is_refused_before_anything_is_done() -> Result<()> {
    let place = Place::new()?;
    let dest = place.path("dest");
    for name in ["PREFIX", "SYSCONFDIR"] {
        let variables = [("DESTDIR", dest.as_path()), (name, Path::new("usr"))];
        for target in ["install", "uninstall"] {
            let words = refused(&place.make(target, &variables)?)?;
            ensure!(words.contains(&format!("{name}=usr is not an absolute path")), "{words}");
        }
    }
    ensure!(!dest.exists());
    let folder = dest.join("usr/local/share/zsh/site-functions/_berth");
    fs::create_dir_all(&folder)?;
    let words = refused(&place.make("install", &[("DESTDIR", &dest)])?)?;
    ensure!(words.contains("_berth is a folder"), "{words}");
    fs::write(dest.join("usr/local/bin"), "")?;
    let words = refused(&place.make("install", &[("DESTDIR", &dest)])?)?;
    ensure!(words.contains("usr/local/bin is not a folder"), "{words}");
    ensure!(place.files("dest")?.into_keys().eq(["usr/local/bin"]));
    Ok(())
}

/// Ended with its trial.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Without DESTDIR: what is left to do is said, running shims and the ledger's grants are named, and neither is touched.
fn on_a_living_node_what_runs_is_named_and_left_alone() -> Result<()> {
    let place = Place::new()?;
    let (prefix, etc) = (place.path("usr"), place.path("etc"));
    let variables = [("PREFIX", prefix.as_path()), ("SYSCONFDIR", etc.as_path())];
    fs::copy(
        integration_tests::under_test::in_path("sleep").context("sleep")?,
        place.path("target/dist/containerd-shim-berth-v2"),
    )?;
    place.program(
        "target/dist/berth",
        "[ \"$1\" = ps ] && echo team/train || printf '# generation 2\\n{}\\n{}\\n'",
    )?;
    let words = said(&place.make("install", &variables)?)?;
    for part in ["berth-v2.toml", "berth-v3.toml", "BERTH_CONFIG"] {
        ensure!(words.contains(part), "{part}: {words}");
    }
    // It depends on what the machine itself has installed.
    let is_told = ["is not where containerd", "containerd finds another shim first"];
    ensure!(is_told.iter().any(|part| words.contains(part)), "{words}");
    let shim = prefix.join(SHIM);
    let mut shims = Vec::new();
    // The first runs what an upgrade replaces.
    for _ in 0..2 {
        shims.push(Running(Command::new(&shim).arg("86399").spawn()?));
        said(&place.make("install", &variables)?)?;
    }
    shims.push(Running(Command::new(&shim).arg("86399").spawn()?));
    let words = said(&place.make("uninstall", &variables)?)?;
    for running in &mut shims {
        let pid = running.0.id().to_string();
        ensure!(words.split([' ', ')']).any(|word| word == pid), "{pid}: {words}");
        ensure!(running.0.try_wait()?.is_none(), "it goes on");
    }
    for part in ["ledger: 2", "team/train", "make install", "/run/berth"] {
        ensure!(words.contains(part), "{part}: {words}");
    }
    ensure!(place.files("usr")?.is_empty() && place.files("etc")?.is_empty());
    Ok(())
}

/// The real ones: stripped, and completed as they say themselves.
fn what_make_build_left_is_what_is_released() -> Result<()> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let dist = root().join(target).join("dist");
    if !dist.is_dir() {
        return Err(Lacking("nothing is built here: run `make build`".to_owned()).into());
    }
    for (program, flag) in [("containerd-shim-berth-v2", "-v"), ("berth", "--version")] {
        let path = dist.join(program);
        let version = said(&Command::new(&path).arg(flag).output()?)?;
        ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{program}: {version}");
        let sections = said(&Command::new("readelf").arg("-SW").arg(&path).output()?)?;
        ensure!(sections.contains(".text") && !sections.contains(".symtab"), "{program}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(dist.join("berth")).args(["completions", shell]).output()?;
        ensure!(fs::read(dist.join(format!("berth.{shell}")))? == script.stdout, "{shell}");
        ensure!(!script.stdout.is_empty());
    }
    Ok(())
}

macro_rules! plain {
    ($suite:expr, [$($body:ident),* $(,)?]) => { $($suite.plain(stringify!($body), None, $body);)* };
}

fn main() -> ExitCode {
    let mut suite = Suite::new("install");
    plain!(
        suite,
        [
            everything_goes_below_destdir_and_nothing_elsewhere,
            prefix_and_sysconfdir_say_where,
            a_second_install_leaves_the_same,
            a_configuration_that_is_there_is_kept_by_both,
            uninstall_takes_what_was_installed_and_no_more,
            what_was_not_built_is_said_and_nothing_is_installed,
            a_place_that_cannot_be_is_refused_before_anything_is_done,
            on_a_living_node_what_runs_is_named_and_left_alone,
            what_make_build_left_is_what_is_released,
        ]
    );
    suite.run_as_it_is()
}
