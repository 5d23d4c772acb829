//! Edits of a `config.json` as data, and how they are applied to its bytes.
//!
//! Decides what is added, what counts as being there already, and what contradicts what is there.
//! Applying twice is applying once. Must not touch the disk, or know why anybody wants an edit.

mod apply;
mod env;
mod rules;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::edit_error::EditError;
use crate::json::Object;
use crate::parts::{Device, DeviceRule, Hook, HookPattern, Mount};

/// What is to be so in a `config.json`. What is so already stays as it is, whoever wrote it. Of two
/// variables of one name, or two mounts in one place, the last is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// `annotations` to set.
    pub annotations: BTreeMap<String, String>,
    /// Variables to set in `process.env`: in the place of the first entry of that name, else at the
    /// end. Further entries of the name are taken out.
    pub env: Vec<(String, String)>,
    /// Groups to add to `process.user.additionalGids`.
    pub additional_gids: Vec<u32>,
    /// Mounts to make. One with the same destination is replaced; a new one comes last, but before
    /// the first that lies below it, which it would hide.
    pub mounts: Vec<Mount>,
    /// Nodes to make in `linux.devices`. The path may be taken by the same device only.
    pub devices: Vec<Device>,
    /// Rules to add to `linux.resources.devices`, in this order, unless one in force says as much.
    pub device_rules: Vec<DeviceRule>,
    /// `linux.resources.cpu.cpus`, to be exactly this.
    pub cpus: Option<String>,
    /// `linux.resources.cpu.mems`, likewise.
    pub mems: Option<String>,
    /// Hooks to take out, before others are added.
    pub removed_hooks: Vec<HookPattern>,
    /// Hooks to add, each to the list of its kind.
    pub hooks: Vec<Hook>,
}

impl Edits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Applies the edits to the text of a `config.json`. The very bytes that came in when all is so
    /// already; else every value that no edit touches keeps its bytes.
    ///
    /// # Errors
    /// [`EditError`], naming the field.
    pub fn apply<'a>(&self, config: &'a [u8]) -> Result<Cow<'a, [u8]>, EditError> {
        let mut document = document(config)?;
        apply::to_spec(&mut document, self)?;
        finish(&document, config)
    }
}

/// Sets variables in the text of a `process` object. The very bytes that came in when nothing changes.
pub(crate) fn apply_env<'a>(
    process: &'a [u8],
    env: &[(String, String)],
) -> Result<Cow<'a, [u8]>, EditError> {
    let mut document = document(process)?;
    env::set(&mut document, env)?;
    finish(&document, process)
}

/// Sets the CPUs and memory nodes in the text of a `linux.resources` object. The very bytes that came in when nothing changes.
pub(crate) fn apply_cpuset<'a>(
    resources: &'a [u8],
    cpus: Option<&str>,
    mems: Option<&str>,
) -> Result<Cow<'a, [u8]>, EditError> {
    let mut document = document(resources)?;
    apply::set_cpuset(&mut document, cpus, mems)?;
    finish(&document, resources)
}

fn document(bytes: &[u8]) -> Result<Object<'_>, EditError> {
    Object::document(bytes)
        .map_err(|source| EditError::Malformed { field: "the document".into(), source })
}

fn finish<'a>(document: &Object<'_>, original: &'a [u8]) -> Result<Cow<'a, [u8]>, EditError> {
    if !document.is_changed() {
        return Ok(Cow::Borrowed(original));
    }
    let bytes = serde_json::to_vec(document)
        .map_err(|source| EditError::Malformed { field: "the document".into(), source })?;
    Ok(Cow::Owned(bytes))
}

#[cfg(test)]
mod tests;
