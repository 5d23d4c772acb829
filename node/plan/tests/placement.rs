//! Placement on machines as they are: which GPUs, and in what words the others are passed over or refused.

mod nodes;

use nodes::*;
use plan::*;

fn chosen(want: &Want, inventory: &Inventory, occupancy: &Occupancy<'_>) -> Vec<u32> {
    let placement = decide(want, inventory, occupancy, &Policy::default()).expect("there is room");
    numbers(&placement.gpus)
}

fn refusal(
    want: &Want,
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
) -> Refusal {
    decide(want, inventory, occupancy, policy).expect_err("there is no room")
}

fn is_releasing(refusal: &Refusal) -> bool {
    refusal.is_waiting_for_release()
}

#[test]
fn a_pair_shares_a_pcie_switch_where_nvlink_is_equal() {
    assert_eq!(chosen(&whole(2), &p4d(), &held(&[0])), [2, 3]);
    assert_eq!(chosen(&whole(2), &pcie(), &held(&[0, 2, 5])), [6, 7]);
}

#[test]
fn nvlink_counts_for_more_than_a_pcie_switch() {
    assert_eq!(chosen(&whole(2), &bridged(), &held(&[])), [0, 2]);
    assert_eq!(chosen(&whole(2), &bridged(), &held(&[0])), [1, 3]);
}

#[test]
fn four_gpus_come_from_one_numa_node() {
    assert_eq!(chosen(&whole(4), &p5(), &held(&[])), [0, 1, 2, 3]);
    assert_eq!(chosen(&whole(4), &p5(), &held(&[1])), [4, 5, 6, 7]);
}

#[test]
fn a_single_gpu_is_taken_where_the_node_is_broken_already() {
    assert_eq!(chosen(&whole(1), &p5(), &held(&[0])), [1], "three free on node 0, four on 1");
    assert_eq!(chosen(&whole(1), &p5(), &held(&[4, 5, 6])), [7]);
    assert_eq!(chosen(&whole(1), &p4d(), &held(&[2])), [3], "the half of a broken pair");
}

#[test]
fn two_gpus_finish_a_node_rather_than_break_another() {
    assert_eq!(chosen(&whole(2), &p5(), &held(&[4, 5])), [6, 7]);
}

#[test]
fn equals_go_to_the_lower_uuid_whatever_the_index() {
    let mut inventory = p5();
    for gpu in &mut inventory.gpus {
        gpu.index = 7 - gpu.index;
    }
    assert_eq!(chosen(&whole(1), &inventory, &held(&[])), [0]);
    assert_eq!(chosen(&whole(2), &inventory, &held(&[])), [1, 0], "listed in the driver's order");
}

#[test]
fn all_gpus_fit_and_none_is_left() {
    let placement = decide(&whole(8), &p5(), &held(&[]), &Policy::default()).expect("room");
    assert_eq!(placement.gpus.len(), 8);
    assert!(placement.candidates.iter().all(|one| one.verdict == Verdict::Chosen));
    assert_eq!(placement.closeness, "NVLink x18, NUMA nodes 0 and 1");
}

#[test]
fn closeness_is_told_in_words() {
    let words = |want: u32, inventory: &Inventory| {
        decide(&whole(want), inventory, &held(&[]), &Policy::default()).expect("room").closeness
    };
    assert_eq!(words(1, &p5()), "a single GPU, one NUMA node (0)");
    assert_eq!(words(2, &p5()), "NVLink x18, one NUMA node (0)");
    assert_eq!(words(2, &p4d()), "NVLink x12, one PCIe switch, one NUMA node (0)");
    assert_eq!(words(8, &pcie()), "no NVLink, NUMA nodes 0 and 1");
    let among_three = "NVLink between 1 of 3 pairs, one PCIe host bridge, one NUMA node (0)";
    assert_eq!(words(3, &bridged()), among_three);
    assert_eq!(words(1, &node(&[None], |_, _| (0, Ancestor::System))), "a single GPU");
}

#[test]
fn every_gpu_has_a_verdict_with_its_reason() {
    let mut inventory = p4d();
    inventory.gpus[7].mig = true;
    let placement = decide(&whole(2), &inventory, &held(&[0]), &Policy::default()).expect("room");
    let words: Vec<String> = placement
        .candidates
        .iter()
        .map(|one| match &one.verdict {
            Verdict::Chosen => "chosen".to_owned(),
            Verdict::Passed(why) => format!("passed: {why}"),
            Verdict::Unavailable(why) => format!("unavailable: {why}"),
        })
        .collect();
    assert_eq!(
        words,
        [
            "unavailable: held by ns/pod-0/c",
            "passed: farther: only on the NUMA node of GPU-00000002-0000-4000-8000-000000000000",
            "chosen",
            "chosen",
            "passed: farther: across the machine from GPU-00000002-0000-4000-8000-000000000000",
            "passed: farther: across the machine from GPU-00000002-0000-4000-8000-000000000000",
            "passed: farther: across the machine from GPU-00000002-0000-4000-8000-000000000000",
            "unavailable: in MIG mode",
        ]
    );
}

#[test]
fn what_would_break_a_group_is_said_so() {
    let why = |inventory: &Inventory, taken: &[u32], want: u32, number: usize| {
        let placement = decide(&whole(want), inventory, &held(taken), &Policy::default());
        placement.expect("room").candidates[number].verdict.clone()
    };
    let passed = |why: &str| Verdict::Passed(why.to_owned());
    let group = passed("would break the free group of NUMA node 1");
    assert_eq!(why(&p5(), &[0], 1, 4), group);
    let switch = passed("would break free GPUs of one PCIe switch apart");
    assert_eq!(why(&pcie(), &[2], 1, 0), switch);
    let equal = passed("as good; the chosen have the lower UUIDs");
    assert_eq!(why(&p5(), &[], 1, 5), equal);
    let unlinked = passed("farther: no NVLink to GPU-00000000-0000-4000-8000-000000000000");
    assert_eq!(why(&bridged(), &[], 2, 1), unlinked);
}

#[test]
fn no_room_names_every_gpu_and_the_nearest_fit() {
    let mut inventory = node(&[Some(0); 4], |_, _| (18, Ancestor::Node));
    inventory.gpus[1].mig = true;
    let policy = Policy {
        gpus: vec![0, 1, 3].into_iter().map(|i| uuid(i).to_string()).collect(),
        ..Policy::default()
    };
    let refusal = refusal(&whole(2), &inventory, &held(&[0]), &policy);
    assert_eq!(
        refusal.to_string(),
        "berth: no room for gpus 2: \
         GPU-00000000-0000-4000-8000-000000000000: held by ns/pod-0/c; \
         GPU-00000001-0000-4000-8000-000000000000: in MIG mode; \
         GPU-00000002-0000-4000-8000-000000000000: not in node.gpus; \
         GPU-00000003-0000-4000-8000-000000000000: free; nearest fit: gpus 1"
    );
}

#[test]
fn a_full_node_says_that_nothing_is_free() {
    let inventory = node(&[None], |_, _| (0, Ancestor::System));
    let mut taken = held(&[0]);
    let second = Holder { external: true, ..holder("ml/infer/c") };
    taken.holders.entry(uuid(0)).or_default().push(second);
    assert_eq!(
        refusal(&whole(1), &inventory, &taken, &Policy::default()).to_string(),
        "berth: no room for gpus 1: GPU-00000000-0000-4000-8000-000000000000: \
         held by ns/pod-0/c and held by ml/infer/c (another allocator's); nothing is free"
    );
    let replica = |n: u32| Holder { external: true, ..holder(&format!("ml/replica-{n}/c")) };
    taken.holders.entry(uuid(0)).or_default().extend((0..30).map(replica));
    let words = refusal(&whole(1), &inventory, &taken, &Policy::default()).to_string();
    assert!(
        words.ends_with(
            "held by ml/infer/c (another allocator's) and held by ml/replica-0/c (another allocator's) and 29 more; nothing is free"
        ),
        "{words}"
    );
}

#[test]
fn a_node_without_driver_or_without_gpus_says_which() {
    let nothing = Inventory::default();
    let without = refusal(&whole(1), &nothing, &held(&[]), &Policy::default());
    assert_eq!(without, Refusal::NoDriver);
    assert_eq!(
        without.to_string(),
        "berth: no NVIDIA driver is loaded on this node, so it has no GPU to give; \
         load the driver (modprobe nvidia) or choose another node"
    );
    let empty = Inventory { driver: Some(driver()), gpus: Vec::new(), ..Inventory::default() };
    assert_eq!(
        refusal(&whole(1), &empty, &held(&[]), &Policy::default()).to_string(),
        "berth: no room for gpus 1: this node has no GPU; nothing is free"
    );
}

#[test]
fn exact_devices_are_given_as_asked_or_refused_by_name() {
    let want = Want::Exactly(vec![uuid(5), uuid(1)]);
    assert_eq!(chosen(&want, &p5(), &held(&[0])), [1, 5]);
    let want = Want::Exactly(vec![uuid(5), uuid(0), uuid(99)]);
    assert_eq!(
        refusal(&want, &p5(), &held(&[0]), &Policy::default()).to_string(),
        "berth: no room for devices GPU-00000005-0000-4000-8000-000000000000,\
         GPU-00000000-0000-4000-8000-000000000000,GPU-00000063-0000-4000-8000-000000000000: \
         GPU-00000005-0000-4000-8000-000000000000: free; \
         GPU-00000000-0000-4000-8000-000000000000: held by ns/pod-0/c; \
         GPU-00000063-0000-4000-8000-000000000000: not on this node; nearest fit: gpus 3"
    );
    let none = Want::Exactly(Vec::new());
    assert!(
        refusal(&none, &p5(), &held(&[]), &Policy::default()).to_string().contains("no device")
    );
}

#[test]
fn waiting_is_said_to_help_only_where_it_does() {
    let release = |mut taken: Occupancy<'static>, gpus: &[u32]| {
        for gpu in gpus {
            taken.holders.get_mut(&uuid(*gpu)).expect("held")[0].releasing = true;
        }
        taken
    };
    let all = [0, 1, 2, 3, 4, 5, 6, 7];
    let policy = Policy::default();
    let two_leave = release(held(&all), &[2, 6]);
    assert!(is_releasing(&refusal(&whole(2), &p5(), &two_leave, &policy)));
    assert!(!is_releasing(&refusal(&whole(3), &p5(), &two_leave, &policy)));
    let exactly = |gpus: &[u32]| Want::Exactly(gpus.iter().map(|i| uuid(*i)).collect());
    assert!(is_releasing(&refusal(&exactly(&[2]), &p5(), &two_leave, &policy)));
    assert!(!is_releasing(&refusal(&exactly(&[2, 3]), &p5(), &two_leave, &policy)));
    let excluded = Policy { gpus: vec!["0000:12:00.0".into()], ..Policy::default() };
    assert!(!is_releasing(&refusal(&whole(2), &p5(), &two_leave, &excluded)), "one is allowed");
    let mut split = p5();
    split.gpus[2].mig = true;
    assert!(!is_releasing(&refusal(&whole(2), &split, &two_leave, &policy)), "one is split");
    let message = refusal(&whole(2), &p5(), &two_leave, &policy).to_string();
    assert!(message.contains("being released by ns/pod-2/c"), "{message}");
}

#[test]
fn a_gpu_with_a_second_holder_who_stays_does_not_come_free() {
    let inventory = node(&[None], |_, _| (0, Ancestor::System));
    let mut taken = held(&[0]);
    let leaving = Holder { releasing: true, ..holder("a/b/c") };
    taken.holders.entry(uuid(0)).or_default().push(leaving);
    assert!(!is_releasing(&refusal(&whole(1), &inventory, &taken, &Policy::default())));
}

#[test]
fn node_gpus_takes_uuids_and_pci_addresses_and_nonsense_allows_nothing() {
    let policy = |names: &[&str]| Policy {
        gpus: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Policy::default()
    };
    let given = |names: &[&str]| {
        let placed = decide(&whole(1), &p5(), &held(&[]), &policy(names));
        placed.map(|placement| numbers(&placement.gpus)).ok()
    };
    assert_eq!(given(&[uuid(6).as_str()]), Some(vec![6]));
    assert_eq!(given(&["00000000:13:00.0"]), Some(vec![3]));
    assert_eq!(given(&["gpu 3"]), None);
}

#[test]
fn what_another_allocator_decided_is_taken_as_it_is() {
    let mut inventory = p5();
    inventory.gpus[3].mig = true;
    let placement =
        place::external("cdi edits", &vec![uuid(3), uuid(1)].into(), &inventory, &held(&[]))
            .expect("taken");
    assert_eq!(numbers(&placement.gpus), [1, 3]);
    assert_eq!(
        placement.candidates[0].verdict,
        Verdict::Passed("not what cdi edits decided".into())
    );
}

#[test]
fn another_allocator_may_share_with_itself_but_not_with_berth() {
    let mut taken = held(&[1, 2]);
    taken.holders.get_mut(&uuid(1)).expect("held")[0].external = true;
    let external = |i| place::external("cdi edits", &vec![uuid(i)].into(), &p5(), &taken);
    assert!(external(1).is_ok());
    assert_eq!(
        external(2).expect_err("Berth gave it").to_string(),
        "berth: cdi edits gave this container GPU-00000002-0000-4000-8000-000000000000, which Berth has given to \
         ns/pod-2/c; let one of the two allocate: set node.gpus so that Berth leaves the other's GPUs alone"
    );
    assert_eq!(
        external(50).expect_err("no such GPU").to_string(),
        "berth: cdi edits gave this container GPU-00000032-0000-4000-8000-000000000000, which is no GPU of this node; \
         its view of the node is out of date: restart it, and compare with berth topo"
    );
}
