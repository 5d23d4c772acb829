//! How near GPUs are to each other, measured for sets of them.
//!
//! Decides what "closer" and "less fragmented" mean, as values that compare. Must not choose.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::inventory::{Ancestor, Gpu};

/// A set of the ground's GPUs: bit i is the i-th by UUID.
pub(super) type Set = u64;

/// Levels of common ancestors, nearest first, without the farthest: all pairs are within that.
pub(super) const LEVELS: [Ancestor; 5] = [
    Ancestor::Internal,
    Ancestor::SingleSwitch,
    Ancestor::MultipleSwitches,
    Ancestor::HostBridge,
    Ancestor::Node,
];

/// The GPUs to choose from, by UUID, with the ways between them.
pub(super) struct Ground<'a> {
    gpus: Vec<&'a Gpu>,
    /// For each number of NVLinks that any two have, and each GPU, the others that it has so many to.
    links: BTreeMap<u32, Vec<Set>>,
    /// For each level, and each GPU, the others that are at least so near.
    within: [Vec<Set>; LEVELS.len()],
    numa: Vec<Set>,
}

/// How close the members of a set are; greater is closer. The first difference decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Closeness {
    /// NVLinks over all pairs.
    pub links: u32,
    /// The farthest ancestor of any pair, as a rank.
    pub worst: Reverse<u32>,
    /// The ranks of all pairs' ancestors together.
    pub ancestors: Reverse<u32>,
    /// NUMA nodes touched; GPUs of an unknown node count as one.
    pub numa_nodes: Reverse<u32>,
}

/// How well the GPUs left over serve later claims; greater is better. The first difference decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Room {
    /// NVLinks over all pairs.
    pub links: u32,
    /// Pairs at least as near as each level, nearest level first.
    pub pairs: [u32; LEVELS.len()],
}

impl<'a> Ground<'a> {
    /// At most 64 GPUs, those with the lowest UUIDs: no node has more.
    pub(super) fn new(mut gpus: Vec<&'a Gpu>) -> Self {
        gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
        gpus.truncate(Set::BITS as usize);
        let way = |a: &Gpu, b: &Gpu| {
            let peer = a.peers.get(&b.uuid).or_else(|| b.peers.get(&a.uuid));
            peer.map_or((0, Ancestor::System), |peer| (peer.nvlinks, peer.ancestor))
        };
        let mut links = BTreeMap::new();
        let mut within = LEVELS.map(|_| vec![0; gpus.len()]);
        for a in 0..gpus.len() {
            for b in a + 1..gpus.len() {
                let (nvlinks, ancestor) = way(gpus[a], gpus[b]);
                if nvlinks > 0 {
                    let linked = links.entry(nvlinks).or_insert_with(|| vec![0; gpus.len()]);
                    linked[a] |= 1 << b;
                    linked[b] |= 1 << a;
                }
                for (level, near) in LEVELS.iter().zip(&mut within) {
                    if ancestor <= *level {
                        near[a] |= 1 << b;
                        near[b] |= 1 << a;
                    }
                }
            }
        }
        let nodes: BTreeSet<Option<u32>> = gpus.iter().map(|gpu| gpu.numa_node).collect();
        let on = |node| {
            let at = |(i, gpu): (usize, &&Gpu)| Set::from(gpu.numa_node == node) << i;
            gpus.iter().enumerate().map(at).sum()
        };
        let numa = nodes.into_iter().map(on).collect();
        Self { gpus, links, within, numa }
    }

    pub(super) fn len(&self) -> usize {
        self.gpus.len()
    }

    pub(super) fn all(&self) -> Set {
        if self.len() == Set::BITS as usize { Set::MAX } else { (1 << self.len()) - 1 }
    }

    pub(super) fn members(&self, set: Set) -> Vec<&'a Gpu> {
        ones(set).map(|i| self.gpus[i]).collect()
    }

    pub(super) fn position(&self, gpu: &Gpu) -> Option<usize> {
        self.gpus.iter().position(|one| one.uuid == gpu.uuid)
    }

    pub(super) fn closeness(&self, set: Set) -> Closeness {
        let size = set.count_ones();
        let all_pairs = size * size.saturating_sub(1) / 2;
        let pairs = self.pairs(set);
        // A pair's rank is the number of levels that it is not within.
        let worst = pairs.iter().filter(|near| **near < all_pairs).count() as u32;
        let ancestors = pairs.iter().map(|near| all_pairs - near).sum();
        let numa_nodes = self.numa.iter().filter(|node| *node & set != 0).count() as u32;
        Closeness {
            links: self.links(set),
            worst: Reverse(worst),
            ancestors: Reverse(ancestors),
            numa_nodes: Reverse(numa_nodes),
        }
    }

    pub(super) fn room(&self, left: Set) -> Room {
        Room { links: self.links(left), pairs: self.pairs(left) }
    }

    fn pairs(&self, set: Set) -> [u32; LEVELS.len()] {
        std::array::from_fn(|level| pairs(&self.within[level], set))
    }

    fn links(&self, set: Set) -> u32 {
        self.links.iter().map(|(number, linked)| number * pairs(linked, set)).sum()
    }
}

/// Pairs of the set's members that are near each other, where `near` has each one's near ones.
fn pairs(near: &[Set], set: Set) -> u32 {
    ones(set).map(|i| (near[i] & set).count_ones()).sum::<u32>() / 2
}

/// Positions of a set's members, lowest first.
pub(super) fn ones(set: Set) -> impl Iterator<Item = usize> {
    let next = |left: &Set| Some(left & left.wrapping_sub(1)).filter(|left| *left != 0);
    std::iter::successors(Some(set).filter(|set| *set != 0), next)
        .map(|left| left.trailing_zeros() as usize)
}
