//! Tests of what is told of spec files, and of specs that are written.

use super::*;

/// Everything that is told of one file: errors, then warnings.
fn told(extension: &str, text: &str) -> (Vec<String>, Vec<String>) {
    let node = Node::with(&[(&format!("etc/x.{extension}"), text)]);
    let words = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect();
    let examined = examine(&[node.path(&format!("etc/x.{extension}"))], &node.path(""));
    (words(&examined[0].errors), words(&examined[0].warnings))
}

#[test]
fn every_error_is_told_with_device_and_field() {
    let text = r#"{
        "cdiVersion": "0.4.0", "kind": "nvidia.com/gpu", "colour": "blue",
        "containerEdits": {"env": ["A"], "mounts": [{"hostPath": "/a/../b", "containerPath": "c"}], "additionalGids": ["x", 4]},
        "devices": [
            {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y", "mayor": 1, "type": "z"}]}},
            {"name": "0", "containerEdits": {"env": "B=1", "hooks": [{"hookName": "later", "path": "/h"}]}},
            {"name": 7, "containerEdits": {"netDevices": [{"name": "e"}]}}
        ]
    }"#;
    let expected = [
        r#"device "0": containerEdits.deviceNodes[0].mayor is no field that is known here"#,
        r#"device "0": containerEdits.env is a text, not a list"#,
        r#"devices[2].name cannot be read: invalid type: integer `7`, expected a string"#,
        r#"containerEdits.additionalGids[0] cannot be read: invalid type: string "x", expected u32"#,
        "colour is no field that is known here",
        r#"containerEdits.env[0] "A" does not read NAME=value"#,
        r#"containerEdits.mounts[0].containerPath "c" is not absolute"#,
        r#"containerEdits.mounts[0].hostPath "/a/../b" has '..' in it"#,
        r#"device "0": containerEdits.deviceNodes[0].type "z" is none of b, c, u, p"#,
        r#"device "0" is there twice"#,
        r#"device "0": containerEdits.hooks[0].hookName "later" is no hook of OCI's"#,
        r#"device "": containerEdits.netDevices is not supported here; remove it from the spec"#,
        "cdiVersion 0.4.0 has no additionalGids; that came with 0.7.0",
        r#"device "0": cdiVersion 0.4.0 has no a device name that begins with a digit; that came with 0.5.0"#,
        r#"device "0": cdiVersion 0.4.0 has no deviceNodes with a hostPath; that came with 0.5.0"#,
        r#"device "": cdiVersion 0.4.0 has no netDevices; that came with 1.1.0"#,
    ];
    assert_eq!(told("json", text).0, expected);
}

#[test]
fn what_is_no_json_or_yaml_is_told_with_the_place() {
    assert_eq!(told("json", "{\"a\":1,}").0, ["trailing comma at line 1 column 8"]);
    assert_eq!(told("yaml", "").0, ["it is empty"]);
    // A field twice is one of JSON's own traps, which no field's own reading shows.
    let twice = spec("v.com/c", ENV).replace("\"kind\"", "\"kind\":\"v.com/c\",\"kind\"");
    let (errors, _) = told("json", &twice);
    assert!(errors.len() == 1 && errors[0].starts_with("duplicate field `kind`"), "{errors:?}");
    assert_eq!(
        told("txt", &spec("v.com/c", ENV)).1,
        ["its name ends in none of .json, .yaml and .yml: no reader looks at it"]
    );
}

#[test]
fn what_the_node_has_not_is_a_warning() {
    let text = r#"{"deviceNodes":[{"path":"/dev/gone"},{"path":"/dev/x","hostPath":"/dev/away"},{"path":"/etc"},{"path":"/dev/w","type":"c","major":1,"minor":2},{"path":"/dev/h","type":"c","major":1}],
        "mounts":[{"hostPath":"/no","containerPath":"/no"},{"hostPath":"t","containerPath":"/t","type":"tmpfs"}],
        "hooks":[{"hookName":"prestart","path":"/hook"}]}"#;
    let text = spec("v.com/c", text).replace("}}]", "}},{\"name\":\"b\"}]");
    let expected = [
        r#"device "a": containerEdits.deviceNodes[0].path "/dev/gone" is not on this node"#,
        r#"device "a": containerEdits.deviceNodes[1].hostPath "/dev/away" is not on this node"#,
        r#"device "a": containerEdits.deviceNodes[4].path "/dev/h" is not on this node"#,
        r#"device "a": containerEdits.mounts[0].hostPath "/no" is not on this node"#,
        r#"device "a": containerEdits.hooks[0].path "/hook" is not on this node"#,
        r#"device "b" brings nothing of its own, which other readers refuse"#,
    ];
    let (errors, warnings) = told("json", &text);
    assert_eq!((errors, warnings), (Vec::new(), expected.map(str::to_owned).into()));
}

#[test]
fn a_device_of_two_files_is_told_of_both_where_neither_beats_the_other() {
    let one = spec("v.com/c", ENV);
    let node = Node::with(&[("etc/1.json", &one), ("etc/2.yaml", &one), ("run/3.json", &one)]);
    let files =
        spec_files(&[node.path("etc"), node.path("none"), node.path("run")]).expect("listed");
    let examined = examine(&files, &node.path(""));
    let errors =
        |at: usize| examined[at].errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let twice = |other: &str| {
        let other = node.path(other).display().to_string();
        vec![format!("device \"v.com/c=a\" is in {other}, too; remove it from one of them")]
    };
    assert_eq!(
        [errors(0), errors(1), errors(2)],
        [twice("etc/2.yaml"), twice("etc/1.json"), vec![]]
    );
    let listed = node.registry().listed();
    assert_eq!(listed.len(), 1, "the later directory decides: {listed:?}");
    assert_eq!(listed[0].path, node.path("run/3.json"));
    assert_eq!(listed[0].overridden, [node.path("etc/1.json"), node.path("etc/2.yaml")]);
    fs::remove_file(node.path("run/3.json")).expect("removed");
    let listed = node.registry().listed();
    assert_eq!((listed.len(), &listed[0].conflicts[..]), (2, &[node.path("etc/2.yaml")][..]));
}

fn devices() -> impl Strategy<Value = Vec<(String, ContainerEdits)>> {
    let text = "[ -~]{0,12}";
    let path = || "/[a-z :#\"'-]{1,12}".prop_map(|path| path);
    let optional = || prop::option::of(0..300_u32);
    let node = (path(), path(), optional(), optional(), "(r|w|m|rw|rwm)").prop_map(
        |(path, host_path, minor, mode, access)| DeviceNode {
            path,
            host_path,
            kind: minor.map(|_| "c".to_owned()),
            major: minor.map(|_| 195),
            minor: minor.map(i64::from),
            file_mode: mode,
            access,
            uid: mode,
            gid: None,
        },
    );
    let mount = (path(), path(), prop::collection::vec(text, 0..3)).prop_map(
        |(source, destination, options)| crate::parts::Mount {
            destination,
            kind: String::new(),
            source,
            options,
        },
    );
    let edits = (
        prop::collection::btree_map("[A-Z]{1,4}", text, 0..3),
        prop::collection::vec(node, 0..3),
        prop::collection::vec(mount, 0..3),
        prop::collection::btree_set(1..9_u32, 0..3),
    )
        .prop_map(|(env, device_nodes, mounts, gids)| {
            let mut edits = ContainerEdits {
                env: env.into_iter().collect(),
                device_nodes,
                mounts,
                additional_gids: gids.into_iter().collect(),
                ..ContainerEdits::default()
            };
            // What is there twice is read once.
            edits.device_nodes.dedup_by(|a, b| a.path == b.path);
            edits.mounts.dedup();
            edits
        });
    prop::collection::btree_map("[a-zA-Z0-9]([a-z0-9:.-]{0,6}[a-z0-9])?", edits, 1..4)
        .prop_map(|devices| devices.into_iter().collect())
}

proptest! {
    // Each case writes files.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is written is what is read, in both forms, and no version below its own has all of it.
    #[test]
    fn what_is_written_is_read_the_same(devices in devices()) {
        let spec = NewSpec { kind: "v.com/c".into(), devices, ..NewSpec::default() };
        for (extension, text) in [("json", spec.to_json()), ("yaml", spec.to_yaml())] {
            let text = text.expect("valid");
            let node = Node::with(&[(&format!("etc/x.{extension}"), &text)]);
            for (device, edits) in &spec.devices {
                let read = node.resolve(&[&format!("v.com/c={device}")]);
                prop_assert_eq!(read.as_ref(), Ok(edits), "{}", text);
            }
            prop_assert_eq!(told(extension, &text).0, Vec::<String>::new());
            let versions = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0"];
            let own = versions.iter().position(|version| text.contains(version)).expect("one of them");
            if own > 0 {
                let older = text.replace(versions[own], versions[own - 1]);
                prop_assert!(told(extension, &older).0.iter().all(|why| why.contains("came with")));
                prop_assert!(!told(extension, &older).0.is_empty(), "{}", older);
            }
        }
    }

    /// The two ways to read a file agree on whether it is one, whatever has been done to it.
    #[test]
    fn a_file_has_errors_exactly_where_a_reader_refuses_it(at in 0..1000_usize, cut in 0..30_usize, put in "[a-z\"{},:0-9\\[\\]]{0,3}") {
        let whole = serde_json::to_string(&serde_json::from_str::<serde_json::Value>(CLAIM).expect("json")).expect("json");
        let at = at % whole.len();
        let text = format!("{}{put}{}", &whole[..at], &whole[(at + cut).min(whole.len())..]);
        let node = Node::with(&[("etc/x.json", &text)]);
        let refused = node.registry().broken().count() == 1;
        prop_assert_eq!(!told("json", &text).0.is_empty(), refused, "{}: {:?}", text, told("json", &text).0);
    }
}
