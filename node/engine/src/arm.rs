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

use ledger::{Grant, Known, State};
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
        let applied = |grant: &mut Grant, member: usize| {
            grant.members[member].init = Some(init_process);
            grant.members[member].cgroup = cgroup;
            grant.state = State::Applied;
            add_notes(grant, notes);
        };
        let (grant, known) = (&given.grant, given.known.take());
        let container = given.container.as_str();
        // Whoever reads of it before it is whole sees a container whose init waits, as it does.
        let (placed, recorded) = device::arm::place_beside(init, &given.placings, || {
            self.record(grant, container, known, applied)?;
            point("arm.applied");
            Ok::<_, Fault>(())
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
            self.record(&given.grant, &given.container, None, |grant, _| add_notes(grant, notes))?;
        }
        given.progress = None;
        point("arm.unmarked");
        Ok(())
    }

    /// Changes the grant of a container that is being made, and that is the member at the place which `change` is told.
    fn record(
        &self,
        id: &GrantId,
        container: &str,
        known: Option<Known>,
        change: impl FnOnce(&mut Grant, usize),
    ) -> Result<(), Fault> {
        let gone = || Fault::GrantGone { grant: id.to_string(), container: container.to_owned() };
        let ledger = self.ledger()?;
        let mut locked = ledger.lock_knowing(LOCK, known)?;
        point("arm.locked");
        let at = locked.grants().iter().position(|grant| grant.id == *id).ok_or_else(gone)?;
        let mut members = locked.grants()[at].members.iter();
        let member = members.position(|member| member.container == container).ok_or_else(gone)?;
        Ok(locked.change(|grants| change(Arc::make_mut(&mut grants[at]), member))?)
    }
}

/// Of several containers that lack the same, one is told of.
fn add_notes(grant: &mut Grant, notes: Vec<String>) {
    for note in notes {
        if !grant.notes.contains(&note) {
            grant.notes.push(note);
        }
    }
}
