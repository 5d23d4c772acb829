//! Real processes, and cgroups as the kernel shows them.

use std::process::{Child, Command, Stdio};

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::*;
use crate::record::tests::grant;

/// Runs until its input ends.
fn child() -> (Child, ProcessId) {
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let child = child.expect("cat");
    let start_time = start_time(child.id()).expect("read").expect("running");
    let process = ProcessId { pid: child.id(), start_time };
    (child, process)
}

#[test]
fn a_process_is_alive_then_a_zombie_then_gone() {
    let (mut child, process) = child();
    assert!(is_alive(&process).expect("read"));
    drop(child.stdin.take());
    // Waits until it has ended, and leaves it a zombie.
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a PID"));
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("waits");
    assert_eq!(start_time(process.pid).expect("read"), Some(process.start_time), "a zombie");
    assert!(!is_alive(&process).expect("read"), "a zombie holds nothing");
    child.wait().expect("reaped");
    assert_eq!(start_time(process.pid).expect("read"), None);
    assert!(!is_alive(&process).expect("read"));
}

#[test]
fn a_later_process_with_the_pid_is_another() {
    let (mut child, process) = child();
    let earlier = ProcessId { start_time: process.start_time - 1, ..process };
    assert!(!is_alive(&earlier).expect("read"));
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

const TAIL: &str = "1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 987654 0 0";

#[test]
fn names_of_commands_do_not_confuse() {
    for comm in ["cat", "a b", "a) Z 1 (b", ")", "", "x\n) R", "\u{1f600} )"] {
        let stat = format!("42 ({comm}) S {TAIL}\n");
        let expected = Status { state: b'S', threads: 3, start_time: 987_654 };
        assert_eq!(parse(stat.as_bytes()), Some(expected), "{comm:?}");
    }
    assert!(parse(b"42 (\xff\xfe) S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 5 0").is_some());
}

#[test]
fn what_is_no_stat_is_not_taken_for_one() {
    for bad in ["", "42", "42 (cat", "42 (cat)", "42 (cat) S 1 2", "42 (cat) SS 1"] {
        assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn dead_states_are_dead_and_a_zombie_with_threads_is_not() {
    let alive = |state, threads| Status { state, threads, start_time: 1 }.is_alive();
    for state in *b"RSDTtIW" {
        assert!(alive(state, 1), "{}", char::from(state));
    }
    assert!(!alive(b'Z', 1) && !alive(b'Z', 0) && !alive(b'X', 1) && !alive(b'x', 1));
    assert!(alive(b'Z', 2), "its first thread has ended, and another runs");
}

fn put(cgroup: &Path, file: &str, text: &str) {
    fs::create_dir_all(cgroup).expect("a folder");
    fs::write(cgroup.join(file), text).expect("a file");
}

#[test]
fn a_v1_cgroup_is_populated_by_what_is_in_it_or_below() {
    let root = tempfile::tempdir().expect("a folder");
    let top = root.path();
    put(top, "cgroup.procs", "");
    put(&top.join("a"), "cgroup.procs", "");
    put(&top.join("a/b"), "cgroup.procs", "");
    assert!(!is_populated(top).expect("read"));
    put(&top.join("a/b"), "cgroup.procs", "7\n");
    assert!(is_populated(top).expect("read"));
    assert!(!is_populated(&top.join("gone")).expect("read"));
}

#[test]
fn a_v2_cgroup_says_it_itself() {
    let root = tempfile::tempdir().expect("a folder");
    put(root.path(), "cgroup.events", "populated 1\nfrozen 0\n");
    assert!(is_populated(root.path()).expect("read"));
    put(root.path(), "cgroup.events", "frozen 1\npopulated 0\n");
    assert!(!is_populated(root.path()).expect("read"));
}

#[test]
fn what_cannot_be_read_is_not_dead() {
    let root = tempfile::tempdir().expect("a folder");
    fs::create_dir(root.path().join("cgroup.procs")).expect("a folder in the file's place");
    assert!(is_populated(root.path()).is_err());
}

#[test]
fn an_owner_lives_by_any_one_of_its_signs() {
    let (mut running, process) = child();
    let cgroup = tempfile::tempdir().expect("a folder");
    put(cgroup.path(), "cgroup.procs", "7\n");
    let dead = ProcessId { start_time: process.start_time - 1, ..process };
    let with = |sandbox, init, cgroup: Option<&Path>| {
        let mut grant = grant(1, &[0]);
        grant.sandbox_init = sandbox;
        grant.members[0].init = init;
        grant.members[0].cgroup = cgroup.map(Path::to_owned);
        grant
    };
    let lives = |grant: &Grant, in_progress| owner_lives(grant, in_progress).expect("read");
    let none = with(Some(dead), Some(dead), Some(Path::new("/sys/fs/cgroup/no-such")));
    assert!(!lives(&none, false));
    assert!(lives(&none, true));
    assert!(lives(&with(Some(process), None, None), false));
    assert!(lives(&with(Some(dead), Some(process), None), false));
    assert!(lives(&with(None, None, Some(cgroup.path())), false));
    running.kill().expect("killed");
    running.wait().expect("reaped");
    assert!(!lives(&with(Some(process), Some(process), None), false));
}
