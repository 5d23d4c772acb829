//! Placement of MIG instances against an oracle: written from the description in words, over lists of slices, by trying every set of places.

mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use nodes::geometry::{self, Model};
use nodes::*;
use plan::mig::{Instance, Mix, Place, Profile, ProfileName};
use plan::policy::{Ceiling, check_ceiling};
use plan::*;
use proptest::prelude::*;

/// An instance on a GPU: the profile's place among the GPU's, and the start.
type On = (usize, u32);

/// Whose an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Held,
    Leaving,
    Idle,
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Whole,
    Leaving,
    Excluded,
    ModeOff,
}

/// One GPU as it was made up.
#[derive(Debug, Clone)]
struct Chip {
    gpu: Gpu,
    state: State,
    on: Vec<(On, Whose)>,
}

#[derive(Debug, Clone)]
struct Scene {
    chips: Vec<Chip>,
    mix: BTreeMap<ProfileName, u16>,
    asked: ProfileName,
    count: u32,
}

/// What instances on a GPU add to its loss; `None` where they do not go together.
type Known = BTreeMap<(usize, Vec<On>), Option<i64>>;

fn slices(gpu: &Gpu, (kind, start): On) -> BTreeSet<u32> {
    (start..start + gpu.profiles[kind].slices).collect()
}

/// The four rules.
fn goes_together(gpu: &Gpu, all: &[On]) -> bool {
    let filled: Vec<u32> = all.iter().flat_map(|one| slices(gpu, *one)).collect();
    let disjoint = filled.iter().collect::<BTreeSet<_>>().len() == filled.len();
    let number = |kind: usize| all.iter().filter(|(other, _)| *other == kind).count() as u32;
    let within = (0..gpu.profiles.len()).all(|kind| number(kind) <= gpu.profiles[kind].max);
    let media = all.iter().filter(|(kind, _)| gpu.profiles[*kind].media).count() <= 1;
    let compute: u32 = all.iter().map(|(kind, _)| gpu.profiles[*kind].compute).sum();
    let most = gpu.profiles.iter().map(|profile| profile.compute).max().unwrap_or(0);
    disjoint && within && media && compute <= most
}

/// How many more of the kind fit: by trying every set of them.
fn most(gpu: &Gpu, all: &[On], kind: usize) -> u32 {
    fn more(gpu: &Gpu, all: &[On], kind: usize, starts: &[u32]) -> u32 {
        let Some((first, others)) = starts.split_first() else { return 0 };
        let without = more(gpu, all, kind, others);
        let with = [all, &[(kind, *first)]].concat();
        match goes_together(gpu, &with) {
            true => without.max(1 + more(gpu, &with, kind, others)),
            false => without,
        }
    }
    more(gpu, all, kind, &gpu.profiles[kind].starts)
}

fn free(gpu: &Gpu, all: &[On]) -> u32 {
    let every = (0..gpu.profiles.len()).flat_map(|kind| {
        let starts = gpu.profiles[kind].starts.iter();
        starts.flat_map(move |start| slices(gpu, (kind, *start)))
    });
    let filled: BTreeSet<u32> = all.iter().flat_map(|one| slices(gpu, *one)).collect();
    every.collect::<BTreeSet<_>>().difference(&filled).count() as u32
}

impl Scene {
    /// The loss of one GPU, times what makes it whole for every sum of weights here.
    fn loss(&self, gpu: &Gpu, all: &[On]) -> i64 {
        let named =
            |profile: &Profile| i64::from(self.mix.get(&profile.name).copied().unwrap_or(0));
        let any = gpu.profiles.iter().any(|profile| named(profile) > 0);
        let weight = |profile: &Profile| if any { named(profile) } else { 1 };
        let sum: i64 = gpu.profiles.iter().map(weight).sum();
        let one = |kind: usize| {
            let (profile, size) = (&gpu.profiles[kind], i64::from(gpu.profiles[kind].slices));
            let stranded = i64::from(free(gpu, all)) - size * i64::from(most(gpu, all, kind));
            weight(profile) * size * stranded
        };
        (0..gpu.profiles.len()).map(one).sum::<i64>() * 720_720 / sum
    }

    fn policy(&self) -> Policy {
        let allowed = self.chips.iter().filter(|chip| chip.state != State::Excluded);
        let mut gpus: Vec<String> = allowed.map(|chip| chip.gpu.uuid.to_string()).collect();
        gpus.push("nothing".into());
        Policy { gpus, mig_mix: Mix(self.mix.clone()), ..Policy::default() }
    }

    fn inventory(&self) -> Inventory {
        let gpu = |chip: &Chip| {
            let mut gpu = chip.gpu.clone();
            if chip.state == State::ModeOff {
                gpu.mig = false;
                gpu.profiles.clear();
            }
            gpu
        };
        Inventory {
            driver: Some(driver()),
            gpus: self.chips.iter().map(gpu).collect(),
            ..Inventory::default()
        }
    }

    fn occupancy(&self) -> Occupancy<'static> {
        let mut occupancy = Occupancy::default();
        for chip in &self.chips {
            let uuid = &chip.gpu.uuid;
            let leaving = Holder { releasing: true, ..holder("a/leaving/c") };
            match chip.state {
                State::Whole => occupancy.add(uuid, holder("a/whole/c")),
                State::Leaving => occupancy.add(uuid, leaving.clone()),
                _ => {}
            }
            for ((kind, start), whose) in &chip.on {
                let profile = &chip.gpu.profiles[*kind];
                let (id, start) = (profile.id, *start);
                let holder = match whose {
                    Whose::Held => holder("a/b/c"),
                    Whose::Leaving => leaving.clone(),
                    Whose::Idle => {
                        let place = Place { gpu: uuid.clone(), profile: id, start };
                        occupancy.idle.push(place);
                        continue;
                    }
                    Whose::Foreign => continue,
                };
                let slice = Slice { profile: id, start, size: profile.slices, holder };
                occupancy.add_slice(uuid, slice);
            }
        }
        occupancy
    }

    fn decide(&self, asked: &ProfileName, count: u32) -> Result<Placement, Refusal> {
        let count = count.try_into().expect("not zero");
        let want = Want::Mig { profile: asked.clone(), count };
        decide(&want, &self.inventory(), &self.occupancy(), &self.policy())
    }

    /// Everything that could be given, one by one: the chip, the start, whether it is there already.
    fn places(&self) -> Vec<(usize, u32, bool)> {
        let mut places = Vec::new();
        for (number, chip) in self.chips.iter().enumerate() {
            let kind = chip.gpu.profiles.iter().position(|one| one.name == self.asked);
            let Some(kind) = kind.filter(|_| chip.state == State::Open) else { continue };
            for start in &chip.gpu.profiles[kind].starts {
                places.push((number, *start, chip.on.contains(&((kind, *start), Whose::Idle))));
            }
        }
        places
    }

    /// The best set by the description, as (GPU, start, adopted).
    fn naive(&self) -> Option<Vec<(GpuUuid, u32, bool)>> {
        let sets = subsets(&self.places(), self.count as usize);
        let mut known = Known::new();
        let fitting = sets.into_iter().filter_map(|set| Some((self.cost(&set, &mut known)?, set)));
        let (_, best) = fitting.min_by(|(a, _), (b, _)| a.cmp(b))?;
        let mut named: Vec<(u32, GpuUuid, u32, bool)> = best
            .into_iter()
            .map(|(number, start, adopted)| {
                let gpu = &self.chips[number].gpu;
                (gpu.index, gpu.uuid.clone(), start, adopted)
            })
            .collect();
        named.sort();
        Some(named.into_iter().map(|(_, gpu, start, adopted)| (gpu, start, adopted)).collect())
    }

    /// The criteria in their order, less is better; `None` where it cannot be.
    fn cost(&self, set: &[(usize, u32, bool)], known: &mut Known) -> Option<impl Ord + use<>> {
        let made = set.iter().filter(|(_, _, adopted)| !adopted).count();
        let (mut loss, mut spare) = (0, 0);
        let touched: BTreeSet<usize> = set.iter().map(|(number, _, _)| *number).collect();
        for number in &touched {
            let Chip { gpu, on, .. } = &self.chips[*number];
            let kind = gpu.profiles.iter().position(|one| one.name == self.asked)?;
            let before: Vec<On> = on.iter().map(|(one, _)| *one).collect();
            let here = set.iter().filter(|(other, _, _)| other == number);
            let new = here.clone().filter(|(_, _, adopted)| !adopted);
            let new: Vec<On> = new.map(|(_, start, _)| (kind, *start)).collect();
            let after = [before.clone(), new].concat();
            let added = known.entry((*number, after.clone())).or_insert_with(|| {
                goes_together(gpu, &after).then_some(())?;
                Some(self.loss(gpu, &after) - self.loss(gpu, &before))
            });
            loss += (*added)?;
            spare += free(gpu, &before) * here.count() as u32;
        }
        let mut names: Vec<(GpuUuid, u32)> =
            set.iter().map(|(n, start, _)| (self.chips[*n].gpu.uuid.clone(), *start)).collect();
        names.sort();
        let (gpus, starts): (Vec<GpuUuid>, Vec<u32>) = names.into_iter().unzip();
        Some((made, loss, touched.len(), spare, gpus, starts))
    }

    /// The scene once everything that is being given back, and everything idle, is gone.
    fn later(&self) -> Self {
        let mut later = self.clone();
        for chip in &mut later.chips {
            chip.on.retain(|(_, whose)| ![Whose::Leaving, Whose::Idle].contains(whose));
            if chip.state == State::Leaving {
                chip.state = State::Open;
            }
        }
        later
    }
}

fn subsets<T: Clone>(all: &[T], number: usize) -> Vec<Vec<T>> {
    match all.split_first() {
        _ if number == 0 => vec![Vec::new()],
        None => Vec::new(),
        Some((first, others)) => {
            let with = subsets(others, number - 1).into_iter();
            let with = with.map(|set| [vec![first.clone()], set].concat());
            with.chain(subsets(others, number)).collect()
        }
    }
}

/// Tries, one after the other, to put instances on a GPU.
fn fill(gpu: &Gpu, tries: &[(usize, usize, usize)]) -> Vec<(On, Whose)> {
    let mut on: Vec<(On, Whose)> = Vec::new();
    for (kind, start, whose) in tries {
        let kind = kind % gpu.profiles.len();
        let starts = &gpu.profiles[kind].starts;
        let one = (kind, starts[start % starts.len()]);
        let all: Vec<On> = on.iter().map(|(one, _)| *one).chain([one]).collect();
        if goes_together(gpu, &all) {
            on.push((one, [Whose::Held, Whose::Leaving, Whose::Idle, Whose::Foreign][*whose % 4]));
        }
    }
    on
}

fn observed(gpu: &mut Gpu, on: &[(On, Whose)]) {
    let instance = |(id, ((kind, start), _)): (u32, &(On, Whose))| Instance {
        gpu_instance: id,
        profile: gpu.profiles[*kind].id,
        start: *start,
        size: gpu.profiles[*kind].slices,
        compute_instances: Vec::new(),
    };
    gpu.instances = (1..).zip(on).map(instance).collect();
}

/// Up to `most` GPUs of one model, or of two.
fn scenes(model: &'static Model, most: usize) -> impl Strategy<Value = Scene> {
    let states = prop_oneof![
        6 => Just(State::Open),
        1 => Just(State::Whole),
        1 => Just(State::Leaving),
        1 => Just(State::Excluded),
        1 => Just(State::ModeOff),
    ];
    let tries = prop::collection::vec((0..7usize, 0..7usize, 0..4usize), 0..8);
    let names = Just((0..most as u32).collect::<Vec<_>>()).prop_shuffle();
    let chips = prop::collection::vec((states, tries, 0..8usize), 1..=most);
    // Of sums by which the score's unit can be divided, so that its rounding is not what is tested.
    let weights = Just([9u16, 3, 1, 1, 0, 0, 0]).prop_shuffle();
    let other = prop::sample::select(&geometry::ALL[..]);
    let asked = (0..7usize, 1..4u32);
    (names, chips, weights, any::<bool>(), other, asked).prop_map(
        move |(names, chips, weights, weighs, other, (asked, count))| {
            let chips = chips.into_iter().enumerate().map(|(index, (state, tries, odd))| {
                let model = if odd < 2 { other } else { model };
                let mut gpu = model.split(gpu(index as u32, uuid(names[index]), Some(0)));
                let on = match state {
                    State::ModeOff => Vec::new(),
                    _ => fill(&gpu, &tries),
                };
                observed(&mut gpu, &on);
                Chip { gpu, state, on }
            });
            let profiles = model.profiles();
            let mix = profiles.iter().zip(weights).map(|(one, weight)| (one.name.clone(), weight));
            Scene {
                chips: chips.collect(),
                mix: if weighs { mix.collect() } else { BTreeMap::new() },
                asked: profiles[asked % profiles.len()].name.clone(),
                count,
            }
        },
    )
}

fn the_choice_is_the_oracles(scene: &Scene) -> Result<(), TestCaseError> {
    let expected = scene.naive();
    let placement = scene.decide(&scene.asked, scene.count);
    let given = placement.as_ref().ok().map(|placement| {
        let slot = |slot: &plan::mig::Slot| (slot.gpu.clone(), slot.start, slot.adopted);
        placement.slots.iter().map(slot).collect::<Vec<_>>()
    });
    prop_assert_eq!(&given, &expected);
    match placement {
        Ok(placement) => is_sound(scene, &placement),
        Err(refusal) => is_honest(scene, &refusal),
    }
}

/// What is given says what it is, and every GPU has its verdict.
fn is_sound(scene: &Scene, placement: &Placement) -> Result<(), TestCaseError> {
    let parents: Vec<GpuUuid> = scene
        .chips
        .iter()
        .map(|chip| chip.gpu.uuid.clone())
        .filter(|uuid| placement.slots.iter().any(|slot| slot.gpu == *uuid))
        .collect();
    prop_assert_eq!(&placement.gpus, &parents, "the parents, in the driver's order");
    for (chip, candidate) in scene.chips.iter().zip(&placement.candidates) {
        prop_assert_eq!(&chip.gpu.uuid, &candidate.gpu);
        let chosen = parents.contains(&chip.gpu.uuid);
        prop_assert_eq!(candidate.verdict == Verdict::Chosen, chosen);
        for slot in placement.slots.iter().filter(|slot| slot.gpu == chip.gpu.uuid) {
            let profile = chip.gpu.profile(&scene.asked).expect("it has the profile");
            prop_assert_eq!((&slot.name, slot.profile), (&profile.name, profile.id));
            prop_assert_eq!(slot.size, profile.slices);
        }
    }
    let fits_alone = |chip: &Chip| {
        let alone = Scene { chips: vec![chip.clone()], count: 1, ..scene.clone() };
        alone.naive().is_some()
    };
    for (chip, candidate) in scene.chips.iter().zip(&placement.candidates) {
        let unavailable = matches!(candidate.verdict, Verdict::Unavailable(_));
        let passed = matches!(candidate.verdict, Verdict::Passed(_));
        prop_assert!(!unavailable || !fits_alone(chip), "{:?}", candidate);
        prop_assert!(!passed || fits_alone(chip), "{:?}", candidate);
    }
    Ok(())
}

/// With a ceiling on memory besides, the nearest fit still is one, and where none is named there is none.
fn is_honest_below_a_ceiling(scene: &Scene, most: u64) -> Result<(), TestCaseError> {
    let inventory = scene.inventory();
    let memory = |placed: &Placement| -> u64 {
        let of = |slot: &plan::mig::Slot| {
            let gpu = inventory.gpu(&slot.gpu).expect("of this node");
            gpu.profile(&slot.name).expect("of this GPU").memory.0
        };
        placed.slots.iter().map(of).sum()
    };
    let admits = |asked: &ProfileName, count: u32| {
        let placed = scene.decide(asked, count)?;
        let ceiling = Ceiling { gpus: None, memory: Some(Mib(most)) };
        let ceilings = BTreeMap::from([("team".to_owned(), ceiling)]);
        let policy = Policy { ceilings, ..Policy::default() };
        let want = Want::Mig { profile: asked.clone(), count: count.try_into().expect("some") };
        check_ceiling("team", &policy, &want, (0, Mib(0)), (0, Mib(memory(&placed))))
    };
    let fits = |want: &Want| match want {
        Want::Mig { profile, count } => admits(profile, count.get()).is_ok(),
        _ => false,
    };
    let Err(refusal) = admits(&scene.asked, scene.count) else { return Ok(()) };
    let count = scene.count.try_into().expect("some");
    let want = Want::Mig { profile: scene.asked.clone(), count };
    let told = refusal.with_true_nearest(&want, &inventory, fits);
    if let Some(nearest) = told.nearest() {
        prop_assert!(fits(nearest), "{}", told);
    } else if told.is_for_want_of_room() {
        let fewer = (1..scene.count).any(|fewer| admits(&scene.asked, fewer).is_ok());
        prop_assert!(!fewer, "fewer fit, and it is not said: {}", told);
    }
    Ok(())
}

/// What is refused says whether waiting helps, and its nearest fit fits.
fn is_honest(scene: &Scene, refusal: &Refusal) -> Result<(), TestCaseError> {
    let allowed = scene.chips.iter().filter(|chip| chip.state != State::Excluded);
    let split = |chip: &&Chip| chip.state != State::ModeOff;
    let known = |chip: &Chip| chip.gpu.profile(&scene.asked).is_some();
    match refusal {
        Refusal::NoMig { .. } => prop_assert!(!scene.chips.iter().any(|chip| split(&chip))),
        Refusal::UnknownProfile { .. } => prop_assert!(!allowed.filter(split).any(known)),
        Refusal::NoRoom { nearest, releasing, .. } => {
            prop_assert_eq!(*releasing, scene.later().naive().is_some());
            let Nearest::Fit(fit) = nearest else {
                let one = Scene { count: 1, ..scene.clone() };
                prop_assert!(one.naive().is_none(), "one fits, and it is not said");
                return Ok(());
            };
            let Want::Mig { profile: name, count } = fit.as_ref() else {
                panic!("{fit} is of another kind")
            };
            let count = count.get();
            prop_assert!(scene.decide(name, count).is_ok(), "{} does not fit", fit);
            if *name == scene.asked {
                prop_assert!(scene.decide(name, count + 1).is_err(), "more than {} fit", fit);
            }
        }
        other => prop_assert!(false, "{other}"),
    }
    Ok(())
}

macro_rules! against_the_oracle {
    ($($model:ident: $name:ident),+ $(,)?) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(200))]
            $(#[test]
            fn $name(scene in scenes(&geometry::$model, 3)) {
                the_choice_is_the_oracles(&scene)?;
            })+
        }
    };
}

against_the_oracle! {
    A100_40: on_an_a100_with_40_gb_the_choice_is_the_oracles,
    A100_80: on_an_a100_with_80_gb_the_choice_is_the_oracles,
    H100: on_an_h100_the_choice_is_the_oracles,
    H200: on_an_h200_the_choice_is_the_oracles,
    B200: on_a_b200_the_choice_is_the_oracles,
    A30: on_an_a30_the_choice_is_the_oracles,
    RTX_PRO_6000: on_an_rtx_pro_6000_the_choice_is_the_oracles,
    MADE_UP: where_every_rule_binds_the_choice_is_the_oracles,
}

proptest! {
    #[test]
    fn the_nearest_fit_stays_below_a_ceiling(scene in scenes(&geometry::H100, 3), most in 0..200_000u64) {
        is_honest_below_a_ceiling(&scene, most)?;
    }

    #[test]
    fn the_order_of_the_inventory_does_not_matter(
        (scene, shuffled) in scenes(&geometry::H100, 4).prop_flat_map(|scene| {
            let chips = Just(scene.chips.clone()).prop_shuffle();
            (Just(scene), chips)
        }),
    ) {
        let other = Scene { chips: shuffled, ..scene.clone() };
        prop_assert_eq!(
            scene.decide(&scene.asked, scene.count),
            other.decide(&scene.asked, scene.count)
        );
    }
}
