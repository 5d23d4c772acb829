//! A container that is only supposed: what its bundle would say, as far as admission reads it.
//!
//! Decides how flags of ctr, or a pod's specification, become what containerd would write. What that asks for is read by [`Ask::read`], as
//! of any container. Must not know where it was written.

use std::collections::BTreeMap;

use oci_specs::{CapabilitiesView, CpuView, LinuxView, ProcessView, ResourcesView, SpecView};
use plan::Refusal;

use crate::ask::{self, Ask, Owner};

/// A container that is not there.
#[derive(Debug, Clone, Default)]
pub struct Supposed {
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub container: String,
    /// Its pod, in CRI; `None` for ctr, nerdctl, Docker.
    pub pod: Option<SupposedPod>,
    /// Annotations; in CRI those of the pod.
    pub annotations: BTreeMap<String, String>,
    /// Environment, `KEY=value` each, as far as it is known.
    pub env: Vec<String>,
    /// Whether it could use every device: privileged, or with CAP_SYS_ADMIN.
    pub privileged: bool,
    /// Its CPU limit in thousandths of a CPU, where it has one.
    pub cpu_limit: Option<u64>,
}

/// The pod that such a container is in.
#[derive(Debug, Clone, Default)]
pub struct SupposedPod {
    /// Sandbox id.
    pub sandbox: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The container's name in it.
    pub container: String,
}

/// The period of a CPU quota, in microseconds (`QuotaPeriod` of the kubelet).
const PERIOD: u64 = 100_000;

impl Supposed {
    /// What it asks for; `None` when nothing of it is about GPUs.
    ///
    /// # Errors
    /// As [`Ask::read`].
    pub fn ask(&self) -> Result<Option<Ask>, Refusal> {
        let owner = Owner { namespace: &self.namespace, container: &self.container };
        Ask::read(owner, &self.spec())
    }

    /// Whether containerd hands an annotation of a pod on to Berth: the packaged handler has `berth.dev/*` and `*.berth.dev/*`.
    pub fn is_heard(key: &str) -> bool {
        let domain = key.split_once('/').map(|(domain, _)| domain);
        domain.is_some_and(|domain| domain == "berth.dev" || domain.ends_with(".berth.dev"))
    }

    fn spec(&self) -> SpecView {
        let mut annotations = self.annotations.clone();
        if let Some(pod) = &self.pod {
            annotations.retain(|key, _| Self::is_heard(key));
            let cri = [
                (ask::CONTAINER_TYPE, "container"),
                (ask::CONTAINER_NAME, &pod.container),
                (ask::SANDBOX_ID, &pod.sandbox),
                (ask::SANDBOX_NAME, &pod.name),
                (ask::SANDBOX_NAMESPACE, &pod.namespace),
            ];
            annotations.extend(cri.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        let bounding = if self.privileged { vec!["CAP_SYS_ADMIN".to_owned()] } else { Vec::new() };
        let quota = |limit: u64| i64::try_from(limit.saturating_mul(PERIOD) / 1000).ok();
        let quota = self.cpu_limit.and_then(quota);
        let cpu = CpuView { quota, period: quota.map(|_| PERIOD), ..CpuView::default() };
        SpecView {
            annotations,
            process: Some(ProcessView {
                env: self.env.clone(),
                capabilities: CapabilitiesView { bounding },
                ..ProcessView::default()
            }),
            linux: Some(LinuxView {
                cgroups_path: self.cgroups_path(),
                resources: ResourcesView { cpu, ..ResourcesView::default() },
                ..LinuxView::default()
            }),
            ..SpecView::default()
        }
    }

    /// Where its cgroup would be made: what it may give depends on the cgroup above. A pod's is below the kubelet's, wherever that is.
    fn cgroups_path(&self) -> String {
        let above = if self.pod.is_some() { "kubepods" } else { &self.namespace };
        format!("/{above}/{}", self.container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supposed(annotations: &[(&str, &str)]) -> Supposed {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Supposed {
            namespace: "default".into(),
            container: "c1".into(),
            annotations: annotations.iter().map(own).collect(),
            ..Supposed::default()
        }
    }

    #[test]
    fn outside_pods_it_is_a_container_of_its_namespace() {
        let ask = supposed(&[("berth.dev/gpus", "2")]).ask().expect("fine").expect("it asks");
        assert_eq!(ask.label(false), "default/c1");
        assert_eq!((ask.name(), ask.unconfined()), (None, None));
        let privileged = Supposed { privileged: true, ..supposed(&[("berth.dev/gpus", "2")]) };
        let ask = privileged.ask().expect("fine").expect("it asks");
        assert!(ask.unconfined().is_some_and(|why| why.contains("CAP_SYS_ADMIN")));
    }

    #[test]
    fn in_a_pod_only_berths_annotations_are_heard() {
        let pod = SupposedPod {
            sandbox: "s".into(),
            namespace: "team".into(),
            name: "train".into(),
            container: "main".into(),
        };
        let cdi = ("cdi.k8s.io/x", "nvidia.com/gpu=0");
        let deaf = Supposed { pod: Some(pod.clone()), ..supposed(&[cdi]) };
        assert!(deaf.ask().expect("fine").is_none());
        let asks = [("main.berth.dev/gpus", "1"), ("other.berth.dev/gpus", "4"), cdi];
        let asks = Supposed { pod: Some(pod), cpu_limit: Some(1500), ..supposed(&asks) };
        let ask = asks.ask().expect("fine").expect("it asks");
        assert_eq!(ask.label(false), "team/train/main");
        assert_eq!(ask.cpu.worth(), Some(2), "a CPU and a half");
        assert!(ask.evidence.cdi.is_empty());
    }
}
