//! Rebuilding a record whose text is lost: from what its containers have, and from their bundles.
//!
//! Decides what of a grant can be known without the ledger. What Berth did not provably decide is recorded as another's, so that nothing is ever
//! destroyed by it: an instance stays where it is. Must not decide whether a record is needed.

use std::path::Path;

use device::Living;
use ledger::{GivenSlot, Grant, Member, Origin, Stage, State};
use oci_specs::Bundle;
use plan::{CpuSet, Cpus, Inventory, Pinning, Scope};

use crate::Node;
use crate::admit::{capabilities, process_id};
use crate::ask::{Ask, Owner};
use crate::claim::{given, seconds_now};
use crate::instances;

/// How the ledger names who decided, where that is not known any more.
const BY: &str = "ledger repair";

/// containerd's namespace and id of a container, as its bundle's place has them.
pub(crate) fn place(one: &Living) -> Option<(String, String)> {
    let bundle = one.bundle.as_deref()?;
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    Some((name(bundle.parent()?)?, name(bundle)?))
}

/// A container whose bundle says what it asked for.
struct Known {
    ask: Ask,
    member: Member,
    sandbox_init: Option<ledger::ProcessId>,
}

impl Node {
    /// The grant that a container's bundle names.
    pub(crate) fn grant_id(&self, one: &Living) -> Option<String> {
        let bundle = Bundle::load(one.bundle.clone()?).ok()?;
        bundle.spec().env("BERTH_GRANT").map(str::to_owned)
    }

    /// The grant of these containers, which have it in common.
    ///
    /// # Errors
    /// What cannot be known, in words.
    pub(crate) fn rebuilt(
        &self,
        id: &str,
        containers: &[&Living],
        inventory: &Inventory,
    ) -> Result<Grant, String> {
        let known = containers.iter().map(|one| read(one)).collect::<Result<Vec<_>, _>>()?;
        let (Some(first), Some(one)) = (known.first(), containers.first()) else {
            return Err("nobody has it".to_owned());
        };
        let ask = &first.ask;
        let asked = ask.request.as_ref().filter(|request| request.want.is_some());
        let of_pod = asked.is_some_and(|request| request.scope == Scope::Pod);
        let gpus = one.gpus.iter().map(|pci| {
            let found = inventory.gpus.iter().find(|gpu| gpu.pci == *pci);
            found.ok_or_else(|| format!("{pci} is no GPU of this node"))
        });
        let mut gpus: Vec<&plan::Gpu> = gpus.collect::<Result<_, _>>()?;
        gpus.sort_by_key(|gpu| gpu.index);
        let slots = self.slots(one, &gpus)?;
        let origin = match asked.is_some() && slots.is_empty() {
            true => Origin::Berth,
            false => Origin::External { by: BY.to_owned() },
        };
        Ok(Grant {
            id: id.parse().map_err(|_| format!("{id:?} is no grant's id"))?,
            owner: ledger::Owner {
                namespace: ask.namespace.clone(),
                sandbox: ask.sandbox.clone(),
                container: (!of_pod).then(|| ask.name().map(str::to_owned)).flatten(),
            },
            label: ask.label(of_pod || ask.name().is_none()),
            kubernetes_namespace: ask.asker.pod.as_ref().map(|pod| pod.namespace.clone()),
            origin,
            state: State::Applied,
            requested: ask.request.as_ref().map(|asked| asked.written.clone()).unwrap_or_default(),
            gpus: gpus.into_iter().map(given).collect(),
            slots,
            capabilities: capabilities(ask),
            unconfined: known.iter().any(|one| one.ask.unconfined().is_some()),
            candidates: Vec::new().into(),
            closeness: String::new(),
            exclusive: known.iter().filter_map(|one| self.exclusive(&one.ask)).collect(),
            sandbox_init: known.iter().find_map(|one| one.sandbox_init),
            members: known.iter().map(|one| one.member.clone()).collect(),
            notes: vec![
                "its record was lost, and made anew from what its containers have".to_owned(),
            ],
            created: seconds_now(),
        })
    }

    /// The MIG instances that a container is shown.
    fn slots(&self, one: &Living, gpus: &[&plan::Gpu]) -> Result<Vec<GivenSlot>, String> {
        let slot = |mig: &device::MigDevice| {
            let gpu = gpus.iter().find(|gpu| gpu.minor == mig.gpu)?;
            let instance = gpu.instances.iter().find(|it| it.gpu_instance == mig.gpu_instance)?;
            let compute =
                instance.compute_instances.iter().find(|it| it.id == mig.compute_instance)?;
            let (slot, profile) = (gpu.slot(instance)?, gpu.profile_by_id(instance.profile)?);
            Some(GivenSlot {
                gpu: slot.gpu,
                profile: slot.profile,
                name: slot.name,
                start: slot.start,
                size: slot.size,
                memory: profile.memory,
                sms: profile.sms,
                stage: Stage::Made,
                instance: Some(instances::given(&self.host, gpu, instance, Some(compute))),
                // Who made it is not known any more.
                foreign: true,
            })
        };
        let slots = one.migs.iter().map(|mig| {
            slot(mig).ok_or_else(|| {
                let (gpu, instance) = (mig.gpu, mig.gpu_instance);
                format!("the driver tells of no instance {instance} on the GPU of minor {gpu}")
            })
        });
        slots.collect()
    }

    /// CPUs of the exclusive pool that the container was created with, if it asked for some, and for whom.
    fn exclusive(&self, ask: &Ask) -> Option<(String, CpuSet)> {
        let request = ask.request.as_ref()?;
        let Cpus::Exclusively(_) = request.cpus else { return None };
        let cpus = ask.cpu.cpus.parse::<CpuSet>().ok()?.and(&self.exclusive_cpus);
        let name = if request.own_cpus { ask.name().unwrap_or_default() } else { "" };
        (!cpus.is_empty()).then(|| (name.to_owned(), cpus))
    }
}

/// What a container's bundle says of it.
fn read(one: &Living) -> Result<Known, String> {
    let nobody = || "whose container it is cannot be told".to_owned();
    let (namespace, container) = place(one).ok_or_else(nobody)?;
    let path = one.bundle.clone().ok_or_else(nobody)?;
    let bundle = Bundle::load(&path).map_err(|error| error.to_string())?;
    let owner = Owner { namespace: &namespace, container: &container };
    let ask = Ask::read(owner, bundle.spec()).map_err(|refusal| refusal.to_string())?;
    let ask = ask.ok_or_else(|| format!("{} says nothing of a GPU", path.display()))?;
    let pid = std::fs::read_to_string(path.with_file_name(&ask.sandbox).join("init.pid"));
    let sandbox = pid.ok().and_then(|pid| pid.trim().parse().ok());
    let sandbox_init =
        sandbox.filter(|_| ask.name().is_some()).and_then(|pid| process_id(pid).ok());
    let init = process_id(one.pid).map_err(|fault| fault.to_string())?;
    let extras = ask.request.as_ref().map(|request| request.extras.clone());
    let member = Member {
        container,
        name: ask.name().unwrap_or_default().to_owned(),
        init: Some(init),
        cgroup: None,
        pinning: Pinning::default(),
        extras: extras.unwrap_or_default(),
    };
    Ok(Known { ask, member, sandbox_init })
}
