//! Release: gives back what a container, or a pod with it, held.
//!
//! Decides by the ledger alone, so that it needs no memory of the admission; safe to call twice, and for a container that took nothing.

use std::sync::Arc;
use std::time::Duration;

use ledger::{Grant, Member, State};
use plan::GrantId;

use crate::crash::point;
use crate::{Fault, Node, Owner};

/// How long giving back waits for the node's lock: containerd grants its `delete` five seconds in all.
const LOCK: Duration = Duration::from_secs(2);

impl Node {
    /// Gives back everything whose owner `container` was: all claims of its pod if it was the sandbox, its own outside pods. A pod's
    /// member only leaves the claims that it shared, which last until the sandbox is gone. What another container still runs with
    /// stays until that has ended, too.
    ///
    /// # Errors
    /// [`Fault`] when the ledger cannot be read or written; reconcile will finish it.
    pub fn release(&self, owner: Owner<'_>) -> Result<(), Fault> {
        point("release.start");
        let leaves = |grant: &Grant| {
            grant.owner.namespace == owner.namespace
                && (grant.owner.sandbox == owner.container || grant.is_member(owner.container))
        };
        self.rewrite(leaves, |grants| {
            grants.retain_mut(|shared| {
                if !leaves(shared) {
                    return true;
                }
                let grant = Arc::make_mut(shared);
                grant.members.retain(|member| member.container != owner.container);
                let is_owned = grant.owner.sandbox == owner.container;
                // The sandbox of the last one may have gone before it.
                let is_last = grant.members.is_empty() && grant.sandbox_init.is_some();
                grant.members.iter().any(runs) || !(is_owned || is_last && !sandbox_runs(grant))
            });
        })
    }

    /// What is left of a container whose shim has died: everything that nobody alive holds any more is given back, whoever left it. The
    /// facts decide, not that containerd asks: a process that could not be killed keeps its GPU.
    ///
    /// # Errors
    /// As [`Node::release`].
    pub fn clean_up(&self, owner: Owner<'_>) -> Result<(), Fault> {
        if !self.has_ledger()? {
            return Ok(());
        }
        let ledger = self.ledger()?;
        if !ledger.snapshot()?.grants.is_empty() {
            let mut locked = ledger.lock(LOCK)?;
            let is_dead = |member: &Member| member.container == owner.container && !runs(member);
            let has_dead = |grant: &Grant| {
                grant.owner.namespace == owner.namespace && grant.members.iter().any(is_dead)
            };
            if locked.grants().iter().any(|grant| has_dead(grant)) {
                locked.change(|grants| {
                    for grant in grants.iter_mut().filter(|grant| has_dead(grant)) {
                        Arc::make_mut(grant).members.retain(|member| !is_dead(member));
                    }
                })?;
            }
            self.bury(&ledger, &mut locked)?;
        }
        ledger.sweep()?;
        self.forget_the_dead(&ledger)
    }

    /// Takes an admission back: the membership, and the grant if nobody else uses it and it was made for this container or never for
    /// any that came to be.
    pub(crate) fn take_back(
        &self,
        id: &GrantId,
        container: &str,
        fresh: bool,
    ) -> Result<(), Fault> {
        self.rewrite(
            |grant| grant.id == *id,
            |grants| {
                if let Some(grant) = grants.iter_mut().find(|grant| grant.id == *id) {
                    Arc::make_mut(grant).members.retain(|member| member.container != container);
                }
                let vain = |grant: &Grant| fresh || grant.state == State::Reserved;
                grants.retain(|g| !(g.id == *id && g.members.is_empty() && vain(g)));
            },
        )
    }

    /// Changes the grants where one of them is concerned.
    fn rewrite(
        &self,
        concerned: impl Fn(&Grant) -> bool,
        change: impl FnOnce(&mut Vec<Arc<Grant>>),
    ) -> Result<(), Fault> {
        let ledger = self.ledger()?;
        let mut locked = ledger.lock(LOCK)?;
        point("release.locked");
        if locked.grants().iter().any(|grant| concerned(grant)) {
            locked.change(change)?;
        }
        point("release.committed");
        Ok(())
    }
}

/// Whether a container runs. One of which that cannot be told does: giving its GPU to another would be worse than keeping it.
fn runs(member: &Member) -> bool {
    ledger::liveness::member_lives(member).unwrap_or(true)
}

fn sandbox_runs(grant: &Grant) -> bool {
    let alive = |init| ledger::liveness::is_alive(init).unwrap_or(true);
    grant.sandbox_init.as_ref().is_some_and(alive)
}
