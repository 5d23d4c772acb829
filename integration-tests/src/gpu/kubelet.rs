//! A GPU node as the kubelet has it: simulated GPUs, a containerd of the trial's own on them, and pods through its CRI.
//!
//! Decides how a container is looked at from inside. Must not know what trials expect of whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::GpuNode;
use crate::containerd::leftovers::none_of;
use crate::containerd::stage::Stage;
use crate::containerd::{CRI_NAMESPACE, Containerd};
use crate::cri::Cri;
use crate::cri::messages::ContainerConfig;
use crate::cri::pod::Pod;
use crate::versions::Installation;

/// The policy under which the pods of a trial may ask: they are in this namespace.
pub const TRUSTED: &str = "[policy]\nnamespaces = [\"tests\"]";

/// What a container does that only has to be there.
pub const SLEEP: [&str; 2] = ["sleep", "100000"];

/// Prints what a container has of GPUs. Nodes of the test's own making tell what the device rules let it open: none of them has a
/// driver here, so what passes the rules fails with ENXIO.
const LOOK: &str = r#"env; echo ---
ls /dev | grep '^nvidia[0-9]'; echo ---
ls /proc/driver/nvidia/gpus 2>/dev/null; echo ---
ls /usr/local/nvidia/lib64 2>/dev/null; echo ---
for minor in $MINORS; do
  mknod /dev/probe c 195 $minor || exit 1
  (: </dev/probe) 2>&1 | sed "s/.*:/$minor/"
  rm /dev/probe
done"#;

/// The trial's node, and what runs on it. Taken down in this order.
pub struct Kubelet {
    /// The client.
    pub cri: Cri,
    /// The containerd.
    pub containerd: Containerd,
    /// The GPUs, and Berth's configuration.
    pub node: GpuNode,
}

/// What a container has of GPUs, as it finds out itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// GPU nodes in `/dev`.
    pub nodes: BTreeSet<String>,
    /// PCI addresses in `/proc/driver/nvidia/gpus`.
    pub shown: BTreeSet<String>,
    /// The driver's libraries that Berth brought.
    pub libraries: BTreeSet<String>,
    /// Minors of the GPUs that its device rules let it open.
    pub open: BTreeSet<u64>,
}

impl Kubelet {
    /// Starts containerd on a node of this profile, with `more` in Berth's configuration.
    ///
    /// # Errors
    /// When the node or containerd cannot be had.
    pub fn up(stage: &Stage, profile: &str, more: &str) -> Result<Self> {
        Self::on(stage, GpuNode::up(profile, more)?)
    }

    /// Starts containerd on this node.
    ///
    /// # Errors
    /// When it does not start.
    pub fn on(stage: &Stage, node: GpuNode) -> Result<Self> {
        Self::of(&stage.installation, &stage.shim()?, node)
    }

    /// Starts this containerd, with this shim, on this node.
    ///
    /// # Errors
    /// When it does not start.
    pub fn of(installation: &Installation, shim: &Path, node: GpuNode) -> Result<Self> {
        let containerd = Containerd::start_on(installation, shim, Some(&node.config))?;
        let cri = Cri::connect(&containerd.socket())?;
        Ok(Self { cri, containerd, node })
    }

    /// Starts a pod with these annotations, in the namespace `tests`.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn pod(&self, annotations: &[(&str, &str)]) -> Result<Pod<'_>> {
        self.pod_in("tests", annotations)
    }

    /// Starts a pod with these annotations, in a namespace of Kubernetes.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn pod_in(&self, namespace: &str, annotations: &[(&str, &str)]) -> Result<Pod<'_>> {
        self.pod_by("berth", namespace, annotations)
    }

    /// The same by another of containerd's handlers.
    ///
    /// # Errors
    /// As there.
    pub fn pod_by(
        &self,
        handler: &str,
        namespace: &str,
        annotations: &[(&str, &str)],
    ) -> Result<Pod<'_>> {
        let text = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        Pod::start(&self.containerd, &self.cri, handler, |config| {
            config.annotations = annotations.iter().map(text).collect();
            if let Some(metadata) = &mut config.metadata {
                metadata.namespace = namespace.to_owned();
            }
        })
    }

    /// The one grant that there is.
    ///
    /// # Errors
    /// When there is none, or another one.
    pub fn only_grant(&self) -> Result<Value> {
        let mut grants = self.node.grants()?;
        ensure!(grants.len() == 1, "one grant, not {grants:#?}");
        Ok(grants.remove(0))
    }

    /// The grant that this container uses.
    ///
    /// # Errors
    /// When it uses none.
    pub fn grant_of(&self, container: &str) -> Result<Value> {
        let grants = self.node.grants()?;
        let uses = |grant: &&Value| {
            let members = grant["members"].as_array().into_iter().flatten();
            members.into_iter().any(|member| member["container"] == container)
        };
        let found = grants.iter().find(uses).cloned();
        found.with_context(|| format!("{container} is in no grant of {grants:#?}"))
    }

    /// What a running container has of GPUs.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn inside(&self, container: &str) -> Result<Inside> {
        let state = self.node.sim.state()?;
        let minors: Vec<String> = state.gpus.iter().map(|gpu| gpu.minor.to_string()).collect();
        let script = LOOK.replace("$MINORS", &minors.join(" "));
        let said = self.cri.exec_sync(container, &["sh", "-c", &script], 0)?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let parts: Vec<&str> = text.split("---\n").collect();
        let [env, nodes, shown, libraries, probes] = parts[..] else {
            anyhow::bail!("{}: {text}{}", said.exit_code, String::from_utf8_lossy(&said.stderr));
        };
        let lines = |part: &str| part.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let opened = |line: &str| line.strip_suffix(" No such device or address")?.parse().ok();
        let variable = |line: &str| line.split_once('=').map(|(k, v)| (k.into(), v.into()));
        Ok(Inside {
            env: env.lines().filter_map(variable).collect(),
            nodes: lines(nodes),
            shown: lines(shown),
            libraries: lines(libraries),
            open: probes.lines().filter_map(opened).collect(),
        })
    }

    /// That a running container has the GPUs of this grant, every way in which it can look, and no other.
    ///
    /// # Errors
    /// Naming what it has instead.
    pub fn has_exactly(&self, container: &str, grant: &Value) -> Result<Inside> {
        let inside = self.inside(container)?;
        let gpus: Vec<&Value> = grant["gpus"].as_array().into_iter().flatten().collect();
        ensure!(!gpus.is_empty(), "a grant of nothing: {grant:#}");
        let state = self.node.sim.state()?;
        let mut minors = BTreeSet::new();
        for gpu in &gpus {
            let uuid = gpu["uuid"].as_str().context("a UUID")?;
            minors.insert(u64::from(state.gpus[state.find(uuid)?].minor));
        }
        let pci: BTreeSet<String> =
            gpus.iter().filter_map(|gpu| gpu["pci"].as_str()).map(str::to_lowercase).collect();
        let nodes: BTreeSet<String> = minors.iter().map(|one| format!("nvidia{one}")).collect();
        ensure!(inside.nodes == nodes && inside.open == minors, "not {minors:?}: {inside:#?}");
        ensure!(inside.shown == pci, "not {pci:?}: {inside:#?}");
        let uuids =
            gpus.iter().filter_map(|gpu| gpu["uuid"].as_str()).collect::<Vec<_>>().join(",");
        let visible = inside.env.get("NVIDIA_VISIBLE_DEVICES");
        ensure!(
            visible.is_some_and(|visible| [&uuids, "void"].contains(&visible.as_str())),
            "{inside:#?}"
        );
        ensure!(
            inside.env.get("BERTH_GRANT").map(String::as_str) == grant["grant"].as_str(),
            "{inside:#?}"
        );
        Ok(inside)
    }

    /// That a running container has nothing of any GPU but what its own environment says.
    ///
    /// # Errors
    /// Naming what it has.
    pub fn has_nothing(&self, container: &str) -> Result<Inside> {
        let inside = self.inside(container)?;
        let bare = inside.nodes.is_empty() && inside.shown.is_empty() && inside.open.is_empty();
        let untold = !inside.env.contains_key("BERTH_GRANT") && inside.libraries.is_empty();
        ensure!(bare && untold, "{inside:#?}");
        Ok(inside)
    }

    /// Creates a container whose start is to be refused, and gives what the kubelet hears, from Berth's first word on. It hears the
    /// same when it asks for the container's status, and nothing of the container is left but that.
    ///
    /// # Errors
    /// When it is not refused, or not by Berth.
    pub fn refused(
        &self,
        pod: &Pod<'_>,
        name: &str,
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String> {
        let before = self.node.grants()?;
        let id = pod.create(name, &SLEEP, adjust)?;
        let answer = self.cri.start_container(&id);
        let message = answer.as_ref().err().map_or("", |status| status.message());
        let words = message.find("berth: ").map(|at| message[at..].to_owned());
        let words = words.with_context(|| format!("not refused by Berth: {answer:?}"))?;
        // containerd before 2.0 ends with the name of the status code.
        let words = [": failed precondition", ": internal", ": unknown"]
            .iter()
            .find_map(|code| words.strip_suffix(code).map(str::to_owned))
            .unwrap_or(words);
        let status = self.cri.container_status(&id)?;
        ensure!(status.reason == "StartError" && status.message.contains(&words), "{status:?}");
        none_of(&self.containerd, CRI_NAMESPACE, &id)?;
        self.cri.remove_container(&id)?;
        let after = self.node.grants()?;
        ensure!(before == after, "a refusal changed {before:#?} to {after:#?}");
        Ok(words)
    }

    /// As [`Self::refused`], and in exactly these words.
    ///
    /// # Errors
    /// As there, and when the words are others.
    pub fn refused_with(&self, pod: &Pod<'_>, name: &str, expected: &str) -> Result<()> {
        let words = self.refused(pod, name, |_| ())?;
        ensure!(words == expected, "{words}\n  is not\n{expected}");
        Ok(())
    }

    /// UUID of the GPU with this index.
    ///
    /// # Errors
    /// When the node's state cannot be read.
    pub fn uuid(&self, index: usize) -> Result<String> {
        let state = self.node.sim.state()?;
        Ok(state.gpus.get(index).with_context(|| format!("no GPU {index}"))?.uuid.clone())
    }

    /// Writes the kubelet's device checkpoint.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn checkpoint(&self, data: &Value) -> Result<()> {
        let path = self.checkpoint_path();
        fs::create_dir_all(path.parent().context("in a folder")?)?;
        let text = serde_json::json!({ "Data": data, "Checksum": 1 }).to_string();
        Ok(fs::write(path, text)?)
    }

    /// Where the kubelet's device checkpoint is.
    pub fn checkpoint_path(&self) -> PathBuf {
        self.node.path("kubelet").join("device-plugins/kubelet_internal_checkpoint")
    }
}
