//! A node in a folder of its own, and its library as Berth's observer loads it.

#![allow(dead_code, reason = "each suite takes what it needs")]

pub mod mig;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use simnode::{Change, Layout, Node, Options, Profile};
use tempfile::TempDir;

/// A node that goes with this value.
pub struct Lab {
    pub node: Node,
    dir: TempDir,
}

impl Lab {
    pub fn up(profile: &str) -> Self {
        Self::laid_out(profile, Layout::Debian)
    }

    pub fn laid_out(profile: &str, layout: Layout) -> Self {
        // In memory where device nodes work there: a node is thousands of small files.
        let fast =
            tempfile::tempdir_in("/dev/shm").ok().map(|dir| Self::within(dir, profile, layout));
        match fast {
            Some(lab) if File::open(lab.node.root().join("dev/null")).is_ok() => lab,
            _ => Self::within(tempfile::tempdir().expect("a folder"), profile, layout),
        }
    }

    fn within(dir: TempDir, profile: &str, layout: Layout) -> Self {
        let profile = Profile::named(profile).expect("a profile");
        let options = Options { layout, ..Options::default() };
        let node = Node::up(&dir.path().join("node"), &profile, options);
        Self { node: node.unwrap_or_else(|error| panic!("{error}")), dir }
    }

    /// Another node in its place, made beside it.
    pub fn with(self, node: Node) -> Self {
        Self { node, ..self }
    }

    /// A folder beside the node.
    pub fn beside(&self) -> &Path {
        self.dir.path()
    }

    pub fn load(&self) -> Result<Nvml, NvmlError> {
        let path = self.node.nvml_path().expect("a path");
        Nvml::builder().lib_path(path.as_os_str()).init()
    }

    pub fn nvml(&self) -> Nvml {
        self.load().unwrap_or_else(|error| panic!("init: {error}"))
    }

    pub fn change(&self, change: Change) {
        self.node.change(change).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The node's own nvidia-smi.
    pub fn smi(&self, arguments: &[&str]) -> Output {
        let program = self.node.root().join("usr/bin/nvidia-smi");
        Command::new(program).args(arguments).output().expect("nvidia-smi runs")
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
