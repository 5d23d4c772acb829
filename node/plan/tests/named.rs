//! MIG instances that are asked for by their UUIDs: had as they stand, or refused one by one.

mod nodes;

use nodes::geometry::A100_80;
use nodes::instances::*;
use nodes::*;
use plan::mig::{ComputeInstance, Devices, Place};
use plan::*;

/// `devices` with the ids of instances as `observed` makes them on the first GPU.
fn named(ids: &[u32]) -> Want {
    let uuid = |id: &u32| format!("MIG-{id:08x}-0000-4000-8000-000000000000");
    Want::Instances(ids.iter().map(|id| uuid(id).parse().expect("a name")).collect())
}

#[test]
fn mig_devices_that_are_named_are_had_as_they_stand() {
    let mut inventory = split(&A100_80, 2);
    observed(&mut inventory, 0, 5, "3g.40gb", 4);
    observed(&mut inventory, 0, 7, "1g.10gb", 0);
    let placement = decide(&named(&[5, 7]), &inventory, &Occupancy::default(), &Policy::default())
        .expect("both are free");
    assert_eq!(places(&placement), [(0, 0), (0, 4)], "by GPU and start");
    assert!(placement.slots.iter().all(|slot| !slot.adopted), "nobody's to take over");
    assert_eq!(placement.gpus, [uuid(0)]);
}

#[test]
fn mig_devices_that_cannot_be_had_are_refused_one_by_one() {
    let mut inventory = split(&A100_80, 1);
    for (id, start) in [(3, 0), (4, 1), (5, 2), (6, 3)] {
        observed(&mut inventory, 0, id, "1g.10gb", start);
    }
    let mut occupancy = sliced(&inventory, &[(0, "1g.10gb", 0, "ns/pod/a")]);
    let (profile, _) = profile(&inventory, 0, "1g.10gb");
    occupancy.idle.push(Place { gpu: uuid(0), profile, start: 1 });
    let refused = |want: &Want, policy: &Policy| {
        decide(want, &inventory, &occupancy, policy).expect_err("refused").to_string()
    };
    let name = |id: u32| format!("MIG-{id:08x}-0000-4000-8000-000000000000");
    assert_eq!(
        refused(&named(&[3, 4, 9, 5]), &Policy::default()),
        format!(
            "berth: no room for devices {},{},{},{}: {}: held by ns/pod/a; {}: kept for whoever asks for mig 1g.10gb; \
             {}: not on this node; {}: free; nearest fit: devices {}",
            name(3),
            name(4),
            name(9),
            name(5),
            name(3),
            name(4),
            name(9),
            name(5),
            name(5)
        )
    );
    assert!(
        refused(&named(&[3]), &Policy::default())
            .ends_with(&format!("nearest fit: devices {}", name(5)))
    );
    let elsewhere = Policy {
        gpus: vec!["GPU-00000009-0000-4000-8000-000000000000".into()],
        ..Policy::default()
    };
    assert_eq!(
        refused(&named(&[5]), &elsewhere),
        format!(
            "berth: no room for devices {}: {}: on {}, which is not in node.gpus; no MIG instance of another's making is free",
            name(5),
            name(5),
            uuid(0)
        )
    );
    assert!(decide(&named(&[5, 6]), &inventory, &occupancy, &Policy::default()).is_ok());
}

#[test]
fn two_parts_of_one_instance_are_not_given_as_two() {
    let mut inventory = split(&A100_80, 1);
    observed(&mut inventory, 0, 5, "3g.40gb", 4);
    let uuid = "MIG-0000000a-0000-4000-8000-000000000000".parse().expect("a name");
    let second = ComputeInstance { id: 1, uuid: Some(uuid) };
    inventory.gpus[0].instances[0].compute_instances.push(second);
    let refused = decide(&named(&[5, 10]), &inventory, &Occupancy::default(), &Policy::default());
    let words = refused.expect_err("they share its memory").to_string();
    assert!(words.contains("a part of one of the others"), "{words}");
}

#[test]
fn a_claim_of_mig_devices_agrees_with_the_very_instances() {
    let mut inventory = split(&A100_80, 1);
    observed(&mut inventory, 0, 5, "3g.40gb", 4);
    observed(&mut inventory, 0, 6, "3g.40gb", 0);
    let value = "MIG-00000005-0000-4000-8000-000000000000";
    let request = Request::parse(&annotations(&[("berth.dev/devices", value)]), None);
    let request = request.expect("well formed").expect("a request");
    let of = |id: &str| {
        let slot = inventory.mig_device(&id.parse().expect("a name")).expect("observed");
        Devices { gpus: vec![], slots: vec![slot] }
    };
    assert_eq!(request.agrees_with(&of(value), "cdi edits", &inventory), Ok(()));
    let other = of("MIG-00000006-0000-4000-8000-000000000000");
    assert!(request.agrees_with(&other, "cdi edits", &inventory).is_err());
    assert!(request.agrees_with(&vec![uuid(0)].into(), "cdi edits", &inventory).is_err());
}

#[test]
fn what_others_gave_is_not_an_instance_that_berth_is_about_to_destroy() {
    let mut inventory = split(&A100_80, 1);
    observed(&mut inventory, 0, 5, "3g.40gb", 4);
    let uuid = "MIG-00000005-0000-4000-8000-000000000000".parse().expect("a name");
    let slot = inventory.mig_device(&uuid).expect("observed");
    let given = Devices { gpus: Vec::new(), slots: vec![slot.clone()] };
    let mut occupancy = Occupancy::default();
    assert!(place::external("device plugin", &given, &inventory, &occupancy).is_ok());
    occupancy.idle.push(slot.place());
    let refusal = place::external("device plugin", &given, &inventory, &occupancy);
    let refusal = refusal.expect_err("it is Berth's");
    assert!(refusal.is_waiting_for_release(), "{refusal}");
    // Nor one that is to come where such a one still stands.
    let (profile, _) = profile(&inventory, 0, "1g.10gb");
    let small = inventory.slot(&Place { gpu: slot.gpu, profile, start: 6 }).expect("a slot");
    let given = Devices { gpus: Vec::new(), slots: vec![small] };
    assert!(place::external("device plugin", &given, &inventory, &occupancy).is_err());
}
