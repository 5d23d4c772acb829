//! MIG instances on machines as they are: which slices, in what words the others are passed over or refused, and which GPU would be switched.

mod nodes;

use nodes::geometry::{A100_40, A100_80, H100, H200, MADE_UP, RTX_PRO_6000};
use nodes::instances::*;
use nodes::*;
use plan::mig::{Devices, Mix, Place, Slot, to_switch};
use plan::policy::Audience;
use plan::trust::{Asker, Pod};
use plan::*;

fn mig(text: &str) -> Want {
    let (count, name) = text.split_once('x').unwrap_or(("1", text));
    let count = count.parse().expect("a number");
    Want::Mig { profile: name.parse().expect("a name"), count }
}

fn placed(want: &str, inventory: &Inventory, occupancy: &Occupancy<'_>) -> Placement {
    decide(&mig(want), inventory, occupancy, &Policy::default())
        .unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn refusal(want: &str, inventory: &Inventory, occupancy: &Occupancy<'_>) -> Refusal {
    decide(&mig(want), inventory, occupancy, &Policy::default()).expect_err("there is no room")
}

#[test]
fn a_small_instance_takes_the_slice_that_nothing_larger_can_use() {
    let inventory = split(&A100_80, 2);
    assert_eq!(places(&placed("1g.10gb", &inventory, &Occupancy::default())), [(0, 6)]);
    let half = sliced(&inventory, &[(1, "3g.40gb", 0, "a/b/c")]);
    assert_eq!(places(&placed("1g.10gb", &inventory, &half)), [(1, 6)], "an empty GPU stays whole");
    assert_eq!(places(&placed("3g.40gb", &inventory, &half)), [(1, 4)]);
    assert_eq!(places(&placed("7g.80gb", &inventory, &half)), [(0, 0)]);
}

#[test]
fn a_half_leaves_the_half_in_which_the_larger_profile_begins() {
    let inventory = split(&H100, 1);
    assert_eq!(places(&placed("3g.40gb", &inventory, &Occupancy::default())), [(0, 4)]);
}

#[test]
fn several_instances_share_a_gpu_where_that_costs_nothing() {
    let inventory = split(&H100, 3);
    let none = Occupancy::default();
    assert_eq!(places(&placed("2x3g.40gb", &inventory, &none)), [(0, 0), (0, 4)]);
    assert_eq!(places(&placed("7x1g.10gb", &inventory, &none)).len(), 7);
    assert_eq!(placed("7x1g.10gb", &inventory, &none).gpus, [uuid(0)]);
    let three = placed("3x3g.40gb", &inventory, &none);
    assert_eq!(
        (places(&three), three.gpus),
        (vec![(0, 0), (0, 4), (1, 4)], vec![uuid(0), uuid(1)])
    );
}

#[test]
fn gpus_of_two_kinds_are_told_apart_by_what_they_offer_not_by_names() {
    let mut inventory = split(&A100_80, 2);
    inventory.gpus[1] = MADE_UP.split(gpu(1, uuid(1), None));
    let none = Occupancy::default();
    assert_eq!(placed("11x1g.10gb", &inventory, &none).slots.len(), 11, "seven and four");
    let words = refusal("12x1g.10gb", &inventory, &none).to_string();
    assert!(words.ends_with("has room for 4; nearest fit: 11x1g.10gb"), "{words}");
}

#[test]
fn an_idle_instance_is_taken_over_rather_than_another_made() {
    let mut inventory = split(&A100_40, 2);
    observed(&mut inventory, 1, 3, "1g.5gb", 2);
    let (profile, _) = profile(&inventory, 1, "1g.5gb");
    let idle = vec![Place { gpu: uuid(1), profile, start: 2 }];
    let occupancy = Occupancy { idle, ..Occupancy::default() };
    let one = placed("1g.5gb", &inventory, &occupancy);
    assert_eq!((places(&one), one.slots[0].adopted), (vec![(1, 2)], true));
    let two = placed("2x1g.5gb", &inventory, &occupancy);
    assert_eq!(places(&two), [(1, 2), (1, 3)], "the other half of a pair");
    assert_eq!(two.slots.iter().map(|slot| slot.adopted).collect::<Vec<_>>(), [true, false]);
    let why = &one.candidates[0].verdict;
    assert_eq!(*why, Verdict::Passed("it has no idle instance to take over".into()));
    // What is idle still fills its slice, and waiting for it to go helps.
    let all = refusal("2x7g.40gb", &inventory, &occupancy);
    assert!(all.is_waiting_for_release(), "{all}");
}

#[test]
fn idle_instances_fill_their_slices_and_are_there_once() {
    let mut inventory = split(&A100_40, 1);
    observed(&mut inventory, 0, 3, "3g.20gb", 0);
    let (profile, _) = profile(&inventory, 0, "3g.20gb");
    let place = |profile, start| Place { gpu: uuid(0), profile, start };
    let twice = vec![place(profile, 0), place(profile, 0), place(77, 4)];
    let mut occupancy = Occupancy { idle: twice, ..Occupancy::default() };
    assert_eq!(places(&placed("2x3g.20gb", &inventory, &occupancy)), [(0, 0), (0, 4)]);
    let words = refusal("3x3g.20gb", &inventory, &occupancy).to_string();
    assert!(words.ends_with("has room for 2; nearest fit: 2x3g.20gb"), "{words}");
    // Of a profile that the driver does not offer, as it is seen.
    inventory.gpus[0].instances[0].profile = 77;
    occupancy.idle = vec![place(77, 0)];
    assert_eq!(places(&placed("3g.20gb", &inventory, &occupancy)), [(0, 4)]);
    let mut only = inventory.clone();
    only.gpus[0].profiles.retain(|profile| profile.name.as_str() == "7g.40gb");
    let words = refusal("7g.40gb", &only, &occupancy).to_string();
    assert!(words.contains("4 of 8 slices free") && !words.contains("did not make"), "{words}");
    // Held again by somebody, it is theirs.
    inventory.gpus[0].instances[0].profile = profile;
    let mut held = sliced(&inventory, &[(0, "3g.20gb", 0, "a/b/c")]);
    held.idle = vec![place(profile, 0)];
    let placement = placed("3g.20gb", &inventory, &held);
    assert_eq!((places(&placement), placement.slots[0].adopted), (vec![(0, 4)], false));
}

#[test]
fn whole_gpus_and_mig_gpus_keep_out_of_each_others_way() {
    let mut inventory = p5();
    for index in 4..8 {
        inventory.gpus[index] = H100.split(inventory.gpus[index].clone());
    }
    let none = Occupancy::default();
    assert_eq!(places(&placed("1g.10gb", &inventory, &none)), [(4, 6)]);
    let whole = |number| decide(&whole(number), &inventory, &none, &Policy::default());
    assert_eq!(numbers(&whole(4).expect("four are whole").gpus), [0, 1, 2, 3]);
    assert!(whole(5).expect_err("four are split").to_string().contains(": in MIG mode"));
    let mut taken = held(&[4, 5, 6]);
    taken.holders.insert(uuid(7), vec![Holder { external: true, ..holder("ml/a/b") }]);
    let words = refusal("1g.10gb", &inventory, &taken).to_string();
    assert!(words.contains("GPU-00000000-0000-4000-8000-000000000000: not in MIG mode"), "{words}");
    assert!(
        words.contains("GPU-00000004-0000-4000-8000-000000000000: held by ns/pod-4/c"),
        "{words}"
    );
    assert!(
        words.ends_with("held by ml/a/b (another allocator's); nothing smaller fits"),
        "{words}"
    );
}

#[test]
fn slices_that_are_held_keep_a_gpu_from_being_given_as_a_whole() {
    let mut inventory = split(&H100, 1);
    let occupancy = sliced(&inventory, &[(0, "1g.10gb", 0, "a/b/c")]);
    inventory.gpus[0].mig = false;
    let no = decide(&whole(1), &inventory, &occupancy, &Policy::default()).expect_err("held");
    assert!(no.to_string().contains(": in slices held by a/b/c; nothing is free"), "{no}");
}

#[test]
fn no_room_names_every_gpu_and_the_nearest_fit() {
    let inventory = split(&A100_80, 2);
    let occupancy = sliced(
        &inventory,
        &[
            (0, "2g.20gb", 0, "ns/a/c"),
            (0, "1g.10gb", 4, "ns/b/c"),
            (0, "1g.10gb", 5, "ns/d/c"),
            (0, "1g.10gb", 6, "ns/e/c"),
            (1, "7g.80gb", 0, "ns/pod/c"),
        ],
    );
    assert_eq!(
        refusal("3g.40gb", &inventory, &occupancy).to_string(),
        "berth: no room for mig 3g.40gb: GPU-00000000-0000-4000-8000-000000000000: 3 of 8 slices free, not contiguous; \
         GPU-00000001-0000-4000-8000-000000000000: held by 7g.80gb (ns/pod/c); nearest fit: 2g.20gb"
    );
    let scattered = sliced(
        &inventory,
        &[(0, "1g.10gb", 1, "ns/a/c"), (0, "1g.10gb", 5, "ns/b/c"), (1, "7g.80gb", 0, "ns/pod/c")],
    );
    assert_eq!(
        refusal("2x3g.40gb", &inventory, &scattered).to_string(),
        "berth: no room for mig 2x3g.40gb: GPU-00000000-0000-4000-8000-000000000000: 6 of 8 slices free, not contiguous; \
         GPU-00000001-0000-4000-8000-000000000000: held by 7g.80gb (ns/pod/c); nearest fit: 2g.20gb"
    );
}

#[test]
fn each_reason_why_slices_do_not_do_has_its_words() {
    let inventory = split(&A100_80, 1);
    let says = |want: &str, held: &[(u32, &str, u32, &'static str)], words: &str| {
        let refusal = refusal(want, &inventory, &sliced(&inventory, held)).to_string();
        assert!(refusal.contains(words), "{refusal}");
    };
    let me = [(0, "1g.10gb+me", 3, "a/b/c")];
    says(
        "1g.10gb+me",
        &me,
        "7 of 8 slices free, but it has all 1 of 1g.10gb+me that there can be; nearest fit: 1g.10gb",
    );
    let middle = [(0, "1g.10gb", 0, "a/b/c"), (0, "1g.10gb", 6, "a/d/c")];
    says(
        "3g.40gb",
        &middle,
        "6 of 8 slices free, but 3g.40gb cannot begin there; nearest fit: 2g.20gb",
    );
    let three =
        [(0, "4g.40gb", 0, "a/b/c"), (0, "2g.20gb", 4, "a/d/c"), (0, "1g.10gb", 6, "a/e/c")];
    says("1g.10gb", &three, "1 of 8 slices free, but only 0 compute slices; nothing smaller fits");
    says("2x4g.40gb", &[], "has room for 1; nearest fit: 4g.40gb");
    says("3x3g.40gb", &[], "has room for 2; nearest fit: 2x3g.40gb");
    let halves = [(0, "3g.40gb", 0, "a/b/c"), (0, "3g.40gb", 4, "a/d/c")];
    says("1g.10gb", &halves, "held by 3g.40gb (a/b/c) and 3g.40gb (a/d/c); nothing smaller fits");
}

#[test]
fn instances_that_berth_did_not_make_stay_and_are_named() {
    let mut inventory = split(&A100_80, 1);
    observed(&mut inventory, 0, 5, "4g.40gb", 0);
    let none = Occupancy::default();
    assert_eq!(places(&placed("3g.40gb", &inventory, &none)), [(0, 4)]);
    assert_eq!(
        refusal("4g.40gb", &inventory, &none).to_string(),
        "berth: no room for mig 4g.40gb: GPU-00000000-0000-4000-8000-000000000000: 4 of 8 slices free, but it has all 1 of \
         4g.40gb that there can be, beside an instance that Berth did not make; nearest fit: 3g.40gb"
    );
    observed(&mut inventory, 0, 6, "3g.40gb", 4);
    assert_eq!(
        refusal("1g.10gb", &inventory, &none).to_string(),
        "berth: no room for mig 1g.10gb: GPU-00000000-0000-4000-8000-000000000000: held by 4g.40gb (an instance that Berth did not \
         make) and 3g.40gb (an instance that Berth did not make); nothing smaller fits"
    );
    let ours = sliced(&inventory, &[(0, "4g.40gb", 0, "a/b/c")]);
    let words = refusal("1g.10gb", &inventory, &ours).to_string();
    assert!(words.contains("held by 4g.40gb (a/b/c) and 3g.40gb (an instance"), "{words}");
}

#[test]
fn waiting_is_said_to_help_only_where_it_does() {
    let mut inventory = split(&A100_80, 1);
    let mut occupancy =
        sliced(&inventory, &[(0, "3g.40gb", 0, "a/b/c"), (0, "3g.40gb", 4, "a/d/c")]);
    let slices = occupancy.slices.get_mut(&uuid(0)).expect("held");
    slices[0].holder.releasing = true;
    observed(&mut inventory, 0, 1, "3g.40gb", 0);
    observed(&mut inventory, 0, 2, "3g.40gb", 4);
    let soon = refusal("3g.40gb", &inventory, &occupancy);
    assert!(soon.is_waiting_for_release() && soon.to_string().contains("being released by a/b/c"));
    assert!(!refusal("7g.80gb", &inventory, &occupancy).is_waiting_for_release());
}

#[test]
fn an_unknown_profile_is_told_what_the_node_has() {
    let inventory = split(&A100_40, 2);
    let unknown = refusal("2x1g.23gb", &inventory, &Occupancy::default());
    assert_eq!(
        unknown.to_string(),
        "berth: no room for mig 2x1g.23gb: no GPU of this node has that profile; there are 1g.5gb, 1g.5gb+me, 1g.10gb, 2g.10gb, \
         3g.20gb, 4g.20gb and 7g.40gb"
    );
    assert!(!unknown.is_for_want_of_room());
    let mut mixed = split(&A100_40, 1);
    mixed.gpus.push(RTX_PRO_6000.split(gpu(1, uuid(1), None)));
    let words = refusal("5x1g.24gb", &mixed, &Occupancy::default()).to_string();
    assert!(
        words.contains("GPU-00000000-0000-4000-8000-000000000000: has no such profile; "),
        "{words}"
    );
    assert!(words.ends_with("has room for 4; nearest fit: 4x1g.24gb"), "{words}");
}

#[test]
fn a_node_without_a_gpu_in_mig_mode_says_what_could_be_done() {
    let mut inventory = node(&[Some(0); 3], |_, _| (0, Ancestor::Node));
    inventory.gpus[1].mig_capable = false;
    assert_eq!(
        refusal("1g.10gb", &inventory, &Occupancy::default()).to_string(),
        "berth: no room for mig 1g.10gb: no GPU of this node is in MIG mode; GPU-00000000-0000-4000-8000-000000000000 and \
         GPU-00000002-0000-4000-8000-000000000000 could be: the node's operator switches it on (nvidia-smi -i <UUID> -mig 1), or \
         lets Berth do so while a GPU is idle (policy.mig-mode-switch, now \"off\")"
    );
    inventory.gpus.retain(|gpu| !gpu.mig_capable);
    assert_eq!(
        refusal("1g.10gb", &inventory, &Occupancy::default()).to_string(),
        "berth: no room for mig 1g.10gb: no GPU that Berth may hand out here can do MIG; ask for whole GPUs with gpus, or choose \
         another node"
    );
    inventory.gpus.clear();
    assert_eq!(
        refusal("1g.10gb", &inventory, &Occupancy::default()).to_string(),
        "berth: no room for mig 1g.10gb: this node has no GPU; nothing smaller fits"
    );
}

#[test]
fn every_gpu_has_a_verdict_with_its_reason() {
    let mut inventory = split(&A100_80, 5);
    inventory.gpus[4].mig = false;
    let occupancy = sliced(
        &inventory,
        &[(1, "3g.40gb", 0, "a/b/c"), (2, "7g.80gb", 0, "a/d/c"), (3, "3g.40gb", 0, "a/e/c")],
    );
    let placement = placed("1g.10gb", &inventory, &occupancy);
    assert_eq!(places(&placement), [(1, 6)]);
    assert_eq!(placement.closeness, "a single GPU, one NUMA node (0)");
    let verdicts: Vec<Verdict> = placement.candidates.into_iter().map(|one| one.verdict).collect();
    assert_eq!(
        verdicts,
        [
            Verdict::Passed("would leave no room there for 7g.80gb".into()),
            Verdict::Chosen,
            Verdict::Unavailable("held by 7g.80gb (a/d/c)".into()),
            Verdict::Passed("as good; the chosen has the lower UUID".into()),
            Verdict::Unavailable("not in MIG mode".into()),
        ]
    );
}

#[test]
fn what_is_expected_decides_what_room_is_kept() {
    let inventory = split(&A100_80, 1);
    let place = |mix: &[(&str, u16)]| {
        let mix = mix.iter().map(|(name, weight)| (name.parse().expect("a name"), *weight));
        let policy = Policy { mig_mix: Mix(mix.collect()), ..Policy::default() };
        let placed = decide(&mig("3g.40gb"), &inventory, &Occupancy::default(), &policy);
        places(&placed.expect("room"))
    };
    assert_eq!(place(&[("4g.40gb", 1)]), [(0, 4)]);
    assert_eq!(place(&[("1g.10gb", 1)]), [(0, 4)], "from slice 7 no 1g.10gb can begin");
    assert_eq!(place(&[("3g.40gb", 1)]), [(0, 0)]);
}

#[test]
fn what_another_allocator_decided_is_taken_as_it_is_but_never_ours() {
    let mut inventory = split(&H100, 2);
    observed(&mut inventory, 1, 4, "2g.20gb", 2);
    observed(&mut inventory, 1, 9, "1g.10gb", 6);
    let slot = |name: &str| inventory.mig_device(&name.parse().expect("a name")).expect("there");
    let one = slot("MIG-00000004-0000-4000-8000-000000000001");
    assert_eq!((one.start, one.size, one.name.as_str()), (2, 2, "2g.20gb"));
    let legacy = slot(&format!("MIG-{}/9/0", uuid(1)));
    assert_eq!(legacy.start, 6);
    assert_eq!(inventory.slot(&one.place()), Some(one.clone()));
    assert_eq!(inventory.slot(&Place { profile: 77, ..one.place() }), None);
    let given = Devices { gpus: vec![], slots: vec![legacy, one.clone()] };
    let none = Occupancy::default();
    let placement = place::external("device plugin", &given, &inventory, &none).expect("taken");
    assert_eq!(placement.gpus, [uuid(1)]);
    assert_eq!(places(&placement), [(1, 2), (1, 6)]);
    assert_eq!(placement.candidates[1].verdict, Verdict::Chosen);
    let ours = sliced(&inventory, &[(1, "4g.40gb", 0, "a/b/c")]);
    let given = Devices { gpus: vec![], slots: vec![one] };
    assert_eq!(
        place::external("device plugin", &given, &inventory, &ours).expect_err("ours").to_string(),
        "berth: device plugin gave this container 2g.20gb at slice 2 of GPU-00000001-0000-4000-8000-000000000000, which Berth has \
         given to a/b/c; let one of the two allocate: set node.gpus so that Berth leaves the other's GPUs alone"
    );
    let mut theirs = ours.clone();
    theirs.slices.get_mut(&uuid(1)).expect("held")[0].holder.external = true;
    assert!(place::external("device plugin", &given, &inventory, &theirs).is_ok());
    let whole: Devices = vec![uuid(1)].into();
    assert!(place::external("device plugin", &whole, &inventory, &ours).is_err());
}

#[test]
fn a_claim_of_mig_agrees_with_instances_of_the_profile() {
    let slot = |name: &str, start| Slot {
        gpu: uuid(0),
        profile: 14,
        name: name.parse().expect("a name"),
        start,
        size: 2,
        adopted: false,
    };
    let annotations = annotations(&[("berth.dev/mig", "2x2g.20gb")]);
    let request = Request::parse(&annotations, None).expect("well formed").expect("a request");
    let nothing = Inventory::default();
    let given = |slots: Vec<Slot>| Devices { gpus: vec![], slots };
    let two = given(vec![slot("2g.20gb", 0), slot("2g.20gb", 2)]);
    assert_eq!(request.agrees_with(&two, "device plugin", &nothing), Ok(()));
    for other in [
        given(vec![slot("2g.20gb", 0)]),
        given(vec![slot("2g.20gb", 0), slot("1g.20gb", 2)]),
        vec![uuid(0), uuid(1)].into(),
    ] {
        assert!(request.agrees_with(&other, "device plugin", &nothing).is_err());
    }
    let one = given(vec![slot("2g.20gb", 4)]);
    assert_eq!(
        request
            .agrees_with(&one, "device plugin", &nothing)
            .expect_err("one is not two")
            .to_string(),
        "berth: annotation berth.dev/mig=\"2x2g.20gb\": device plugin has already given this container \
         2g.20gb at 4 of GPU-00000000-0000-4000-8000-000000000000; ask for the same, or ask for nothing"
    );
}

fn allowed() -> Policy {
    Policy { mig_mode_switch: Audience::All, ..Policy::default() }
}

#[test]
fn a_gpu_is_switched_only_where_the_policy_lets_the_asker() {
    let inventory = p5();
    let switched = |audience, asker: &Asker| {
        let policy = Policy { mig_mode_switch: audience, ..Policy::default() };
        to_switch(&mig("1g.10gb"), &inventory, &held(&[]), &policy, asker)
    };
    let pod = Asker { pod: Some(Pod::default()), ..Asker::default() };
    let plain = Asker::default();
    assert_eq!(Policy::default().mig_mode_switch, Audience::Off);
    assert_eq!(switched(Audience::Off, &plain), None);
    assert_eq!(switched(Audience::NonCri, &pod), None);
    assert!(switched(Audience::NonCri, &plain).is_some());
    assert!(switched(Audience::All, &pod).is_some());
}

#[test]
fn the_gpu_that_is_switched_is_idle_capable_and_the_least_loss() {
    let asker = Asker::default();
    let switched = |inventory: &Inventory, taken: &[u32], want: &str| {
        let gpu = to_switch(&mig(want), inventory, &held(taken), &allowed(), &asker);
        gpu.map(|gpu| numbers(&[gpu])[0])
    };
    let mut inventory = p5();
    assert_eq!(switched(&inventory, &[], "1g.10gb"), Some(0));
    assert_eq!(switched(&inventory, &[0], "1g.10gb"), Some(1), "its group is broken already");
    assert_eq!(switched(&inventory, &[4, 5, 6], "1g.10gb"), Some(7));
    inventory.gpus[7].mig_capable = false;
    assert_eq!(switched(&inventory, &[4, 5, 6], "1g.10gb"), Some(0));
    assert_eq!(switched(&inventory, &[0, 1, 2, 3, 4, 5, 6], "1g.10gb"), None);
    assert_eq!(switched(&inventory, &[], "1g.18gb"), None, "that is no eighth of it");
    assert_eq!(switched(&inventory, &[], "8x7g.80gb"), None, "seven can be switched");
    assert_eq!(switched(&inventory, &[], "7x7g.80gb"), Some(0), "one at a time");
}

#[test]
fn nothing_is_switched_where_there_is_room_or_where_it_would_not_help() {
    let asker = Asker::default();
    let mut inventory = p5();
    inventory.gpus[2] = H100.split(inventory.gpus[2].clone());
    inventory.gpus[3].memory = inventory.gpus[2].memory;
    let switched = |want: &str, taken: &Occupancy<'_>| {
        let gpu = to_switch(&mig(want), &inventory, taken, &allowed(), &asker);
        gpu.map(|gpu| numbers(&[gpu])[0])
    };
    assert_eq!(switched("1g.10gb", &Occupancy::default()), None);
    let full = sliced(&inventory, &[(2, "7g.80gb", 0, "a/b/c")]);
    assert_eq!(switched("1g.10gb", &full), Some(0));
    assert_eq!(switched("1g.18gb", &full), None, "an H100 in MIG mode shows what it has");
    let want = Want::Whole(1.try_into().expect("one"));
    assert_eq!(to_switch(&want, &inventory, &full, &allowed(), &asker), None);
    let mut large = p5();
    for gpu in &mut large.gpus {
        (gpu.model, gpu.memory) = (H200.name.into(), Mib(H200.memory));
    }
    let at = |want: &str| to_switch(&mig(want), &large, &held(&[]), &allowed(), &asker).is_some();
    assert!(at("1g.18gb") && at("1g.35gb") && at("3g.71gb") && at("7g.141gb") && !at("1g.10gb"));
}
