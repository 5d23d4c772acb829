//! The exclusive pool: which of its CPUs a container gets for itself.
//!
//! Nearest first: CPUs of the GPUs' own nodes, then of the same processors, then any. Among equally near ones, as few caches as can be; of
//! caches that do, the one in which the fewest cores are broken, then the one with the least room, so that others stay whole. In a cache,
//! whole cores before single threads, and threads of a core that is broken already before those of one that is not.
//!
//! Decides which. Must not know whose they become.

use std::cmp::Reverse;

use super::{CpuSet, Near, Topology};

/// `number` CPUs of `free`, near `near`. `None` where there are not so many.
pub fn pick(
    number: usize,
    free: &CpuSet,
    near: Option<&Near>,
    topology: &Topology,
) -> Option<CpuSet> {
    if free.len() < number {
        return None;
    }
    let mut chosen = CpuSet::none();
    for rank in ranks(free, near, topology) {
        let missing = number - chosen.len();
        if rank.len() <= missing {
            chosen = chosen.or(&rank);
        } else {
            chosen = chosen.or(&of_caches(missing, &rank, topology));
        }
    }
    Some(chosen)
}

/// The free CPUs by how near they are; every one in exactly one rank.
fn ranks(free: &CpuSet, near: Option<&Near>, topology: &Topology) -> [CpuSet; 3] {
    let Some(near) = near else { return [CpuSet::none(), CpuSet::none(), free.clone()] };
    let on = |id: u32| topology.node(id).map(|node| &node.cpus);
    let own: CpuSet = near.own.iter().filter_map(on).flat_map(CpuSet::iter).collect();
    let own = free.and(&own);
    let mates = free.and(&near.cpus).without(&own);
    let far = free.without(&near.cpus);
    [own, mates, far]
}

/// `number` of these, of as few caches as can be.
fn of_caches(number: usize, free: &CpuSet, topology: &Topology) -> CpuSet {
    let mut rooms = groups(free, &topology.caches);
    let mut chosen = CpuSet::none();
    while chosen.len() < number {
        let missing = number - chosen.len();
        let fits = rooms.iter().enumerate().filter(|(_, room)| room.len() >= missing);
        // The one with the least room that does; else the largest, whole. Of equal ones the first.
        let fits = fits.min_by_key(|(at, room)| (broken(missing, room, topology), room.len(), *at));
        match fits.map(|(at, _)| at) {
            Some(at) => return chosen.or(&of_cores(missing, &rooms[at], topology)),
            None => {
                let largest =
                    rooms.iter().enumerate().max_by_key(|(at, room)| (room.len(), Reverse(*at)));
                let Some(at) = largest.map(|(at, _)| at) else { return chosen };
                chosen = chosen.or(&rooms.swap_remove(at));
                rooms.sort_by_key(CpuSet::first);
            }
        }
    }
    chosen
}

/// How many threads would be taken from cores that are not taken whole.
fn broken(number: usize, room: &CpuSet, topology: &Topology) -> usize {
    let taken = of_cores(number, room, topology);
    let whole = |core: &&CpuSet| core.is_within(&taken);
    let in_whole: usize = topology.cores.iter().filter(whole).map(CpuSet::len).sum();
    taken.len().saturating_sub(in_whole)
}

/// `number` of these: whole cores as long as they fit, then threads of cores that have the fewest left.
fn of_cores(number: usize, free: &CpuSet, topology: &Topology) -> CpuSet {
    let cores = groups(free, &topology.cores);
    let is_whole = |core: &CpuSet| topology.cores.iter().any(|whole| whole == core);
    let (whole, partial): (Vec<_>, Vec<_>) = cores.into_iter().partition(is_whole);
    let mut chosen = CpuSet::none();
    let mut left = partial;
    for core in whole {
        match chosen.len() + core.len() <= number {
            true => chosen = chosen.or(&core),
            false => left.push(core),
        }
    }
    left.sort_by_key(|core| (core.len(), core.first()));
    for core in left {
        chosen.extend(core.iter().take(number - chosen.len()));
    }
    chosen
}

/// The free CPUs by the groups that the machine knows, in the order of their first; what is in none is a group of its own.
fn groups(free: &CpuSet, known: &[CpuSet]) -> Vec<CpuSet> {
    let mut rest = free.clone();
    let mut groups = Vec::new();
    for group in known {
        let members = rest.and(group);
        if !members.is_empty() {
            rest = rest.without(&members);
            groups.push(members);
        }
    }
    if !rest.is_empty() {
        groups.push(rest);
    }
    groups.sort_by_key(CpuSet::first);
    groups
}
