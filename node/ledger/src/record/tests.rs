//! What can be asked of grants; and made-up grants for the tests of the whole crate.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use plan::{Capability, Extra, Verdict};

use super::*;

pub(crate) fn uuid(number: u64) -> GpuUuid {
    format!("GPU-{number:08x}-0d4f-4d8a-9b2e-1f6c7a8b9c0d").parse().expect("a UUID")
}

fn given(number: u64) -> GivenGpu {
    let minor = u32::try_from(number).expect("small");
    GivenGpu {
        uuid: uuid(number),
        pci: PciAddress { domain: 0, bus: 0x53, device: 0, function: 0 },
        minor,
        index: minor,
        model: "NVIDIA H100 80GB HBM3".to_owned(),
        memory: Mib(81_559),
        numa_node: Some(0),
    }
}

/// A grant of Berth's with id and owner number `number`, which holds these GPUs.
pub(crate) fn grant(number: u64, gpus: &[u64]) -> Grant {
    Grant {
        id: GrantId::from_bits(number),
        owner: Owner {
            namespace: "k8s.io".to_owned(),
            sandbox: format!("sandbox-{number}"),
            container: None,
        },
        label: format!("ns/pod-{number}"),
        kubernetes_namespace: Some("ns".to_owned()),
        origin: Origin::Berth,
        state: State::Applied,
        requested: BTreeMap::from([("berth.dev/gpus".to_owned(), gpus.len().to_string())]),
        gpus: gpus.iter().map(|number| given(*number)).collect(),
        slots: Vec::new(),
        capabilities: Capabilities::default(),
        unconfined: false,
        candidates: vec![
            Candidate { gpu: uuid(0), verdict: Verdict::Chosen },
            Candidate { gpu: uuid(1), verdict: Verdict::Passed("farther".to_owned()) },
        ]
        .into(),
        closeness: "one GPU".to_owned(),
        exclusive: BTreeMap::new(),
        sandbox_init: None,
        members: vec![Member {
            container: format!("container-{number}"),
            name: "c".to_owned(),
            init: None,
            cgroup: None,
            pinning: Pinning::default(),
            extras: Extras::default(),
        }],
        notes: Vec::new(),
        created: 1_760_000_000,
    }
}

fn any_process() -> impl Strategy<Value = ProcessId> {
    (any::<u32>(), any::<u64>()).prop_map(|(pid, start_time)| ProcessId { pid, start_time })
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Chosen),
        ".{0,4}".prop_map(Verdict::Passed),
        ".{0,4}".prop_map(Verdict::Unavailable),
    ]
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    (0..4_u64, any_verdict()).prop_map(|(gpu, verdict)| Candidate { gpu: uuid(gpu), verdict })
}

fn any_given() -> impl Strategy<Value = GivenGpu> {
    (0..4_u64, any::<(u8, u32)>(), "(H100|H200)", any::<u64>(), option::of(0..2_u32)).prop_map(
        |(number, (bus, minor), model, memory, numa_node)| GivenGpu {
            pci: PciAddress { domain: 0, bus, device: 31, function: 7 },
            minor,
            model,
            memory: Mib(memory),
            numa_node,
            ..given(number)
        },
    )
}

fn any_member() -> impl Strategy<Value = Member> {
    let cgroup = option::of("/[a-z:.]{1,9}".prop_map(PathBuf::from));
    let extras = btree_set(proptest::sample::select(Extra::ALL.to_vec()), 0..4).prop_map(Extras);
    (".*", ".*", option::of(any_process()), cgroup, any_pinning(), extras).prop_map(
        |(container, name, init, cgroup, pinning, extras)| Member {
            container,
            name,
            init,
            cgroup,
            pinning,
            extras,
        },
    )
}

fn any_cpus() -> impl Strategy<Value = CpuSet> {
    btree_set(0..256_u32, 0..4).prop_map(|set| set.into_iter().collect())
}

fn any_pinning() -> impl Strategy<Value = Pinning> {
    let cpus = (option::of(any_cpus()), option::of(any_cpus()), any_cpus(), any_cpus());
    let rest = (option::of(any_cpus()), any_cpus(), any::<bool>(), ".{0,4}", ".{0,4}");
    (cpus, rest).prop_map(|((requested, effective, near, wide), rest)| Pinning {
        requested,
        effective,
        near,
        wide,
        memory: rest.0,
        preferred: rest.1,
        exclusive: rest.2,
        reason: rest.3,
        memory_reason: rest.4,
        requested_memory: None,
    })
}

/// A MIG instance at `start` of a GPU, as far as it has come.
pub(crate) fn slot(gpu: u64, start: u32, stage: Stage) -> GivenSlot {
    let made = GivenInstance { gpu_instance: 7 + start, compute_instance: 0, uuid: None, inode: 1 };
    GivenSlot {
        gpu: uuid(gpu),
        profile: 19,
        name: "1g.10gb".parse().expect("a name"),
        start,
        size: 1,
        memory: Mib(9_984),
        sms: 16,
        stage,
        instance: (stage != Stage::Decided && stage != Stage::Begun).then_some(made),
        foreign: false,
    }
}

fn any_slot() -> impl Strategy<Value = GivenSlot> {
    let stage =
        proptest::sample::select(vec![Stage::Decided, Stage::Begun, Stage::Made, Stage::Ending]);
    (0..4_u64, any::<u32>(), stage)
        .prop_map(|(gpu, start, stage)| GivenSlot { start, ..slot(gpu, 0, stage) })
}

/// Grants as foreign as their types allow; few GPUs and words, so that they share them.
pub(crate) fn any_grant() -> impl Strategy<Value = Grant> {
    let owner = (".*", ".*", option::of(".*")).prop_map(|(namespace, sandbox, container)| Owner {
        namespace,
        sandbox,
        container,
    });
    let origin = prop_oneof![Just(Origin::Berth), ".*".prop_map(|by| Origin::External { by })];
    let state = prop_oneof![Just(State::Reserved), Just(State::Applied), Just(State::Releasing)];
    let capabilities =
        btree_set(proptest::sample::select(Capability::ALL.to_vec()), 0..4).prop_map(Capabilities);
    let who = (any::<u64>(), owner, ".*", option::of(".*"), origin, state);
    let what = (
        btree_map(".*", ".*", 0..3),
        vec(any_given(), 0..4),
        vec(any_slot(), 0..3),
        capabilities,
        any::<bool>(),
        vec(any_candidate(), 0..6),
        ".*",
    );
    let exclusive = btree_map("[a-z]{0,3}", any_cpus(), 0..3);
    let members = (vec(any_member(), 0..3), exclusive);
    let since = (option::of(any_process()), members, vec(".*", 0..2), any::<u64>());
    (who, what, since).prop_map(|(who, what, since)| {
        let (id, owner, label, kubernetes_namespace, origin, state) = who;
        let (requested, gpus, slots, capabilities, unconfined, candidates, closeness) = what;
        let (sandbox_init, (members, exclusive), notes, created) = since;
        let id = GrantId::from_bits(id);
        Grant {
            id,
            owner,
            label,
            kubernetes_namespace,
            origin,
            state,
            requested,
            gpus: gpus.into(),
            slots,
            capabilities,
            unconfined,
            candidates: candidates.into(),
            closeness,
            exclusive,
            sandbox_init,
            members,
            notes,
            created,
        }
    })
}

#[test]
fn a_grant_knows_its_gpus_and_members() {
    let grant = grant(1, &[3, 5]);
    assert!(grant.holds(&uuid(5)) && !grant.holds(&uuid(4)));
    assert!(grant.is_member("container-1") && !grant.is_member("container-2"));
}

#[test]
fn what_is_held_in_any_state_is_taken_and_says_by_whom() {
    let mut grants = vec![grant(1, &[0, 1]), grant(2, &[2]), grant(3, &[2])];
    grants[0].state = State::Reserved;
    grants[1].state = State::Releasing;
    grants[2].origin = Origin::External { by: "cdi edits".to_owned() };
    let grants: Vec<Arc<Grant>> = grants.into_iter().map(Arc::new).collect();
    let occupancy = occupancy(&grants);
    assert!(!occupancy.is_free(&uuid(0)) && !occupancy.is_free(&uuid(1)));
    assert!(occupancy.is_free(&uuid(3)));
    let holders = &occupancy.holders[&uuid(2)];
    let seen: Vec<_> =
        holders.iter().map(|h| (h.label.as_ref(), h.releasing, h.external)).collect();
    assert_eq!(seen, [("ns/pod-2", true, false), ("ns/pod-3", false, true)]);
}

#[test]
fn an_instance_takes_its_slices_and_leaves_the_rest_of_its_gpu() {
    let mut one = grant(1, &[0]);
    one.slots = vec![slot(0, 0, Stage::Made), slot(0, 4, Stage::Decided)];
    let grants = [Arc::new(one)];
    let occupancy = occupancy(&grants);
    assert!(occupancy.of_whole(&uuid(0)).is_empty() && occupancy.idle.is_empty());
    let starts: Vec<u32> = occupancy.of_slices(&uuid(0)).iter().map(|slice| slice.start).collect();
    assert_eq!(starts, [0, 4]);
}

#[test]
fn what_stands_unused_until_it_is_destroyed_is_idle() {
    let mut one = grant(1, &[0]);
    one.state = State::Releasing;
    one.slots = vec![slot(0, 0, Stage::Made), slot(0, 4, Stage::Ending)];
    let grants = [Arc::new(one)];
    let occupancy = occupancy(&grants);
    assert_eq!(occupancy.idle, [slot(0, 0, Stage::Made).place()]);
    let held = occupancy.of_slices(&uuid(0));
    assert!(held.len() == 1 && held[0].start == 4 && held[0].holder.releasing);
}

#[test]
fn memory_is_that_of_the_instances_where_there_are_any() {
    let mut one = grant(1, &[0]);
    assert_eq!(one.memory(), Mib(81_559));
    one.slots = vec![slot(0, 0, Stage::Made), slot(0, 4, Stage::Made)];
    assert_eq!(one.memory(), Mib(2 * 9_984));
    assert!(one.has_works());
    one.origin = Origin::External { by: "injected".to_owned() };
    assert!(!one.has_works(), "what others made is theirs to destroy");
}
