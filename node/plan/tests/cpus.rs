//! CPUs and memory near GPUs: on machines of every kind, against oracles that look at one CPU at a time.

mod nodes;

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use nodes::{gpu, uuid};
use plan::cpus::{Asked, Ground, Held, Near, NumaNode, exclusive, merge, pick, pin};
use plan::{CpuSet, Cpus, Gpu, NodeSet, Numa, Pinning, Topology};
use proptest::prelude::*;

/// Sockets of equal cores; first threads of all cores come first, as x86 machines number them.
#[derive(Debug, Clone, Copy)]
struct Machine {
    sockets: u32,
    cores: u32,
    threads: u32,
    l3_cores: u32,
    nodes_per_socket: u32,
    remote: u32,
}

const P5: Machine =
    Machine { sockets: 2, cores: 48, threads: 2, l3_cores: 8, nodes_per_socket: 1, remote: 32 };
const P4D: Machine =
    Machine { sockets: 2, cores: 24, threads: 2, l3_cores: 24, nodes_per_socket: 1, remote: 21 };
const NPS4: Machine =
    Machine { sockets: 2, cores: 16, threads: 2, l3_cores: 4, nodes_per_socket: 4, remote: 32 };

impl Machine {
    fn core(self, cpu: u32) -> u32 {
        cpu % (self.sockets * self.cores)
    }

    fn node(self, cpu: u32) -> u32 {
        self.core(cpu) / (self.cores / self.nodes_per_socket)
    }

    fn socket(self, cpu: u32) -> u32 {
        self.core(cpu) / self.cores
    }

    fn groups(self, number: u32, of: impl Fn(u32) -> u32) -> Vec<CpuSet> {
        let all = 0..self.sockets * self.cores * self.threads;
        (0..number).map(|group| all.clone().filter(|cpu| of(*cpu) == group).collect()).collect()
    }

    fn distance(self, from: u32, to: u32) -> u32 {
        match (from == to, from / self.nodes_per_socket == to / self.nodes_per_socket) {
            (true, _) => 10,
            (false, true) => 12,
            (false, false) => self.remote,
        }
    }

    fn topology(self) -> Topology {
        let nodes = self.sockets * self.nodes_per_socket;
        let node = |(id, cpus): (u32, CpuSet)| NumaNode {
            id,
            cpus,
            memory: true,
            distances: (0..nodes).map(|to| self.distance(id, to)).collect(),
        };
        let cores = self.sockets * self.cores;
        Topology {
            nodes: (0..).zip(self.groups(nodes, |cpu| self.node(cpu))).map(node).collect(),
            packages: self.groups(self.sockets, |cpu| self.socket(cpu)),
            caches: self.groups(cores / self.l3_cores, |cpu| self.core(cpu) / self.l3_cores),
            cores: self.groups(cores, |cpu| self.core(cpu)),
            ..Topology::default()
        }
    }
}

/// Two processors of Grace's kind, each with two GPUs whose memory is a node of its own.
fn grace() -> Topology {
    let plain =
        Machine { sockets: 2, cores: 8, threads: 1, l3_cores: 8, nodes_per_socket: 1, remote: 40 };
    let mut topology = plain.topology();
    for (id, socket) in [(2, 0), (3, 0), (4, 1), (5, 1)] {
        let far = |node: u32| if node == socket { 80 } else { 120 };
        let own = |node: u32| if node == id { 10 } else { 254 };
        let distances = (0..2).map(far).chain((2..6).map(own)).collect();
        topology.nodes.push(NumaNode { id, cpus: CpuSet::none(), memory: true, distances });
    }
    for node in 0..2_usize {
        let far = (2..6).map(|id: usize| if (id - 2) / 2 == node { 80 } else { 120 });
        topology.nodes[node].distances.extend(far);
    }
    topology.gpu_memory = (0..4).map(|index| (gpu_on(index, None).pci, 2 + index)).collect();
    topology
}

fn gpu_on(index: u32, node: Option<u32>) -> Gpu {
    gpu(index, uuid(index), node)
}

fn near(topology: &Topology, nodes: &[Option<u32>]) -> Option<Near> {
    let gpus: Vec<Gpu> = (0..).zip(nodes).map(|(index, node)| gpu_on(index, *node)).collect();
    Near::of(&gpus.iter().collect::<Vec<_>>(), topology)
}

fn set(text: &str) -> CpuSet {
    text.parse().expect("a list")
}

fn ground<'a>(topology: &'a Topology, near: Option<&'a Near>, pool: &'a CpuSet) -> Ground<'a> {
    static NONE: CpuSet = CpuSet::none();
    Ground { topology, near, pool, reserved: &NONE, allowed: None, allowed_memory: None }
}

#[test]
fn lists_are_read_as_the_kernel_writes_them_and_nothing_else_is() {
    for (text, written) in [("", ""), ("0-3,8\n", "0-3,8"), ("8,0,1,3,2", "0-3,8"), ("7-7", "7")] {
        assert_eq!(set(text).to_string(), written);
    }
    for bad in ["a", "1-", "-1", "3-1", "1,,2", "+1", "0x1", "0-4294967295", "65536", "1 2"] {
        let error = bad.parse::<CpuSet>().expect_err(bad).to_string();
        assert!(error.contains("list of numbers"), "{error}");
    }
}

#[test]
fn a_gpu_s_own_node_is_near_on_machines_of_two_nodes() {
    for (machine, first, second) in
        [(P5, "0-47,96-143", "48-95,144-191"), (P4D, "0-23,48-71", "24-47,72-95")]
    {
        let topology = machine.topology();
        for (node, cpus) in [(0, first), (1, second)] {
            let near = near(&topology, &[Some(node)]).expect("it has one");
            assert_eq!((near.cpus.to_string().as_str(), near.is_spread()), (cpus, false));
            assert_eq!(near.nodes(), [node].into_iter().collect());
        }
        let both = near(&topology, &[Some(0), Some(1)]).expect("they have");
        assert_eq!(both.cpus, topology.cpus());
        assert!(both.is_spread(), "each has its own half");
    }
}

#[test]
fn a_part_of_a_processor_has_its_mates() {
    let near = near(&NPS4.topology(), &[Some(5)]).expect("near");
    assert_eq!((near.own.to_string().as_str(), near.mates.to_string().as_str()), ("5", "4,6-7"));
    assert_eq!(near.cpus, set("16-31,48-63"), "its socket");
}

#[test]
fn memory_alone_is_no_place_for_cpus() {
    let topology = grace();
    for (named, home) in [(2, 0), (3, 0), (4, 1), (0, 0), (1, 1)] {
        let near = near(&topology, &[Some(named)]).expect("near");
        assert_eq!(near.nodes(), [home].into_iter().collect(), "node {named}");
        assert_eq!(near.gpu_memory, set("2"), "the memory of the first GPU");
    }
    let near = near(&topology, &[Some(0)]).expect("near");
    let pool = CpuSet::none();
    let ground = ground(&topology, Some(&near), &pool);
    assert_eq!(ground.preferred(), set("0"), "programs do not prefer the GPU's own");
    let strict = pin((Cpus::Auto, Numa::Strict), "k", &ground, &Asked::default(), None);
    assert_eq!(strict.expect("it can be").memory, Some(set("0,2")));
}

#[test]
fn a_gpu_without_a_node_leaves_everything_alone() {
    let topology = P5.topology();
    assert_eq!(near(&topology, &[None]), None);
    assert_eq!(near(&topology, &[Some(0), None]), None);
    assert_eq!(near(&Topology::default(), &[Some(0)]), None);
    let pool = CpuSet::none();
    let ground = ground(&topology, None, &pool);
    let pinning = pin((Cpus::Auto, Numa::Prefer), "k", &ground, &Asked::default(), None);
    let pinning = pinning.expect("nothing to refuse");
    assert_eq!((pinning.effective, pinning.preferred), (None, NodeSet::none()));
    assert!(pinning.reason.contains("does not say"), "{}", pinning.reason);
}

#[test]
fn what_is_set_aside_is_not_shared() {
    let topology = Topology { isolated: set("0-3"), nohz_full: set("2-5"), ..P4D.topology() };
    let near = near(&topology, &[Some(0)]).expect("near");
    let (pool, reserved, allowed) = (set("20-23,68-71"), set("6"), set("0-50"));
    let ground = Ground {
        topology: &topology,
        near: Some(&near),
        pool: &pool,
        reserved: &reserved,
        allowed: Some(&allowed),
        allowed_memory: None,
    };
    let pinning = pin((Cpus::Auto, Numa::Off), "k", &ground, &Asked::default(), None);
    assert_eq!(pinning.expect("pinned").effective, Some(set("4-5,7-19,48-50")));
}

#[test]
fn a_cgroup_that_gives_no_near_cpus_leaves_them_alone_and_says_so() {
    let topology = P5.topology();
    let near = near(&topology, &[Some(1)]).expect("near");
    let (pool, allowed, memory) = (CpuSet::none(), set("0-1"), set("0"));
    let ground = Ground {
        allowed: Some(&allowed),
        allowed_memory: Some(&memory),
        ..ground(&topology, Some(&near), &pool)
    };
    let pinning = pin((Cpus::Auto, Numa::Prefer), "k", &ground, &Asked::default(), None);
    let pinning = pinning.expect("not refused");
    assert_eq!((&pinning.effective, &pinning.preferred), (&None, &NodeSet::none()));
    assert!(pinning.reason.contains("48-95,144-191 are near") && pinning.reason.contains("0-1"));
    assert_eq!(
        merge(&pinning, &Asked::default(), &pool),
        pinning,
        "an update changes nothing of it"
    );
    let strict =
        pin((Cpus::Auto, Numa::Strict), "berth.dev/numa", &ground, &Asked::default(), None);
    assert_eq!(
        strict.expect_err("it cannot be").to_string(),
        "berth: annotation berth.dev/numa=\"strict\": memory of NUMA nodes 1 is near the container's GPUs, \
         and its cgroup can give only that of 0; write prefer, or leave it out"
    );
}

#[test]
fn whole_cores_of_one_cache_next_to_the_gpu_come_first() {
    let topology = P5.topology();
    let near = near(&topology, &[Some(1)]).expect("near");
    let free = set("0-191");
    let got = |number, free: &CpuSet| pick(number, free, Some(&near), &topology).expect("room");
    assert_eq!(got(8, &free), set("48-51,144-147"));
    assert_eq!(got(16, &free), set("48-55,144-151"), "one cache");
    assert_eq!(got(3, &free), set("48-49,144"));
    // A core is broken already: its other thread goes first, and no second one is broken.
    assert_eq!(got(3, &free.without(&set("60"))), set("56,152,156"));
    // A cache with less room that does is used up first.
    assert_eq!(got(4, &free.without(&set("64-69,160-165"))), set("70-71,166-167"));
    assert_eq!(got(98, &free).without(&near.cpus).len(), 2, "what is near, then the rest");
    assert_eq!(pick(193, &free, Some(&near), &topology), None);
}

#[test]
fn refusals_of_exclusive_cpus_say_what_there_is() {
    let topology = P4D.topology();
    let near = near(&topology, &[Some(0)]).expect("near");
    let eight = NonZeroU32::new(8).expect("eight");
    let none = CpuSet::none();
    let words = |pool: &CpuSet, held: &[Held<'_>]| {
        let refused =
            exclusive("berth.dev/cpus", eight, &ground(&topology, Some(&near), pool), held);
        refused.expect_err("refused").to_string()
    };
    assert_eq!(
        words(&none, &[]),
        "berth: annotation berth.dev/cpus=\"8\": this node has no CPUs to give to one container alone; write auto, or \
         the node's operator sets them aside with node.exclusive-cpus"
    );
    let (pool, theirs) = (set("4-11,200"), set("4-7"));
    let held = [Held { label: "ns/other", cpus: &theirs, releasing: false }];
    assert_eq!(
        words(&pool, &held),
        "berth: no room for cpus 8: 4-7 held by ns/other; 200 not to be had here; of node.exclusive-cpus 4-11,200, \
         8-11 are free; nearest fit: cpus 4"
    );
}

#[test]
fn updates_keep_to_what_is_near() {
    let kept = Pinning { near: set("0-3"), wide: set("0-7"), ..Pinning::default() };
    let cases: [(Asked, &str, &str); 6] = [
        (Asked::default(), "0-3", ""),
        (Asked { cpus: Some(set("2-5")), ..Asked::default() }, "2-3", ""),
        (Asked { cpus: Some(set("4-5")), ..Asked::default() }, "4-5", "none of CPUs 4-5"),
        (
            Asked { cpus: Some(set("2-5")), quota: Some(3), ..Asked::default() },
            "2-5",
            "its quota needs 3 CPUs",
        ),
        (Asked { quota: Some(6), ..Asked::default() }, "0-7", "its quota needs 6 CPUs"),
        (
            Asked { cpus: Some(set("5,9")), kubelet: Some(set("5,9")), ..Asked::default() },
            "5,9",
            "the kubelet gave",
        ),
    ];
    for (asked, effective, reason) in cases {
        let next = merge(&kept, &asked, &CpuSet::none());
        assert_eq!(next.effective, Some(set(effective)), "{asked:?}");
        assert!(next.reason.starts_with(reason), "{asked:?}: {}", next.reason);
        assert_eq!(next.reason.is_empty(), reason.is_empty(), "{asked:?}: {}", next.reason);
        assert_eq!(next.requested, asked.cpus);
    }
}

fn any_machine() -> impl Strategy<Value = Machine> {
    let parts = (1..=2_u32, 1..=3_u32, 1..=2_u32, 1..=3_u32, 1..=4_u32, 13..40_u32);
    parts.prop_map(|(sockets, per_l3, threads, l3_per_node, nodes_per_socket, remote)| Machine {
        sockets,
        cores: per_l3 * l3_per_node * nodes_per_socket,
        threads,
        l3_cores: per_l3,
        nodes_per_socket,
        remote,
    })
}

fn any_set(most: u32) -> impl Strategy<Value = CpuSet> {
    proptest::collection::btree_set(0..most, 0..most as usize)
        .prop_map(|set| set.into_iter().collect())
}

proptest! {
    #[test]
    fn lists_survive_being_written(numbers in proptest::collection::btree_set(0..300_u32, 0..60)) {
        let ours: CpuSet = numbers.iter().copied().collect();
        let read: CpuSet = ours.to_string().parse().expect("its own form");
        prop_assert_eq!(read.iter().collect::<BTreeSet<_>>(), numbers);
        let json = serde_json::to_string(&ours).expect("json");
        prop_assert_eq!(serde_json::from_str::<CpuSet>(&json).expect("json"), ours);
    }

    #[test]
    fn sets_are_what_sets_of_numbers_are(
        one in proptest::collection::btree_set(0..200_u32, 0..40), other in proptest::collection::btree_set(0..300_u32, 0..40),
    ) {
        let (ours, theirs): (CpuSet, CpuSet) = (one.iter().copied().collect(), other.iter().copied().collect());
        let is = |set: &CpuSet, wanted: BTreeSet<u32>| {
            (set.iter().collect::<BTreeSet<_>>(), set.len(), set.first(), set.is_empty())
                == (wanted.clone(), wanted.len(), wanted.first().copied(), wanted.is_empty())
                && *set == wanted.into_iter().collect()
        };
        prop_assert!(is(&ours, one.clone()));
        prop_assert!(is(&ours.and(&theirs), &one & &other));
        prop_assert!(is(&ours.or(&theirs), &one | &other));
        prop_assert!(is(&ours.without(&theirs), &one - &other));
        prop_assert_eq!(ours.is_within(&theirs), one.is_subset(&other));
        prop_assert!(ours.and(&theirs).is_within(&ours));
        prop_assert_eq!(ours.meets(&theirs), !one.is_disjoint(&other));
        prop_assert!((0..320).all(|number| ours.has(number) == one.contains(&number)));
    }

    #[test]
    fn near_is_the_node_and_the_rest_of_its_processor(machine in any_machine(), seed in 0..8_u32) {
        let topology = machine.topology();
        let home = seed % (machine.sockets * machine.nodes_per_socket);
        let near = near(&topology, &[Some(home)]).expect("near");
        for cpu in topology.cpus().iter() {
            // In these machines all nodes of a processor are equally far from each other.
            let wanted = machine.socket(cpu) == home / machine.nodes_per_socket;
            prop_assert_eq!(near.cpus.has(cpu), wanted, "CPU {}", cpu);
        }
    }

    #[test]
    fn picks_are_free_near_and_break_one_core_at_most(
        machine in any_machine(), seed in 0..8_u32, number in 1..20_usize, taken in any_set(144),
    ) {
        let topology = machine.topology();
        let home = seed % (machine.sockets * machine.nodes_per_socket);
        let near = near(&topology, &[Some(home)]).expect("near");
        let free = topology.cpus().without(&taken);
        let Some(got) = pick(number, &free, Some(&near), &topology) else {
            prop_assert!(free.len() < number);
            return Ok(());
        };
        prop_assert_eq!(got.len(), number);
        prop_assert!(got.is_within(&free));
        let rank = |cpu: u32| match (machine.node(cpu) == home, near.cpus.has(cpu)) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        let worst = got.iter().map(rank).max().unwrap_or(0);
        prop_assert!(free.iter().all(|cpu| rank(cpu) >= worst || got.has(cpu)), "a nearer one is left");
        let broken = topology.cores.iter().filter(|core| {
            let whole = core.is_within(&free);
            whole && core.meets(&got) && !core.is_within(&got)
        });
        prop_assert!(broken.count() <= 1, "{} of {}", got, free);
        // Of the last rank no more caches are used than must be.
        let last: CpuSet = free.iter().filter(|cpu| rank(*cpu) == worst).collect();
        let missing = got.and(&last).len();
        let rooms: Vec<usize> =
            topology.caches.iter().map(|cache| cache.and(&last).len()).filter(|room| *room > 0).collect();
        let used = topology.caches.iter().filter(|cache| cache.and(&last).meets(&got)).count();
        let enough = |mask: u32| {
            let chosen = rooms.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0);
            chosen.map(|(_, room)| room).sum::<usize>() >= missing
        };
        prop_assume!(rooms.len() <= 12);
        let least = (0..1_u32 << rooms.len()).filter(|mask| enough(*mask)).map(u32::count_ones).min();
        prop_assert_eq!(Some(used), least.map(|count| count as usize));
    }

    #[test]
    fn exclusive_cpus_never_overlap_and_are_refused_only_for_want_of_them(
        machine in any_machine(), pool in any_set(144),
        wishes in proptest::collection::vec((1..9_u32, any::<bool>()), 1..12),
    ) {
        let topology = machine.topology();
        let near = near(&topology, &[Some(0)]).expect("near");
        let ground = ground(&topology, Some(&near), &pool);
        let mut held: Vec<CpuSet> = Vec::new();
        for (number, ends) in wishes {
            if ends && !held.is_empty() {
                held.remove(0);
            }
            let others: Vec<Held<'_>> = held
                .iter()
                .map(|cpus| Held { label: "other", cpus, releasing: false })
                .collect();
            let there: Vec<u32> = pool.iter().filter(|cpu| topology.cpus().has(*cpu)).collect();
            let free = there.iter().filter(|cpu| !held.iter().any(|set| set.has(**cpu))).count();
            match exclusive("k", NonZeroU32::new(number).expect("positive"), &ground, &others) {
                Ok(got) => {
                    prop_assert_eq!(got.len(), number as usize);
                    prop_assert!(got.is_within(&pool) && got.is_within(&topology.cpus()));
                    prop_assert!(!held.iter().any(|set| set.meets(&got)));
                    held.push(got);
                }
                Err(refusal) => {
                    prop_assert!(free < number as usize, "{}", refusal);
                    prop_assert!(refusal.is_for_want_of_room() != pool.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_merge_is_what_the_contract_says(
        near in any_set(12), requested in proptest::option::of(any_set(12)), quota in proptest::option::of(1..14_u64),
        pool in any_set(12), memory in proptest::option::of(any_set(3)), kubelet in any::<bool>(),
    ) {
        let wide = set("0-11").without(&pool);
        let near = near.without(&pool);
        let ours = set("0");
        let kept = Pinning { near: near.clone(), wide: wide.clone(), memory: Some(ours.clone()), ..Pinning::default() };
        let requested = requested.filter(|cpus| !cpus.is_empty());
        let given = kubelet.then(|| requested.clone().unwrap_or_else(|| set("3")));
        let asked = Asked { cpus: requested.clone(), memory, quota, kubelet: given.clone() };
        let next = merge(&kept, &asked, &pool);
        prop_assert_eq!(&next.memory, &Some(ours), "memory is never changed");
        let all = requested.clone().unwrap_or(wide);
        let both: Vec<u32> = (0..12).filter(|cpu| all.has(*cpu) && near.has(*cpu)).collect();
        let does = !both.is_empty() && quota.is_none_or(|needs| both.len() as u64 >= needs);
        match (&next.effective, given) {
            (effective, Some(given)) if kept.is_pinned() => prop_assert_eq!(effective, &Some(given)),
            (Some(cpus), _) if does => {
                prop_assert_eq!(cpus.iter().collect::<Vec<_>>(), both);
                prop_assert!(next.reason.is_empty());
            }
            (Some(cpus), _) if kept.is_pinned() => {
                let others: Vec<u32> = all.iter().filter(|cpu| !pool.has(*cpu)).collect();
                // Who asks for CPUs of the pool alone gets what others may share, if there is any.
                let instead = if near.is_empty() { &kept.wide } else { &near };
                let instead = if instead.is_empty() { &all } else { instead };
                let exactly = if others.is_empty() { instead.iter().collect() } else { others };
                prop_assert_eq!(cpus.iter().collect::<Vec<_>>(), exactly);
                prop_assert!(near.is_empty() || !next.reason.is_empty(), "it says why");
            }
            (Some(_), _) => prop_assert!(false, "what is not pinned is left alone"),
            (None, _) => prop_assert!(!does),
        }
        prop_assert_eq!(merge(&next, &asked, &pool), next, "once is enough");
    }
}
