//! Updates: what becomes of a container's CPUs and memory when its resources are changed, by the kubelet or by hand.
//!
//! Decides, from what the ledger keeps of the container, what is passed on; and writes down what was asked for, what is in effect and why,
//! once it is. Must not know how resources are changed.

use std::sync::Arc;

use ledger::{Grant, Member};
use oci_specs::{BundleError, CpuView, EditError, edit_resources};
use plan::Pinning;

use crate::claim::LOCK;
use crate::pinning::asked;
use crate::{Admission, Fault, Node, Owner};

/// An update as it is passed on.
#[derive(Debug)]
pub struct Update {
    /// `linux.resources` as JSON.
    pub resources: Vec<u8>,
    /// What is to be written down when it has been made.
    next: Option<Pinning>,
}

impl Node {
    /// What goes on of an update's `resources` (JSON). For a container that holds nothing, the very bytes.
    ///
    /// # Errors
    /// [`Fault`] when they are not what the runtime specification describes, or the ledger cannot be read.
    pub fn merge_update(
        &self,
        admission: &Admission,
        owner: Owner<'_>,
        resources: Vec<u8>,
    ) -> Result<Update, Fault> {
        let Some(given) = admission.given() else { return Ok(Update { resources, next: None }) };
        let grants = self.ledger_record()?.grants;
        let kept = grants.iter().find_map(|grant| member(grant, owner)).map(|one| &one.pinning);
        let Some(kept) = kept.filter(|kept| !kept.is_nothing()) else {
            return Ok(Update { resources, next: None });
        };
        let cpu = CpuView::of_resources(&resources).map_err(|source| BundleError::Resources {
            source: EditError::Malformed { field: "resources".into(), source },
        })?;
        let pod = given.pod.as_ref().map(|(uid, name)| (uid.as_str(), name.as_str()));
        // A kubelet whose state cannot be read says nothing of CPUs for itself; its quota and memory are not held up by that.
        let asked = asked(self, &cpu, pod).or_else(|error| {
            tracing::warn!(container = owner.container, %error, "best effort");
            asked(self, &cpu, None)
        });
        let Some(asked) = asked? else {
            return Ok(Update { resources, next: None });
        };
        let next = plan::cpus::merge(kept, &asked, &self.exclusive_cpus);
        let text = |set: &plan::CpuSet| set.to_string();
        // What is not Berth's to decide passes as it came.
        let cpus = next.effective.as_ref().filter(|_| next.is_pinned()).map(text);
        let mems = next.memory.as_ref().map(text);
        let passed = edit_resources(&resources, cpus.as_deref(), mems.as_deref())?.into_owned();
        let next = (next != *kept).then_some(next);
        Ok(Update { resources: passed, next })
    }

    /// Writes down what an update has made of its container.
    ///
    /// # Errors
    /// [`Fault`] when the ledger cannot be written.
    pub fn updated(&self, update: Update, owner: Owner<'_>) -> Result<(), Fault> {
        let Some(next) = update.next else { return Ok(()) };
        let ledger = self.ledger()?;
        let mut locked = ledger.lock(LOCK)?;
        let at = locked.grants().iter().position(|grant| member(grant, owner).is_some());
        let Some(at) = at else { return Ok(()) };
        locked.change(|grants| {
            let members = &mut Arc::make_mut(&mut grants[at]).members;
            if let Some(member) = members.iter_mut().find(|one| one.container == owner.container) {
                member.pinning = next;
            }
        })?;
        Ok(())
    }
}

fn member<'a>(grant: &'a Grant, owner: Owner<'_>) -> Option<&'a Member> {
    let same = grant.owner.namespace == owner.namespace;
    grant.members.iter().filter(|_| same).find(|member| member.container == owner.container)
}
