//! Arm: what needs the created container's mount namespace, before its first instruction, and the grant's last word: applied.
//!
//! Decides nothing: carries out what the admission says. Must not run anything inside the container.

use std::path::PathBuf;
use std::sync::Arc;

use ledger::State;
use plan::Warning;

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
        for problem in device::arm::place(init, &given.placings)? {
            let what = "what is placed before its start".to_owned();
            given.note(&Warning::Without { what, why: problem.to_string() });
        }
        point("arm.placed");
        self.forget(&given.grant, &given.container);
        let init = process_id(init)?;
        let ledger = self.ledger()?;
        let mut locked = ledger.lock_knowing(LOCK, given.known.take())?;
        point("arm.locked");
        let gone = || Fault::GrantGone {
            grant: given.grant.to_string(),
            container: given.container.clone(),
        };
        let mut all = locked.grants().iter();
        let grant = all.position(|grant| grant.id == given.grant).ok_or_else(gone)?;
        let mut members = locked.grants()[grant].members.iter();
        let member = members.position(|member| member.container == given.container);
        let member = member.ok_or_else(gone)?;
        locked.change(|grants| {
            let grant = Arc::make_mut(&mut grants[grant]);
            grant.members[member].init = Some(init);
            grant.members[member].cgroup = cgroup;
            grant.state = State::Applied;
            // Of several containers that lack the same, one is told of.
            for note in given.notes.drain(..) {
                if !grant.notes.contains(&note) {
                    grant.notes.push(note);
                }
            }
        })?;
        point("arm.applied");
        given.progress = None;
        point("arm.unmarked");
        Ok(())
    }
}
