//! Tests of the views: absent and `null` are one, and what makes a container privileged.

use super::*;

#[test]
fn a_quota_is_worth_cpus() {
    for (cpu, worth) in [
        (r#"{"quota":250000,"period":100000}"#, Some(3)),
        (r#"{"quota":100000}"#, Some(1)),
        (r#"{"quota":-1,"period":100000}"#, None),
        (r#"{"quota":0,"period":0}"#, None),
        ("{}", None),
        ("null", None),
    ] {
        let resources = format!(r#"{{"cpu":{cpu}}}"#);
        let view = CpuView::of_resources(resources.as_bytes()).expect("valid");
        assert_eq!(view.worth(), worth, "{cpu}");
    }
    let view = CpuView::of_resources(br#"{"cpu":{"cpus":"0-3","mems":"1"}}"#).expect("valid");
    assert_eq!((view.cpus.as_str(), view.mems.as_str()), ("0-3", "1"));
}

fn view(json: &str) -> SpecView {
    serde_json::from_str(json).expect("the view accepts valid specs")
}

fn with_rules(rules: &str) -> SpecView {
    view(&format!(r#"{{"linux":{{"resources":{{"devices":[{rules}]}}}}}}"#))
}

#[test]
fn nulls_read_as_absent() {
    let spec = view(
        r#"{"annotations":null,"mounts":null,"hooks":null,"root":null,
            "process":{"terminal":null,"env":null,"capabilities":null},
            "linux":{"namespaces":null,"cgroupsPath":null,"devices":null,"resources":null,
                     "rootfsPropagation":null}}"#,
    );
    assert!(spec.annotations.is_empty() && spec.mounts.is_empty() && spec.hooks.is_empty());
    assert!(!spec.has_private_pid_namespace());
    assert_eq!(spec.cgroups_path(), "");
    assert_eq!(spec.is_privileged(), None);
    let spec = view(r#"{"process":null,"linux":null}"#);
    assert_eq!(spec.env("PATH"), None);
    assert_eq!(spec.is_privileged(), None);
}

#[test]
fn a_joined_pid_namespace_is_not_private() {
    let private = view(r#"{"linux":{"namespaces":[{"type":"pid","path":null}]}}"#);
    let joined = view(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#);
    let host = view(r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#);
    assert!(private.has_private_pid_namespace());
    assert!(!joined.has_private_pid_namespace());
    assert!(!host.has_private_pid_namespace());
}

#[test]
fn the_last_entry_of_a_variable_is_the_one_that_counts() {
    let spec = view(r#"{"process":{"env":["A=1","AB=2","A=x=y","B","C="]}}"#);
    assert_eq!(spec.env("A"), Some("x=y"));
    assert_eq!(spec.env("C"), Some(""));
    assert_eq!((spec.env("B"), spec.env("D"), spec.env("")), (None, None, None));
}

#[test]
fn a_spec_as_containerd_writes_it_is_read() {
    let spec = view(include_str!("../edits/golden/cri.json"));
    let linux = spec.linux.as_ref().expect("linux is there");
    assert_eq!(spec.mounts.len(), 12);
    assert_eq!(spec.mounts[6].destination, "/etc/hosts");
    assert!(spec.mounts[6].source.ends_with("/etc-hosts"));
    assert_eq!(spec.env("CUDA_VERSION"), Some("12.4.1"));
    assert_eq!(linux.resources.devices.len(), 1);
    assert_eq!(spec.is_privileged(), None);
}

#[test]
fn devices_and_hooks_are_read_with_their_kinds() {
    let spec = view(
        r#"{"hooks":{"poststop":[{"path":"/b"}],"tomorrow":7,"createRuntime":null,
                     "prestart":[{"path":"/bin/a","args":["a","x"],"timeout":3,"new":1}]},
            "root":{"path":"rootfs","readonly":true},
            "linux":{"rootfsPropagation":"slave",
                     "devices":[{"path":"/dev/x","type":"c","major":10,"minor":200,"fileMode":438}]}}"#,
    );
    let hooks: Vec<_> = spec.hooks.iter().map(|h| (h.kind, h.path.as_str())).collect();
    assert_eq!(hooks, [(HookKind::Poststop, "/b"), (HookKind::Prestart, "/bin/a")]);
    assert_eq!(spec.hooks[1].args, ["a", "x"]);
    assert!(spec.root.expect("root is there").readonly);
    let linux = spec.linux.expect("linux is there");
    assert_eq!(linux.rootfs_propagation, "slave");
    assert_eq!(linux.devices[0].to_string(), "c 10:200");
}

#[test]
fn cap_sys_admin_makes_privileged() {
    let spec = view(r#"{"process":{"capabilities":{"bounding":["CAP_KILL","CAP_SYS_ADMIN"]}}}"#);
    assert!(spec.is_privileged().expect("privileged").contains("CAP_SYS_ADMIN"));
    let effective = view(r#"{"process":{"capabilities":{"effective":["CAP_SYS_ADMIN"]}}}"#);
    assert_eq!(effective.is_privileged(), None);
}

#[test]
fn a_device_rule_that_allows_all_makes_privileged() {
    let rules = [
        r#"{"allow":true,"access":"rwm"}"#,
        r#"{"allow":false,"access":"rwm"},{"allow":true,"type":"a","access":"rw"}"#,
        r#"{"allow":true,"type":"a","major":1,"minor":3,"access":"rwm"}"#,
        r#"{"allow":true,"type":"c","access":"rw"}"#,
        r#"{"allow":true,"type":"c","major":-1,"minor":-1,"access":"r"}"#,
        r#"{"allow":true,"type":"a","access":"rwm"},{"allow":false,"type":"b","access":"rwm"}"#,
        r#"{"allow":true,"type":"a","access":"rwm"},{"allow":false,"access":"w"}"#,
    ];
    for rules in rules {
        let why = with_rules(rules).is_privileged();
        assert!(why.as_ref().is_some_and(|why| why.contains("device rule")), "{rules}: {why:?}");
    }
}

#[test]
fn rules_for_named_devices_or_taken_back_do_not() {
    let rules = [
        r#"{"allow":false,"access":"rwm"}"#,
        r#"{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}"#,
        r#"{"allow":true,"type":"c","major":136,"access":"rwm"}"#,
        r#"{"allow":true,"type":"c","access":"m"},{"allow":true,"type":"b","access":"m"}"#,
        r#"{"allow":true,"type":"a","access":"rwm"},{"allow":false,"access":"rwm"}"#,
        r#"{"allow":true,"type":"c","access":"rwm"},{"allow":false,"type":"c","access":"rw"}"#,
    ];
    for rules in rules {
        assert_eq!(with_rules(rules).is_privileged(), None, "{rules}");
    }
}
