//! Requests as users write them, right and wrong, with the words that they get back.

mod nodes;

use std::collections::BTreeMap;

use nodes::*;
use plan::*;
use proptest::prelude::*;

fn parse(pairs: &[(&str, &str)], name: Option<&str>) -> Option<Request> {
    Request::parse(&annotations(pairs), name).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn refused(pairs: &[(&str, &str)], name: Option<&str>) -> String {
    match Request::parse(&annotations(pairs), name) {
        Ok(request) => panic!("accepted: {request:?}"),
        Err(refusal) => refusal.to_string(),
    }
}

fn want(pairs: &[(&str, &str)], name: Option<&str>) -> Option<Want> {
    parse(pairs, name).expect("a request").want
}

#[test]
fn a_container_that_says_nothing_of_berth_has_no_request() {
    assert_eq!(parse(&[], None), None);
    let others = [("io.kubernetes.cri.container-type", "container"), ("example.com/gpus", "2")];
    assert_eq!(parse(&others, Some("a")), None);
    assert_eq!(parse(&[("notberth.dev/gpus", "2"), ("berth.dev.evil.com/gpus", "2")], None), None);
}

#[test]
fn gpus_of_the_pod_are_the_pods_claim() {
    let request = parse(&[("berth.dev/gpus", "2")], Some("trainer")).expect("a request");
    assert_eq!(request.want, Some(whole(2)));
    assert_eq!(request.scope, Scope::Pod);
    assert!(!request.opted_out);
    assert_eq!(request.written, annotations(&[("berth.dev/gpus", "2")]));
}

#[test]
fn outside_pods_a_claim_that_addresses_a_container_is_refused_not_lost() {
    let words = refused(&[("web.berth.dev/gpus", "1")], None);
    assert!(
        words.contains("web.berth.dev/gpus") && words.ends_with("write berth.dev/gpus"),
        "{words}"
    );
}

#[test]
fn outside_pods_the_claim_is_the_containers() {
    let request = parse(&[("berth.dev/gpus", "1")], None).expect("a request");
    assert_eq!(request.scope, Scope::Container);
}

#[test]
fn a_containers_own_claim_beats_the_pods_and_inherits_none_of_it() {
    let own = uuid(3).to_string();
    let pairs = [("berth.dev/gpus", "2"), ("trainer.berth.dev/devices", own.as_str())];
    let request = parse(&pairs, Some("trainer")).expect("a request");
    assert_eq!(request.want, Some(Want::Exactly(vec![uuid(3)])));
    assert_eq!(request.scope, Scope::Container);
    assert_eq!(request.written, annotations(&[("trainer.berth.dev/devices", &own)]));
    assert_eq!(want(&pairs, Some("exporter")), Some(whole(2)), "the others keep the pod's");
}

#[test]
fn other_fields_override_singly_and_make_no_claim() {
    let pairs = [
        ("berth.dev/gpus", "2"),
        ("berth.dev/driver-capabilities", "compute,utility"),
        ("trainer.berth.dev/driver-capabilities", "compute"),
        ("trainer.berth.dev/numa", "off"),
    ];
    let request = parse(&pairs, Some("trainer")).expect("a request");
    assert_eq!((request.want, request.scope), (Some(whole(2)), Scope::Pod));
    assert_eq!(request.capabilities.expect("some").to_string(), "compute");
    assert_eq!(request.written.len(), 3, "the overridden annotation is not part of it");
}

#[test]
fn none_opts_a_container_out() {
    let pairs = [("berth.dev/gpus", "2"), ("logger.berth.dev/gpus", "none")];
    let request = parse(&pairs, Some("logger")).expect("a request");
    assert_eq!((request.want, request.opted_out), (None, true));
    assert_eq!(want(&pairs, Some("trainer")), Some(whole(2)));
}

#[test]
fn none_without_a_containers_name_is_refused() {
    assert_eq!(
        refused(&[("berth.dev/gpus", "none")], Some("a")),
        "berth: annotation berth.dev/gpus=\"none\": only <container>.berth.dev/gpus can be none: it takes that container \
         out of the pod's claim; write for example berth.dev/gpus: \"2\""
    );
}

#[test]
fn a_typo_addressed_to_another_container_is_not_this_ones_fault() {
    let pairs = [("berth.dev/gpus", "1"), ("b.berth.dev/gpsu", "?"), ("b.berth.dev/gpus", "-1")];
    assert_eq!(want(&pairs, Some("a")), Some(whole(1)));
    assert!(refused(&pairs, Some("b")).contains("b.berth.dev/gpsu"));
}

#[test]
fn numbers_of_gpus_are_plain() {
    for (text, number) in [("1", 1), ("8", 8), ("64", 64)] {
        assert_eq!(want(&[("berth.dev/gpus", text)], None), Some(whole(number)));
    }
    for (text, problem) in [
        ("", "it is empty"),
        ("0", "no GPUs is no request"),
        ("00", "no GPUs is no request"),
        ("02", "a number has no leading zeros"),
        ("65", "one claim has at most 64 GPUs"),
        ("99999999999999999999", "one claim has at most 64 GPUs"),
        ("+1", "it is not a whole number of GPUs"),
        ("-1", "it is not a whole number of GPUs"),
        ("1.5", "it is not a whole number of GPUs"),
        (" 1", "it is not a whole number of GPUs"),
        ("two", "it is not a whole number of GPUs"),
        ("\u{ff12}", "\"\u{ff12}\" is not one of the digits 0 to 9"),
        ("1\u{0662}", "\"\u{0662}\" is not one of the digits 0 to 9"),
    ] {
        let words = refused(&[("berth.dev/gpus", text)], None);
        assert!(words.contains(problem), "{text:?}: {words}");
        assert!(words.ends_with("; write for example berth.dev/gpus: \"2\""), "{words}");
    }
}

#[test]
fn mig_is_a_profile_and_perhaps_how_many_of_it() {
    for (text, name, number) in [
        ("1g.10gb", "1g.10gb", 1),
        ("2x3g.40gb", "3g.40gb", 2),
        ("64x1g.10gb+ME", "1g.10gb+me", 64),
        ("1x4g.96gb+gfx", "4g.96gb+gfx", 1),
    ] {
        let asked = want(&[("berth.dev/mig", text)], None).expect(text);
        let count = number.try_into().expect("not zero");
        assert_eq!(asked, Want::Mig { profile: name.parse().expect(name), count });
    }
    for (text, problem) in [
        ("", "it names no profile"),
        ("2x", "it names no profile"),
        ("0x1g.10gb", "no instances are no request"),
        ("00x1g.10gb", "no instances are no request"),
        ("02x1g.10gb", "a number has no leading zeros"),
        ("65x1g.10gb", "one claim has at most 64 MIG instances"),
        ("1000x1g.10gb", "one claim has at most 64 MIG instances"),
        ("99999999999999999999x1g.10gb", "one claim has at most 64 MIG instances"),
        ("-1x1g.10gb", "\"-1\" is not a number of MIG instances"),
        (" 2x1g.10gb", "\" 2\" is not a number of MIG instances"),
        ("x1g.10gb", "\"\" is not a number of MIG instances"),
        ("2x 1g.10gb", "\" 1g.10gb\" is not a MIG profile's name"),
        ("2X1g.10gb", "\"2X1g.10gb\" is not a MIG profile's name"),
        ("1g.10gb,2g.20gb", "one claim has instances of one profile"),
        ("1g.10gbx2", "\"1g.10gbx2\" is not a MIG profile's name"),
        ("1c.3g.40gb", "\"1c.3g.40gb\" is not a MIG profile's name"),
        ("all", "\"all\" is not a MIG profile's name"),
        ("2", "\"2\" is not a MIG profile's name"),
    ] {
        let words = refused(&[("berth.dev/mig", text)], None);
        assert!(words.contains(problem), "{text:?}: {words}");
        assert!(words.ends_with("; write for example berth.dev/mig: \"2x3g.40gb\""), "{words}");
    }
    assert_eq!(
        refused(&[("berth.dev/mig", "1000x1g.10gb")], None),
        "berth: annotation berth.dev/mig=\"1000x1g.10gb\": one claim has at most 64 MIG instances; \
         write for example berth.dev/mig: \"2x3g.40gb\""
    );
}

#[test]
fn devices_are_uuids_each_once() {
    let both = format!(" {} , {} ", uuid(2), uuid(1));
    let asked = want(&[("berth.dev/devices", &both)], None);
    assert_eq!(asked, Some(Want::Exactly(vec![uuid(2), uuid(1)])), "in the order written");
    let twice = format!("{},{}", uuid(1), uuid(1));
    for (text, problem) in [
        ("", "a device's name is empty"),
        ("GPU-00000001-0000-4000-8000-000000000000,", "a device's name is empty"),
        (&twice, "GPU-00000001-0000-4000-8000-000000000000 is named twice"),
        ("0", "\"0\" is an index, and indices change: name the GPU's UUID"),
        ("GPU-1", "\"GPU-1\" is not a GPU's UUID"),
        ("all", "\"all\" is not a GPU's UUID"),
    ] {
        let words = refused(&[("berth.dev/devices", text)], None);
        assert!(words.contains(problem), "{text:?}: {words}");
    }
}

#[test]
fn devices_are_of_one_kind() {
    let mig = "MIG-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d";
    let other = "MIG-6c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d";
    let both = format!("{mig},{other}");
    let asked = want(&[("berth.dev/devices", &both)], None);
    let uuids = [mig, other].map(|uuid| uuid.parse().expect("a name"));
    assert_eq!(asked, Some(Want::Instances(uuids.to_vec())));
    let mixed = format!("{mig},{}", uuid(1));
    for (text, problem) in [
        (mixed.as_str(), "whole GPUs and MIG devices do not go together: no program can use both"),
        ("MIG-5", "\"MIG-5\" is not a MIG device's UUID"),
        (&format!("{mig},{mig}"), "MIG-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d is named twice"),
    ] {
        let words = refused(&[("berth.dev/devices", text)], None);
        assert!(words.contains(problem), "{text:?}: {words}");
    }
}

#[test]
fn fields_of_later_versions_say_so_and_what_to_do() {
    for (field, value) in [("memory", "8Gi"), ("compute", "25%"), ("isolation", "limited")] {
        let words = refused(&[(&format!("berth.dev/{field}"), value)], None);
        assert!(words.contains("is not in this version; "), "{field}: {words}");
    }
    assert_eq!(
        refused(&[("berth.dev/memory", "8Gi")], None),
        "berth: annotation berth.dev/memory=\"8Gi\": memory is not in this version; ask for whole GPUs with gpus, or for a part of one with mig"
    );
    assert_eq!(
        refused(&[("berth.dev/gpus", "1"), ("berth.dev/isolation", "view")], None),
        "berth: annotation berth.dev/isolation=\"view\": isolation: view is not in this version; write any, or leave it out"
    );
}

#[test]
fn every_part_of_the_driver_may_be_asked_for_and_compat32_beside_others_only() {
    let asked = |value: &str| {
        let request =
            parse(&[("berth.dev/gpus", "1"), ("berth.dev/driver-capabilities", value)], None);
        request.and_then(|request| request.capabilities).expect("some").to_string()
    };
    assert_eq!(asked("graphics, display,video,ngx"), "video,graphics,display,ngx");
    assert_eq!(asked("compat32,utility"), "utility,compat32");
    assert_eq!(asked("all"), "compute,utility,video,graphics,display,ngx,compat32");
    assert_eq!(
        refused(&[("berth.dev/gpus", "1"), ("berth.dev/driver-capabilities", "compat32")], None),
        "berth: annotation berth.dev/driver-capabilities=\"compat32\": compat32 brings the 32-bit libraries of those that stand beside it, \
         and none does; write for example berth.dev/driver-capabilities: \"compute,utility,compat32\""
    );
}

#[test]
fn extras_are_read_and_a_container_may_take_none_of_its_pods() {
    let pod = ("berth.dev/extras", "rdma, gds");
    let request = parse(&[("berth.dev/gpus", "1"), pod], Some("a")).expect("a request");
    assert_eq!(request.extras.to_string(), "gds,rdma");
    assert_eq!(request.extras_key(), "berth.dev/extras");
    for (own, left) in [("none", ""), ("imex", "imex")] {
        let pairs = [("berth.dev/gpus", "1"), pod, ("a.berth.dev/extras", own)];
        let request = parse(&pairs, Some("a")).expect("a request");
        assert_eq!((request.extras.to_string().as_str(), request.scope), (left, Scope::Pod));
        assert_eq!(request.extras_key(), "a.berth.dev/extras");
        let others = parse(&pairs, Some("b")).expect("a request");
        assert_eq!(others.extras.to_string(), "gds,rdma");
    }
    assert!(parse(&[("berth.dev/gpus", "1")], None).expect("a request").extras.is_empty());
    assert_eq!(
        refused(&[("berth.dev/gpus", "1"), ("berth.dev/extras", "rdma,nvlink")], None),
        "berth: annotation berth.dev/extras=\"rdma,nvlink\": \"nvlink\" is not an extra (gds, rdma, gdrcopy, imex, nvswitch; \
         or none, alone); write for example berth.dev/extras: \"gds,rdma\""
    );
}

#[test]
fn cpus_and_memory_are_read_and_the_containers_own_beat_the_pods() {
    let asked = |value: &str| match parse(&[("berth.dev/cpus", value)], None) {
        Some(request) => request.cpus,
        None => panic!("{value}: no request"),
    };
    let eight = Cpus::Exclusively(std::num::NonZeroU32::new(8).expect("eight"));
    assert_eq!([asked("auto"), asked("off"), asked("8")], [Cpus::Auto, Cpus::Off, eight]);
    let pairs =
        [("berth.dev/cpus", "off"), ("a.berth.dev/cpus", "8"), ("berth.dev/numa", "strict")];
    let own = parse(&pairs, Some("a")).expect("a request");
    assert_eq!((own.cpus, own.own_cpus, own.numa), (eight, true, Numa::Strict));
    assert_eq!(
        (own.cpus_key(), own.numa_key()),
        ("a.berth.dev/cpus".into(), "berth.dev/numa".into())
    );
    let other = parse(&pairs, Some("b")).expect("a request");
    assert_eq!((other.cpus, other.own_cpus), (Cpus::Off, false));
    let plain = parse(&[("berth.dev/gpus", "1")], None).expect("a request");
    assert_eq!((plain.cpus, plain.numa), (Cpus::Auto, Numa::Prefer));
    let words = refused(&[("berth.dev/cpus", "9000")], None);
    assert!(words.contains("at most 8192 CPUs"), "{words}");
}

#[test]
fn values_of_fields_that_make_no_claim_are_accepted() {
    for (field, value) in [
        ("cpus", "auto"),
        ("cpus", "off"),
        ("cpus", "8"),
        ("numa", "prefer"),
        ("numa", "strict"),
        ("numa", "off"),
        ("isolation", "any"),
    ] {
        let key = format!("berth.dev/{field}");
        assert_eq!(want(&[("berth.dev/gpus", "1"), (&key, value)], None), Some(whole(1)));
    }
}

#[test]
fn malformed_values_of_fields_that_make_no_claim_are_malformed() {
    for (field, value) in [
        ("cpus", "-8"),
        ("cpus", "08"),
        ("cpus", "+8"),
        ("cpus", "0"),
        ("numa", "Prefer"),
        ("isolation", ""),
    ] {
        let words = refused(&[(&format!("berth.dev/{field}"), value)], None);
        assert!(words.contains("it is not one of "), "{field}: {words}");
    }
}

#[test]
fn two_claims_in_one_are_refused_naming_both() {
    let device = uuid(1).to_string();
    assert_eq!(
        refused(&[("berth.dev/gpus", "1"), ("berth.dev/devices", &device)], None),
        "berth: annotations berth.dev/gpus=\"1\" and berth.dev/devices=\"GPU-00000001-0000-4000-8000-000000000000\" contradict \
         each other: a claim is exactly one of gpus, mig, devices, or memory and/or compute; remove one"
    );
    for other in ["mig", "memory", "compute"] {
        let key = format!("a.berth.dev/{other}");
        let words = refused(&[("a.berth.dev/gpus", "1"), (&key, "x")], Some("a"));
        assert!(words.contains("contradict each other"), "{words}");
        let words = refused(&[("a.berth.dev/gpus", "none"), (&key, "x")], Some("a"));
        assert!(words.contains("contradict each other"), "{words}");
    }
    let share = refused(&[("berth.dev/memory", "8Gi"), ("berth.dev/compute", "25%")], None);
    assert!(share.contains("memory is not in this version"), "these two go together: {share}");
}

#[test]
fn unknown_fields_are_refused_with_the_nearest() {
    assert_eq!(
        refused(&[("t.berth.dev/gpu", "1")], Some("t")),
        "berth: annotation t.berth.dev/gpu=\"1\": there is no such field (did you mean t.berth.dev/gpus?); \
         the fields are gpus, devices, mig, memory, compute, driver-capabilities, cpus, numa, isolation, extras"
    );
    let far = refused(&[("berth.dev/xylophone", "1")], None);
    assert!(far.contains("there is no such field; the fields are"), "{far}");
    assert!(refused(&[("berth.dev/", "1")], None).contains("no such field"));
    assert!(refused(&[("berth.dev/Gpus", "1")], None).contains("did you mean berth.dev/gpus?"));
}

#[test]
fn hostile_values_cannot_forge_or_flood_a_message() {
    let words = refused(&[("berth.dev/gpus", "1\nberth: granted\0\u{1b}[31m")], None);
    assert!(!words.contains(['\n', '\0', '\u{1b}']), "{words:?}");
    let words = refused(&[("berth.dev/devices", &"9".repeat(200_000))], None);
    assert!(words.len() < 1000, "{} bytes", words.len());
    let words = refused(&[(&format!("berth.dev/{}", "g".repeat(200_000)), "1")], None);
    assert!(words.len() < 1000, "{} bytes", words.len());
}

#[test]
fn fields_without_a_claim_are_a_request_that_needs_an_allocation() {
    let request = parse(&[("berth.dev/driver-capabilities", "compute")], Some("a"));
    let request = request.expect("a request");
    assert_eq!(request.want, None);
    assert_eq!(
        request.needs_a_claim().to_string(),
        "berth: annotation berth.dev/driver-capabilities=\"compute\": it says how to give GPUs, but none are asked for, \
         and nobody has allocated any; add for example berth.dev/gpus: \"1\", or remove it"
    );
    assert_eq!(
        request.agrees_with(&vec![uuid(1)].into(), "cdi edits", &Inventory::default()),
        Ok(())
    );
}

#[test]
fn a_claim_agrees_with_a_prior_allocation_or_is_refused() {
    let two = parse(&[("berth.dev/gpus", "2")], None).expect("a request");
    assert_eq!(
        two.agrees_with(&vec![uuid(1), uuid(2)].into(), "cdi edits", &Inventory::default()),
        Ok(())
    );
    assert_eq!(
        two.agrees_with(&vec![uuid(1)].into(), "cdi edits", &Inventory::default())
            .expect_err("one is not two")
            .to_string(),
        "berth: annotation berth.dev/gpus=\"2\": cdi edits has already given this container \
         GPU-00000001-0000-4000-8000-000000000000; ask for the same, or ask for nothing"
    );
    let named = format!("{},{}", uuid(1), uuid(2));
    let exact = parse(&[("berth.dev/devices", &named)], None).expect("a request");
    assert_eq!(
        exact.agrees_with(&vec![uuid(2), uuid(1)].into(), "cdi edits", &Inventory::default()),
        Ok(())
    );
    assert!(
        exact
            .agrees_with(&vec![uuid(2), uuid(3)].into(), "cdi edits", &Inventory::default())
            .is_err()
    );
    assert!(exact.agrees_with(&vec![].into(), "cdi edits", &Inventory::default()).is_err());
}

fn keys() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        Just("gpus".to_owned()),
        Just("devices".to_owned()),
        Just("mig".to_owned()),
        Just("cpus".to_owned()),
        Just("driver-capabilities".to_owned()),
        Just("extras".to_owned()),
        Just("memory".to_owned()),
        "\\PC{0,8}",
    ];
    let domain = prop_oneof!["berth.dev", "[ab]\\.berth\\.dev", "\\PC{0,6}"];
    (domain, field).prop_map(|(domain, field)| format!("{domain}/{field}"))
}

fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,2}",
        "none|auto|off|compute|rdma",
        "(GPU|MIG)-[0-9a-f,-]{0,40}",
        "([0-9]{0,3}x)?[0-9]{1,2}g\\.[0-9]{1,3}gb([+-][a-z.ü]{0,4}){0,2}",
        any::<String>()
    ]
}

proptest! {
    #[test]
    fn no_annotations_make_the_parser_panic_or_talk_too_much(
        annotations in prop::collection::btree_map(keys(), values(), 0..6),
        name in prop::option::of("[ab]?"),
    ) {
        match Request::parse(&annotations, name.as_deref()) {
            Ok(None) => {}
            Ok(Some(request)) => {
                prop_assert!(!request.written.is_empty());
                prop_assert!(!(request.opted_out && request.want.is_some()));
                let (key, value) = request.asking();
                prop_assert_eq!(annotations.get(key).map(String::as_str), Some(value));
                // What was read from the ledger later must mean the same again.
                let again = Request::parse(&request.written, name.as_deref());
                prop_assert_eq!(again, Ok(Some(request)));
            }
            Err(refusal) => {
                let words = refusal.to_string();
                prop_assert!(words.starts_with("berth: "));
                prop_assert!(words.chars().count() < 1500 && !words.chars().any(char::is_control));
            }
        }
    }

    #[test]
    fn annotations_for_others_change_nothing(
        mine in prop::collection::btree_map("(a\\.)?berth\\.dev/(gpus|numa|gpsu)", "[12]|off", 0..4),
        theirs in prop::collection::btree_map("[b-d]\\.berth\\.dev/[a-z]{0,5}", ".{0,5}", 0..4),
    ) {
        let all: BTreeMap<String, String> = mine.clone().into_iter().chain(theirs).collect();
        prop_assert_eq!(Request::parse(&all, Some("a")), Request::parse(&mine, Some("a")));
    }
}
