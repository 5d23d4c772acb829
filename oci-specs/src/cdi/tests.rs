//! Tests of the CDI reader: specs as the field's generators write them, the rules, hostile files.

mod examined;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::parts::HookKind;
use crate::yaml;

const GPUS: &str = include_str!("samples/gpus.yaml");
const CLAIM: &str = include_str!("samples/claim.json");

fn name(text: &str) -> QualifiedName {
    text.parse().expect("a name")
}

/// Two directories of specs, in rising priority.
struct Node {
    directory: tempfile::TempDir,
}

impl Node {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for place in ["etc", "run"] {
            fs::create_dir(directory.path().join(place)).expect("a new directory");
        }
        let node = Self { directory };
        for (path, text) in files {
            fs::write(node.path(path), text).expect("a spec is writable");
        }
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn registry(&self) -> Registry {
        Registry::load(&[self.path("etc"), self.path("run")]).expect("directories can be listed")
    }

    fn resolve(&self, names: &[&str]) -> Result<ContainerEdits, String> {
        let names: Vec<_> = names.iter().map(|text| name(text)).collect();
        self.registry().resolve(&names).map_err(|error| error.to_string())
    }
}

/// A spec with one device `a`, and something replaced in it.
fn spec(kind: &str, edits: &str) -> String {
    format!(
        r#"{{"cdiVersion":"1.1.0","kind":"{kind}","devices":[{{"name":"a","containerEdits":{edits}}}]}}"#
    )
}

const ENV: &str = r#"{"env":["A=1"]}"#;

#[test]
fn a_generated_yaml_spec_gives_what_all_devices_share_once_and_each_its_own() {
    let node = Node::with(&[("etc/nvidia.yaml", GPUS)]);
    let edits = node.resolve(&["nvidia.com/gpu=1", "nvidia.com/gpu=0"]).expect("both are there");
    let nodes: Vec<_> =
        edits.device_nodes.iter().map(|n| (n.path.as_str(), n.minor, n.access.as_str())).collect();
    assert_eq!(
        nodes,
        [
            ("/dev/nvidia-uvm", None, "rwm"),
            ("/dev/nvidiactl", Some(255), "rwm"),
            ("/dev/nvidia1", Some(1), "rwm"),
            ("/dev/nvidia0", Some(0), "rw"),
        ]
    );
    assert_eq!(edits.env[1], ("NVIDIA_VISIBLE_DEVICES".into(), "void".into()));
    assert_eq!((edits.hooks.len(), edits.mounts.len()), (2, 2));
    assert_eq!(edits.hooks[0].kind, HookKind::CreateContainer);
    assert_eq!(edits.hooks[1].args[1], "update-ldcache");
    assert_eq!(edits.mounts[1].options, ["ro", "nosuid", "nodev", "rbind", "rprivate"]);
}

#[test]
fn what_is_the_same_for_two_devices_comes_once() {
    let node = Node::with(&[("etc/nvidia.yml", GPUS)]);
    let all = node.resolve(&["nvidia.com/gpu=all"]).expect("it is there");
    let names = ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"];
    assert_eq!(node.resolve(&names).expect("all are there"), all);
    let uuid = node.resolve(&["nvidia.com/gpu=GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"]);
    assert_eq!(uuid.expect("it is there").device_nodes[2].file_mode, Some(0o666));
}

#[test]
fn a_device_overrides_what_its_spec_says_of_all_whatever_devices_follow() {
    let shared = |kind: &str| {
        format!(
            r#"{{"cdiVersion":"0.5.0","kind":"{kind}","containerEdits":{{"env":["A=all","{kind}=1"]}},
                "devices":[{{"name":"a","containerEdits":{{"env":["A=own"]}}}},{{"name":"b"}}]}}"#
        )
    };
    let (first, second) = (shared("v.com/x"), shared("v.com/y"));
    let node = Node::with(&[("etc/1.json", &first), ("etc/2.json", &second)]);
    let edits = node.resolve(&["v.com/y=b", "v.com/x=a", "v.com/x=b"]).expect("all are there");
    let env: Vec<_> = edits.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(env, ["v.com/y=1", "v.com/x=1", "A=own"]);
}

#[test]
fn a_generated_json_spec_becomes_edits() {
    let node = Node::with(&[("run/claim.json", CLAIM)]);
    let device = "k8s.gpu.nvidia.com/claim=0c9a4f0e-6f5d-4a35-9c51-0a4b5d6c7e8f-gpu-0";
    let edits = node.resolve(&[device]).expect("it is there");
    assert_eq!(edits.device_nodes[0].host_path, "/run/driver/dev/nvidia0");
    let edits = edits.into_edits(Path::new("/nonexistent")).expect("nothing is left to the host");
    assert_eq!(edits.devices[0].to_string(), "c 195:0");
    assert_eq!(edits.device_rules[0].to_string(), "c 195:0 rwm");
    assert_eq!(edits.additional_gids, [44], "root's group is nobody's to give");
    assert_eq!(edits.env.len(), 2);
    assert_eq!((edits.hooks[0].kind, edits.hooks[0].timeout), (HookKind::Poststop, Some(5)));
    assert_eq!(edits.mounts[0].kind, "tmpfs");
}

#[test]
fn what_a_spec_leaves_out_of_a_node_is_read_from_the_host() {
    let edits = |node: &str| {
        let text = spec("v.com/c", &format!(r#"{{"deviceNodes":[{node}]}}"#));
        let node = Node::with(&[("etc/a.json", &text)]);
        node.resolve(&["v.com/c=a"]).expect("it is there").into_edits(Path::new("/"))
    };
    let null = edits(r#"{"path":"/dev/x","hostPath":"/dev/null"}"#).expect("it is a node");
    assert_eq!(null.devices[0].to_string(), "c 1:3");
    assert_eq!(null.devices[0].path, "/dev/x");
    assert_eq!(null.device_rules[0].to_string(), "c 1:3 rwm");
    for wrong in [
        r#"{"path":"/dev/null","type":"b"}"#,
        r#"{"path":"/dev/x","hostPath":"/etc"}"#,
        r#"{"path":"/dev/x","hostPath":"/dev/there-is-none"}"#,
    ] {
        let error = edits(wrong).expect_err("it is no such node").to_string();
        assert!(error.contains("cannot look up the device node /"), "{error}");
    }
}

#[test]
fn the_later_directory_wins() {
    let low = spec("v.com/c", r#"{"env":["FROM=etc"]}"#);
    let high = spec("v.com/c", r#"{"env":["FROM=run"]}"#);
    let node = Node::with(&[("etc/a.json", &low), ("run/a.json", &high)]);
    assert_eq!(node.resolve(&["v.com/c=a"]).expect("it is there").env[0].1, "run");
}

#[test]
fn two_files_of_one_directory_with_a_device_are_refused_to_those_who_want_it() {
    let both = spec("v.com/c", ENV);
    let other = both.replace(r#""name":"a""#, r#""name":"b""#);
    let node = Node::with(&[("etc/1.json", &both), ("etc/2.json", &both), ("etc/3.json", &other)]);
    let error = node.resolve(&["v.com/c=a"]).expect_err("it is there twice");
    assert!(error.contains("1.json") && error.contains("2.json"), "{error}");
    node.resolve(&["v.com/c=b"]).expect("nobody else has it");
    fs::write(node.path("run/4.json"), &both).expect("a spec is writable");
    node.resolve(&["v.com/c=a"]).expect("a directory that comes later decides");
}

#[test]
fn a_broken_file_matters_only_to_those_whose_device_is_nowhere() {
    let node = Node::with(&[
        ("etc/a.json", &spec("v.com/c", ENV)),
        ("etc/b.json", "{"),
        ("etc/readme", "x"),
    ]);
    node.resolve(&["v.com/c=a"]).expect("its file is in order");
    let error = node.resolve(&["v.com/c=z"]).expect_err("it is nowhere");
    assert!(error.contains("v.com/c=z") && error.contains("b.json: EOF"), "{error}");
    assert!(!error.contains("readme") && !error.contains("a.json"), "{error}");
    assert_eq!(node.registry().broken().count(), 1);
    assert_eq!(node.registry().devices(), [name("v.com/c=a")]);
}

#[test]
fn a_directory_that_is_not_there_is_empty_and_one_that_is_none_is_named() {
    let registry = Registry::load(&["/nonexistent/cdi"]).expect("nothing is there");
    let error = registry.resolve(&[name("v.com/c=a")]).expect_err("nothing is there").to_string();
    assert!(error.ends_with("looked into /nonexistent/cdi"), "{error}");
    let error = Registry::load(&["/dev/null"]).expect_err("no directory").to_string();
    assert!(error.contains("/dev/null"), "{error}");
}

#[test]
fn files_that_are_no_plain_files_are_not_read() {
    let good = spec("v.com/c", ENV);
    let node = Node::with(&[("real", &good)]);
    symlink(node.path("real"), node.path("etc/link.json")).expect("a new link");
    symlink("loop.yaml", node.path("etc/loop.yaml")).expect("a new link");
    symlink("/dev/zero", node.path("etc/zero.yml")).expect("a new link");
    fs::create_dir(node.path("etc/dir.json")).expect("a new directory");
    nix::unistd::mkfifo(&node.path("etc/fifo.json"), nix::sys::stat::Mode::S_IRUSR)
        .expect("a new fifo");
    let error = node.resolve(&["v.com/c=a"]).expect_err("there is no spec");
    for (file, problem) in [
        ("link.json", "symbolic link"),
        ("loop.yaml", "symbolic link"),
        ("zero.yml", "symbolic link"),
        ("dir.json", "not a regular file"),
        ("fifo.json", "not a regular file"),
    ] {
        assert!(error.contains(&format!("{file}: it is")) && error.contains(problem), "{error}");
    }
}

#[test]
fn hostile_content_is_refused_in_words() {
    let edits = |edits: &str| spec("v.com/c", edits);
    let whole = |from: &str, to: &str| spec("v.com/c", ENV).replace(from, to);
    let deep = "[".repeat(100_000);
    let huge = format!("{}{}", spec("v.com/c", ENV), " ".repeat(4 << 20));
    let cases = [
        ("json", edits(r#"{"mounts":[{"hostPath":"/a/../../etc","containerPath":"/b"}]}"#), "'..'"),
        ("json", edits(r#"{"mounts":[{"hostPath":"/a","containerPath":"/b/.."}]}"#), "'..'"),
        ("json", edits(r#"{"mounts":[{"hostPath":"etc","containerPath":"/b"}]}"#), "not absolute"),
        ("json", edits(r#"{"mounts":[{"hostPath":"/a","containerPath":""}]}"#), "not absolute"),
        ("json", edits(r#"{"mounts":[{"hostPath":"/a\u0000","containerPath":"/b"}]}"#), "NUL"),
        ("json", edits(r#"{"deviceNodes":[{"path":"dev/x"}]}"#), "deviceNodes[0].path"),
        ("json", edits(r#"{"deviceNodes":[{"path":"/dev/x","hostPath":"/../x"}]}"#), "hostPath"),
        ("json", edits(r#"{"deviceNodes":[{"path":"/dev/x","major":-1,"minor":-1}]}"#), "below 0"),
        ("json", edits(r#"{"deviceNodes":[{"path":"/dev/x","type":"a"}]}"#), "b, c, u, p"),
        (
            "json",
            edits(r#"{"deviceNodes":[{"path":"/dev/x","permissions":"rwx"}]}"#),
            "permissions",
        ),
        ("json", edits(r#"{"hooks":[{"hookName":"anytime","path":"/x"}]}"#), "anytime"),
        ("json", edits(r#"{"hooks":[{"hookName":"prestart","path":"x"}]}"#), "hooks[0].path"),
        (
            "json",
            edits(r#"{"hooks":[{"hookName":"prestart","path":"/x","env":["E"]}]}"#),
            "NAME=value",
        ),
        ("json", edits(r#"{"env":["=x"]}"#), "env[0]"),
        ("json", edits(r#"{"env":["A"]}"#), "env[0]"),
        ("json", edits(r#"{"intelRdt":{"closID":"x"}}"#), "intelRdt is not supported"),
        (
            "json",
            edits(r#"{"netDevices":[{"hostInterfaceName":"eth0","name":"e"}]}"#),
            "netDevices is not",
        ),
        (
            "json",
            edits(r#"{"deviceNodes":[{"path":"/dev/x","mayor":1}]}"#),
            "unknown field `mayor`",
        ),
        ("json", whole(r#""devices""#, r#""tomorrow":1,"devices""#), "unknown field `tomorrow`"),
        ("json", whole("1.1.0", "9.9.9"), "cdiVersion \"9.9.9\""),
        ("json", whole("1.1.0", "v1.1.0"), "cdiVersion \"v1.1.0\""),
        ("json", whole(r#""cdiVersion":"1.1.0","#, ""), "missing field `cdiVersion`"),
        ("json", whole("v.com/c", "v.com"), "kind"),
        ("json", whole(r#""name":"a""#, r#""name":"../a""#), "devices[0].name"),
        ("json", r#"{"cdiVersion":"1.0.0","kind":"v.com/c","devices":[]}"#.into(), "no devices"),
        ("json", whole(r#""devices":["#, r#""devices":[{"name":"a"},"#), "twice"),
        ("json", "\0".into(), "NUL"),
        ("json", deep.clone(), "line 1 column 1"),
        ("json", huge, "larger than 4 MiB"),
        ("yaml", deep, "recursion limit"),
        ("yaml", "- ".repeat(100_000), "too deep"),
        ("yaml", "a: &x [1]\nb: *x\n".into(), "anchor"),
        ("yaml", "a: !!python/object x\n".into(), "tag"),
        ("yaml", "--- {}\n--- {}\n".into(), "second document"),
        ("yaml", "a: 1\na: 2\n".into(), "twice"),
        ("yaml", "? [a]\n: 1\n".into(), "key"),
        ("yaml", String::new(), "empty"),
        ("yaml", "- a\nb: [\n".into(), "line"),
    ];
    for (extension, text, problem) in cases {
        let node = Node::with(&[(&format!("etc/x.{extension}"), &text)]);
        let error = node.resolve(&["v.com/c=a"]).expect_err(problem);
        let shown: String = text.chars().take(200).collect();
        assert!(error.contains("etc/x.") && error.contains(problem), "{shown}: {error}");
    }
}

#[test]
fn a_version_must_have_what_the_spec_uses() {
    let cases = [
        (r#"{"mounts":[{"hostPath":"/a","containerPath":"/b","type":"bind"}]}"#, "0.4.0"),
        (r#"{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/null"}]}"#, "0.5.0"),
        (r#"{"additionalGids":[1]}"#, "0.7.0"),
    ];
    let versions = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];
    for (edits, since) in cases {
        for version in versions {
            let text = spec("v.com/c", edits).replace("1.1.0", version);
            let resolved = Node::with(&[("etc/a.json", &text)]).resolve(&["v.com/c=a"]);
            // These strings sort as the versions do.
            assert_eq!(resolved.is_ok(), version >= since, "{edits} in {version}: {resolved:?}");
        }
    }
    let needs = |text: String, since: &str| {
        let error = Node::with(&[("etc/a.json", &text)]).resolve(&["v.com/x=y"]).expect_err("none");
        assert!(error.contains(&format!("came with {since}")), "{text}: {error}");
    };
    let old = |text: String| text.replace("1.1.0", "0.3.0");
    needs(old(spec("v.com/c", ENV).replace(r#""name":"a""#, r#""name":"0""#)), "0.5.0");
    needs(old(spec("v.com/c.d", ENV)), "0.6.0");
    needs(
        old(spec("v.com/c", ENV).replace(r#""name""#, r#""annotations":{"a":"b"},"name""#)),
        "0.6.0",
    );
}

#[test]
fn names_are_read_and_written() {
    for good in ["v.com/c=0", "nvidia.com/gpu=0:1", "a/b=c", "k8s.gpu.nvidia.com/claim=x-y_z.1"] {
        assert_eq!(name(good).to_string(), good);
    }
    for bad in [
        "", "a", "a/b", "a=b", "a/b=", "/b=c", "a/=c", "1a/b=c", "a/b=-c", "a/b=c-", "a-/b=c",
        "a/b=c d", "a/b/c=d", "a/b=../c", "a/b=c=d", "ä/b=c", "a/b=c\0",
    ] {
        let error = bad.parse::<QualifiedName>().expect_err(bad).to_string();
        assert!(
            error.contains(&format!("{bad:?}")) && error.contains("vendor/class=device"),
            "{error}"
        );
    }
}

#[test]
fn annotations_ask_for_devices() {
    let annotations = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    };
    let asked = annotations(&[
        ("cdi.k8s.io/b", "v.com/c=2,v.com/c=1"),
        ("cdi.k8s.io/a", "v.com/c=3,v.com/c=1"),
        ("cdi.k8s.ioa", "no name"),
        ("other", "no name"),
    ]);
    let names = annotation_devices(&asked).expect("names");
    assert_eq!(names, [name("v.com/c=3"), name("v.com/c=1"), name("v.com/c=2")]);
    for bad in ["", "v.com/c=1,", "v.com/c=1, v.com/c=2"] {
        let error = annotation_devices(&annotations(&[("cdi.k8s.io/a", bad)])).expect_err(bad);
        assert!(error.to_string().starts_with("annotation \"cdi.k8s.io/a\": "), "{error}");
    }
}

proptest! {
    /// YAML holds JSON, so the same text must give the same value by either road.
    #[test]
    fn json_read_as_yaml_is_the_same(
        devices in prop::collection::btree_map("[a-z0-9]{1,8}", (any::<u16>(), "[ -~]{0,12}"), 1..5),
    ) {
        let devices: Vec<_> = devices.iter().map(|(name, (minor, value))| serde_json::json!({
            "name": name,
            "containerEdits": {"env": [format!("A={value}")], "deviceNodes": [{"path": "/dev/x", "minor": minor}], "mounts": null},
        })).collect();
        let value = serde_json::json!({"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": devices});
        prop_assert_eq!(yaml::parse(&value.to_string()), Ok(value));
    }

    #[test]
    fn no_text_makes_the_yaml_reader_panic(text in "[-:a-c0-9 \n\\[\\]{},\"'#&*!|>?%@~.]{0,60}") {
        let _ = yaml::parse(&text);
    }

    #[test]
    fn a_name_that_is_read_is_written_the_same(text in "[a-b./=:_-]{0,12}") {
        if let Ok(name) = text.parse::<QualifiedName>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}
