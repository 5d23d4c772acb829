//! What belongs together on nodes that are written by hand.

use engine::{CpuSet, Inventory, Origin};
use serde_json::{from_value, json};

use super::*;
use crate::topo::fixtures::{
    busy_gb200, busy_p4d, cut, gb200, grant, one, p4d, pinned, set, sliced,
};

fn seated(inventory: &Inventory, grants: &[Grant]) -> Seating {
    Seating::of(inventory, grants, &CpuSet::none(), &CpuSet::none())
}

/// `start+size name holders` of each part.
fn parts(strip: &Strip) -> Vec<String> {
    let part = |part: &Part| {
        let name = match &part.what {
            Slices::Whole => "whole".to_owned(),
            Slices::Uncut => "-".to_owned(),
            Slices::Instance { profile, foreign, .. } => {
                format!("{profile}{}", if *foreign { "!" } else { "" })
            }
        };
        format!("{}+{} {name} {:?}", part.start, part.size, part.who)
    };
    strip.parts.iter().map(part).collect()
}

fn ground(room: &Room, cpu: u32) -> (Ground, Vec<usize>, bool) {
    let cell = room.cells.iter().find(|cell| cell.cpus.has(cpu)).expect("a cell");
    (cell.ground, cell.who.clone(), cell.alone)
}

#[test]
fn every_cpu_and_every_slice_is_in_exactly_one_place() {
    for seating in [busy_p4d(), busy_gb200()] {
        for room in &seating.rooms {
            let all: Vec<u32> = room.cells.iter().flat_map(|cell| cell.cpus.iter()).collect();
            assert_eq!(all.len(), room.cpus.len());
            assert_eq!(all.into_iter().collect::<CpuSet>(), room.cpus);
            let together: usize = room.together().iter().map(|(_, number)| number).sum();
            assert_eq!(together, room.cells.len());
        }
        for strip in seating.strips() {
            let mut next = 0;
            for part in &strip.parts {
                assert_eq!(part.start, next, "{strip:?}");
                next += part.size;
            }
            assert_eq!(next, strip.slices, "{strip:?}");
        }
    }
}

#[test]
fn cpus_say_what_they_are_for_and_who_has_them() {
    let seating = busy_p4d();
    let [near, far] = seating.rooms.as_slice() else { panic!("two nodes") };
    assert!(near.by_core && near.cells.len() == 24 && near.cores == 24);
    assert_eq!(ground(near, 0), (Ground::Reserved, vec![], false));
    assert_eq!(ground(near, 5), (Ground::Shared, vec![0, 2, 3], false));
    assert_eq!(ground(near, 68), (Ground::Pool, vec![1], true));
    assert_eq!(ground(near, 22), (Ground::Pool, vec![], false));
    assert_eq!(ground(far, 95), (Ground::Shared, vec![4], false));
    assert_eq!(seating.pool_free, set("22-23,70-71"));
    let isolated = &busy_gb200().rooms[0];
    assert_eq!(ground(isolated, 71), (Ground::Isolated, vec![], false));
}

#[test]
fn a_cell_is_a_cpu_where_threads_of_a_core_are_held_apart() {
    let node = one();
    let whole = [pinned(grant(&node, "a/b", &[], &[0]), "4,20", "0", true)];
    assert!(seated(&node, &whole).rooms[0].by_core);
    let half = [pinned(grant(&node, "a/b", &[], &[0]), "4", "0", true)];
    let room = &seated(&node, &half).rooms[0];
    assert!(!room.by_core && room.cells.len() == 32 && room.cores == 16);
    assert_eq!(ground(room, 4).1, [0]);
    assert!(ground(room, 20).1.is_empty());
}

#[test]
fn pool_cpus_that_are_reserved_or_not_there_are_not_free() {
    let seating = Seating::of(&one(), &[], &set("2-3,31-40"), &set("3"));
    assert_eq!(seating.pool_free, set("2,31"));
    assert_eq!(ground(&seating.rooms[0], 3).0, Ground::Reserved);
}

#[test]
fn slices_are_of_grants_of_others_or_uncut() {
    let seating = busy_p4d();
    let strips: Vec<&Strip> = seating.strips().collect();
    assert_eq!(
        parts(strips[0]),
        ["0+4 3g.20gb [2]", "4+1 1g.5gb [3]", "5+1 - []", "6+1 1g.5gb! []", "7+1 - []"]
    );
    assert_eq!(parts(strips[1]), ["0+1 whole [1]"]);
    assert_eq!(parts(strips[5]), ["0+2 - []", "2+2 2g.10gb! []", "4+4 - []"]);
    assert_eq!(parts(strips[6]), ["0+1 whole []"]);
    assert_eq!(parts(strips[7]), ["0+1 whole [5, 6]"], "others may share a GPU out");
}

#[test]
fn an_instance_that_the_driver_does_not_list_yet_is_in_its_place() {
    let mut node = p4d();
    cut(&mut node, 0, &[]);
    let mut being_made = sliced(&node, "a/b", 0, &[(9, "3g.20gb", 4, 4)]);
    being_made.slots[0].stage = engine::Stage::Begun;
    being_made.slots[0].instance = None;
    let seating = seated(&node, &[being_made]);
    let strip = seating.strips().next().expect("a GPU");
    assert_eq!(parts(strip), ["0+4 - []", "4+4 3g.20gb [0]"]);
    let Slices::Instance { stage, foreign, .. } = &strip.parts[1].what else {
        panic!("an instance")
    };
    assert_eq!((*stage, *foreign), (Some("being made"), false));
}

#[test]
fn a_gpu_in_mig_mode_that_others_hold_as_a_whole_is_theirs() {
    let mut node = p4d();
    cut(&mut node, 0, &[(9, 0, 4)]);
    let mut theirs = grant(&node, "a/b", &[], &[0]);
    theirs.origin = Origin::External { by: "injected".into() };
    let seating = seated(&node, &[theirs]);
    assert_eq!(parts(seating.strips().next().expect("a GPU")), ["0+4 3g.20gb! []", "4+4 - [0]"]);
    assert_eq!(seating.holders[0].state, "decided by injected");
}

#[test]
fn an_instance_that_others_made_and_berth_gave_is_both() {
    let mut node = p4d();
    cut(&mut node, 0, &[(9, 4, 4)]);
    let mut given = sliced(&node, "a/b", 0, &[(9, "3g.20gb", 4, 4)]);
    given.slots[0].foreign = true;
    given.slots[0].stage = engine::Stage::Decided;
    let seating = seated(&node, &[given]);
    let strip = seating.strips().next().expect("a GPU");
    assert_eq!(parts(strip), ["0+4 - []", "4+4 3g.20gb! [0]"]);
    let Slices::Instance { stage, .. } = strip.parts[1].what else { panic!("an instance") };
    assert_eq!(stage, None, "it stands, and nobody makes it");
}

#[test]
fn an_instance_that_others_share_out_has_several_holders() {
    let mut node = p4d();
    cut(&mut node, 0, &[(9, 4, 4)]);
    let sharing = ["a/one", "a/two"].map(|label| {
        let mut grant = sliced(&node, label, 0, &[(9, "3g.20gb", 4, 4)]);
        grant.origin = Origin::External { by: "injected".into() };
        grant
    });
    let seating = seated(&node, &sharing);
    assert_eq!(parts(seating.strips().next().expect("a GPU")), ["0+4 - []", "4+4 3g.20gb! [0, 1]"]);
}

#[test]
fn what_a_driver_could_not_mean_is_drawn_as_far_as_it_goes() {
    let mut node = p4d();
    cut(&mut node, 0, &[(77, u32::MAX, u32::MAX), (9, 0, 4), (19, 2, 0)]);
    let seating = seated(&node, &[]);
    let strip = seating.strips().next().expect("a GPU");
    assert_eq!(strip.slices, 32);
    assert!(parts(strip).contains(&format!("{}+{} profile 77! []", u32::MAX, u32::MAX)));
}

#[test]
fn gpus_hang_together_by_what_is_nearest_above_them() {
    use Branch::{Gpu, Group};
    let seating = busy_p4d();
    let pair = |one, other| Group { by: "PCIe switch", below: vec![Gpu(one), Gpu(other)] };
    let wanted = [Group { by: "PCIe host bridge", below: vec![pair(0, 1), pair(2, 3)] }];
    assert!(seating.rooms.iter().all(|room| room.branches == wanted), "{seating:#?}");
    assert_eq!(busy_gb200().rooms[0].branches, [Gpu(0), Gpu(1)], "alone below theirs");
}

#[test]
fn nodes_without_cpus_and_gpus_are_folded_and_memory_is_with_its_gpu() {
    let seating = busy_gb200();
    assert_eq!(seating.rooms.iter().map(|room| room.id).collect::<Vec<_>>(), [0, 1]);
    let memory: Vec<_> = seating.strips().map(|strip| strip.memory_node).collect();
    assert_eq!(memory, [Some(2), Some(10), Some(18), Some(26)]);
    assert_eq!(seating.bare, set("3-9,11-17,19-25,27-33"));
}

#[test]
fn a_gpu_that_names_its_own_memory_is_with_the_nearest_cpus() {
    let mut node = gb200();
    node.gpus[3].numa_node = Some(26);
    node.topology.nodes[26].distances = (0..34).map(|id| if id == 1 { 20 } else { 80 }).collect();
    let seating = seated(&node, &[]);
    assert_eq!(seating.rooms.len(), 2);
    assert!(seating.rooms[1].strips.iter().any(|strip| strip.index == 3));
}

#[test]
fn gpus_of_a_machine_that_says_nothing_are_shown_all_the_same() {
    let mut node = p4d();
    node.topology = from_value(json!({
        "nodes": [], "packages": [], "caches": [], "cores": [], "isolated": "", "nohz_full": "", "gpu_memory": {},
    }))
    .expect("nothing");
    let seating = seated(&node, &[]);
    assert!(seating.rooms.is_empty() && seating.strays.len() == 8);
    assert_eq!(seating.head(), "Driver 550.163.01, CUDA 12.4, 8 GPUs (NVIDIA A100-SXM4-40GB)");
}

#[test]
fn containers_that_are_pinned_alike_are_told_of_together() {
    let node = p4d();
    let mut pod = pinned(grant(&node, "team/pod", &[("gpus", "1")], &[0]), "0-3", "0", false);
    let member = |name: &str, cpus: &str| {
        let mut other = pod.members[0].clone();
        (other.container, other.name) = (format!("id-{name}"), name.to_owned());
        other.pinning.effective = Some(set(cpus));
        other
    };
    let all = vec![member("one", "0-3"), member("two", "0-3")];
    pod.members.clone_from(&all);
    let holder = &seated(&node, std::slice::from_ref(&pod)).holders[0];
    let same = "CPUs 0-3; Memory of NUMA nodes 0 preferred";
    assert_eq!(holder.pinned, [(vec![], same.to_owned())]);
    assert_eq!(holder.containers, ["one", "two"]);
    pod.members = all
        .into_iter()
        .chain([{
            let mut third = pod.members[0].clone();
            third.name = "three".into();
            third.pinning = engine::Pinning::default();
            third.pinning.requested = Some(set("8"));
            third.pinning.effective = Some(set("8"));
            third.pinning.reason = "none of CPUs 8 are near its GPUs (0-3)".into();
            third
        }])
        .collect();
    let holder = &seated(&node, &[pod]).holders[0];
    assert_eq!(holder.pinned[0].0, ["one", "two"]);
    let why = "CPUs 8 requested -> 8: none of CPUs 8 are near its GPUs (0-3)";
    assert_eq!(holder.pinned[1], (vec!["three".to_owned()], why.to_owned()));
}
