//! Audit: the invariants, asked of the ledger as it is.
//!
//! Decides nothing: `plan` knows what must hold; here the records become what it looks at.

use std::sync::Arc;

use ledger::{Grant, Origin};
use plan::audit::{Finding, Holding};

use crate::{Fault, Node};

/// What is wrong with these grants on this node.
pub(crate) fn findings(node: &Node, grants: &[Arc<Grant>]) -> Result<Vec<Finding>, Fault> {
    let inventory = node.inventory()?;
    Ok(plan::audit::audit(&inventory, &holdings(grants)))
}

/// The records as an audit looks at them.
pub(crate) fn holdings(grants: &[Arc<Grant>]) -> Vec<Holding> {
    grants
        .iter()
        .map(|grant| {
            let plan::mig::Devices { gpus, slots } = grant.devices();
            Holding {
                grant: grant.id.clone(),
                label: grant.label.clone(),
                gpus,
                slots,
                external: matches!(grant.origin, Origin::External { .. }),
            }
        })
        .collect()
}
