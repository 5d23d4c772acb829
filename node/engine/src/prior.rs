//! Prior allocations: what a device plugin, a DRA driver or a caller of containerd has decided before us.
//!
//! Decides which of the traces counts (injected, then CDI annotations, then the device plugin's marks) and which GPUs it means. Never
//! second-guesses an allocator; believes a trace only where a pod's author cannot have made it.

use oci_specs::Edits;
use oci_specs::cdi::Registry;
use plan::trust::{Pod, env_may_ask};
use plan::visible::Visible;
use plan::{GpuUuid, Inventory, Refusal};

use crate::ask::{Ask, minor_of};
use crate::{Denied, Node};

/// An allocation that Berth did not decide.
#[derive(Debug, Clone)]
pub(crate) struct Prior {
    /// How it was found, for the ledger: `injected`, `cdi annotation`, `device plugin (mounts)`, `device plugin (env)`.
    pub(crate) by: &'static str,
    /// Its GPUs.
    pub(crate) gpus: Vec<GpuUuid>,
    /// Edits that are still to be made, where Berth resolves a CDI annotation itself.
    pub(crate) edits: Option<Edits>,
}

/// Finds the allocation that counts, if there is one.
pub(crate) fn find(node: &Node, ask: &Ask, inventory: &Inventory) -> Result<Option<Prior>, Denied> {
    let mut prior = injected(ask, inventory)?;
    if prior.is_none() {
        prior = annotated(node, ask, inventory)?;
    }
    if prior.is_none() {
        prior = plugged(node, ask, inventory)?;
    }
    if let Some(prior) = &prior {
        whole(prior, inventory)?;
    }
    Ok(prior)
}

/// Whoever gave a GPU that is in MIG mode gave one of its instances, which this version cannot complete.
fn whole(prior: &Prior, inventory: &Inventory) -> Result<(), Refusal> {
    let gpus = || prior.gpus.iter().filter_map(|uuid| inventory.gpu(uuid));
    let split = gpus().find(|gpu| gpu.mig);
    split.map_or(Ok(()), |gpu| Err(instance(prior.by, gpu.uuid.as_str())))
}

fn instance(by: &str, device: &str) -> Refusal {
    Refusal::PriorNotInThisVersion {
        by: by.to_owned(),
        device: device.to_owned(),
        what: "a MIG instance".to_owned(),
        hint: "run it without this runtime class, or ask for a whole GPU".to_owned(),
    }
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
fn recorded(node: &Node, pod: &Pod) -> Result<Vec<String>, Denied> {
    let all = device::kubelet::allocations(&node.kubelet)?.into_iter();
    let own = all.filter(|one| one.pod_uid == pod.uid && one.container == pod.container);
    // Replicas of a time-sliced GPU are named `<uuid>::<n>`.
    let device = |name: String| name.split("::").next().unwrap_or_default().to_owned();
    Ok(own.flat_map(|one| one.devices).map(device).collect())
}

/// GPU nodes in the spec. A privileged container that asks for nothing has all of the host's, and is none of our business.
fn injected(ask: &Ask, inventory: &Inventory) -> Result<Option<Prior>, Refusal> {
    let nodes = &ask.evidence.nodes;
    if nodes.is_empty() || (ask.asker.privileged.is_some() && ask.evidence.cdi.is_empty()) {
        return Ok(None);
    }
    let mut gpus = Vec::new();
    for node in nodes {
        let minor = minor_of(node);
        let gpu = inventory.gpus.iter().find(|gpu| Some(gpu.minor) == minor);
        match gpu {
            Some(gpu) if !gpus.contains(&gpu.uuid) => gpus.push(gpu.uuid.clone()),
            Some(_) => {}
            None => {
                return Err(Refusal::PriorUnknownDevice {
                    by: "the container's device list".into(),
                    device: node.path.clone(),
                });
            }
        }
    }
    Ok(Some(Prior { by: "injected", gpus, edits: None }))
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
    let mut gpus = Vec::new();
    for device in &edits.devices {
        let minor = minor_of(device);
        let gpu = inventory.gpus.iter().find(|gpu| Some(gpu.minor) == minor);
        gpus.extend(gpu.map(|gpu| gpu.uuid.clone()).filter(|uuid| !gpus.contains(uuid)));
    }
    Ok(Some(Prior { by: "cdi annotation", gpus, edits: Some(edits) }))
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
    if let (None, Some(mig)) = (&ask.asker.pod, named.mig().next()) {
        return Err(instance(by, mig).into());
    }
    let Some(pod) = &ask.asker.pod else {
        let gpus = resolved.map_err(|_| unknown())?.gpus;
        return Ok(Some(Prior { by, gpus, edits: None }));
    };
    let recorded = recorded(node, pod)?;
    if let Some(mig) = named.mig().find(|mig| recorded.iter().any(|name| name == mig)) {
        return Err(instance(by, mig).into());
    }
    let wanted = resolved.unwrap_or_default().gpus;
    let recorded: Vec<GpuUuid> = recorded.iter().filter_map(|name| name.parse().ok()).collect();
    let same = |a: &[GpuUuid], b: &[GpuUuid]| {
        !a.is_empty() && a.iter().all(|one| b.contains(one)) && b.iter().all(|one| a.contains(one))
    };
    if same(&wanted, &recorded) {
        return Ok(Some(Prior { by, gpus: wanted, edits: None }));
    }
    Ok(None)
}
