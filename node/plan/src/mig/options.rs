//! What is lost when a GPU is cut: the score of a placement.
//!
//! The idea is that of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023): a place is as good as what it leaves for the requests that
//! are still to come. So, for one GPU,
//!
//! ```text
//! loss = Σ over its profiles p:  weight(p) · slices(p) · stranded(p)
//! stranded(p) = free slices − slices(p) · (how many instances of p fit beside each other)
//! ```
//!
//! `stranded(p)` are the free slices that no request for p can use, were nothing else asked for. `weight(p)` says how often p is asked
//! for: each profile alike, or as the configuration expects (`policy.mig-mix`). It is multiplied by the size because that is
//! what a refused request costs: a mix of many small requests must not make the few large ones worthless. The whole is divided by the
//! weights' sum, so that GPUs with different profiles compare. A node's loss is the sum over its GPUs, and the best placement is
//! the one that adds least to it (it may even take some away: using up a stranded slice is what good packing looks like).
//!
//! Decides that number only. Must not choose.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ProfileName;
use super::cut::{Cut, Kind, Pattern};

/// A loss; one free slice that is of no use to one expected slice is [`UNIT`].
pub(crate) type Loss = i64;

/// Divisible by every number up to 16, so that where so few profiles weigh alike no rounding ever breaks a tie.
const UNIT: Loss = 720_720 << 10;

/// How often each profile is expected to be asked for, in numbers that compare with each other. Empty: all alike. Else what is not
/// named is not expected; a GPU that has none of the named profiles counts its own alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mix(pub BTreeMap<ProfileName, u16>);

/// How a GPU's profiles weigh.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Of each kind: weight times size.
    kinds: Vec<Loss>,
    sum: Loss,
}

impl Weights {
    pub(crate) fn new(pattern: &Pattern<'_>, mix: &Mix) -> Self {
        let named = |name: &ProfileName| mix.0.get(name).copied().unwrap_or_default();
        let mut weights: Vec<u16> =
            pattern.kinds.iter().map(|kind| named(&kind.profile.name)).collect();
        if weights.iter().all(|weight| *weight == 0) {
            weights.fill(1);
        }
        let sum: Loss = weights.iter().map(|weight| Loss::from(*weight)).sum();
        let weight = |(kind, weight): (&Kind<'_>, &u16)| {
            Loss::from(*weight) * Loss::from(kind.profile.slices)
        };
        Self { kinds: pattern.kinds.iter().zip(&weights).map(weight).collect(), sum: sum.max(1) }
    }

    /// What a GPU that is cut so has lost.
    pub(crate) fn loss(&self, pattern: &Pattern<'_>, cut: &Cut) -> Loss {
        let free = Loss::from(pattern.free(cut));
        let stranded = |kind: usize| {
            let size = Loss::from(pattern.kinds[kind].profile.slices);
            free - size * Loss::from(pattern.most(cut, kind))
        };
        let lost = self.kinds.iter().enumerate().map(|(kind, weight)| weight * stranded(kind));
        lost.sum::<Loss>() * UNIT / self.sum
    }
}
