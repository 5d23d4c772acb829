//! MIG instances that others have made and given: found in each form, recorded, completed, and left to whoever made them.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::given::Device;
use integration_tests::cri::messages::ContainerConfig;
use integration_tests::cri::pod::Pod;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use serde_json::{Value, json};
use simnode::mig::GpuInstance;

use crate::cdi::{named, needs_berth_to_resolve, specify};
use crate::prior::{checkpoint, entry_of, inject, set_env, set_marks};
use crate::specified::generate;

/// The GPU that is split.
const GPU: usize = 2;

/// A node of H100s, one of which somebody else has cut into two instances: a neighbour's, and the one that is given.
struct Cut {
    kubelet: Kubelet,
    other: GpuInstance,
    given: GpuInstance,
}

impl Cut {
    fn up(stage: &Stage, more: &str) -> Result<Self> {
        let kubelet = Kubelet::up(stage, "p5", more)?;
        let gpu = GPU.to_string();
        kubelet.node.sim.set_mig_mode(&gpu, true)?;
        let other = kubelet.node.sim.create_instance(&gpu, "1g.10gb", None, true)?;
        let given = kubelet.node.sim.create_instance(&gpu, "2g.20gb", None, true)?;
        Ok(Self { kubelet, other, given })
    }

    fn uuid(&self) -> &str {
        &self.given.compute[0].uuid
    }

    /// As `nvidia-smi -L` numbers it: by the driver's ids.
    fn index(&self) -> String {
        format!("{GPU}:{}", u32::from(self.other.id < self.given.id))
    }

    /// The nodes that let a process use the instance, on the host, as NVIDIA's driver makes them; their names.
    fn capability_nodes(&self) -> Result<[String; 2]> {
        let first = u32::try_from(3 + 135 * GPU)? + 9 * self.given.id;
        let root = self.kubelet.node.root();
        let devices = fs::read_to_string(root.join("proc/devices"))?;
        let mut majors = devices.lines().filter_map(|line| line.trim().split_once(' '));
        let major = majors.find(|(_, name)| *name == "nvidia-caps").context("a major")?.0;
        let minors = [first, first + 1];
        for minor in minors {
            let node = root.join(format!("dev/nvidia-caps/nvidia-cap{minor}"));
            if !node.exists() {
                let device = nix::sys::stat::makedev(major.parse()?, minor.into());
                let mode = nix::sys::stat::Mode::from_bits_truncate(0o444);
                nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, device)?;
            }
        }
        Ok(minors.map(|minor| format!("nvidia-caps/nvidia-cap{minor}")))
    }

    /// What a specification says of the instance, as `nvidia-ctk cdi generate` does: the GPU's node and the two of the instance. Berth looks
    /// for them below the node's root, containerd below the machine's: `below` is what that must be told.
    fn edits(&self, below: &str) -> Result<Value> {
        let mut names = vec!["nvidiactl".to_owned(), format!("nvidia{GPU}")];
        names.extend(self.capability_nodes()?);
        let node = |name: &String| json!({ "path": format!("/dev/{name}"), "hostPath": format!("{below}/dev/{name}") });
        let nodes: Vec<Value> = names.iter().map(node).collect();
        Ok(json!({ "deviceNodes": nodes, "env": ["NVIDIA_VISIBLE_DEVICES=void"] }))
    }

    /// That the container has this instance alone, recorded as found in this way; and that with its pod the record goes, and nothing else.
    fn is_taken_as_it_is(&self, pod: Pod<'_>, id: &str, by: &str) -> Result<()> {
        let kubelet = &self.kubelet;
        let grant = kubelet.grant_of(id)?;
        ensure!(grant["decided_by"] == by && grant["state"] == "applied", "{grant:#}");
        let instances = grant["instances"].as_array().context("a list")?;
        ensure!(instances.len() == 1 && instances[0]["mig_uuid"] == self.uuid(), "{grant:#}");
        ensure!(instances[0]["profile"] == "2g.20gb", "{grant:#}");
        let look = "cd /proc/driver/nvidia/capabilities; find . -type f | sort; ls /dev/nvidia-caps; \
                    for minor in 0 1 2 3; do mknod /dev/probe c 195 $minor; (: </dev/probe) 2>&1 | sed \"s/.*:/$minor/\"; rm /dev/probe; done; \
                    ls /usr/local/nvidia/lib64 | grep -c libcuda.so.1; echo $NVIDIA_VISIBLE_DEVICES";
        let said = kubelet.cri.exec_sync(id, &["sh", "-c", look], 0)?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let (below, first) =
            (format!("./gpu{GPU}/mig/gi{}", self.given.id), self.given.id * 9 + 273);
        let mut wanted = vec![format!("{below}/access"), format!("{below}/ci0/access")];
        wanted.extend([first, first + 1].map(|minor| format!("nvidia-cap{minor}")));
        wanted.extend((0..4).map(|minor| match minor == GPU {
            true => format!("{minor} No such device or address"),
            false => format!("{minor} Operation not permitted"),
        }));
        wanted.push("1".to_owned());
        let told = said.lines().last().unwrap_or_default().to_owned();
        ensure!([self.uuid(), "void"].contains(&told.as_str()), "{said}");
        wanted.push(told);
        let lines: Vec<&str> = said.lines().collect();
        ensure!(lines == wanted, "{lines:#?} is not {wanted:#?}");
        pod.remove(&[id])?;
        self.is_left()
    }

    /// That nothing is held, and both instances are there.
    fn is_left(&self) -> Result<()> {
        self.kubelet.node.is_free()?;
        let left = &self.kubelet.node.sim.state()?.gpus[GPU].instances;
        let ids: Vec<u32> = left.iter().map(|one| one.id).collect();
        ensure!(
            ids.len() == 2 && [&self.other, &self.given].iter().all(|one| ids.contains(&one.id)),
            "{left:?}"
        );
        Ok(())
    }
}

pub fn an_instance_whose_nodes_others_injected_is_taken_as_it_is(stage: &Stage) -> Result<()> {
    let cut = Cut::up(stage, "")?;
    let nodes = cut.capability_nodes()?;
    let pod = cut.kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, |config| {
        inject(config, &cut.kubelet, &[2]);
        config.devices.extend(nodes.iter().map(|name| Device {
            host_path:
                cut.kubelet.node.root().join("dev").join(name).to_string_lossy().into_owned(),
            container_path: format!("/dev/{name}"),
            permissions: "rw".to_owned(),
        }));
    })?;
    cut.is_taken_as_it_is(pod, &id, "injected")
}

/// By its annotation, which a containerd that knows no CDI leaves on the container.
pub fn an_instance_of_a_cdi_device_is_taken_as_it_is(stage: &Stage) -> Result<()> {
    needs_berth_to_resolve(stage)?;
    let cut = Cut::up(stage, "")?;
    let folder = cut.kubelet.node.path("cdi");
    specify(&folder, "mig.json", "nvidia.com/gpu", &[("0-mig", cut.edits("")?)])?;
    let pod = cut.kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, named("nvidia.com/gpu=0-mig"))?;
    cut.is_taken_as_it_is(pod, &id, "cdi annotation")
}

/// By the node's own specification, as `berth cdi generate` writes it.
pub fn an_instance_of_a_generated_specification_is_taken_as_it_is(stage: &Stage) -> Result<()> {
    needs_berth_to_resolve(stage)?;
    let cut = Cut::up(stage, "")?;
    generate(&cut.kubelet.node, &cut.kubelet.node.path("cdi"))?;
    let pod = cut.kubelet.pod(&[])?;
    let name = format!("nvidia.com/gpu={}", cut.index());
    let id = pod.run_adjusted("main", &SLEEP, named(&name))?;
    cut.is_taken_as_it_is(pod, &id, "cdi annotation")
}

/// By the edits that containerd has made.
pub fn an_instance_that_containerd_resolved_is_taken_as_it_is(stage: &Stage) -> Result<()> {
    let cut = Cut::up(stage, "")?;
    let folder = cut.kubelet.containerd.scratch.path("cdi");
    let edits = cut.edits(&cut.kubelet.node.root().to_string_lossy())?;
    specify(&folder, "claim.json", "k8s.gpu.nvidia.com/claim", &[("uid-mig", edits)])?;
    let pod = cut.kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, named("k8s.gpu.nvidia.com/claim=uid-mig"))?;
    cut.is_taken_as_it_is(pod, &id, "injected")
}

/// The device plugin's strategies `single` (each instance is an `nvidia.com/gpu`) and `mixed` (a resource for each profile), by UUID and
/// by index.
pub fn an_instance_of_the_kubelets_checkpoint_is_taken_as_it_is(stage: &Stage) -> Result<()> {
    let cut = Cut::up(stage, "")?;
    for (resource, value) in
        [("nvidia.com/gpu", cut.uuid()), ("nvidia.com/mig-2g.20gb", &cut.index())]
    {
        let pod = cut.kubelet.pod(&[])?;
        checkpoint(&cut.kubelet, &[entry_of(resource, &pod, "main", &[cut.uuid()])])?;
        let id = pod.run_adjusted("main", &SLEEP, |config| set_env(config, value))?;
        cut.is_taken_as_it_is(pod, &id, "device plugin (env)").context(resource)?;
    }
    Ok(())
}

pub fn an_instance_of_the_plugins_mounts_is_taken_as_it_is(stage: &Stage) -> Result<()> {
    let cut = Cut::up(stage, "")?;
    let pod = cut.kubelet.pod(&[])?;
    checkpoint(&cut.kubelet, &[entry_of("nvidia.com/gpu", &pod, "main", &[cut.uuid()])])?;
    let id = pod.run_adjusted("main", &SLEEP, |config| set_marks(config, &[cut.uuid()]))?;
    cut.is_taken_as_it_is(pod, &id, "device plugin (mounts)")
}

/// What a pod's author can write alone: a UUID without a checkpoint, or with one that gives a neighbour's instance or the whole GPU.
pub fn forged_marks_of_instances_give_nothing(stage: &Stage) -> Result<()> {
    let policy = "[policy]\nenv-requests = \"non-cri\"\nnamespaces = [\"tests\"]";
    let cut = Cut::up(stage, policy)?;
    let kubelet = &cut.kubelet;
    let (pod, neighbour) = (kubelet.pod(&[])?, cut.other.compute[0].uuid.as_str());
    let mut ids = Vec::new();
    let mut forge = |name: &str, adjust: &dyn Fn(&mut ContainerConfig)| -> Result<()> {
        let id = pod.run_adjusted(name, &SLEEP, |config| adjust(config))?;
        let outcome = kubelet.has_nothing(&id).map(drop);
        ids.push(id);
        outcome.with_context(|| name.to_owned())
    };
    forge("uuid-without-checkpoint", &|config| set_env(config, cut.uuid()))?;
    let whole = kubelet.uuid(GPU)?;
    checkpoint(
        kubelet,
        &[
            entry_of("nvidia.com/gpu", &pod, "neighbour", &[neighbour]),
            entry_of("nvidia.com/gpu", &pod, "whole", &[&whole]),
        ],
    )?;
    forge("neighbour", &|config| set_env(config, cut.uuid()))?;
    forge("whole", &|config| set_marks(config, &[cut.uuid()]))?;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    pod.remove(&ids)?;
    cut.is_left()
}

/// A GPU in MIG mode is of no use as a whole, in whichever form it is given; and what Berth has given of it is nobody else's to give.
pub fn whoever_gives_a_whole_gpu_in_mig_mode_is_told(stage: &Stage) -> Result<()> {
    let cut = Cut::up(stage, TRUSTED)?;
    let kubelet = &cut.kubelet;
    let gpu = kubelet.uuid(GPU)?;
    let pod = kubelet.pod(&[])?;
    checkpoint(kubelet, &[entry_of("nvidia.com/gpu", &pod, "plugged", &[&gpu])])?;
    let split = |by: &str| {
        format!(
            "berth: {by} gave this container {gpu} as a whole, which is in MIG mode, so that nothing can run on it; \
             let it give an instance, or switch the mode off (nvidia-smi -i {gpu} -mig 0)"
        )
    };
    let words = kubelet.refused(&pod, "plugged", |config| set_env(config, &gpu))?;
    ensure!(words == split("device plugin (env)"), "{words}");
    let words = kubelet.refused(&pod, "injected", |config| inject(config, kubelet, &[2]))?;
    ensure!(words == split("injected"), "{words}");
    pod.remove(&[])?;
    cut.is_left()
}
