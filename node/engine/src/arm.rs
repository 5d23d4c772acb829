//! Arm: what needs the created container's mount namespace, before its first instruction, and the grant's last word: applied.
//!
//! ```text
//! placed in the container ─┐
//!                          ├─► what it goes without, noted ─► no longer marked as being made
//! recorded as applied ─────┘
//! ```
//!
//! Decides nothing: carries out what the admission says. Must not run anything inside the container.

use std::path::PathBuf;
use std::sync::Arc;

use ledger::{Grant, Known, ProcessId, State};
use plan::{GrantId, Warning};

use crate::admit::{Admission, process_id};
use crate::claim::LOCK;
use crate::crash::point;
use crate::{Fault, Node};

impl Node {
    /// Completes a created container whose init (host PID `init`) still waits for its start. `cgroup` is its own, if it is known.
    ///
    /// # Errors
    /// [`Fault`] when an essential step failed; the container must then not be started.
    pub fn arm(
        &self,
        admission: &mut Admission,
        init: u32,
        cgroup: Option<PathBuf>,
    ) -> Result<(), Fault> {
        let Some(given) = admission.given_mut() else { return Ok(()) };
        point("arm.start");
        let init_process = process_id(init)?;
        let notes = std::mem::take(&mut given.notes);
        let applied = Applied { init: init_process, cgroup, notes };
        let (grant, known) = (&given.grant, given.known.take());
        let container = given.container.as_str();
        // Whoever reads of it before it is whole sees a container whose init waits, as it does.
        let (placed, recorded) = device::arm::place_beside(init, &given.placings, || {
            self.record_applied(grant, container, known, applied)
        });
        let lacking = placed?;
        recorded?;
        point("arm.placed");
        self.forget(&given.grant, &given.container);
        if !lacking.is_empty() {
            for problem in lacking {
                let what = "what is placed before its start".to_owned();
                given.note(&Warning::Without { what, why: problem.to_string() });
            }
            let notes = std::mem::take(&mut given.notes);
            self.record_notes(&given.grant, &given.container, notes)?;
        }
        given.progress = None;
        point("arm.unmarked");
        Ok(())
    }

    /// Writes that the container was made, and what of.
    fn record_applied(
        &self,
        id: &GrantId,
        container: &str,
        known: Option<Known>,
        applied: Applied,
    ) -> Result<(), Fault> {
        let gone = || Fault::GrantGone { grant: id.to_string(), container: container.to_owned() };
        let ledger = self.ledger()?;
        let mut locked = ledger.lock_knowing(LOCK, known)?;
        point("arm.locked");
        let at = locked.grants().iter().position(|grant| grant.id == *id).ok_or_else(gone)?;
        let mut members = locked.grants()[at].members.iter();
        let member = members.position(|member| member.container == container).ok_or_else(gone)?;
        locked.change(|grants| {
            let grant = Arc::make_mut(&mut grants[at]);
            grant.members[member].init = Some(applied.init);
            grant.members[member].cgroup = applied.cgroup;
            grant.state = State::Applied;
            add_notes(grant, applied.notes);
        })?;
        point("arm.applied");
        Ok(())
    }

    fn record_notes(&self, id: &GrantId, container: &str, notes: Vec<String>) -> Result<(), Fault> {
        let ledger = self.ledger()?;
        let mut locked = ledger.lock(LOCK)?;
        let at = locked.grants().iter().position(|grant| grant.id == *id);
        let gone = || Fault::GrantGone { grant: id.to_string(), container: container.to_owned() };
        let at = at.ok_or_else(gone)?;
        Ok(locked.change(|grants| add_notes(Arc::make_mut(&mut grants[at]), notes))?)
    }
}

/// What is known of a container once it is made.
struct Applied {
    init: ProcessId,
    cgroup: Option<PathBuf>,
    notes: Vec<String>,
}

/// Of several containers that lack the same, one is told of.
fn add_notes(grant: &mut Grant, notes: Vec<String>) {
    for note in notes {
        if !grant.notes.contains(&note) {
            grant.notes.push(note);
        }
    }
}
