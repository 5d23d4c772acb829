//! Rebuilding a record whose text is lost: from what its containers have, and from their bundles.
//!
//! Decides what of a grant can be known without the ledger. What Berth did not provably decide is recorded as another's, so that nothing is ever
//! destroyed by it: an instance stays where it is. Must not decide whether a record is needed.

use std::path::Path;

use device::Living;
use ledger::{GivenSlot, Grant, Member, Origin, Stage, State};
use oci_specs::Bundle;
use plan::trust::env_may_ask;
use plan::{CpuSet, Cpus, Inventory, Pinning, Scope};

use crate::Node;
use crate::admit::{capabilities, process_id};
use crate::ask::{Ask, Owner};
use crate::claim::{given, given_slot, seconds_now};
use crate::{instances, prior};

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
        let bundle = load(one.bundle.as_deref()?).ok()?;
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
        let slots = self.slots(one, &gpus, inventory)?;
        let is_ours = known.iter().all(|one| self.has_decided(&one.ask));
        let origin = match is_ours && slots.is_empty() {
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

    /// Whether the GPUs of a container with this ask were Berth's to choose: one of its own was asked for in a way that it hears, and no trace of
    /// another allocator is there. Of device nodes and `NVIDIA_VISIBLE_DEVICES` none is a trace, for Berth itself has written them since.
    fn has_decided(&self, ask: &Ask) -> bool {
        let wanted = ask.request.as_ref().is_some_and(|request| request.want.is_some());
        let theirs = !ask.evidence.cdi.is_empty() || !ask.evidence.mounts.is_empty();
        // What cannot be read may say that another has.
        let is_recorded =
            |pod| prior::recorded(self, pod).map_or(true, |devices| !devices.is_empty());
        let pod = ask.asker.pod.as_ref();
        (wanted || env_may_ask(&ask.asker, &self.policy))
            && !theirs
            && !pod.is_some_and(is_recorded)
    }

    /// The MIG instances that a container is shown.
    fn slots(
        &self,
        one: &Living,
        gpus: &[&plan::Gpu],
        inventory: &Inventory,
    ) -> Result<Vec<GivenSlot>, String> {
        let slot = |mig: &device::MigDevice| {
            let gpu = gpus.iter().find(|gpu| gpu.minor == mig.gpu)?;
            let instance = gpu.instances.iter().find(|it| it.gpu_instance == mig.gpu_instance)?;
            let compute =
                instance.compute_instances.iter().find(|it| it.id == mig.compute_instance)?;
            Some(GivenSlot {
                stage: Stage::Made,
                instance: Some(instances::given(&self.host, gpu, instance, Some(compute))),
                // Who made it is not known any more.
                foreign: true,
                ..given_slot(&gpu.slot(instance)?, inventory)?
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

/// Most that a `config.json` has.
const MOST: u64 = 16 << 20;

/// A bundle, as far as root has written it.
fn load(path: &Path) -> Result<Bundle, String> {
    let config = path.join("config.json");
    let bytes = device::read_of_root(&config, MOST).map_err(|error| error.to_string())?;
    let text =
        String::from_utf8(bytes).map_err(|error| format!("{}: {error}", config.display()))?;
    Bundle::parse(path, &text).map_err(|error| error.to_string())
}

/// Whether this is a name in a folder, and no way out of it.
fn is_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|own| own == name)
}

/// What a container's bundle says of it.
fn read(one: &Living) -> Result<Known, String> {
    let nobody = || "whose container it is cannot be told".to_owned();
    let (namespace, container) = place(one).ok_or_else(nobody)?;
    let path = one.bundle.clone().ok_or_else(nobody)?;
    let bundle = load(&path)?;
    let owner = Owner { namespace: &namespace, container: &container };
    let ask = Ask::read(owner, bundle.spec()).map_err(|refusal| refusal.to_string())?;
    let ask = ask.ok_or_else(|| format!("{} says nothing of a GPU", path.display()))?;
    let is_beside = ask.name().is_some() && is_name(&ask.sandbox);
    let sandbox = is_beside.then(|| path.with_file_name(&ask.sandbox));
    let sandbox_init =
        sandbox.and_then(|path| device::init_pid(&path)).and_then(|pid| process_id(pid).ok());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use plan::policy::EnvRequests;

    const CHECKPOINT: &str = "device-plugins/kubelet_internal_checkpoint";

    fn node(folder: &Path) -> Node {
        Node { kubelet: folder.to_owned(), ..Node::new(&Config::default()) }
    }

    /// A container that has a GPU by now, so that its bundle says so.
    fn ask(annotations: &[(&str, &str)], mounts: &[&str]) -> Ask {
        let mounts: Vec<_> = mounts
            .iter()
            .map(|place| serde_json::json!({"destination": place, "source": "/dev/null"}))
            .collect();
        let spec = serde_json::json!({
            "annotations": annotations.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
            "mounts": mounts,
            "process": {"env": ["BERTH_GRANT=g-1", "NVIDIA_VISIBLE_DEVICES=GPU-1"]},
            "linux": {"devices": [{"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}]},
        });
        let spec = serde_json::from_value(spec).expect("a spec");
        let owner = Owner { namespace: "n", container: "c" };
        Ask::read(owner, &spec).expect("fine").expect("it asks")
    }

    const POD: [(&str, &str); 3] = [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.container-name", "web"),
        ("io.kubernetes.cri.sandbox-uid", "u1"),
    ];

    #[test]
    fn berths_are_those_that_it_was_asked_for_and_nobody_else_gave() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = node(folder.path());
        let asks = ("berth.dev/gpus", "1");
        let cdi = ("cdi.k8s.io/x", "nvidia.com/gpu=0");
        let mark = ["/var/run/nvidia-container-devices/GPU-1"];
        let with = |more: &[(&str, &'static str)]| ask(&[&POD, more].concat(), &[]);
        assert!(node.has_decided(&with(&[asks])));
        assert!(!node.has_decided(&with(&[asks, cdi])), "a CDI annotation");
        assert!(!node.has_decided(&ask(&[&POD[..], &[asks]].concat(), &mark)), "a plugin's mark");
        assert!(!node.has_decided(&with(&[])), "injected: a pod's variable asks nothing");
        assert!(node.has_decided(&ask(&[asks], &[])));
        assert!(!node.has_decided(&ask(&[asks, cdi], &[])));
    }

    #[test]
    fn outside_pods_the_variable_may_have_asked_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut node = node(folder.path());
        node.policy.env_requests = EnvRequests::NonCri;
        assert!(node.has_decided(&ask(&[], &[])));
        assert!(!node.has_decided(&ask(&POD, &[])), "in a pod it does not");
        node.policy.env_requests = EnvRequests::Off;
        assert!(!node.has_decided(&ask(&[], &[])), "then it was not heard");
    }

    #[test]
    fn what_the_kubelet_has_given_is_not_berths() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = node(folder.path());
        let asking = ask(&[&POD[..], &[("berth.dev/gpus", "1")]].concat(), &[]);
        let file = folder.path().join(CHECKPOINT);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        let lists = |uid: &str| {
            let entry = serde_json::json!({"PodUID": uid, "ContainerName": "web", "ResourceName": "nvidia.com/gpu", "DeviceIDs": ["GPU-1"]});
            serde_json::json!({"Data": {"PodDeviceEntries": [entry], "RegisteredDevices": null}})
        };
        std::fs::write(&file, lists("other").to_string()).expect("written");
        assert!(node.has_decided(&asking), "another pod's");
        std::fs::write(&file, lists("u1").to_string()).expect("written");
        assert!(!node.has_decided(&asking));
        std::fs::write(&file, "{").expect("written");
        assert!(!node.has_decided(&asking), "what cannot be read may say so");
    }

    #[test]
    fn a_bundle_is_roots_and_a_sandbox_is_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config.json");
        std::os::unix::fs::symlink("/dev/zero", &config).expect("linked");
        let words = load(folder.path()).expect_err("a link");
        assert!(words.contains("config.json"), "{words}");
        std::fs::remove_file(&config).expect("removed");
        std::fs::write(&config, r#"{"process":{"env":["A=1"]}}"#).expect("written");
        assert_eq!(load(folder.path()).expect("a bundle").spec().env("A"), Some("1"));
        for way_out in ["", ".", "..", "a/b", "../a", "/a", "a/"] {
            assert!(!is_name(way_out), "{way_out:?}");
        }
        assert!(is_name("a1b2"));
    }
}
