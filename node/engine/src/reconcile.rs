//! Reconcile: compares the ledger with what lives, and gives back what the dead hold.
//!
//! Decides by facts alone: processes, cgroups, locks that the kernel releases. Must not touch what Berth did not make.

use std::sync::Arc;

use ledger::{Grant, Ledger, Locked, State};
use plan::audit::Finding;

use crate::claim::LOCK;
use crate::crash::point;
use crate::{Fault, Node};

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
            report.kept = locked.grants().to_vec();
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

    /// Gives back what the dead hold, under the caller's lock; what that was.
    pub(crate) fn bury(
        &self,
        ledger: &Ledger,
        locked: &mut Locked<'_>,
    ) -> Result<Vec<Arc<Grant>>, Fault> {
        let (mut kept, mut dead) = (Vec::new(), Vec::new());
        for grant in locked.grants() {
            let side = if self.lives(ledger, grant)? { &mut kept } else { &mut dead };
            side.push(Arc::clone(grant));
        }
        if !dead.is_empty() {
            locked.commit(kept)?;
            point("reconcile.committed");
            ledger.sweep()?;
        }
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
