//! Prior allocations: what a device plugin, a DRA driver or a caller of containerd has decided before us.
//!
//! Decides which of the traces counts (injected, then CDI annotations, then the device plugin's marks) and which GPUs it means. Never
//! second-guesses an allocator; believes a trace only where a pod's author cannot have made it.

use device::MigDevice;
use ledger::GivenInstance;
use oci_specs::cdi::Registry;
use oci_specs::{Device, Edits};
use plan::mig::{Devices, Place};
use plan::trust::{Pod, env_may_ask};
use plan::visible::Visible;
use plan::{GpuUuid, Inventory, Refusal};

use crate::ask::{Ask, capability_of, minor_of};
use crate::instances::given;
use crate::{Denied, Fault, Node};

/// An allocation that Berth did not decide.
#[derive(Debug, Clone)]
pub(crate) struct Prior {
    /// How it was found, for the ledger: `injected`, `cdi annotation`, `device plugin (mounts)`, `device plugin (env)`.
    pub(crate) by: &'static str,
    /// What it gave: GPUs, MIG instances.
    pub(crate) given: Devices,
    /// Which compute instance of those instances it gave, where that was seen.
    pub(crate) computes: Vec<(Place, GivenInstance)>,
    /// Edits that are still to be made, where Berth resolves a CDI annotation itself.
    pub(crate) edits: Option<Edits>,
}

/// Finds the allocation that counts, if there is one.
pub(crate) fn find(node: &Node, ask: &Ask, inventory: &Inventory) -> Result<Option<Prior>, Denied> {
    let mut prior = injected(node, ask, inventory)?;
    if prior.is_none() {
        prior = annotated(node, ask, inventory)?;
    }
    if prior.is_none() {
        prior = plugged(node, ask, inventory)?;
    }
    if let Some(prior) = &mut prior {
        stands(node, prior, inventory)?;
    }
    Ok(prior)
}

/// Whoever gave a GPU that is in MIG mode gave instances of it, and those must be there with a compute instance.
fn stands(node: &Node, prior: &mut Prior, inventory: &Inventory) -> Result<(), Refusal> {
    let unknown = |device| Refusal::PriorUnknownDevice { by: prior.by.to_owned(), device };
    let split = |uuid: &&GpuUuid| inventory.gpu(uuid).is_some_and(|gpu| gpu.mig);
    if let Some(gpu) = prior.given.gpus.iter().find(split) {
        return Err(Refusal::PriorSplit { by: prior.by.to_owned(), gpu: gpu.to_string() });
    }
    for slot in &prior.given.slots {
        let place = slot.place();
        if prior.computes.iter().any(|(known, _)| *known == place) {
            continue;
        }
        let gpu = inventory.gpu(&slot.gpu);
        let made = gpu.and_then(|gpu| {
            let found = gpu.instance_at(slot.profile, slot.start)?;
            Some(given(&node.host, gpu, found, Some(found.compute_instances.first()?)))
        });
        let made = made.ok_or_else(|| unknown(format!("{} of {}", slot.name, slot.gpu)))?;
        prior.computes.push((place, made));
    }
    Ok(())
}

/// What device nodes give: GPUs by their own, and of GPUs in MIG mode the instances for which both nodes are there that let a process use them.
fn by_nodes(
    node: &Node,
    by: &'static str,
    nodes: &[Device],
    inventory: &Inventory,
) -> Result<Prior, Fault> {
    let mut prior = Prior { by, given: Devices::default(), computes: Vec::new(), edits: None };
    let has = |minor| nodes.iter().any(|node| minor_of(node) == Some(minor));
    let caps: Vec<u32> = nodes.iter().filter_map(capability_of).collect();
    for gpu in inventory.gpus.iter().filter(|gpu| has(gpu.minor)) {
        let before = prior.given.slots.len();
        for instance in gpu.instances.iter().filter(|_| gpu.mig && !caps.is_empty()) {
            let Some(slot) = gpu.slot(instance) else { continue };
            for compute in &instance.compute_instances {
                let gpu_instance = instance.gpu_instance;
                let mig = MigDevice { gpu: gpu.minor, gpu_instance, compute_instance: compute.id };
                let minors = device::capability_minors(&node.host, mig)?;
                if minors.iter().all(|minor| caps.contains(minor)) {
                    prior
                        .computes
                        .push((slot.place(), given(&node.host, gpu, instance, Some(compute))));
                    prior.given.slots.push(slot.clone());
                }
            }
        }
        if prior.given.slots.len() == before {
            prior.given.gpus.push(gpu.uuid.clone());
        }
    }
    prior.given.slots.dedup();
    Ok(prior)
}

/// Whether anything that `ask` shows can lead to a grant, as far as that can be told without a look at the GPUs. Many images set
/// `NVIDIA_VISIBLE_DEVICES`, and a broken driver must not keep their containers from starting where the variable means nothing.
pub(crate) fn can_matter(node: &Node, ask: &Ask) -> Result<bool, Denied> {
    let evidence = &ask.evidence;
    let unasked_privilege = ask.asker.privileged.is_some() && evidence.cdi.is_empty();
    if ask.request.as_ref().is_some_and(|request| !request.opted_out)
        || !evidence.cdi.is_empty()
        || (!evidence.nodes.is_empty() && !unasked_privilege)
    {
        return Ok(true);
    }
    match &ask.asker.pod {
        Some(pod) if !evidence.mounts.is_empty() || evidence.visible.is_some() => {
            Ok(!recorded(node, pod)?.is_empty())
        }
        Some(_) => Ok(false),
        None => Ok(!evidence.mounts.is_empty() || env_may_ask(&ask.asker, &node.policy)),
    }
}

/// What the kubelet says a device plugin gave this very container, by the names of the device plugin.
pub(crate) fn recorded(node: &Node, pod: &Pod) -> Result<Vec<String>, Denied> {
    let all = device::kubelet::allocations(&node.kubelet)?.into_iter();
    let own = all.filter(|one| one.pod_uid == pod.uid && one.container == pod.container);
    // Replicas of a time-sliced GPU are named `<uuid>::<n>`.
    let device = |name: String| name.split("::").next().unwrap_or_default().to_owned();
    Ok(own.flat_map(|one| one.devices).map(device).collect())
}

/// GPU nodes in the spec. A privileged container that asks for nothing has all of the host's, and is none of our business.
fn injected(node: &Node, ask: &Ask, inventory: &Inventory) -> Result<Option<Prior>, Denied> {
    let nodes = &ask.evidence.nodes;
    if nodes.is_empty() || (ask.asker.privileged.is_some() && ask.evidence.cdi.is_empty()) {
        return Ok(None);
    }
    let is_known = |minor| inventory.gpus.iter().any(|gpu| gpu.minor == minor);
    let is_unknown = |node: &&Device| minor_of(node).is_some_and(|minor| !is_known(minor));
    if let Some(unknown) = nodes.iter().find(is_unknown) {
        let (by, device) = ("the container's device list".into(), unknown.path.clone());
        return Err(Refusal::PriorUnknownDevice { by, device }.into());
    }
    Ok(Some(by_nodes(node, "injected", nodes, inventory)?))
}

/// CDI devices that nobody has resolved yet.
fn annotated(node: &Node, ask: &Ask, inventory: &Inventory) -> Result<Option<Prior>, Denied> {
    let names = &ask.evidence.cdi;
    if names.is_empty() {
        return Ok(None);
    }
    let shown = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let unresolved = |why: String| Refusal::CdiUnresolved { name: shown.clone(), why };
    let registry = Registry::load(&node.cdi_dirs).map_err(|error| unresolved(error.to_string()))?;
    let resolved = registry.resolve(names).map_err(|error| unresolved(error.to_string()))?;
    let edits = resolved.into_edits(&node.host.root).map_err(|e| unresolved(e.to_string()))?;
    let edits = without_hooks(edits, node, &shown)?;
    let prior = by_nodes(node, "cdi annotation", &edits.devices, inventory)?;
    Ok(Some(Prior { edits: Some(edits), ..prior }))
}

/// NVIDIA's hooks do what Berth does itself; others only with the operator's leave.
fn without_hooks(mut edits: Edits, node: &Node, names: &str) -> Result<Edits, Refusal> {
    edits.hooks.retain(|hook| !is_nvidia_hook(&hook.path));
    match edits.hooks.first() {
        Some(hook) if !node.policy.cdi_hooks => {
            Err(Refusal::CdiHook { name: names.to_owned(), hook: hook.path.clone() })
        }
        _ => Ok(edits),
    }
}

fn is_nvidia_hook(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    ["nvidia-cdi-hook", "nvidia-ctk", "nvidia-container-runtime-hook", "nvidia-container-toolkit"]
        .contains(&name)
}

/// The device plugin's marks. A pod's author can write both of them, so in a pod they count only where the kubelet's own checkpoint
/// says the same of this very container.
fn plugged(node: &Node, ask: &Ask, inventory: &Inventory) -> Result<Option<Prior>, Denied> {
    let by_mounts = !ask.evidence.mounts.is_empty();
    let by = if by_mounts { "device plugin (mounts)" } else { "device plugin (env)" };
    let (named, value) = match (&ask.asker.pod, &ask.evidence.visible) {
        _ if by_mounts => {
            let mounts = ask.evidence.mounts.iter().map(String::as_str);
            (Visible::of_mounts(mounts), ask.evidence.mounts.join(","))
        }
        (Some(_), Some(value)) => (Visible::parse(value), value.clone()),
        // Outside pods the variable is at most a request, never an allocation.
        _ => return Ok(None),
    };
    let unknown = || Refusal::PriorUnknownDevice { by: by.to_owned(), device: value.clone() };
    let resolved = named.resolve(&value, inventory);
    let prior = |given| Some(Prior { by, given, computes: Vec::new(), edits: None });
    let Some(pod) = &ask.asker.pod else {
        return Ok(prior(resolved.map_err(|_| unknown())?));
    };
    let recorded = recorded(node, pod)?;
    // Resolved alike, so that a name of either kind means the same in both.
    let value = recorded.join(",");
    let theirs = Visible::parse(&value).resolve(&value, inventory);
    let (ours, theirs) = (resolved.unwrap_or_default(), theirs.unwrap_or_default());
    let is_same = ours == theirs && ours != Devices::default();
    Ok(is_same.then(|| prior(ours)).flatten())
}
