//! What becomes of a child, whoever reaps it.

use super::*;
use crate::nvidia::fake::program;
use std::fs;
use std::os::unix::process::ExitStatusExt;

fn tool(dir: &Path, script: &str) -> Tool {
    Tool { program: program(dir, script), config: None, deadline: Duration::from_secs(60) }
}

/// Runs the script; its answer is what it leaves in the file `answer`.
fn fetch(tool: &Tool, dir: &Path, args: &[&str]) -> Result<String, DeviceError> {
    let lock = dir.join("lock");
    let answer = dir.join("answer");
    let errand = Errand { task: "do a test", args, lock: &lock };
    tool.fetch(&errand, || Ok(fs::read_to_string(&answer).ok()))
}

#[test]
fn the_child_gets_an_explicit_world() {
    let dir = tempfile::tempdir().expect("a directory");
    let d = dir.path().display();
    let script = format!("cat > {d}/input; {{ env; pwd; echo \"$@\"; }} > {d}/answer");
    let tool = Tool { config: Some("/etc/other.toml".into()), ..tool(dir.path(), &script) };
    let answer = fetch(&tool, dir.path(), &["observe", "a b"]).expect("answered");
    let mut lines: Vec<&str> = answer.lines().collect();
    // What sh itself adds.
    lines.retain(|line| {
        !["PWD=", "_=", "SHLVL=", "OLDPWD="].iter().any(|own| line.starts_with(own))
    });
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["/", "BERTH_CONFIG=/etc/other.toml", &format!("PATH={PATH}"), "observe a b"]
    );
    assert_eq!(fs::read(dir.path().join("input")).expect("read"), b"", "nothing to read");
}

#[test]
fn no_child_is_started_when_the_answer_has_come_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("answer"), "there").expect("written");
    let nowhere = Tool { program: "/nowhere/berth".into(), ..tool(dir.path(), "") };
    assert_eq!(fetch(&nowhere, dir.path(), &[]).expect("there"), "there");
}

#[test]
fn a_child_that_fails_is_quoted() {
    let dir = tempfile::tempdir().expect("a directory");
    let tool = tool(dir.path(), "echo 'berth: NVML says' >&2; echo '  no' >&2; exit 3");
    let error = fetch(&tool, dir.path(), &[]).expect_err("it failed").to_string();
    assert_eq!(
        error,
        format!("{} could not do a test: NVML says no; see berth doctor", tool.program.display())
    );
}

#[test]
fn a_child_that_fails_in_silence_is_described() {
    let dir = tempfile::tempdir().expect("a directory");
    for (script, words) in [("exit 3", "it exited with 3"), ("kill -9 $$", "SIGKILL killed it")] {
        let error = fetch(&tool(dir.path(), script), dir.path(), &[]).expect_err("it failed");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = fetch(&tool(dir.path(), "exit 0"), dir.path(), &[]).expect_err("nothing there");
    assert!(error.to_string().contains("left no answer"), "{error}");
}

#[test]
fn a_missing_program_names_the_setting() {
    let dir = tempfile::tempdir().expect("a directory");
    let nowhere = Tool { program: "/nowhere/berth".into(), ..tool(dir.path(), "") };
    let error = fetch(&nowhere, dir.path(), &[]).expect_err("not there").to_string();
    assert!(error.contains("/nowhere/berth") && error.contains("node.tool"), "{error}");
}

#[test]
fn a_name_alone_is_looked_for_beside_this_program_and_never_here() {
    let here = std::env::current_exe().expect("its place");
    let name = Path::new(here.file_name().expect("its name"));
    let this = |program: &Path| Tool { program: program.into(), ..tool(Path::new("/"), "") };
    assert_eq!(this(name).found().expect("found"), here);
    assert_eq!(this(Path::new("sh")).found().expect("in PATH").file_name(), Some("sh".as_ref()));
    // This folder has such a file.
    assert!(Path::new("Cargo.toml").is_file());
    let missing = this(Path::new("Cargo.toml")).found().expect_err("in no PATH");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    for path in ["./sh", "/nowhere/sh"] {
        assert_eq!(this(Path::new(path)).found().expect("as it is"), Path::new(path));
    }
}

#[test]
fn the_first_folder_with_the_file_wins() {
    let (empty, first, second) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    for dir in [&first, &second] {
        fs::write(dir.path().join("berth"), "").expect("written");
    }
    fs::create_dir(empty.path().join("berth")).expect("a folder is no program");
    let folders = [empty.path(), first.path(), second.path()];
    let found = found_in(folders.into_iter(), Path::new("berth"));
    assert_eq!(found, Some(first.path().join("berth")));
}

#[test]
fn a_child_that_hangs_is_killed_with_its_group_and_the_lock_is_free() {
    let dir = tempfile::tempdir().expect("a directory");
    // Both the shell and its sleep hold the lock.
    let slow = Tool {
        deadline: Duration::from_millis(200),
        ..tool(dir.path(), "echo asking the driver; sleep 600; exit 0")
    };
    let error = fetch(&slow, dir.path(), &[]).expect_err("too slow").to_string();
    assert!(error.contains("was killed"), "{error}");
    // Would wait for as long as either of them lives.
    let next = tool(dir.path(), &format!("echo next > {}/answer", dir.path().display()));
    assert_eq!(fetch(&next, dir.path(), &[]).expect("the lock is free"), "next\n");
}

#[test]
fn a_child_that_never_stops_talking_is_killed_and_its_last_words_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let slow = Tool { deadline: Duration::from_millis(200), ..tool(dir.path(), "yes talking") };
    let error = fetch(&slow, dir.path(), &[]).expect_err("too slow").to_string();
    assert!(error.contains("talking") && error.len() < 2 * SAID, "{}", error.len());
}

#[test]
fn what_a_child_leaves_running_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let answer = dir.path().join("answer");
    // Holds the pipe until the answer is removed, but is not the child.
    let script = format!(
        "echo done > {answer}; (while [ -e {answer} ]; do sleep 0.01; done) & exit 0",
        answer = answer.display()
    );
    assert_eq!(fetch(&tool(dir.path(), &script), dir.path(), &[]).expect("answered"), "done\n");
    fs::remove_file(answer).expect("it stops now");
}

#[test]
fn another_process_that_holds_the_lock_for_too_long_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let held = File::create(dir.path().join("lock")).expect("created");
    assert!(call::try_lock(&held).expect("locked"));
    let hasty = Tool { deadline: Duration::from_millis(20), ..tool(dir.path(), "exit 0") };
    let error = fetch(&hasty, dir.path(), &[]).expect_err("held").to_string();
    assert!(error.contains("another process") && error.contains("/lock"), "{error}");
}

/// A child that somebody else has reaped, as the shim's reaper may.
fn reaped(script: &str, pidfd: bool) -> Watched {
    let (pipe, writer) = io::pipe().expect("a pipe");
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(writer);
    let mut child = command.spawn().expect("sh exists");
    drop(command);
    let pidfd = pidfd.then(|| call::pidfd_open(child.id()).expect("unreaped"));
    let pid = child.id();
    child.wait().expect("our child");
    Watched { pid, pidfd, pipe, open: true, said: Vec::new() }
}

#[test]
fn a_child_that_another_has_reaped_is_heard_to_its_end_and_not_called_failed() {
    for pidfd in [true, false] {
        let mut watched = reaped("echo said; exit 3", pidfd);
        assert!(watched.until(Instant::now() + Duration::from_secs(60)).expect("polled"));
        assert_eq!(watched.words().as_deref(), Some("said"));
        assert_eq!(watched.failure(), None, "its status is lost, so its answer decides");
    }
}

#[test]
fn nothing_is_killed_once_the_child_has_ended() {
    let mut watched = reaped("exit 0", true);
    // As if the number had been given to another: to the leader of a group of its own.
    let mut stranger = Command::new("sleep").arg("600").process_group(0).spawn().expect("exists");
    watched.pid = stranger.id();
    watched.kill();
    // Whichever signal came first ends it.
    let group = Pid::from_raw(i32::try_from(stranger.id()).expect("a pid"));
    killpg(group, Signal::SIGTERM).expect("ours");
    assert_eq!(stranger.wait().expect("ours").signal(), Some(Signal::SIGTERM as i32));
}
