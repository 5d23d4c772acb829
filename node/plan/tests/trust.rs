//! Who may ask for what: every policy key, and the words of each "no". Ceilings too.

mod nodes;

use nodes::*;
use plan::policy::*;
use plan::trust::*;
use plan::*;

fn pod(namespace: &str) -> Asker {
    let pod = Pod { namespace: namespace.into(), name: "train-0".into(), ..Pod::default() };
    Asker { pod: Some(pod), containerd_namespace: "k8s.io".into(), privileged: None }
}

fn ctr() -> Asker {
    Asker { containerd_namespace: "default".into(), ..Asker::default() }
}

fn request(pairs: &[(&str, &str)]) -> Request {
    Request::parse(&annotations(pairs), Some("c")).expect("well formed").expect("a request")
}

fn gpus() -> Request {
    request(&[("berth.dev/gpus", "1")])
}

fn plugin() -> OtherAllocator {
    OtherAllocator(Some("the kubelet's device plugin nvidia.com/gpu".into()))
}

fn ask(request: &Request, asker: &Asker, policy: &Policy) -> Result<(), String> {
    may_ask(request, asker, policy, &OtherAllocator(None), false).map_err(|no| no.to_string())
}

fn namespaces(names: &[&str]) -> Policy {
    Policy {
        namespaces: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Policy::default()
    }
}

#[test]
fn by_default_only_containers_outside_pods_may_ask() {
    assert_eq!(ask(&gpus(), &ctr(), &Policy::default()), Ok(()));
    assert_eq!(
        ask(&gpus(), &pod("team-a"), &Policy::default()).expect_err("no namespace is named"),
        "berth: annotation berth.dev/gpus: pods of namespace \"team-a\" may not ask: policy.namespaces is empty; \
         the node's operator can allow it: add \"team-a\" to policy.namespaces"
    );
}

#[test]
fn namespaces_are_names_or_globs() {
    assert_eq!(ask(&gpus(), &pod("team-a"), &namespaces(&["ml", "team-*"])), Ok(()));
    assert_eq!(
        ask(&gpus(), &pod("prod"), &namespaces(&["ml", "team-*"])).expect_err("not among them"),
        "berth: annotation berth.dev/gpus: pods of namespace \"prod\" may not ask: policy.namespaces has only \
         \"ml\" and \"team-*\"; the node's operator can allow it: add \"prod\" to policy.namespaces"
    );
}

#[test]
fn allow_and_deny_are_outright() {
    let policy = |requests| Policy { annotation_requests: requests, ..Policy::default() };
    let allow = policy(AnnotationRequests::Allow);
    assert_eq!(ask(&gpus(), &pod("prod"), &allow), Ok(()));
    assert_eq!(may_ask(&gpus(), &pod("prod"), &allow, &plugin(), false), Ok(()));
    let deny = policy(AnnotationRequests::Deny);
    assert_eq!(
        ask(&gpus(), &ctr(), &deny).expect_err("denied"),
        "berth: annotation berth.dev/gpus: containers of containerd namespace \"default\" may not ask: \
         policy.annotation-requests is \"deny\"; the node's operator can allow it: policy.annotation-requests = \"auto\""
    );
    let how_only = request(&[("berth.dev/numa", "off")]);
    assert!(ask(&how_only, &pod("prod"), &deny).is_err(), "a barred request is never ignored");
}

#[test]
fn who_opts_out_asks_for_nothing() {
    let out = request(&[("c.berth.dev/gpus", "none")]);
    let deny = Policy { annotation_requests: AnnotationRequests::Deny, ..Policy::default() };
    let mut privileged = pod("prod");
    privileged.privileged = Some("CAP_SYS_ADMIN".into());
    assert_eq!(ask(&out, &privileged, &deny), Ok(()));
}

#[test]
fn another_allocator_of_the_node_bars_what_would_allocate_in_pods() {
    let policy = namespaces(&["ml"]);
    assert_eq!(
        may_ask(&gpus(), &pod("ml"), &policy, &plugin(), false).expect_err("barred").to_string(),
        "berth: annotation berth.dev/gpus: the GPUs of this node are allocated by \
         the kubelet's device plugin nvidia.com/gpu; ask there (resources.limits or a resource claim), or the node's \
         operator sets policy.annotation-requests = \"allow\""
    );
    assert_eq!(may_ask(&gpus(), &pod("ml"), &policy, &plugin(), true), Ok(()), "it has allocated");
    assert_eq!(may_ask(&gpus(), &ctr(), &policy, &plugin(), false), Ok(()), "outside pods");
    let how_only = request(&[("berth.dev/numa", "off")]);
    assert_eq!(may_ask(&how_only, &pod("ml"), &policy, &plugin(), false), Ok(()));
}

#[test]
fn exact_devices_have_an_audience_of_their_own() {
    let named = request(&[("berth.dev/devices", uuid(1).as_str())]);
    let policy = |devices| Policy { devices, ..namespaces(&["ml"]) };
    assert_eq!(ask(&named, &ctr(), &policy(Audience::NonCri)), Ok(()));
    assert_eq!(ask(&named, &pod("ml"), &policy(Audience::All)), Ok(()));
    assert_eq!(
        ask(&named, &pod("ml"), &policy(Audience::NonCri)).expect_err("not in pods"),
        "berth: annotation berth.dev/devices: pods of namespace \"ml\" may not ask: policy.devices is \"non-cri\", \
         and gpus and mig would not name devices; the node's operator can allow it: policy.devices = \"all\""
    );
    let off = ask(&named, &ctr(), &policy(Audience::Off)).expect_err("nobody may");
    assert!(off.contains("policy.devices is \"off\"") && off.contains("= \"non-cri\""), "{off}");
    let nobody = policy(Audience::Off);
    let prior = may_ask(&named, &pod("ml"), &nobody, &OtherAllocator(None), true);
    assert_eq!(prior, Ok(()), "with a prior allocation it chooses nothing");
}

#[test]
fn each_extra_has_an_audience_of_its_own_and_is_off_by_default() {
    let may = |extras: &str, asker: &Asker, policy: &Policy| {
        let extras = extras.parse().expect("names");
        may_have_extras("berth.dev/extras", &extras, asker, policy).map_err(|no| no.to_string())
    };
    for extra in Extra::ALL {
        let name = extra.name();
        assert_eq!(
            may(name, &ctr(), &Policy::default()).expect_err("off"),
            format!(
                "berth: annotation berth.dev/extras: containers of containerd namespace \"default\" may not ask: \
                 policy.{name} is \"off\", and it asks for {name}; the node's operator can allow it: policy.{name} = \"non-cri\""
            )
        );
        let all = |audience| {
            let mut policy = Policy::default();
            *match extra {
                Extra::Gds => &mut policy.gds,
                Extra::Rdma => &mut policy.rdma,
                Extra::Gdrcopy => &mut policy.gdrcopy,
                Extra::Imex => &mut policy.imex,
                Extra::Nvswitch => &mut policy.nvswitch,
            } = audience;
            policy
        };
        assert_eq!(may(name, &ctr(), &all(Audience::NonCri)), Ok(()), "{name}");
        assert_eq!(may(name, &pod("ml"), &all(Audience::All)), Ok(()), "{name}");
        let barred = may(name, &pod("ml"), &all(Audience::NonCri)).expect_err("in a pod");
        assert!(barred.ends_with(&format!("policy.{name} = \"all\"")), "{barred}");
        // One that is allowed opens no other.
        let every = "gds,rdma,gdrcopy,imex,nvswitch";
        assert!(may(every, &ctr(), &all(Audience::All)).is_err(), "{name}");
    }
    assert_eq!(may("none", &pod("ml"), &Policy::default()), Ok(()));
}

#[test]
fn privileged_containers_hold_gpus_only_where_the_operator_says_so() {
    let mut asker = ctr();
    asker.privileged = Some("CAP_SYS_ADMIN is in its bounding set".into());
    assert_eq!(
        ask(&gpus(), &asker, &Policy::default()).expect_err("privileged"),
        "berth: berth.dev/gpus: the container is privileged (CAP_SYS_ADMIN is in its bounding set), so it could use every \
         GPU of the node; take that away, or the node's operator sets policy.privileged = true"
    );
    let policy = Policy { privileged: true, ..Policy::default() };
    assert_eq!(ask(&gpus(), &asker, &policy), Ok(()));
    assert!(may_hold("NVIDIA_VISIBLE_DEVICES", &asker, &Policy::default()).is_err());
}

#[test]
fn the_environment_asks_only_outside_pods_and_only_where_turned_on() {
    let on = Policy { env_requests: EnvRequests::NonCri, ..Policy::default() };
    assert!(env_may_ask(&ctr(), &on));
    assert!(!env_may_ask(&pod("ml"), &on));
    assert!(!env_may_ask(&ctr(), &Policy::default()));
}

fn ceilings(all: &[(&str, Option<u32>, Option<u64>)]) -> Policy {
    let one = |(name, gpus, memory): &(&str, Option<u32>, Option<u64>)| {
        ((*name).to_owned(), Ceiling { gpus: *gpus, memory: memory.map(Mib) })
    };
    Policy { ceilings: all.iter().map(one).collect(), ..Policy::default() }
}

fn below(policy: &Policy, held: (u32, u64), asked: (u32, u64)) -> Result<(), String> {
    let (held, asked) = ((held.0, Mib(held.1)), (asked.0, Mib(asked.1)));
    let want = Want::Whole(asked.0.try_into().expect("something"));
    check_ceiling("team-a", policy, &want, held, asked).map_err(|no| no.to_string())
}

#[test]
fn ceilings_bound_what_a_namespace_holds() {
    let policy = ceilings(&[("team-*", Some(4), None)]);
    assert_eq!(below(&policy, (3, 0), (1, 0)), Ok(()));
    assert_eq!(
        below(&policy, (3, 0), (2, 0)).expect_err("five of four"),
        "berth: no room for gpus 2 in namespace team-a: it holds gpus 3 of at most 4 (policy.ceilings.\"team-*\"); \
         nearest fit: gpus 1"
    );
    let full = below(&policy, (4, 0), (1, 0)).expect_err("full");
    assert!(full.ends_with("; release something first"), "{full}");
    assert_eq!(below(&ceilings(&[("prod", Some(0), None)]), (9, 0), (9, 0)), Ok(()));
}

#[test]
fn memory_is_counted_as_whole_gpus_have_it() {
    let policy = ceilings(&[("team-a", None, Some(200_000))]);
    assert_eq!(below(&policy, (1, 80_000), (1, 80_000)), Ok(()));
    assert_eq!(
        below(&policy, (1, 80_000), (2, 160_000)).expect_err("240 of 200"),
        "berth: no room for gpus 2 in namespace team-a: it holds 80000 MiB of at most 200000 MiB \
         (policy.ceilings.\"team-a\"); nearest fit: gpus 1"
    );
    assert!(below(&policy, (1, u64::MAX), (1, 1)).is_err(), "no overflow");
}

#[test]
fn a_name_beats_globs_and_of_globs_every_one_counts() {
    let policy = ceilings(&[("*", Some(1), None), ("team-a", Some(8), None)]);
    assert_eq!(below(&policy, (0, 0), (8, 0)), Ok(()));
    let policy = ceilings(&[("*", Some(8), None), ("team-?", Some(2), None)]);
    assert!(below(&policy, (0, 0), (3, 0)).expect_err("the strictest").contains("\"team-?\""));
}
