//! Release: gives back what a container, or a pod with it, held.
//!
//! Decides by the ledger alone, so that it needs no memory of the admission; safe to call twice, and for a container that took nothing.

use std::sync::Arc;
use std::time::Duration;

use ledger::{Grant, InProgress, Ledger, Member, Stage, State};
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
                && grant.state != State::Releasing
                && (grant.owner.sandbox == owner.container || grant.is_member(owner.container))
        };
        self.rewrite(leaves, None, |grants| {
            let mut over = Vec::new();
            for shared in grants.iter_mut().filter(|grant| leaves(grant)) {
                let grant = Arc::make_mut(shared);
                grant.members.retain(|member| member.container != owner.container);
                let is_owned = grant.owner.sandbox == owner.container;
                // The sandbox of the last one may have gone before it.
                let is_last = grant.members.is_empty() && grant.sandbox_init.is_some();
                let is_used = grant.members.iter().any(runs);
                if !is_used && (is_owned || is_last && !sandbox_runs(grant)) {
                    over.push(grant.id.clone());
                }
            }
            retire(grants, |grant| over.contains(&grant.id))
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
    /// any that came to be. `progress` is the admission's mark of one that it made.
    pub(crate) fn take_back(
        &self,
        id: &GrantId,
        container: &str,
        fresh: bool,
        progress: Option<InProgress>,
    ) -> Result<(), Fault> {
        self.rewrite(
            |grant| grant.id == *id,
            progress,
            |grants| {
                if let Some(grant) = grants.iter_mut().find(|grant| grant.id == *id) {
                    Arc::make_mut(grant).members.retain(|member| member.container != container);
                }
                let vain = |grant: &Grant| fresh || grant.state == State::Reserved;
                retire(grants, |g| g.id == *id && g.members.is_empty() && vain(g))
            },
        )
    }

    /// Gives a grant up that was never made whole, and that nobody makes any more: its claim is taken anew by whoever comes next.
    pub(crate) fn give_up(&self, ledger: &Ledger, id: &GrantId) -> Result<(), Fault> {
        if ledger.is_in_progress(id)? {
            return Ok(());
        }
        let is_it = |grant: &Grant| grant.id == *id && grant.state == State::Reserved;
        self.rewrite(is_it, None, |grants| retire(grants, is_it))
    }

    /// Changes the grants where one of them is concerned, and has the works done that are left of those that `change` names.
    fn rewrite(
        &self,
        concerned: impl Fn(&Grant) -> bool,
        mark: Option<InProgress>,
        change: impl FnOnce(&mut Vec<Arc<Grant>>) -> Vec<GrantId>,
    ) -> Result<(), Fault> {
        let ledger = self.ledger()?;
        let mut locked = ledger.lock(LOCK)?;
        point("release.locked");
        let mut works = Vec::new();
        if locked.grants().iter().any(|grant| concerned(grant)) {
            works = locked.change(change)?;
        }
        point("release.committed");
        let marked = marked(&ledger, works, mark)?;
        drop(locked);
        for (id, mark) in marked {
            self.have_given_back(&id, mark);
        }
        Ok(())
    }

    /// Leaves the slow part of giving back to a child. Should none come to it, whoever looks for the dead starts another.
    pub(crate) fn have_given_back(&self, id: &GrantId, mark: InProgress) {
        let args = ["give-back", "--grant", id.as_str()];
        let Some(held) = mark.hand_over() else { return };
        if let Err(error) = self.tool.leave("give back MIG instances", &args, held) {
            tracing::warn!(grant = id.as_str(), %error, "left for reconcile");
        }
    }
}

/// Strikes out the grants that are over. Those that have instances stay, as being released, until these are destroyed: their ids.
pub(crate) fn retire(
    grants: &mut Vec<Arc<Grant>>,
    is_over: impl Fn(&Grant) -> bool,
) -> Vec<GrantId> {
    let mut works = Vec::new();
    grants.retain_mut(|shared| {
        if !is_over(shared) {
            return true;
        }
        if shared.has_works() {
            let grant = Arc::make_mut(shared);
            // Nothing was begun there, and nothing can be any more.
            grant.slots.retain(|slot| slot.stage != Stage::Decided);
            if grant.slots.is_empty() {
                return false;
            }
            grant.state = State::Releasing;
            grant.members.clear();
            grant.exclusive.clear();
            works.push(grant.id.clone());
        }
        shared.has_works()
    });
    works
}

/// Marks the grants whose works are to be done, so that nobody else does them; `own` is the caller's mark of the first. One that another has marked is
/// left to it, or to whoever comes after.
pub(crate) fn marked(
    ledger: &Ledger,
    works: Vec<GrantId>,
    mut own: Option<InProgress>,
) -> Result<Vec<(GrantId, InProgress)>, Fault> {
    let mut marked = Vec::new();
    for id in works {
        let mark = match own.take() {
            Some(mark) => Some(mark),
            None => ledger.try_begin(&id)?,
        };
        marked.extend(mark.map(|mark| (id, mark)));
    }
    Ok(marked)
}

/// Whether a container runs. One of which that cannot be told does: giving its GPU to another would be worse than keeping it.
fn runs(member: &Member) -> bool {
    ledger::liveness::member_lives(member).unwrap_or(true)
}

fn sandbox_runs(grant: &Grant) -> bool {
    let alive = |init| ledger::liveness::is_alive(init).unwrap_or(true);
    grant.sandbox_init.as_ref().is_some_and(alive)
}
