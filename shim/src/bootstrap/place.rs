//! A new shim's place on the host: its cgroup, its OOM score, its core-scheduling cookie.
//!
//! Decides nothing; does what the options and the environment say.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Pid, getppid};

use crate::cgroup::roots;

/// The highest OOM score adjustment (proc_pid_oom_score_adj(5)).
const OOM_SCORE_MAX: i32 = 1000;

/// Keeps every descriptor that this process was started with, but for the standard ones, from programs that it starts: what containerd
/// was given by its own parent is none of theirs. Best effort: before Linux 5.11 there is no such call.
pub fn keep_descriptors() {
    const FIRST: u32 = 3;
    // SAFETY: (why needed) nix has no wrapper, and a C library before 2.34 none either. (why sound) integers go in, no memory is
    // touched; nothing is closed before this process becomes another program.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Moves a process to the existing cgroup `path`, in every hierarchy that has it.
///
/// # Errors
/// ENOENT when no hierarchy has it; what the kernel said otherwise.
pub fn join_cgroup(pid: Pid, path: &str) -> io::Result<()> {
    let relative: PathBuf =
        Path::new(path).components().filter(|c| matches!(c, Component::Normal(_))).collect();
    let mut joined = false;
    for root in roots() {
        let procs = root.join(&relative).join("cgroup.procs");
        if procs.exists() {
            fs::write(procs, pid.to_string())?;
            joined = true;
        }
    }
    if joined { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Makes a process one step likelier to be killed for want of memory than our parent, containerd:
/// losing a shim is bad, losing containerd is worse.
///
/// # Errors
/// What the kernel said.
pub fn adjust_oom_score(pid: Pid) -> io::Result<()> {
    let parent = fs::read_to_string(format!("/proc/{}/oom_score_adj", getppid()))?;
    let parent: i32 = parent.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    let score = (parent + 1).min(OOM_SCORE_MAX);
    fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
}

/// With `SCHED_CORE` in the environment, gives the process group a core-scheduling cookie of its own,
/// which the shim and its containers inherit (Linux: Documentation/admin-guide/hw-vuln/core-scheduling.rst).
///
/// # Errors
/// EINVAL or ENODEV on kernels and machines without it.
pub fn share_core_cookie() -> io::Result<()> {
    if std::env::var_os("SCHED_CORE").is_none_or(|value| value.is_empty()) {
        return Ok(());
    }
    const PR_SCHED_CORE: i32 = 62;
    const CREATE: u64 = 1;
    const SCOPE_PROCESS_GROUP: u64 = 2;
    // SAFETY: (why needed) nix has no wrapper. (why sound) integers go in, no memory is touched.
    let done = unsafe { libc::prctl(PR_SCHED_CORE, CREATE, 0u64, SCOPE_PROCESS_GROUP, 0u64) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
