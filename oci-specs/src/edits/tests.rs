//! Tests of edits: against a spec as containerd's CRI writes it, for idempotence, and for what must survive.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::parts::HookKind;

const CRI: &str = include_str!("golden/cri.json");
const EDITED: &str = include_str!("golden/cri-edited.json");

fn mount(source: &str, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: "bind".into(),
        source: source.into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

fn device(path: &str, major: i64, minor: i64) -> Device {
    Device { path: path.into(), kind: "c".into(), major, minor, ..Device::default() }
}

fn hook(kind: HookKind, path: &str, args: &[&str]) -> Hook {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Hook { kind, path: path.into(), args, ..Hook::default() }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}

fn apply(edits: &Edits, config: &str) -> Result<String, EditError> {
    Ok(String::from_utf8(edits.apply(config.as_bytes())?.into_owned()).expect("JSON is UTF-8"))
}

/// Something of everything, short enough to be shown by a failing property.
const BASE: &str = r#"{"process":{"env":["a=1","b","a=2"]},"mounts":[{"destination":"/a/b","type":"bind"},{"destination":"/b"}],"hooks":{"prestart":[{"path":"/a"}]},"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}]}}}"#;

/// One of each.
fn full() -> Edits {
    let node =
        Device { file_mode: Some(0o666), uid: Some(0), gid: Some(0), ..device("/dev/x0", 195, 0) };
    Edits {
        cpus: Some("0-3".into()),
        mems: Some("0".into()),
        annotations: [("example.com/given".to_owned(), "x0".to_owned())].into(),
        env: vec![pair("NVIDIA_VISIBLE_DEVICES", "GPU-1"), pair("GRANT", "g-1")],
        additional_gids: vec![10, 44],
        mounts: vec![
            mount("/opt/tree/lib", "/usr/local/x/lib64", &["ro", "rbind", "rprivate"]),
            mount("/srv/hosts", "/etc/hosts", &["ro", "rbind"]),
            mount("/srv/etc", "/etc", &["ro", "rbind"]),
        ],
        devices: vec![node, device("/dev/xctl", 195, 255)],
        device_rules: vec![
            DeviceRule::allow("c", 195, 0, "rw"),
            DeviceRule::allow("c", 195, 255, "rw"),
        ],
        removed_hooks: vec![HookPattern { program: "old-hook".into(), argument: None }],
        hooks: vec![hook(HookKind::Poststop, "/usr/bin/new-hook", &["new-hook", "undo"])],
    }
}

#[test]
fn a_spec_of_containerds_becomes_the_golden_one() {
    let edited = apply(&full(), CRI).expect("the edits apply");
    assert_eq!(edited, EDITED.trim_end());
}

#[test]
fn the_golden_one_says_what_was_asked() {
    let before: Value = serde_json::from_str(CRI).expect("JSON");
    let after: Value = serde_json::from_str(EDITED).expect("JSON");
    assert_eq!(after["process"]["env"][4], "NVIDIA_VISIBLE_DEVICES=GPU-1");
    assert_eq!(after["process"]["user"]["additionalGids"], serde_json::json!([0, 10, 44]));
    assert_eq!(after["linux"]["devices"][0]["fileMode"], 0o666);
    let destinations: Vec<_> =
        after["mounts"].as_array().expect("a list").iter().map(|m| &m["destination"]).collect();
    // `/etc` comes before what lies in it, and `/etc/hosts` stays where it was.
    assert_eq!(destinations[6..8], ["/etc", "/etc/hosts"]);
    assert_eq!(destinations.last().expect("one"), &"/usr/local/x/lib64");
    for untouched in ["seccomp", "namespaces", "maskedPaths", "cgroupsPath"] {
        assert_eq!(before["linux"][untouched], after["linux"][untouched]);
    }
}

#[test]
fn what_is_so_already_gives_back_the_very_bytes() {
    let edits = full();
    assert!(matches!(edits.apply(EDITED.trim_end().as_bytes()), Ok(Cow::Borrowed(_))));
    assert!(matches!(Edits::default().apply(CRI.as_bytes()), Ok(Cow::Borrowed(_))));
    let spaced = r#" { "hooks" : null, "linux":{"devices":[ ] } } "#;
    let nothing_to_remove = Edits { removed_hooks: edits.removed_hooks, ..Edits::default() };
    assert!(matches!(nothing_to_remove.apply(spaced.as_bytes()), Ok(Cow::Borrowed(_))));
}

#[test]
fn numbers_unknown_fields_and_their_order_survive_to_the_byte() {
    let config = r#"{"zeta":[18446744073709551615,-9223372036854775808,1e21,1.0E+2,-0,0.1000,123456789012345678901234567890],"linux":{"new":{"deep":[{"b":null,"a":"\u00e9\/"},{}]},"resources":{"unified":{"x":1}}},"twice":1,"twice":2,"alpha":{"k":1,"k":2}}"#;
    let edits =
        Edits { device_rules: vec![DeviceRule::allow("c", 1, 3, "rw")], ..Edits::default() };
    let wanted = config.replace(
        r#""unified":{"x":1}"#,
        r#""unified":{"x":1},"devices":[{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]"#,
    );
    assert_eq!(apply(&edits, config).expect("the edits apply"), wanted);
}

#[test]
fn what_is_missing_is_made() {
    for empty in
        ["{}", r#"{"process":null,"mounts":null,"linux":null,"hooks":null,"annotations":null}"#]
    {
        let edited = apply(&full(), empty).expect("the edits apply");
        let view: crate::SpecView = serde_json::from_str(&edited).expect("a spec");
        assert_eq!(view.env("GRANT"), Some("g-1"));
        assert_eq!(view.mounts.len(), 3);
        let linux = view.linux.expect("linux is there");
        assert_eq!((linux.devices.len(), linux.resources.devices.len()), (2, 2));
        assert_eq!((view.hooks.len(), view.annotations.len()), (1, 1));
    }
}

#[test]
fn a_path_taken_by_another_device_is_refused_naming_both() {
    let config = r#"{"linux":{"devices":[{"path":"/dev//x0","type":"b","major":8,"minor":1}]}}"#;
    let error = apply(&full(), config).expect_err("the path is taken").to_string();
    assert!(error.contains("/dev/x0 is b 8:1") && error.contains("c 195:0"), "{error}");
    let same = config.replace(r#""b","major":8,"minor":1"#, r#""u","major":195,"minor":0,"uid":5"#);
    let edited = apply(&full(), &same).expect("the same device by its synonym");
    assert!(edited.contains(r#""uid":5"#), "what was there stays: {edited}");
}

#[test]
fn a_rule_is_added_unless_a_wider_one_is_in_force() {
    let wanted =
        Edits { device_rules: vec![DeviceRule::allow("c", 195, 0, "rw")], ..Edits::default() };
    let is_added = |rules: &str| {
        let config = format!(r#"{{"linux":{{"resources":{{"devices":[{rules}]}}}}}}"#);
        matches!(wanted.apply(config.as_bytes()).expect("the edits apply"), Cow::Owned(_))
    };
    let [deny, wide] = [
        r#"{"allow":false,"access":"rwm"}"#,
        r#"{"allow":true,"type":"c","major":195,"access":"rwm"}"#,
    ];
    assert!(is_added(deny));
    assert!(!is_added(&format!("{deny},{wide}")));
    assert!(is_added(&format!("{wide},{deny}")), "a later rule denies it");
    assert!(is_added(r#"{"allow":true,"type":"c","major":195,"minor":0,"access":"r"}"#));
    assert!(is_added(r#"{"allow":true,"type":"b","access":"rwm"}"#));
    let elsewhere = r#"{"allow":false,"type":"c","major":10,"access":"rwm"}"#;
    assert!(!is_added(&format!("{wide},{elsewhere}")));
}

#[test]
fn hooks_are_taken_out_by_program_and_argument() {
    let config = r#"{"hooks":{"prestart":[{"path":"/usr/bin/tool","args":["tool","fix"],"x":1},{"path":"/opt/tool","args":["tool","keep"]},{"path":"/bin/other"}]}}"#;
    let fix = HookPattern { program: "tool".into(), argument: Some("fix".into()) };
    let edits = Edits { removed_hooks: vec![fix], ..Edits::default() };
    let edited = apply(&edits, config).expect("the edits apply");
    assert_eq!(
        edited,
        r#"{"hooks":{"prestart":[{"path":"/opt/tool","args":["tool","keep"]},{"path":"/bin/other"}]}}"#
    );
}

#[test]
fn a_field_of_the_wrong_type_or_there_twice_is_named() {
    let cases = [
        (r#"{"mounts":{}}"#, "mounts"),
        (r#"{"mounts":[{"destination":"/a"},{"destination":5}]}"#, "mounts[1]"),
        (r#"{"process":[]}"#, "process"),
        (r#"{"process":{"user":{"additionalGids":[-1]}}}"#, "process.user.additionalGids[0]"),
        (r#"{"linux":{"devices":[3]}}"#, "linux.devices[0]"),
        (r#"{"linux":{"resources":"x"}}"#, "linux.resources"),
        (r#"{"hooks":{"poststop":["x"]}}"#, "hooks.poststop[0]"),
        (r#"{"linux":{},"linux":{}}"#, "linux is there twice"),
        (r#"{"mounts":[],"mounts":[]}"#, "mounts is there twice"),
        (r#"{"annotations":{"example.com/given":1}}"#, r#"annotations["example.com/given"]"#),
        ("[]", "the document"),
        (r#"{"a":1}x"#, "the document"),
    ];
    for (config, field) in cases {
        let error = apply(&full(), config).expect_err(config).to_string();
        assert!(error.contains(field), "{config}: {error}");
    }
}

fn rule() -> impl Strategy<Value = DeviceRule> {
    let number = || prop_oneof![Just(None), Just(Some(-1)), (0_i64..2).prop_map(Some)];
    let access = prop_oneof![Just("rwm"), Just("rw"), Just("r"), Just("m")];
    let kind = prop_oneof![Just(""), Just("a"), Just("b"), Just("c")];
    (any::<bool>(), kind, number(), number(), access).prop_map(
        |(allow, kind, major, minor, access)| DeviceRule {
            allow,
            kind: kind.into(),
            major,
            minor,
            access: access.into(),
        },
    )
}

fn some_edits() -> impl Strategy<Value = Edits> {
    let word = || "[a-c]{1,2}";
    let path = || "(/[a-b]{1}){1,3}/?";
    let mounts = (path(), path(), prop::collection::vec(word(), 0..2));
    let mounts = mounts.prop_map(|(destination, source, options)| Mount {
        destination,
        source,
        options,
        kind: String::new(),
    });
    // The numbers follow from the path, so that no two devices want one path.
    let devices = path().prop_map(|path| {
        let major = path.trim_end_matches('/').len();
        device(&path, i64::try_from(major).expect("a short path"), 0)
    });
    let hooks = (prop::sample::select(&HookKind::ALL), path(), prop::collection::vec(word(), 0..2));
    let hooks = hooks.prop_map(|(kind, path, args)| Hook { kind, path, args, ..Hook::default() });
    let pair = (word(), word()).prop_map(|(name, value)| (name, value));
    (
        prop::collection::btree_map(word(), word(), 0..3),
        prop::collection::vec(pair, 0..4),
        prop::collection::vec(0_u32..4, 0..4),
        prop::collection::vec(mounts, 0..4),
        prop::collection::vec(devices, 0..4),
        prop::collection::vec(rule(), 0..5),
        prop::collection::vec(hooks, 0..4),
    )
        .prop_map(
            |(annotations, env, additional_gids, mounts, devices, device_rules, hooks)| {
                let removed_hooks = Vec::new();
                Edits {
                    cpus: None,
                    mems: None,
                    annotations,
                    env,
                    additional_gids,
                    mounts,
                    devices,
                    device_rules,
                    removed_hooks,
                    hooks,
                }
            },
        )
}

/// What the device cgroup says of one device and one way of access: the last rule that applies.
fn is_allowed(rules: &[DeviceRule], kind: &str, number: (i64, i64), access: char) -> bool {
    let applies = |rule: &&DeviceRule| {
        let any = rule.kind.is_empty() || rule.kind == "a";
        let fits = |own: Option<i64>, number| own.is_none_or(|own| own < 0 || own == number);
        rule.access.contains(access)
            && (any
                || (rule.kind == kind && fits(rule.major, number.0) && fits(rule.minor, number.1)))
    };
    rules.iter().rfind(applies).is_some_and(|rule| rule.allow)
}

fn rules_of(config: &str) -> Vec<DeviceRule> {
    let view: crate::SpecView = serde_json::from_str(config).expect("a spec");
    view.linux.map(|linux| linux.resources.devices).unwrap_or_default()
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(before in some_edits(), edits in some_edits()) {
        let config = apply(&before, BASE).expect("the edits apply");
        let once = apply(&edits, &config).expect("the edits apply");
        let again = edits.apply(once.as_bytes()).expect("the edits apply again");
        prop_assert!(matches!(again, Cow::Borrowed(_)), "{once}\n{}", String::from_utf8_lossy(&again));
    }

    #[test]
    fn everything_asked_for_is_there_afterwards(before in some_edits(), edits in some_edits()) {
        let config = apply(&before, BASE).expect("the edits apply");
        let after = apply(&edits, &config).expect("the edits apply");
        let view: crate::SpecView = serde_json::from_str(&after).expect("a spec");
        for (at, (name, value)) in edits.env.iter().enumerate() {
            let is_last = !edits.env[at + 1..].iter().any(|(later, _)| later == name);
            prop_assert!(!is_last || view.env(name) == Some(value));
        }
        for device in &edits.devices {
            prop_assert!(view.linux.iter().flat_map(|l| &l.devices).any(|d| d.is_same_device(device)));
        }
        for hook in &edits.hooks {
            prop_assert!(view.hooks.contains(hook));
        }
    }

    /// Leaving out a rule that is in force changes nothing: the naive list, everything appended, is
    /// the oracle.
    #[test]
    fn rules_mean_what_they_would_if_all_were_appended(
        before in prop::collection::vec(rule(), 0..5),
        wanted in prop::collection::vec(rule(), 0..5),
    ) {
        let with = |device_rules| Edits { device_rules, ..Edits::default() };
        let config = serde_json::json!({"linux":{"resources":{"devices": before}}}).to_string();
        let after = rules_of(&apply(&with(wanted.clone()), &config).expect("the edits apply"));
        let naive: Vec<_> = before.iter().chain(&wanted).cloned().collect();
        for kind in ["b", "c"] {
            for number in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)] {
                for access in ['r', 'w', 'm'] {
                    let of = |rules: &[DeviceRule]| is_allowed(rules, kind, number, access);
                    prop_assert_eq!(of(&after), of(&naive), "{} {:?} {}", kind, number, access);
                }
            }
        }
    }

    #[test]
    fn any_text_is_edited_or_refused_without_a_panic(text in "[\\[\\]{}\",:a-c0-9nul ]{0,40}") {
        let _ = full().apply(text.as_bytes());
    }
}
