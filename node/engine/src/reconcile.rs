//! Reconcile: compares the ledger with what lives, and gives back what the dead hold.
//!
//! Decides by facts alone: processes, cgroups, locks that the kernel releases. Must not touch what Berth did not make.

use std::sync::Arc;
use std::time::Instant;

use ledger::{Grant, Ledger, Locked, State};
use plan::audit::Finding;

use crate::claim::{LOCK, LOOK_AGAIN};
use crate::crash::point;
use crate::release::{marked, retire};
use crate::{Fault, Node, mode};

/// What a reconciliation found and did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Grants whose owner is gone; given back unless it was a dry run.
    pub released: Vec<Arc<Grant>>,
    /// Grants that live.
    pub kept: Vec<Arc<Grant>>,
    /// What should not be, and is left to the operator.
    pub findings: Vec<Finding>,
}

impl Node {
    /// Gives back what the dead hold; with `dry_run`, only says so.
    ///
    /// # Errors
    /// [`Fault`] when the ledger or a process cannot be read.
    pub fn reconcile(&self, dry_run: bool) -> Result<Report, Fault> {
        point("reconcile.start");
        let ledger = self.ledger()?;
        let snapshot = ledger.snapshot()?;
        let mut report = Report::default();
        for grant in snapshot.grants {
            if self.lives(&ledger, &grant)? {
                report.kept.push(grant);
            } else {
                report.released.push(grant);
            }
        }
        if !dry_run && !report.released.is_empty() {
            point("reconcile.looked");
            let mut locked = ledger.lock(LOCK)?;
            point("reconcile.locked");
            // Asked again under the lock: a grant may have come to life, or gone, since.
            report.released = self.bury(&ledger, &mut locked)?;
            drop(locked);
            self.wait_for_works(&ledger)?;
            report.kept = ledger.snapshot()?.grants;
        }
        if !dry_run {
            // Marks of admissions that died before they wrote anything.
            ledger.sweep()?;
            self.forget_the_dead(&ledger)?;
            ledger.sweep_boots()?;
        }
        report.findings = crate::audit::findings(self, &report.kept)?;
        Ok(report)
    }

    /// Waits, within limits, until children have given back what is being given back.
    fn wait_for_works(&self, ledger: &Ledger) -> Result<(), Fault> {
        let patience = Instant::now() + self.release_wait;
        while Instant::now() < patience {
            let grants = ledger.snapshot()?.grants;
            let mut releasing = grants.iter().filter(|grant| grant.state == State::Releasing);
            let mut is_worked_on = || -> Result<bool, Fault> {
                releasing.try_fold(false, |any, grant| Ok(any || ledger.is_in_progress(&grant.id)?))
            };
            if !is_worked_on()? {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Gives back what the dead hold, under the caller's lock; what that was. What a child that has died was giving back is given to another one.
    pub(crate) fn bury(
        &self,
        ledger: &Ledger,
        locked: &mut Locked<'_>,
    ) -> Result<Vec<Arc<Grant>>, Fault> {
        let lives = |grant: &Grant| self.lives(ledger, grant);
        let mut dead = dead(locked.grants(), lives)?;
        if !dead.is_empty() {
            let is_dead = |grant: &Grant| dead.iter().any(|dead| dead.id == grant.id);
            let works = locked.change(|grants| retire(grants, is_dead))?;
            point("reconcile.committed");
            for (id, mark) in marked(ledger, works, None)? {
                self.have_given_back(&id, mark);
            }
            ledger.sweep()?;
        }
        dead.retain(|grant| is_gone(grant));
        Ok(dead)
    }

    /// Whether a grant's owner lives. A pod's sandbox keeps its claims while no container has them yet, too: one may be joining a claim
    /// whose first container has just failed.
    pub(crate) fn lives(&self, ledger: &Ledger, grant: &Grant) -> Result<bool, Fault> {
        let in_progress = ledger.is_in_progress(&grant.id)?;
        if grant.state == State::Releasing {
            // Whoever gives it back holds its mark; without one, that process is dead and the rest is to be done here.
            return Ok(in_progress);
        }
        if mode::is_under_way(ledger, grant)? {
            return Ok(true);
        }
        // What cannot be told is not given to anybody else, and keeps nobody else waiting.
        Ok(ledger::liveness::owner_lives(grant, in_progress).unwrap_or_else(|error| {
            tracing::warn!(
                grant = grant.id.as_str(), owner = grant.label, %error,
                "it cannot be told whether this grant's containers live; it is kept"
            );
            true
        }))
    }
}

/// Those of the grants whose owners are dead.
pub(crate) fn dead(
    grants: &[Arc<Grant>],
    lives: impl Fn(&Grant) -> Result<bool, Fault>,
) -> Result<Vec<Arc<Grant>>, Fault> {
    let mut dead = Vec::new();
    for grant in grants {
        if !lives(grant)? {
            dead.push(Arc::clone(grant));
        }
    }
    Ok(dead)
}

/// Whether burying this grant has given anything back: what was being given back before is so still, if it takes works.
pub(crate) fn is_gone(grant: &Grant) -> bool {
    grant.state != State::Releasing || !grant.has_works()
}
