//! Liveness: whether a process, a cgroup, a grant's owner still lives. Facts of the kernel's, no guesses.
//!
//! Decides what counts as alive. Where that cannot be read, it is an error: what cannot be seen is not dead. Must not know the ledger's file.

use std::fs;
use std::io;
use std::path::Path;

use nix::libc::{ENODEV, ESRCH};

use crate::record::{Grant, Member, ProcessId};

/// What is read of `/proc/<pid>/stat`, see proc(5).
#[derive(Debug, PartialEq, Eq)]
struct Status {
    state: u8,
    threads: u64,
    start_time: u64,
}

impl Status {
    /// A zombie has nothing any more, except if only its first thread has ended: that waits as a zombie for the others.
    fn is_alive(&self) -> bool {
        match self.state {
            b'X' | b'x' => false,
            b'Z' => self.threads > 1,
            _ => true,
        }
    }
}

/// When the process started, in clock ticks after boot; `None` if there is no process with this PID. A zombie has one.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn start_time(pid: u32) -> io::Result<Option<u64>> {
    Ok(status(pid)?.map(|status| status.start_time))
}

/// Whether the process still runs: this very one, not a later one with its PID, and not its zombie.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn is_alive(process: &ProcessId) -> io::Result<bool> {
    let status = status(process.pid)?;
    Ok(status.is_some_and(|found| found.start_time == process.start_time && found.is_alive()))
}

/// Whether the grant's owner lives: its container is being made, its sandbox's first process runs, or a member's does, or anything runs in a
/// member's cgroup.
///
/// # Errors
/// When `/proc` or a cgroup cannot be read.
pub fn owner_lives(grant: &Grant, in_progress: bool) -> io::Result<bool> {
    if in_progress {
        return Ok(true);
    }
    if let Some(process) = &grant.sandbox_init
        && is_alive(process)?
    {
        return Ok(true);
    }
    for member in &grant.members {
        if member_lives(member)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a container runs: its first process does, or anything in its cgroup.
///
/// # Errors
/// As [`owner_lives`].
pub fn member_lives(member: &Member) -> io::Result<bool> {
    if let Some(init) = &member.init
        && is_alive(init)?
    {
        return Ok(true);
    }
    member.cgroup.as_ref().map_or(Ok(false), |cgroup| is_populated(cgroup))
}

fn status(pid: u32) -> io::Result<Option<Status>> {
    let path = format!("/proc/{pid}/stat");
    match fs::read(&path) {
        Ok(stat) => parse(&stat).map(Some).ok_or_else(|| {
            let stat = String::from_utf8_lossy(&stat);
            let words = format!("{path} is not what proc(5) describes: {stat:?}");
            io::Error::new(io::ErrorKind::InvalidData, words)
        }),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `pid (comm) state ppid …`: the command's name may itself have spaces and parentheses, and what follows it has none.
fn parse(stat: &[u8]) -> Option<Status> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    // Fields 3 (state), 20 (num_threads) and 22 (starttime).
    let mut fields = rest.split_ascii_whitespace();
    let state = match fields.next()?.as_bytes() {
        [state] => *state,
        _ => return None,
    };
    let threads = fields.nth(16)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    Some(Status { state, threads, start_time })
}

/// Whether any process is in the cgroup or below it. One that is gone has none.
fn is_populated(cgroup: &Path) -> io::Result<bool> {
    // On v2 the kernel counts what is below, and a threaded cgroup lists no processes. v1 has no such file.
    if let Some(events) = read(&cgroup.join("cgroup.events"))? {
        let mut lines = events.lines().map(|line| line.split_once(' '));
        if let Some(count) = lines.find_map(|line| line.filter(|(key, _)| *key == "populated")) {
            return Ok(count.1.trim() != "0");
        }
    }
    if read(&cgroup.join("cgroup.procs"))?.is_some_and(|pids| !pids.trim().is_empty()) {
        return Ok(true);
    }
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = match entry {
            Err(error) if is_gone(&error) => return Ok(false),
            entry => entry?,
        };
        if entry.file_type()?.is_dir() && is_populated(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// ESRCH: the process ended while it was looked at. ENODEV: so did the cgroup.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Some(ESRCH), Some(ENODEV)].contains(&error.raw_os_error());
    gone || error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests;
