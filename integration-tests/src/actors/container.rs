//! A container as containerd would hand it over: its bundle, with the annotations that a request or the CRI plugin writes.
//!
//! Decides what its `config.json` and its root filesystem are. Must not know what comes of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use engine::{Ask, Owner};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::bundle::{self, Spec};

/// The containerd namespace that all of them are in.
const NAMESPACE: &str = "trial";
/// Where the image's loader is, by which it is known to use glibc.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// A container that is to be made.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its pod, if it is in one.
    pub pod: Option<Pod>,
    /// What it asks for: annotations.
    pub annotations: Vec<(String, String)>,
    /// Minors of the GPUs that another allocator has put into its device list.
    pub injected: Vec<u32>,
}

/// What the CRI plugin says of a container's pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Id of its sandbox.
    pub sandbox: String,
    /// The container's name in it.
    pub name: String,
}

/// A container whose bundle is written.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its id.
    pub id: String,
    /// The bundle.
    pub bundle: PathBuf,
}

impl Container {
    /// One outside pods that asks for so many GPUs.
    pub fn alone(id: &str, gpus: u32) -> Self {
        let annotations = vec![("berth.dev/gpus".to_owned(), gpus.to_string())];
        Self { id: id.to_owned(), pod: None, annotations, injected: Vec::new() }
    }

    /// A member of a pod whose claim is so many GPUs.
    pub fn member(id: &str, sandbox: &str, name: &str, gpus: u32) -> Self {
        let pod = Pod { sandbox: sandbox.to_owned(), name: name.to_owned() };
        Self { pod: Some(pod), ..Self::alone(id, gpus) }
    }

    /// The same with this annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Writes its bundle below `bundles`, anew if it is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prepare(&self, bundles: &Path) -> Result<Prepared> {
        let mut spec = Spec::new("rootfs", "/trial", &["true"]);
        for (key, value) in &self.annotations {
            spec = spec.annotation(key, value);
        }
        if let Some(pod) = &self.pod {
            for (key, value) in [
                ("container-type", "container"),
                ("container-name", &pod.name),
                ("sandbox-id", &pod.sandbox),
                ("sandbox-name", &pod.sandbox),
                ("sandbox-namespace", "default"),
                ("sandbox-uid", &format!("uid-{}", pod.sandbox)),
            ] {
                spec = spec.annotation(&format!("io.kubernetes.cri.{key}"), value);
            }
        }
        if !self.injected.is_empty() {
            let node = |minor: &u32| json!({"path": format!("/dev/nvidia{minor}"), "type": "c", "major": 195, "minor": minor});
            spec.json["linux"]["devices"] = Value::Array(self.injected.iter().map(node).collect());
        }
        let bundle = bundle::Bundle::create(bundles, &self.id, Some(&spec))?;
        let loader = bundle.rootfs().join(LOADER);
        fs::create_dir_all(loader.parent().context("it is in a folder")?)?;
        fs::write(loader, "")?;
        Ok(Prepared { id: self.id.clone(), bundle: bundle.path })
    }
}

impl Prepared {
    /// Whose it is, as the engine is told.
    pub fn owner(&self) -> Owner<'_> {
        owner(&self.id)
    }

    /// Its root filesystem.
    pub fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// Makes its root filesystem read-only. It has a loader cache, which cannot be replaced then.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn make_read_only(&self) -> Result<()> {
        let (root, none) = (self.rootfs(), None::<&str>);
        fs::create_dir_all(root.join("etc"))?;
        fs::write(root.join("etc/ld.so.cache"), "")?;
        mount(Some(&root), &root, none, MsFlags::MS_BIND, none)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        Ok(mount(none, &root, none, flags, none)?)
    }

    /// Undoes that.
    ///
    /// # Errors
    /// When it is not read-only.
    pub fn make_writable(&self) -> Result<()> {
        Ok(umount2(&self.rootfs(), MntFlags::MNT_DETACH)?)
    }

    /// The bundle as the engine takes it, and what it asks for.
    ///
    /// # Errors
    /// When it cannot be read, or asks for nothing.
    pub fn read(&self) -> Result<(oci_specs::Bundle, Ask)> {
        let bundle = oci_specs::Bundle::load(&self.bundle)?;
        let ask = Ask::read(self.owner(), bundle.spec())?.context("it asks for something")?;
        Ok((bundle, ask))
    }
}

/// Whose a container with this id is, as the engine is told.
pub fn owner(id: &str) -> Owner<'_> {
    Owner { namespace: NAMESPACE, container: id }
}
