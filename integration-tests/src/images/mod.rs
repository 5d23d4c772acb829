//! The images of the containerd suites, made here from the machine's static busybox: nothing is
//! pulled.
//!
//! Decides what is in the images and what they are called. Writes an OCI archive for `ctr images
//! import`; must not know containerd.

pub mod glibc;
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

/// An image of one layer.
struct Image<'a> {
    name: &'a str,
    entrypoint: Value,
    command: Value,
    layer: &'a [u8],
}

/// Writes an OCI archive that holds [`BUSYBOX`] and [`PAUSE`] to `path`.
///
/// # Errors
/// When busybox is missing or not static, or the archive cannot be written.
pub fn write_archive(path: &Path) -> Result<()> {
    let layer = layer(Path::new(busybox::BUSYBOX))?;
    let sleep = json!(["/bin/busybox", "sleep", "2147483647"]);
    write(
        path,
        &[
            Image {
                name: BUSYBOX,
                entrypoint: Value::Null,
                command: json!(["/bin/sh"]),
                layer: &layer,
            },
            Image { name: PAUSE, entrypoint: sleep, command: Value::Null, layer: &layer },
        ],
    )
}

/// Writes an OCI archive that holds the images of [`glibc`] to `path`.
///
/// # Errors
/// When the machine's libc cannot be found, or the archive cannot be written.
pub fn write_glibc_archive(path: &Path) -> Result<()> {
    let layers = glibc::LAYOUTS.map(|layout| Ok((layout.name(), layout.layer()?)));
    let layers = layers.into_iter().collect::<Result<Vec<(&str, Vec<u8>)>>>()?;
    let images: Vec<Image<'_>> = layers
        .iter()
        .map(|(name, layer)| Image {
            name,
            entrypoint: Value::Null,
            command: json!(["/bin/sh"]),
            layer,
        })
        .collect();
    write(path, &images)
}

/// Writes an OCI archive to `path` that holds one image, called `name`, of the files that `build` makes in a folder.
///
/// # Errors
/// When `build` fails, or the archive cannot be written.
pub fn write_built(path: &Path, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let layer = glibc::layer(build)?;
    let command = json!(["/bin/sh"]);
    write(path, &[Image { name, entrypoint: Value::Null, command, layer: &layer }])
}

fn write(path: &Path, images: &[Image<'_>]) -> Result<()> {
    let mut blobs = Vec::new();
    let mut manifests = Vec::new();
    for Image { name, entrypoint, command, layer } in images {
        let layer_digest = digest(layer);
        if !blobs.iter().any(|(known, _)| *known == layer_digest) {
            blobs.push((layer_digest.clone(), layer.to_vec()));
        }
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": entrypoint,
                "Cmd": command,
                "Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [&layer_digest]},
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
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
