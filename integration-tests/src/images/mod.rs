//! The images of the containerd suites, made here from the machine's static busybox: nothing is
//! pulled.
//!
//! Decides what is in the images and what they are called. Writes an OCI archive for `ctr images
//! import`; must not know containerd.

mod tarball;

use std::path::Path;
use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::busybox;
use tarball::Tarball;

/// A shell and its tools, with `/bin/sh` as its command.
pub const BUSYBOX: &str = "localhost/berth/busybox:test";

/// What keeps a pod's sandbox: a process that sleeps.
pub const PAUSE: &str = "localhost/berth/pause:test";

/// Writes an OCI archive that holds [`BUSYBOX`] and [`PAUSE`] to `path`.
///
/// # Errors
/// When busybox is missing or not static, or the archive cannot be written.
pub fn write_archive(path: &Path) -> Result<()> {
    let layer = layer(Path::new(busybox::BUSYBOX))?;
    let layer_digest = digest(&layer);
    let mut blobs = vec![(layer_digest.clone(), layer.clone())];
    let mut manifests = Vec::new();
    let sleep = json!(["/bin/busybox", "sleep", "2147483647"]);
    for (name, entrypoint, command) in
        [(BUSYBOX, Value::Null, json!(["/bin/sh"])), (PAUSE, sleep, Value::Null)]
    {
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": entrypoint, "Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [&layer_digest]},
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }))?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": name});
        manifests.push(entry);
        blobs.push((digest(&config), config));
        blobs.push((digest(&manifest), manifest));
    }

    let mut archive = Tarball::default();
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file(
        "index.json",
        0o644,
        &serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests}))?,
    )?;
    for (digest, blob) in blobs {
        archive.file(&format!("blobs/{}", digest.replace(':', "/")), 0o644, &blob)?;
    }
    fs::write(path, archive.finish()).with_context(|| format!("write {}", path.display()))
}

/// The one layer: busybox with a link for each of its applets, and the folders that a container
/// expects.
fn layer(busybox: &Path) -> Result<Vec<u8>> {
    ensure!(busybox.is_file(), "{} is missing: install busybox-static", busybox.display());
    let listed = Command::new(busybox).arg("--list").output().context("run busybox --list")?;
    ensure!(listed.status.success(), "busybox --list failed");
    let mut tar = Tarball::default();
    for folder in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"] {
        tar.folder(folder)?;
    }
    tar.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    for applet in String::from_utf8(listed.stdout)?.lines().filter(|name| *name != "busybox") {
        tar.link(&format!("bin/{applet}"), "busybox")?;
    }
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    tar.file("etc/group", 0o644, b"root:x:0:\n")?;
    Ok(tar.finish())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(blob: &[u8]) -> String {
    let hex: String = Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
