//! Expected answers of the kind "no": no room, not allowed, not understood.
//!
//! Decides the words, all of them: each names the object, the reason and a way out. Every message begins with `berth: `. Must not decide when.

use crate::nearest::Nearest;
use crate::words::{quoted, shown};

/// Why a container is not admitted. Its `Display` is what the user reads in `kubectl describe pod`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A field, or a value of one, that comes with a later version.
    #[error("berth: annotation {}={}: {field} is not in this version; {hint}", shown(.key), quoted(.value))]
    NotInThisVersion {
        /// Key as written.
        key: String,
        /// Value as written.
        value: String,
        /// The field, with its value where only that is the matter.
        field: String,
        /// The way out.
        hint: String,
    },
    /// A value that cannot be read.
    #[error(
        "berth: annotation {}={}: {problem}; write for example {}: {example:?}",
        shown(.key), quoted(.value), shown(.key)
    )]
    Malformed {
        /// Key as written.
        key: String,
        /// Value as written.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// A valid value.
        example: String,
    },
    /// A field that does not exist.
    #[error("berth: annotation {}={}: there is no such field{nearest}; the fields are {fields}", shown(.key), quoted(.value))]
    UnknownField {
        /// Key as written.
        key: String,
        /// Value as written.
        value: String,
        /// ` (did you mean berth.dev/gpus?)`, or empty where nothing is near.
        nearest: String,
        /// All fields.
        fields: String,
    },
    /// A container's own claim where there is no pod.
    #[error(
        "berth: annotation {}={}: it addresses one container of a pod, and this container is in none; write {}",
        shown(.key), quoted(.value), shown(.plain)
    )]
    NoPod {
        /// Key as written.
        key: String,
        /// Value as written.
        value: String,
        /// The key that this container's request has.
        plain: String,
    },
    /// Two claims in one.
    #[error(
        "berth: annotations {}={} and {}={} contradict each other: a claim is exactly one of gpus, mig, devices, or memory and/or compute; remove one",
        shown(.key), quoted(.value), shown(.other_key), quoted(.other_value)
    )]
    Contradiction {
        /// The first key.
        key: String,
        /// Its value.
        value: String,
        /// The second key.
        other_key: String,
        /// Its value.
        other_value: String,
    },
    /// Fields that say how, and nothing that says what.
    #[error(
        "berth: annotation {}={}: it says how to give GPUs, but none are asked for, and nobody has allocated any; add for example {}: \"1\", or remove it",
        shown(.key), quoted(.value), shown(.claim_key)
    )]
    ClaimNeeded {
        /// Key as written.
        key: String,
        /// Value as written.
        value: String,
        /// The key that would make a claim.
        claim_key: String,
    },
    /// The policy bars the asker.
    #[error("berth: annotation {}: {asker} may not ask: {reason}; the node's operator can allow it: {setting}", shown(.key))]
    NotAllowed {
        /// Key as written.
        key: String,
        /// Who asks: `pods of namespace "team-a"`.
        asker: String,
        /// Why not, naming the policy key and its value.
        reason: String,
        /// The setting that would allow it.
        setting: String,
    },
    /// Somebody else allocates the GPUs of this node.
    #[error(
        "berth: annotation {}: the GPUs of this node are allocated by {allocator}; ask there (resources.limits or a resource claim), or the node's operator sets policy.annotation-requests = \"allow\"",
        shown(.key)
    )]
    OtherAllocator {
        /// Key as written.
        key: String,
        /// Who, as far as the node shows.
        allocator: String,
    },
    /// A privileged container cannot be confined to its GPUs.
    #[error(
        "berth: {}: the container is privileged ({why}), so it could use every GPU of the node; take that away, or the node's operator sets policy.privileged = true",
        shown(.key)
    )]
    Privileged {
        /// The annotation, or `NVIDIA_VISIBLE_DEVICES`.
        key: String,
        /// What makes it so.
        why: String,
    },
    /// Nothing suitable is free.
    #[error("berth: no room for {wanted}: {candidates}; {nearest}")]
    NoRoom {
        /// The request in words: `gpus 2`.
        wanted: String,
        /// Each candidate and why it was passed over, separated by `; `.
        candidates: String,
        /// What would fit.
        nearest: Nearest,
        /// Whether a grant that is being released would make room, so that waiting helps.
        releasing: bool,
    },
    /// Others have changed what is asked for by name.
    #[error(
        "berth: {wanted}: others are changing the MIG instances of this node just now; look at nvidia-smi -L, and ask again"
    )]
    Changed {
        /// The request in words: `devices MIG-…`.
        wanted: String,
    },
    /// No GPU of the node is cut into slices.
    #[error("berth: no room for {wanted}: {why}")]
    NoMig {
        /// The request in words: `mig 1g.10gb`.
        wanted: String,
        /// Which GPUs could be, and what makes them so; or that none can.
        why: String,
    },
    /// A MIG profile that no GPU of the node has.
    #[error("berth: no room for {wanted}: no GPU of this node has that profile; {profiles}")]
    UnknownProfile {
        /// The request in words.
        wanted: String,
        /// `there are 1g.10gb, 2g.20gb and 7g.80gb`.
        profiles: String,
    },
    /// What was being given back did not come in time.
    #[error(
        "berth: no room for {wanted}, after {seconds} s of waiting for what is being released: {candidates}; try again, and see berth ps and berth reconcile"
    )]
    StillReleasing {
        /// The request in words.
        wanted: String,
        /// Each candidate, as in [`Refusal::NoRoom`].
        candidates: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The namespace holds as much as it may.
    #[error("berth: no room for {wanted} in namespace {}: it holds {held} (policy.ceilings.{pattern:?}); {nearest}", shown(.namespace))]
    Ceiling {
        /// The request in words.
        wanted: String,
        /// Kubernetes' namespace, or containerd's outside CRI.
        namespace: String,
        /// The name or glob whose ceiling it is.
        pattern: String,
        /// What is held, and the ceiling: `gpus 3 of at most 4`, `81559 MiB of at most 100000 MiB`.
        held: String,
        /// What would fit.
        nearest: Nearest,
    },
    /// Exclusive CPUs where none are set aside.
    #[error(
        "berth: annotation {}={}: this node has no CPUs to give to one container alone; write auto, or the node's operator sets them aside with node.exclusive-cpus",
        shown(.key), quoted(.value)
    )]
    NoPool {
        /// Key as written.
        key: String,
        /// Value as written.
        value: String,
    },
    /// Too few exclusive CPUs are free.
    #[error(
        "berth: no room for cpus {wanted}: {states}of node.exclusive-cpus {pool}, {free} are free; {nearest}"
    )]
    NoCpus {
        /// How many.
        wanted: u32,
        /// The pool.
        pool: String,
        /// Who holds what of it, each with `; ` behind.
        states: String,
        /// What is free of it.
        free: String,
        /// `nearest fit: cpus 4`, or `nothing is free`.
        nearest: String,
        /// Whether CPUs that are being released would make room, so that waiting helps.
        releasing: bool,
    },
    /// Memory cannot be confined to that near the GPUs.
    #[error("berth: annotation {}=\"strict\": {why}; write prefer, or leave it out", shown(.key))]
    StrictMemory {
        /// Key as written.
        key: String,
        /// Why not.
        why: String,
    },
    /// No driver, so no GPUs.
    #[error(
        "berth: no NVIDIA driver is loaded on this node, so it has no GPU to give; load the driver (modprobe nvidia) or choose another node"
    )]
    NoDriver,
    /// What is asked for is not what was allocated.
    #[error(
        "berth: {asked}: {by} has already given this container {allocated}; ask for the same, or ask for nothing"
    )]
    Disagrees {
        /// `annotation berth.dev/gpus="2"`.
        asked: String,
        /// What was given: UUIDs.
        allocated: String,
        /// Who allocated: `cdi edits`.
        by: String,
    },
    /// A device that was injected is no GPU here.
    #[error("berth: {by} gave this container {}, which is no GPU of this node; its view of the node is out of date: restart it, and compare with berth topo", shown(.device))]
    PriorUnknownDevice {
        /// Who allocated.
        by: String,
        /// The device: a path, UUID or index.
        device: String,
    },
    /// Another allocator gave what Berth had given already.
    #[error(
        "berth: {by} gave this container {gpu}, which Berth has given to {holder}; let one of the two allocate: set node.gpus so that Berth leaves the other's GPUs alone"
    )]
    PriorHeld {
        /// Who allocated.
        by: String,
        /// The GPU's UUID.
        gpu: String,
        /// Who holds it.
        holder: String,
        /// Whether that is being given back, so that waiting helps.
        releasing: bool,
    },
    /// A claim that is joined holds a GPU that has left the node.
    #[error(
        "berth: {gpu}, which {holder} holds by grant {grant}, is no longer on this node: it fell off the bus or was taken out; see dmesg and berth doctor, and start the pod anew"
    )]
    Gone {
        /// The GPU's UUID.
        gpu: String,
        /// The grant.
        grant: String,
        /// Whose it is.
        holder: String,
    },
    /// Another allocator gave a GPU that can only be used by its instances.
    #[error(
        "berth: {by} gave this container {gpu} as a whole, which is in MIG mode, so that nothing can run on it; let it give an instance, or switch the mode off (nvidia-smi -i {gpu} -mig 0)"
    )]
    PriorSplit {
        /// Who allocated.
        by: String,
        /// The GPU's UUID.
        gpu: String,
    },
    /// A CDI name that no specification resolves.
    #[error("berth: CDI device {}: {why}; see what there is with berth cdi list, or write the specification anew, as berth cdi generate does", shown(.name))]
    CdiUnresolved {
        /// `nvidia.com/gpu=0`.
        name: String,
        /// Why.
        why: String,
    },
    /// A CDI specification that wants a hook run.
    #[error("berth: CDI device {} brings the hook {}, which Berth does not run; remove it from the specification, or the node's operator sets policy.cdi-hooks = true", shown(.name), quoted(.hook))]
    CdiHook {
        /// The CDI device.
        name: String,
        /// The hook's path.
        hook: String,
    },
    /// `NVIDIA_VISIBLE_DEVICES` names what cannot be given.
    #[error("berth: NVIDIA_VISIBLE_DEVICES={}: {}: {why}; write indices or UUIDs of nvidia-smi -L, all, or none", quoted(.value), shown(.device))]
    EnvDevice {
        /// The value.
        value: String,
        /// The part of it.
        device: String,
        /// Why not.
        why: String,
    },
    /// The image needs another driver or GPU.
    #[error("berth: the image needs {}={}, but {has}; use a node or an image that fits, or set NVIDIA_DISABLE_REQUIRE=1", shown(.variable), quoted(.value))]
    Requirement {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// What there is instead.
        has: String,
    },
    /// A requirement that cannot be read.
    #[error("berth: the image needs {}, in which {} {problem}; correct it, for example \"cuda>=12.4 brand=tesla,driver>=535\", or set NVIDIA_DISABLE_REQUIRE=1", shown(.variable), quoted(.constraint))]
    BadRequirement {
        /// The variable.
        variable: String,
        /// The part that is not understood.
        constraint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An extra that the node has not.
    #[error(
        "berth: annotation {}={}: this node has no {extra}: {looked_for}; load its module, choose another node, or leave it out",
        shown(.key), quoted(.value)
    )]
    NoExtra {
        /// Key as written.
        key: String,
        /// Value as written.
        value: String,
        /// Which.
        extra: String,
        /// What was looked for, and is not there.
        looked_for: String,
    },
    /// A device node that must exist on the host is not there and cannot be made.
    #[error("berth: device node {}: {why}; make it with nvidia-modprobe, or check it with berth doctor", shown(.path))]
    DeviceNode {
        /// `/dev/nvidia0`.
        path: String,
        /// Why.
        why: String,
    },
}

impl Refusal {
    /// Whether it could be another answer if less were held.
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(
            self,
            Self::NoRoom { .. }
                | Self::NoCpus { .. }
                | Self::PriorHeld { .. }
                | Self::Ceiling { .. }
        )
    }

    /// Whether something is being given back that would make room, so that waiting helps.
    pub fn is_waiting_for_release(&self) -> bool {
        matches!(
            self,
            Self::NoRoom { releasing: true, .. }
                | Self::NoCpus { releasing: true, .. }
                | Self::PriorHeld { releasing: true, .. }
        )
    }

    /// The same, after having waited for the release in vain.
    pub fn after_waiting(self, seconds: u64) -> Self {
        match self {
            Self::NoRoom { wanted, candidates, releasing: true, .. } => {
                Self::StillReleasing { wanted, candidates, seconds }
            }
            other => other,
        }
    }
}
