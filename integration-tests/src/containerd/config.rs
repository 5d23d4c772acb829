//! The configuration of a private containerd, in the dialect of its version.
//!
//! Decides the runtime handlers: `berth` (from the packaged file), `berth-path` (runc's runtime
//! type, found by path), `runc` (the Go shim that came with containerd), `witness` and
//! `witness-path`, which are the first two with an `[options]` table that names another OCI runtime, and, from 1.7 on, `berth-crun`,
//! `berth-systemd` and `berth-crun-systemd`, for machines that have these.

use std::path::{Path, PathBuf};

use crate::{images, versions::Installation};

/// What Berth is installed with: the handler `berth` is theirs, word for word.
const VERSION_2: &str = include_str!("../../../packaging/containerd/berth-v2.toml");
const VERSION_3: &str = include_str!("../../../packaging/containerd/berth-v3.toml");

/// The drop-in for this version in `dir`, and its text. None for containerd 1.x, where a drop-in would replace what config.toml says of
/// the CRI plugin: there the text goes into config.toml itself.
pub fn drop_in(installation: &Installation, dir: &Path) -> Option<(PathBuf, &'static str)> {
    (installation.series.0 >= 2).then(|| (dir.join("conf.d/berth.toml"), VERSION_3))
}

/// Handlers with another OCI runtime, or with cgroups that systemd makes.
const OTHERS: [(&str, &str); 3] = [
    ("berth-crun", "BinaryName = \"crun\"\n"),
    ("berth-systemd", "SystemdCgroup = true\n"),
    ("berth-crun-systemd", "BinaryName = \"crun\"\nSystemdCgroup = true\n"),
];

/// The OCI runtime of the witness handlers in `dir`, and its text: it notes what it is called with and then is
/// runc.
pub fn witness(dir: &Path) -> (PathBuf, String) {
    let seen = witnessed(dir);
    let text = format!("#!/bin/sh\necho \"$@\" >>{}\nexec runc \"$@\"\n", seen.display());
    (dir.join("bin/witness"), text)
}

/// The file of the witness's options, for a containerd that hands on a file.
pub const OPTIONS: &str = "witness.toml";

/// The options that name the witness.
pub fn witness_options(dir: &Path) -> String {
    format!("BinaryName = \"{}\"\n", witness(dir).0.display())
}

/// Where the witness notes its calls, a line each.
pub fn witnessed(dir: &Path) -> PathBuf {
    dir.join("witnessed")
}

/// The text of `config.toml` for a containerd whose files all live in `dir` and whose shim under
/// test is `shim`.
pub fn render(installation: &Installation, dir: &Path, shim: &Path) -> String {
    let modern = installation.series.0 >= 2;
    let options = dir.join(OPTIONS);
    let binary_name = witness_options(dir);
    let dir = dir.display();
    let version = if modern { 3 } else { 2 };
    let mut text = format!(
        r#"version = {version}
imports = ["{dir}/conf.d/*.toml"]
root = "{dir}/root"
state = "{dir}/state"
[grpc]
address = "{dir}/c.sock"
[debug]
level = "debug"
[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
"#
    );
    // NRI listens on one socket per machine unless told not to.
    if installation.series >= (1, 7) {
        text += "[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n";
    }
    let runtime = if modern {
        text += &format!(
            "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{}\"\n",
            images::PAUSE
        );
        r#"plugins."io.containerd.cri.v1.runtime""#
    } else {
        r#"plugins."io.containerd.grpc.v1.cri""#
    };
    // A machine without the right to lower oom_score_adj, such as a container, cannot run pods
    // without the restriction.
    text += &format!("[{runtime}]\nrestrict_oom_score_adj = true\n");
    if modern {
        // It resolves CDI names itself, by the trial's specifications alone.
        text += &format!("enable_cdi = true\ncdi_spec_dirs = [\"{dir}/cdi\"]\n");
        text += "enable_unprivileged_ports = false\nenable_unprivileged_icmp = false\n";
    } else {
        text += &format!("sandbox_image = \"{}\"\n", images::PAUSE);
    }
    for (handler, runtime_type, path) in [
        ("berth-path", "io.containerd.runc.v2", Some(shim)),
        ("runc", "io.containerd.runc.v2", None),
        ("witness", "io.containerd.berth.v2", None),
        ("witness-path", "io.containerd.runc.v2", Some(shim)),
    ] {
        text += &format!(
            "[{runtime}.containerd.runtimes.{handler}]\nruntime_type = \"{runtime_type}\"\n\
             pod_annotations = [\"berth.dev/*\", \"*.berth.dev/*\"]\n"
        );
        if let Some(path) = path {
            text += &format!("runtime_path = \"{}\"\n", path.display());
        }
        if handler.starts_with("witness") {
            text += &format!("[{runtime}.containerd.runtimes.{handler}.options]\n");
            // To runtimes of other names than its own, 1.6 hands on no more than a file's name.
            text += &if path.is_none() && installation.series < (1, 7) {
                format!("ConfigPath = \"{}\"\n", options.display())
            } else {
                binary_name.clone()
            };
        }
    }
    // 1.6 hands on no options but a file's name.
    let others = if installation.series >= (1, 7) { &OTHERS[..] } else { &[] };
    for (handler, options) in others {
        text += &format!(
            "[{runtime}.containerd.runtimes.{handler}]\nruntime_type = \"io.containerd.berth.v2\"\n\
             pod_annotations = [\"berth.dev/*\", \"*.berth.dev/*\"]\n\
             [{runtime}.containerd.runtimes.{handler}.options]\n{options}"
        );
    }
    if !modern {
        text.extend(
            VERSION_2.lines().filter(|line| !line.starts_with("version")).flat_map(|l| [l, "\n"]),
        );
    }
    text
}
