//! CDI specifications beside the launch path: what is in those that admissions read, and what is wrong with them.
//!
//! Decides which files are looked at. Must not judge them itself.

use std::path::PathBuf;

use oci_specs::cdi::{self, Examined, Listed, Registry};

use crate::{Fault, Node};

/// The devices that can be asked for by CDI on this node.
#[derive(Debug)]
pub struct CdiDevices {
    /// Where was looked, in rising priority.
    pub directories: Vec<PathBuf>,
    /// The devices.
    pub devices: Vec<Listed>,
    /// Files that cannot be used, and why.
    pub broken: Vec<(PathBuf, String)>,
}

impl Node {
    /// The devices of all specifications, those in `more` directories among them, which beat the configured ones.
    ///
    /// # Errors
    /// [`Fault`] when a directory cannot be listed.
    pub fn cdi_devices(&self, more: &[PathBuf]) -> Result<CdiDevices, Fault> {
        let directories = [&self.cdi_dirs, more].concat();
        let registry = Registry::load(&directories)?;
        let broken = registry.broken().map(|(path, why)| (path.to_owned(), why.to_owned()));
        Ok(CdiDevices { devices: registry.listed(), broken: broken.collect(), directories })
    }

    /// What is wrong with these files; without any, with all that admissions read.
    ///
    /// # Errors
    /// As [`Node::cdi_devices`].
    pub fn examine_cdi(&self, files: &[PathBuf]) -> Result<Vec<Examined>, Fault> {
        let all = match files.is_empty() {
            true => cdi::spec_files(&self.cdi_dirs)?,
            false => files.to_vec(),
        };
        Ok(cdi::examine(&all, &self.host.root))
    }
}
