//! Placement against an oracle: written from the description in words, by narrowing a list of all subsets, one criterion after the other.

mod nodes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use nodes::*;
use plan::policy::{Ceiling, check_ceiling};
use plan::*;
use proptest::prelude::*;

/// A node of up to nine GPUs connected at random, with random holders and exclusions.
#[derive(Debug, Clone)]
struct Scene {
    inventory: Inventory,
    occupancy: Occupancy<'static>,
    policy: Policy,
}

impl Scene {
    fn is_available(&self, gpu: &Gpu) -> bool {
        let allowed =
            self.policy.gpus.is_empty() || self.policy.gpus.contains(&gpu.uuid.to_string());
        allowed && !gpu.mig && self.occupancy.is_free(&gpu.uuid)
    }

    fn available(&self) -> Vec<&Gpu> {
        self.inventory.gpus.iter().filter(|gpu| self.is_available(gpu)).collect()
    }

    fn decide(&self, number: usize) -> Result<Placement, Refusal> {
        decide(&whole(number as u32), &self.inventory, &self.occupancy, &self.policy)
    }
}

fn scenes(most: usize) -> impl Strategy<Value = Scene> {
    let names = Just((0..most as u32).collect::<Vec<_>>()).prop_shuffle();
    let states = prop::collection::vec((0..10u8, prop::option::of(0..2u32)), 1..=most);
    let ways = prop::collection::vec((0..3u32, 0..6usize), most * most);
    (names, states, ways, any::<bool>()).prop_map(move |(names, states, ways, excludes)| {
        const ANCESTORS: [Ancestor; 6] = [
            Ancestor::Internal,
            Ancestor::SingleSwitch,
            Ancestor::MultipleSwitches,
            Ancestor::HostBridge,
            Ancestor::Node,
            Ancestor::System,
        ];
        let mut gpus = Vec::new();
        let (mut occupancy, mut policy) = (Occupancy::default(), Policy::default());
        for (index, (state, numa)) in states.iter().enumerate() {
            let mut one = gpu(index as u32, uuid(names[index]), *numa);
            one.mig = *state == 0;
            if [1, 2].contains(state) {
                let hold = Holder { releasing: *state == 2, ..holder("a/b/c") };
                occupancy.holders.insert(one.uuid.clone(), vec![hold]);
            }
            if excludes && *state != 3 {
                policy.gpus.push(one.uuid.to_string());
            }
            gpus.push(one);
        }
        let mut inventory = Inventory { driver: Some(driver()), gpus, ..Inventory::default() };
        connect(&mut inventory, |a, b| {
            let (links, ancestor) = ways[a as usize * most + b as usize];
            (links, ANCESTORS[ancestor])
        });
        Scene { inventory, occupancy, policy }
    })
}

type Set<'a> = Vec<&'a Gpu>;

fn subsets<'a>(gpus: &[&'a Gpu], number: usize) -> Vec<Set<'a>> {
    match gpus.split_first() {
        _ if number == 0 => vec![Vec::new()],
        None => Vec::new(),
        Some((first, others)) => {
            let with = subsets(others, number - 1).into_iter();
            let with = with.map(|set| [vec![*first], set].concat());
            with.chain(subsets(others, number)).collect()
        }
    }
}

fn peers(set: &Set<'_>) -> Vec<Peer> {
    let of = |gpu: &&Gpu| {
        let others = set.iter().filter(|other| other.uuid > gpu.uuid);
        others.map(|other| gpu.peers[&other.uuid]).collect::<Vec<_>>()
    };
    set.iter().flat_map(of).collect()
}

fn links(set: &Set<'_>) -> u32 {
    peers(set).iter().map(|peer| peer.nvlinks).sum()
}

fn ranks(set: &Set<'_>) -> Vec<u32> {
    peers(set).iter().map(|peer| peer.ancestor as u32).collect()
}

/// Pairs of the set that are as near as this, or nearer.
fn near(set: &Set<'_>, ancestor: u32) -> usize {
    ranks(set).into_iter().filter(|rank| *rank <= ancestor).count()
}

fn keep_best<K: Ord>(sets: &mut Vec<Set<'_>>, key: impl Fn(&Set<'_>) -> K) {
    let best = sets.iter().map(&key).max();
    sets.retain(|set| Some(key(set)) == best);
}

/// The best choice as the description has it.
fn naive<'a>(available: &[&'a Gpu], number: usize) -> Option<BTreeSet<&'a GpuUuid>> {
    let mut sets = subsets(available, number);
    let rest = |set: &Set<'_>| -> Set<'a> {
        let left = |gpu: &&&Gpu| set.iter().all(|one| one.uuid != gpu.uuid);
        available.iter().filter(left).copied().collect()
    };
    keep_best(&mut sets, links);
    keep_best(&mut sets, |set| Reverse(ranks(set).into_iter().max()));
    keep_best(&mut sets, |set| Reverse(ranks(set).into_iter().sum::<u32>()));
    keep_best(&mut sets, |set| {
        Reverse(set.iter().map(|gpu| gpu.numa_node).collect::<BTreeSet<_>>().len())
    });
    keep_best(&mut sets, |set| links(&rest(set)));
    for ancestor in 0..5 {
        keep_best(&mut sets, |set| near(&rest(set), ancestor));
    }
    let names = |set: Set<'a>| set.into_iter().map(|gpu| &gpu.uuid).collect::<BTreeSet<_>>();
    sets.into_iter().map(names).min_by(|a, b| a.iter().cmp(b.iter()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_choice_is_the_oracles(scene in scenes(8), number in 1..9usize) {
        let expected = naive(&scene.available(), number);
        let placement = scene.decide(number).ok();
        let given = placement.as_ref().map(|placement| placement.gpus.iter().collect());
        prop_assert_eq!(given, expected);
    }

    #[test]
    fn what_cannot_be_had_is_never_given(scene in scenes(9), number in 1..10usize) {
        let free = scene.available();
        let Ok(placement) = scene.decide(number) else {
            prop_assert!(free.len() < number, "refused although it fits");
            return Ok(());
        };
        prop_assert_eq!(placement.gpus.len(), number);
        prop_assert!(placement.gpus.iter().all(|uuid| free.iter().any(|gpu| gpu.uuid == *uuid)));
        prop_assert_eq!(placement.candidates.len(), scene.inventory.gpus.len());
        for (gpu, candidate) in scene.inventory.gpus.iter().zip(&placement.candidates) {
            prop_assert_eq!(&gpu.uuid, &candidate.gpu);
            let expected = placement.gpus.contains(&gpu.uuid);
            prop_assert_eq!(candidate.verdict == Verdict::Chosen, expected);
            let unavailable = matches!(candidate.verdict, Verdict::Unavailable(_));
            prop_assert_eq!(unavailable, !scene.is_available(gpu));
        }
    }

    #[test]
    fn the_order_of_the_inventory_does_not_matter(
        (scene, shuffled) in scenes(8).prop_flat_map(|scene| {
            let gpus = Just(scene.inventory.gpus.clone()).prop_shuffle();
            (Just(scene), gpus)
        }),
        number in 1..9usize,
    ) {
        let inventory = Inventory { gpus: shuffled, ..scene.inventory.clone() };
        let other = Scene { inventory, ..scene.clone() };
        prop_assert_eq!(scene.decide(number), other.decide(number));
    }

    #[test]
    fn the_nearest_fit_fits_and_one_more_does_not(scene in scenes(8), number in 1..9usize) {
        let Err(Refusal::NoRoom { nearest, releasing, .. }) = scene.decide(number) else {
            return Ok(());
        };
        match nearest {
            Nearest::Fit(fit) => {
                let Want::Whole(fits) = *fit else { panic!("{fit} is of another kind") };
                let fits = fits.get() as usize;
                prop_assert!(scene.decide(fits).is_ok() && scene.decide(fits + 1).is_err());
            }
            Nearest::Nothing(_) => prop_assert!(scene.decide(1).is_err()),
        }
        let mut later = scene.clone();
        later.occupancy.holders.retain(|_, holders| !holders[0].releasing);
        prop_assert_eq!(releasing, later.decide(number).is_ok());
    }

    #[test]
    fn the_nearest_fit_stays_below_a_ceiling(
        scene in scenes(8), number in 1..9usize, held in 0..4u32, most in 0..10u32, capped in any::<bool>(),
    ) {
        let ceiling = Ceiling { gpus: capped.then_some(most), memory: (!capped).then_some(Mib(u64::from(most) * 50_000)) };
        let policy = Policy { ceilings: BTreeMap::from([("team".to_owned(), ceiling)]), ..scene.policy.clone() };
        // As an admission does it: what is there room for, and may the namespace have so much?
        let admits = |want: &Want| {
            let placed = decide(want, &scene.inventory, &scene.occupancy, &policy)?;
            let memory = |gpus: u32| Mib(u64::from(gpus) * 81_559);
            let asked = placed.gpus.len() as u32;
            check_ceiling("team", &policy, want, (held, memory(held)), (asked, memory(asked)))
        };
        let want = whole(number as u32);
        let Err(refusal) = admits(&want) else { return Ok(()) };
        let told = refusal.with_true_nearest(&want, &scene.inventory, |want| admits(want).is_ok());
        let most = (1..number as u32).rev().find(|fewer| admits(&whole(*fewer)).is_ok());
        let most = most.map(whole);
        prop_assert_eq!(told.nearest(), most.as_ref(), "{}", told);
    }
}

/// Too many sets to try them all: the choice is still of the right size, free, deterministic, and as close as it can be where that is plain.
#[test]
fn large_machines_are_searched_well_without_trying_everything() {
    let numa: Vec<_> = (0..24).map(|i| Some(i % 3)).collect();
    let near = |a: u32, b: u32| if a % 3 == b % 3 { Ancestor::Node } else { Ancestor::System };
    let inventory = node(&numa, |a, b| (u32::from(a % 3 == b % 3), near(a, b)));
    let taken = held(&[0, 3, 1]);
    let placed =
        |number| decide(&whole(number), &inventory, &taken, &Policy::default()).expect("room").gpus;
    assert_eq!(numbers(&placed(8)), [2, 5, 8, 11, 14, 17, 20, 23], "the one whole group");
    assert_eq!(placed(10).len(), 10);
    assert_eq!(placed(10), placed(10));
    assert!(placed(21).iter().all(|gpu| taken.is_free(gpu)));
}
