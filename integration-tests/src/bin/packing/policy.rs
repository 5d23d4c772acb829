//! The policies that are compared.
//!
//! Decides where each of them puts a container. Whole GPUs are the same to all: any free ones will do.

use std::borrow::Cow;
use std::num::NonZeroU32;

use plan::{Holder, Occupancy, Slice, Want};

use crate::node::{Held, Node, Place};
use crate::stream::Ask;

/// A policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The first GPU on which it fits, at the lowest start.
    FirstFit,
    /// The GPU with the fewest free slices, at the lowest start.
    BestFit,
    /// The GPU with the most free slices, at the lowest start.
    Spread,
    /// The GPU with the fewest free slices, where the driver puts what is created without a placement.
    Driver,
    /// What Berth decides.
    Berth,
    /// Everything may move at any time: no policy, but what one could dream of. Largest first.
    Repack,
}

/// Every policy, in the order of the table.
pub const ALL: [Policy; 6] = [
    Policy::FirstFit,
    Policy::BestFit,
    Policy::Spread,
    Policy::Driver,
    Policy::Berth,
    Policy::Repack,
];

impl Policy {
    /// As the table calls it, and as figures are named.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstFit => "first-fit",
            Self::BestFit => "best-fit",
            Self::Spread => "spread",
            Self::Driver => "driver",
            Self::Berth => "berth",
            Self::Repack => "repacking",
        }
    }

    /// Puts it on the node; `None` where the policy finds no place.
    pub fn admit(self, node: &mut Node, ask: Ask) -> Option<Held> {
        let what = match ask {
            Ask::Whole(number) => {
                let number = number as usize;
                let gpus: Vec<usize> = node.idle().take(number).collect();
                (gpus.len() == number).then_some(Held::Whole(gpus))?
            }
            Ask::Slices(profile) if self == Self::Repack => return repack(node, profile),
            Ask::Slices(profile) => Held::Slices { profile, place: self.place(node, profile)? },
        };
        node.put(what.clone());
        Some(what)
    }

    /// Takes from the node what was admitted. Where everything moves, any instance of the profile is as good as another.
    pub fn leave(self, node: &mut Node, what: &Held) {
        let same = |one: &&Held| match (one, what) {
            (Held::Slices { profile: one, .. }, Held::Slices { profile, .. }) => one == profile,
            (one, what) => *one == what,
        };
        let moved = node.held.iter().find(same).filter(|_| self == Self::Repack).cloned();
        node.take(&moved.unwrap_or_else(|| what.clone()));
    }

    fn place(self, node: &Node, profile: usize) -> Option<Place> {
        let mut places = node.places(profile);
        match self {
            Self::FirstFit => places.next(),
            Self::BestFit => places.min_by_key(|(gpu, _)| node.free(*gpu)),
            Self::Spread => places.min_by_key(|(gpu, _)| 8 - node.free(*gpu)),
            Self::Driver => {
                let (gpu, _) = places.min_by_key(|(gpu, _)| node.free(*gpu))?;
                let start =
                    node.starts(gpu, profile).min_by_key(|start| lost(node, gpu, profile, *start));
                Some((gpu, start?))
            }
            Self::Berth | Self::Repack => berth(node, profile),
        }
    }
}

/// Places of any profile on the GPU that are possible now and would not be any more.
///
/// The driver seems to choose the start with the fewest: so seven `1g` come to be at 6, 4, 5, 0, 1, 2 and 3, as people have pasted it from A100s and
/// H100s (instance ids 13, 11, 12, 7, 8, 9, 10), the first `3g` at 4, and a `2g` after two `1g` at 0. Older drivers had other orders.
fn lost(node: &Node, gpu: usize, profile: usize, start: u32) -> usize {
    let row = node.row(profile, start);
    let loses = |other: &usize| {
        node.starts(gpu, *other).filter(|start| node.row(*other, *start) & row != 0).count()
    };
    (0..node.profiles.len()).map(|other| loses(&other)).sum()
}

/// Asks Berth.
fn berth(node: &Node, profile: usize) -> Option<Place> {
    let mut occupancy = Occupancy::default();
    for held in &node.held {
        let holder = Holder { label: Cow::Borrowed("a/b/c"), external: false, releasing: false };
        match held {
            Held::Slices { profile, place: (gpu, start) } => {
                let profile = &node.profiles[*profile];
                let (id, size) = (profile.id, profile.slices);
                let slice = Slice { profile: id, start: *start, size, holder };
                occupancy.add_slice(&node.inventory.gpus[*gpu].uuid, slice);
            }
            Held::Whole(gpus) => {
                for gpu in gpus {
                    occupancy.add(&node.inventory.gpus[*gpu].uuid, holder.clone());
                }
            }
        }
    }
    let want = Want::Mig { profile: node.profiles[profile].name.clone(), count: NonZeroU32::MIN };
    let placement = plan::decide(&want, &node.inventory, &occupancy, &plan::Policy::default());
    let slots = placement.ok()?.slots;
    let slot = slots.first()?;
    let gpu = node.inventory.gpus.iter().position(|gpu| gpu.uuid == slot.gpu)?;
    Some((gpu, slot.start))
}

/// Puts everything anew, largest first, and the new one among them.
fn repack(node: &mut Node, profile: usize) -> Option<Held> {
    let of_slices = |held: &Held| match held {
        Held::Slices { profile, .. } => Some(*profile),
        Held::Whole(_) => None,
    };
    let mut all: Vec<usize> = node.held.iter().filter_map(of_slices).chain([profile]).collect();
    // Of equal sizes that with the fewer starts first, but what may begin at 6 before what may not: it wastes nothing there.
    let rank = |profile: &usize| {
        let profile = &node.profiles[*profile];
        (
            std::cmp::Reverse(profile.slices),
            profile.slices == 4 && profile.starts.len() > 1,
            profile.compute,
        )
    };
    all.sort_by_key(rank);
    let mut anew = node.emptied();
    for held in node.held.iter().filter(|held| of_slices(held).is_none()) {
        anew.put(held.clone());
    }
    for profile in all {
        // From the end of each row, where the larger profiles cannot begin.
        let place =
            anew.places(profile).max_by_key(|(gpu, start)| (*start, std::cmp::Reverse(*gpu)))?;
        anew.put(Held::Slices { profile, place });
    }
    *node = anew;
    Some(Held::Slices { profile, place: (0, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(policy: Policy, asks: &[usize]) -> Vec<Option<u32>> {
        let mut node = Node::new(7);
        let start = |held| match held {
            Held::Slices { place: (_, start), .. } => start,
            Held::Whole(_) => u32::MAX,
        };
        asks.iter().map(|ask| policy.admit(&mut node, Ask::Slices(*ask)).map(start)).collect()
    }

    #[test]
    fn the_drivers_choice_is_the_order_that_was_observed() {
        let seven = [6, 4, 5, 0, 1, 2, 3].map(Some);
        assert_eq!(starts(Policy::Driver, &[0; 7]), seven);
        assert_eq!(starts(Policy::Driver, &[4, 0, 3, 0]), [4, 0, 2, 1].map(Some));
        assert_eq!(starts(Policy::Driver, &[0, 0, 3, 4]), [Some(6), Some(4), Some(0), None]);
    }

    #[test]
    fn what_moves_at_will_fits_where_slices_suffice() {
        let mut node = Node::new(7);
        let small = Policy::FirstFit.admit(&mut node, Ask::Slices(0)).expect("room");
        assert_eq!(small, Held::Slices { profile: 0, place: (7, 0) });
        assert_eq!(
            Policy::FirstFit.admit(&mut node.clone(), Ask::Slices(5)),
            None,
            "a 4g begins at 0"
        );
        let moved = Policy::Repack.admit(&mut node, Ask::Slices(5));
        assert!(moved.is_some());
        Policy::Repack.leave(&mut node, &small);
        assert_eq!(node.held, [Held::Slices { profile: 5, place: (7, 0) }]);
    }
}
