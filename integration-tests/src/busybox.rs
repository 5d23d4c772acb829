//! The root file system of the suites' containers: busybox-static and links to it. Decides which
//! applets the trials may use. Must not know bundles.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Where Debian's busybox-static puts its binary.
pub const BUSYBOX: &str = "/bin/busybox";

const APPLETS: &[&str] = &[
    "ash", "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id",
    "kill", "ls", "md5sum", "mkdir", "mkfifo", "mknod", "mount", "nproc", "ps", "pwd", "readlink",
    "rm", "rmdir", "sed", "seq", "setsid", "sh", "sleep", "sort", "stat", "stty", "tail", "tee",
    "test", "touch", "tr", "true", "tty", "umount", "uname", "wc", "yes",
];

/// Builds the tree into `root`. It is owned by root and world-readable.
pub fn build(root: &Path) -> Result<()> {
    if !Path::new(BUSYBOX).is_file() {
        bail!("{BUSYBOX} is missing: apt-get install busybox-static");
    }
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "run"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).context("copying busybox")?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nworker:x:1000:\n")?;
    Ok(())
}
