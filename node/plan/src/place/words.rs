//! Why these GPUs and not those, in words.
//!
//! Decides the words only; the comparison that they tell of is `search`'s.

use std::collections::BTreeSet;

use super::nearness::{Ground, LEVELS, Set, ones};
use super::search::Score;
use crate::ids::GpuUuid;
use crate::inventory::{Ancestor, Gpu};
use crate::words::listed;

/// How close GPUs are: `NVLink x18, one NUMA node (0)`.
pub(super) fn closeness(gpus: &[&Gpu]) -> String {
    let numa = numa(gpus);
    if gpus.len() < 2 {
        return ["a single GPU".to_owned()].into_iter().chain(numa).collect::<Vec<_>>().join(", ");
    }
    let pairs = gpus.iter().enumerate().flat_map(|(i, a)| gpus[i + 1..].iter().map(|b| (*a, *b)));
    let (links, ancestors): (Vec<u32>, Vec<Ancestor>) =
        pairs.map(|(a, b)| (links(a, b), ancestor(a, b))).unzip();
    let ancestor = ancestors.iter().max().and_then(|worst| within(*worst)).map(str::to_owned);
    let parts = [Some(nvlink(&links)), ancestor, numa];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn nvlink(links: &[u32]) -> String {
    let linked = links.iter().filter(|links| **links > 0).count();
    let (least, most) = (links.iter().min().unwrap_or(&0), links.iter().max().unwrap_or(&0));
    match (linked, links.len()) {
        (0, _) => "no NVLink".to_owned(),
        (some, all) if some < all => format!("NVLink between {some} of {all} pairs"),
        _ if least == most => format!("NVLink x{least}"),
        _ => format!("NVLink x{least} to x{most}"),
    }
}

fn numa(gpus: &[&Gpu]) -> Option<String> {
    let nodes: Option<BTreeSet<u32>> = gpus.iter().map(|gpu| gpu.numa_node).collect();
    let nodes: Vec<String> = nodes?.iter().map(u32::to_string).collect();
    match &nodes[..] {
        [] => None,
        [one] => Some(format!("one NUMA node ({one})")),
        several => Some(format!("NUMA nodes {}", listed(several))),
    }
}

fn links(a: &Gpu, b: &Gpu) -> u32 {
    a.peers.get(&b.uuid).or_else(|| b.peers.get(&a.uuid)).map_or(0, |peer| peer.nvlinks)
}

fn ancestor(a: &Gpu, b: &Gpu) -> Ancestor {
    let peer = a.peers.get(&b.uuid).or_else(|| b.peers.get(&a.uuid));
    peer.map_or(Ancestor::System, |peer| peer.ancestor)
}

/// The place that all of a group share, where it is nearer than a NUMA node (which is told by its number).
fn within(ancestor: Ancestor) -> Option<&'static str> {
    match ancestor {
        Ancestor::Internal => Some("one board"),
        Ancestor::SingleSwitch => Some("one PCIe switch"),
        Ancestor::MultipleSwitches => Some("one tree of PCIe switches"),
        Ancestor::HostBridge => Some("one PCIe host bridge"),
        Ancestor::Node | Ancestor::System => None,
    }
}

/// The choice that was made, for telling each other GPU why it was not in it.
pub(super) struct Passing<'a, 'b> {
    ground: &'b Ground<'a>,
    chosen: Score,
}

impl<'a, 'b> Passing<'a, 'b> {
    pub(super) fn new(ground: &'b Ground<'a>, chosen: Set) -> Self {
        Self { ground, chosen: Score::of(ground, chosen) }
    }

    /// Why the choice is better than its best variant with this GPU in it: the first criterion in which the two differ.
    pub(super) fn passed(&self, gpu: &Gpu) -> String {
        let Some(place) = self.ground.position(gpu) else {
            return "more GPUs than are compared".to_owned();
        };
        let with = |leaves: usize| {
            let set = self.chosen.set & !(1 << leaves) | 1 << place;
            (Score::of(self.ground, set), leaves)
        };
        let variants = ones(self.chosen.set).map(with);
        let best = variants.max_by(|(a, _), (b, _)| a.order(b));
        best.map_or_else(String::new, |(variant, leaves)| self.difference(gpu, &variant, leaves))
    }

    fn difference(&self, gpu: &Gpu, variant: &Score, leaves: usize) -> String {
        let (chosen, other) = (&self.chosen.closeness, &variant.closeness);
        let stays = self.ground.members(self.chosen.set & !(1 << leaves));
        let farthest = |key: fn(&Gpu, &Gpu) -> u32| stays.iter().max_by_key(|one| key(gpu, one));
        if chosen.links != other.links {
            let least = farthest(|a, b| u32::MAX - links(a, b));
            return least.map_or_else(String::new, |one| fewer_links(links(gpu, one), &one.uuid));
        }
        if (chosen.worst, chosen.ancestors) != (other.worst, other.ancestors) {
            let far = farthest(|a, b| ancestor(a, b) as u32);
            return far.map_or_else(String::new, |one| away(ancestor(gpu, one), &one.uuid));
        }
        if chosen.numa_nodes != other.numa_nodes {
            return format!("farther: on {}, apart from the others", node(gpu));
        }
        self.rest(gpu, variant)
    }

    /// The choice is as close with this GPU; what it leaves is not as good, or equal.
    fn rest(&self, gpu: &Gpu, variant: &Score) -> String {
        let (chosen, other) = (&self.chosen.room, &variant.room);
        if chosen.links != other.links {
            return "would leave fewer NVLinks between the free GPUs".to_owned();
        }
        let differs = |(a, b): (&u32, &u32)| a != b;
        let level = chosen.pairs.iter().zip(&other.pairs).position(differs);
        match level.map(|level| LEVELS[level]) {
            None => "as good; the chosen have the lower UUIDs".to_owned(),
            Some(Ancestor::Node | Ancestor::System) => {
                format!("would break the free group of {}", node(gpu))
            }
            Some(near) => {
                format!("would break free GPUs of {} apart", within(near).unwrap_or_default())
            }
        }
    }
}

fn fewer_links(links: u32, to: &GpuUuid) -> String {
    match links {
        0 => format!("farther: no NVLink to {to}"),
        some => format!("farther: only NVLink x{some} to {to}"),
    }
}

fn away(ancestor: Ancestor, from: &GpuUuid) -> String {
    let between = match ancestor {
        Ancestor::System => "across the machine",
        Ancestor::Node => "only on the NUMA node",
        Ancestor::HostBridge => "only under the host bridge",
        Ancestor::MultipleSwitches => "across PCIe switches",
        Ancestor::SingleSwitch => "only on the PCIe switch",
        Ancestor::Internal => "only on the board",
    };
    match ancestor {
        Ancestor::System | Ancestor::MultipleSwitches => format!("farther: {between} from {from}"),
        _ => format!("farther: {between} of {from}"),
    }
}

fn node(gpu: &Gpu) -> String {
    gpu.numa_node
        .map_or_else(|| "no known NUMA node".to_owned(), |node| format!("NUMA node {node}"))
}
