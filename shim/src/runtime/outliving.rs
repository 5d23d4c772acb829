//! Calls of the OCI runtime that outlive the shim that made them.
//!
//! They are killed with it (see `call.rs`), but one that is in the middle of a system call, such as the making of
//! a cgroup, ends that first: whoever cleans up before it has ended cleans up too early. Decides which
//! processes are such calls. Must not end them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// How often and how long is looked for them: none of them is a child of ours.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Waits, within limits, until no launch of a container in `bundle` is under way any more.
pub async fn no_launch_is_left(bundle: &Path) {
    for _ in 0..LOOKS {
        if !launches(bundle) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether a process runs that writes its log into `bundle`, as a launch is told to, or a criu that works there, which a restore has
/// started and which makes processes of its own.
fn launches(bundle: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.map(|entry| entry.path()).any(|process| {
        // What has ended meanwhile, and what is no process, has no command line.
        let Ok(line) = fs::read(process.join("cmdline")) else { return false };
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let logs_there = |pair: &[&[u8]]| {
            pair[0] == b"--log" && Path::new(OsStr::from_bytes(pair[1])).parent() == Some(bundle)
        };
        // As runc and libcriu call it: `criu swrk <descriptor>`.
        let works_there = || {
            words.contains(&b"swrk".as_slice())
                && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(bundle))
        };
        words.windows(2).any(logs_there) || works_there()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::CHILDREN;
    use std::io::Read;
    use std::process::{Command, Stdio};
    use std::sync::PoisonError;

    #[test]
    fn a_launch_is_known_by_its_log() {
        let _one_at_a_time = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let bundle = tempfile::tempdir().expect("a temporary directory");
        let log = bundle.path().join("log.json");
        assert!(!launches(bundle.path()));
        let mut child = Command::new("sh")
            .args(["-c", "echo; read line", "runc", "--log"])
            .arg(log)
            .arg("create")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh exists");
        // Started is not there yet: the kernel gives a new program its command line last.
        let mut said = child.stdout.take().expect("piped");
        said.read_exact(&mut [0]).expect("it says that it is there");
        assert!(launches(bundle.path()));
        assert!(!launches(Path::new("/nowhere")));
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert!(!launches(bundle.path()));
        let mut criu = Command::new("sh")
            .args(["-c", "echo; read line", "criu", "swrk", "3"])
            .current_dir(bundle.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh exists");
        let mut said = criu.stdout.take().expect("piped");
        said.read_exact(&mut [0]).expect("it says that it is there");
        assert!(launches(bundle.path()));
        assert!(!launches(&bundle.path().join("other")));
        criu.kill().expect("ours");
        criu.wait().expect("ours");
    }
}
