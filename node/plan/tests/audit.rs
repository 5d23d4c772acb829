//! The audit finds each contradiction, names it, and finds nothing in what placement decides.

mod nodes;

use nodes::*;
use plan::audit::*;
use plan::mig::Slot;
use plan::*;
use proptest::prelude::*;

fn holding(id: u64, gpus: &[u32]) -> Holding {
    Holding {
        grant: GrantId::from_bits(id),
        label: format!("ns/pod-{id}/c"),
        gpus: gpus.iter().map(|i| uuid(*i)).collect(),
        slots: Vec::new(),
        external: false,
    }
}

fn external(id: u64, gpus: &[u32]) -> Holding {
    Holding { external: true, ..holding(id, gpus) }
}

fn words(holdings: &[Holding]) -> Vec<String> {
    audit(&p5(), holdings).iter().map(ToString::to_string).collect()
}

#[test]
fn sound_holdings_have_no_findings() {
    let holdings = [
        holding(1, &[0, 1]),
        holding(2, &[2]),
        external(3, &[3]),
        external(4, &[3]),
        holding(5, &[]),
    ];
    assert_eq!(words(&holdings), [""; 0]);
}

#[test]
fn a_gpu_in_two_grants_is_found() {
    assert_eq!(
        words(&[holding(1, &[0, 1]), holding(2, &[1])]),
        [
            "GPU-00000001-0000-4000-8000-000000000000 is held twice: by ns/pod-1/c (g-0000000000000001) and by \
          ns/pod-2/c (g-0000000000000002)"
        ]
    );
}

#[test]
fn sharing_with_another_allocator_is_found_whoever_came_first() {
    let expected = [
        "GPU-00000000-0000-4000-8000-000000000000 is held by ns/pod-1/c (g-0000000000000001), and another \
        allocator has given it to ns/pod-2/c (g-0000000000000002); set node.gpus so that only one of the two allocates it",
    ];
    assert_eq!(words(&[holding(1, &[0]), external(2, &[0])]), expected);
    assert_eq!(words(&[external(2, &[0]), holding(1, &[0])]), expected);
}

#[test]
fn gpus_that_are_gone_split_or_repeated_are_found() {
    assert!(words(&[holding(1, &[99])])[0].contains("is not on this node"));
    assert!(words(&[external(1, &[99])])[0].contains("is not on this node"));
    assert!(words(&[holding(1, &[1, 1])])[0].contains("stands twice in ns/pod-1/c"));
    let mut inventory = p5();
    inventory.gpus[1].mig = true;
    assert!(audit(&inventory, &[holding(1, &[1])])[0].to_string().contains("is in MIG mode"));
    assert_eq!(audit(&inventory, &[external(1, &[1])]), []);
}

/// Holds instances on GPUs: profile, GPU, start, size.
fn sliced(id: u64, slots: &[(&str, u32, u32, u32)]) -> Holding {
    let slot = |(name, gpu, start, size): &(&str, u32, u32, u32)| Slot {
        gpu: uuid(*gpu),
        profile: 9,
        name: name.parse().expect("a name"),
        start: *start,
        size: *size,
        adopted: false,
    };
    Holding { slots: slots.iter().map(slot).collect(), ..holding(id, &[]) }
}

fn split() -> Inventory {
    let mut inventory = p5();
    for gpu in &mut inventory.gpus[..4] {
        gpu.mig = true;
    }
    inventory
}

#[test]
fn instances_side_by_side_are_sound_and_overlapping_ones_are_found() {
    let found = |holdings: &[Holding]| {
        audit(&split(), holdings).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let three = sliced(1, &[("3g.40gb", 0, 0, 4), ("1g.10gb", 1, 3, 1)]);
    assert_eq!(found(&[three.clone(), sliced(2, &[("3g.40gb", 0, 4, 4)])]), [""; 0]);
    assert_eq!(
        found(&[three.clone(), sliced(2, &[("1g.10gb", 0, 3, 1), ("1g.10gb", 0, 4, 1)])]),
        [
            "slices of GPU-00000000-0000-4000-8000-000000000000 are held twice: 3g.40gb at 0 by ns/pod-1/c (g-0000000000000001) \
             and 1g.10gb at 3 by ns/pod-2/c (g-0000000000000002)"
        ]
    );
    assert_eq!(found(&[sliced(1, &[("3g.40gb", 0, 0, 4), ("1g.10gb", 0, 1, 1)])]).len(), 1);
    let theirs = |id| Holding { external: true, ..sliced(id, &[("3g.40gb", 0, 0, 4)]) };
    assert_eq!(found(&[theirs(2), theirs(3)]), [""; 0], "others may share among themselves");
    assert_eq!(found(&[three, theirs(2)]).len(), 1);
}

#[test]
fn a_gpu_that_is_held_as_a_whole_and_in_slices_is_found() {
    let whole = Holding { external: true, ..holding(1, &[0]) };
    let found = audit(&split(), &[whole, sliced(2, &[("1g.10gb", 0, 6, 1)])]);
    assert_eq!(
        found.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "GPU-00000000-0000-4000-8000-000000000000 is held as a whole by ns/pod-1/c (g-0000000000000001), and in slices: \
             1g.10gb at 6 by ns/pod-2/c (g-0000000000000002)"
        ]
    );
}

#[test]
fn instances_on_gpus_that_are_gone_or_whole_again_are_found() {
    let words = audit(&split(), &[sliced(1, &[("1g.10gb", 7, 6, 1), ("1g.10gb", 99, 0, 1)])]);
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), 2);
    assert!(words[0].contains("is not on this node"), "{words:?}");
    assert!(
        words[1].contains(
            "is not in MIG mode, and ns/pod-1/c (g-0000000000000001) holds 1g.10gb on it"
        ),
        "{words:?}"
    );
}

#[test]
fn two_grants_with_one_id_are_found() {
    let twin = Holding { label: "other".into(), ..holding(1, &[2]) };
    assert_eq!(
        words(&[holding(1, &[0]), twin]),
        ["two grants have the id g-0000000000000001: ns/pod-1/c and other"]
    );
}

proptest! {
    #[test]
    fn whatever_is_admitted_and_released_the_audit_is_silent(
        steps in prop::collection::vec((1..5u32, any::<bool>()), 0..40),
    ) {
        let mut holdings: Vec<Holding> = Vec::new();
        for (id, (number, releases)) in (0..).zip(steps) {
            let taken: Vec<u32> = holdings.iter().flat_map(|one| numbers(&one.gpus)).collect();
            let placed = decide(&whole(number), &p5(), &held(&taken), &Policy::default());
            match placed {
                _ if releases && !holdings.is_empty() => {
                    holdings.remove(number as usize % holdings.len());
                }
                Ok(placement) => holdings.push(holding(id, &numbers(&placement.gpus))),
                Err(_) => {}
            }
            prop_assert_eq!(audit(&p5(), &holdings), vec![]);
        }
    }

    #[test]
    fn whatever_is_admitted_in_slices_and_released_the_audit_is_silent(
        steps in prop::collection::vec((0..7usize, 1..4u32, any::<bool>(), any::<bool>()), 0..60),
    ) {
        let mut inventory = p4d();
        for gpu in &mut inventory.gpus[4..] {
            *gpu = geometry::A100_80.split(gpu.clone());
        }
        let names: Vec<_> = geometry::A100_80.profiles().into_iter().map(|one| one.name).collect();
        let mut holdings: Vec<Holding> = Vec::new();
        for (id, (name, count, as_whole, releases)) in (0..).zip(steps) {
            let mut occupancy = Occupancy::default();
            for one in &holdings {
                one.gpus.iter().for_each(|gpu| occupancy.add(gpu, holder(&one.label)));
                for Slot { gpu, profile, start, size, .. } in &one.slots {
                    let (profile, start, size) = (*profile, *start, *size);
                    occupancy.add_slice(gpu, Slice { profile, start, size, holder: holder(&one.label) });
                }
            }
            let count = count.try_into().expect("not zero");
            let want = match as_whole {
                true => Want::Whole(count),
                false => Want::Mig { profile: names[name].clone(), count },
            };
            match decide(&want, &inventory, &occupancy, &Policy::default()) {
                _ if releases && !holdings.is_empty() => {
                    holdings.remove(name % holdings.len());
                }
                Ok(placement) => {
                    let gpus = if placement.slots.is_empty() { placement.gpus } else { vec![] };
                    holdings.push(Holding { gpus, slots: placement.slots, ..holding(id, &[]) });
                }
                Err(_) => {}
            }
            prop_assert_eq!(audit(&inventory, &holdings), vec![]);
        }
    }

    #[test]
    fn an_overlap_is_found_exactly_where_two_hold_the_same(
        first in prop::collection::btree_set(0..8u32, 0..4),
        second in prop::collection::btree_set(0..8u32, 0..4),
        theirs in any::<bool>(),
    ) {
        let list = |set: &std::collections::BTreeSet<u32>| set.iter().copied().collect::<Vec<_>>();
        let other = Holding { external: theirs, ..holding(2, &list(&second)) };
        let found = audit(&p5(), &[holding(1, &list(&first)), other]).len();
        prop_assert_eq!(found, first.intersection(&second).count());
    }
}
