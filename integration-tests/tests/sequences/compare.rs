//! The ledger beside the model: the same claims, and no GPU twice.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use engine::{Grant, Origin, State};

use crate::model::{Key, Model};

/// What both know of a claim.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    grant: String,
    gpus: BTreeSet<String>,
    external: bool,
    applied: bool,
    members: BTreeSet<String>,
}

impl Facts {
    fn of(grant: &Grant) -> Self {
        Self {
            grant: grant.id.to_string(),
            gpus: grant.gpus.iter().map(|gpu| gpu.uuid.to_string()).collect(),
            external: matches!(grant.origin, Origin::External { .. }),
            applied: grant.state == State::Applied,
            members: grant.members.iter().map(|member| member.container.clone()).collect(),
        }
    }
}

/// That the ledger is what the model says.
pub fn same(grants: &[Grant], model: &Model) -> Result<()> {
    let mut seen: BTreeMap<Key, Facts> = BTreeMap::new();
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    for grant in grants {
        let facts = Facts::of(grant);
        for gpu in facts.gpus.clone() {
            if facts.external {
                theirs.insert(gpu);
            } else {
                ensure!(ours.insert(gpu.clone()), "{gpu} is held twice");
            }
        }
        let key = (grant.owner.sandbox.clone(), grant.owner.container.clone());
        ensure!(seen.insert(key, facts).is_none(), "{} has two grants", grant.label);
    }
    ensure!(ours.is_disjoint(&theirs), "held by Berth's and by others': {ours:?} {theirs:?}");
    let facts = |claim: &crate::model::Claim| Facts {
        grant: claim.grant.clone(),
        gpus: claim.gpus.clone(),
        external: claim.external,
        applied: claim.applied,
        members: claim.members.keys().cloned().collect(),
    };
    let wanted: BTreeMap<Key, Facts> =
        model.held.iter().map(|(key, claim)| (key.clone(), facts(claim))).collect();
    ensure!(seen == wanted, "the ledger has {seen:#?}\nthe model has {wanted:#?}");
    Ok(())
}
