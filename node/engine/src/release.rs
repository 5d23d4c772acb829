//! Release: gives back what a container, or a pod with it, held.
//!
//! Decides by the ledger alone, so that it needs no memory of the admission; safe to call twice, and for a container that took nothing.

use ledger::{Grant, State};
use plan::GrantId;

use crate::claim::LOCK;
use crate::crash::point;
use crate::{Fault, Node, Owner};

impl Node {
    /// Gives back everything whose owner `container` was: all claims of its pod if it was the sandbox, its own outside pods. A pod's
    /// member only leaves the claims that it shared, which last until the sandbox is gone.
    ///
    /// # Errors
    /// [`Fault`] when the ledger cannot be read or written; reconcile will finish it.
    pub fn release(&self, owner: Owner<'_>) -> Result<(), Fault> {
        point("release.start");
        self.rewrite(|grants| {
            grants.retain(|grant| !is_owned(grant, owner));
            for grant in grants.iter_mut().filter(|g| g.owner.namespace == owner.namespace) {
                grant.members.retain(|member| member.container != owner.container);
            }
        })
    }

    /// What is left of a container whose shim has died: what it held is given back, and so is what others left that died with it.
    ///
    /// # Errors
    /// As [`Node::release`].
    pub fn clean_up(&self, owner: Owner<'_>) -> Result<(), Fault> {
        if !self.has_ledger()? {
            return Ok(());
        }
        self.release(owner)?;
        self.reconcile(false).map(drop)
    }

    /// Takes an admission back: the membership, and the grant if nobody else uses it and it was made for this container or never for
    /// any that came to be.
    pub(crate) fn take_back(
        &self,
        id: &GrantId,
        container: &str,
        fresh: bool,
    ) -> Result<(), Fault> {
        self.rewrite(|grants| {
            if let Some(grant) = grants.iter_mut().find(|grant| grant.id == *id) {
                grant.members.retain(|member| member.container != container);
            }
            let vain = |grant: &Grant| fresh || grant.state == State::Reserved;
            grants.retain(|g| !(g.id == *id && g.members.is_empty() && vain(g)));
        })
    }

    /// Changes the grants, if the change changes anything. Looked at without the lock first: most containers hold nothing.
    fn rewrite(&self, change: impl Fn(&mut Vec<Grant>)) -> Result<(), Fault> {
        let ledger = self.ledger()?;
        let mut seen = ledger.snapshot()?.grants;
        let before = seen.clone();
        change(&mut seen);
        if seen == before {
            return Ok(());
        }
        let mut locked = ledger.lock(LOCK)?;
        point("release.locked");
        locked.change(change)?;
        point("release.committed");
        Ok(())
    }
}

fn is_owned(grant: &Grant, owner: Owner<'_>) -> bool {
    grant.owner.namespace == owner.namespace && grant.owner.sandbox == owner.container
}
