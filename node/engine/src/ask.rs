//! Who asks, and for what: everything that a bundle says about GPUs, read in one pass over it.
//!
//! Decides whether there is anything to decide at all. A container that says nothing of GPUs costs a walk over
//! its annotations, environment, mounts and devices, and no file, lock or call.

use std::collections::BTreeMap;

use oci_specs::cdi::{self, QualifiedName};
use oci_specs::{CpuView, Device, SpecView};
use plan::trust::{Asker, Pod};
use plan::visible::Visible;
use plan::{Refusal, Request};

/// CRI's marks (containerd, `pkg/cri/annotations`).
pub(crate) const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
pub(crate) const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
pub(crate) const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
pub(crate) const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";

/// Whose container it is.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// containerd namespace.
    pub namespace: &'a str,
    /// Container id.
    pub container: &'a str,
}

/// What is known of a container that may be about a GPU.
#[derive(Debug, Clone)]
pub struct Ask {
    pub(crate) namespace: String,
    pub(crate) container: String,
    /// Sandbox id; the container's own outside pods.
    pub(crate) sandbox: String,
    pub(crate) asker: Asker,
    /// A device rule that opens GPUs nobody gave, in words. Once something is asked for, it is as good as privilege.
    pub(crate) wide: Option<String>,
    /// Whether it has user ids of its own: the OCI runtime then binds the host's device nodes instead of making them.
    pub(crate) has_user_namespace: bool,
    pub(crate) request: Option<Request>,
    pub(crate) evidence: Evidence,
    pub(crate) env: Vec<String>,
    /// CPUs, memory nodes and quota that its launcher named.
    pub(crate) cpu: CpuView,
    /// `linux.cgroupsPath`.
    pub(crate) cgroups_path: String,
}

/// Traces that another allocator has decided.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// NVIDIA device nodes that are in the spec already.
    pub(crate) nodes: Vec<Device>,
    /// CDI devices of NVIDIA's that annotations name.
    pub(crate) cdi: Vec<QualifiedName>,
    /// Destinations of the mounts by which a device plugin names devices.
    pub(crate) mounts: Vec<String>,
    /// `NVIDIA_VISIBLE_DEVICES`.
    pub(crate) visible: Option<String>,
    /// Whether driver libraries are mounted already.
    pub(crate) libraries: bool,
}

impl Ask {
    /// Reads what the container says. `None` when nothing of it is about GPUs, and for the pause container, which never asks
    /// although the pod's annotations reach it too.
    ///
    /// # Errors
    /// [`Refusal`] for annotations of ours that cannot be understood.
    pub fn read(owner: Owner<'_>, spec: &SpecView) -> Result<Option<Self>, Refusal> {
        let annotations = &spec.annotations;
        let text = |key: &str| annotations.get(key).cloned().unwrap_or_default();
        let kind = annotations.get(CONTAINER_TYPE).map(String::as_str);
        if kind == Some("sandbox") {
            return Ok(None);
        }
        let pod = (kind == Some("container")).then(|| Pod {
            namespace: text(SANDBOX_NAMESPACE),
            name: text(SANDBOX_NAME),
            uid: text(SANDBOX_UID),
            container: text(CONTAINER_NAME),
        });
        let name = pod.as_ref().map(|pod| pod.container.as_str());
        let request = Request::parse(annotations, name)?;
        let evidence = Evidence::read(spec)?;
        if request.is_none() && evidence.is_empty() {
            return Ok(None);
        }
        let sandbox = pod.is_some().then(|| text(SANDBOX_ID)).filter(|id| !id.is_empty());
        let wide = opened_unseen(spec, &evidence.nodes);
        Ok(Some(Self {
            namespace: owner.namespace.to_owned(),
            container: owner.container.to_owned(),
            sandbox: sandbox.unwrap_or_else(|| owner.container.to_owned()),
            asker: Asker {
                pod,
                containerd_namespace: owner.namespace.to_owned(),
                privileged: spec.is_privileged(),
            },
            wide,
            has_user_namespace: spec.has_user_namespace(),
            request,
            evidence,
            env: spec.process.as_ref().map(|process| process.env.clone()).unwrap_or_default(),
            cpu: spec.linux.as_ref().map(|linux| linux.resources.cpu.clone()).unwrap_or_default(),
            cgroups_path: spec.cgroups_path().to_owned(),
        }))
    }

    /// The annotations that ask, as written; none where something else does.
    pub fn requested(&self) -> BTreeMap<String, String> {
        self.request.as_ref().map(|request| request.written.clone()).unwrap_or_default()
    }

    /// What lets it reach GPUs past its grant, in words; `None` where its device rules confine it.
    pub(crate) fn unconfined(&self) -> Option<&String> {
        self.asker.privileged.as_ref().or(self.wide.as_ref())
    }

    /// Who asks for GPUs, as trust is to see it.
    pub(crate) fn asking(&self) -> Asker {
        Asker { privileged: self.unconfined().cloned(), ..self.asker.clone() }
    }

    /// The container's name in its pod.
    pub(crate) fn name(&self) -> Option<&str> {
        self.asker.pod.as_ref().map(|pod| pod.container.as_str())
    }

    /// Who, as refusals and the operator's command name it.
    pub(crate) fn label(&self, whole_pod: bool) -> String {
        match &self.asker.pod {
            Some(pod) if whole_pod => format!("{}/{}", pod.namespace, pod.name),
            Some(pod) => format!("{}/{}/{}", pod.namespace, pod.name, pod.container),
            None => format!("{}/{}", self.namespace, self.container),
        }
    }

    /// A variable of the container's environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        variable(&self.env, name)
    }
}

fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

impl Evidence {
    fn read(spec: &SpecView) -> Result<Self, Refusal> {
        let env = spec.process.as_ref().map_or(&[][..], |process| &process.env);
        let devices = spec.linux.as_ref().map_or(&[][..], |linux| &linux.devices);
        let marks = |path: &String| Visible::of_mounts([path.as_str()]) != Visible::Nothing;
        Ok(Self {
            nodes: nodes(devices),
            cdi: nvidia_names(&spec.annotations)?,
            mounts: spec
                .mounts
                .iter()
                .filter(|mount| mount.source == "/dev/null")
                .map(|mount| mount.destination.clone())
                .filter(marks)
                .collect(),
            visible: variable(env, "NVIDIA_VISIBLE_DEVICES")
                .filter(|value| !matches!(Visible::parse(value), Visible::Nothing))
                .map(str::to_owned),
            libraries: spec.mounts.iter().any(|mount| is_driver_library(&mount.destination)),
        })
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.cdi.is_empty()
            && self.mounts.is_empty()
            && self.visible.is_none()
    }
}

/// GPUs' nodes, by name or number, with those of their MIG instances. Control nodes alone give nobody a GPU, and neither do the latter.
fn nodes(devices: &[Device]) -> Vec<Device> {
    if !devices.iter().any(|node| minor_of(node).is_some()) {
        return Vec::new();
    }
    let counts = |node: &&Device| minor_of(node).or_else(|| capability_of(node)).is_some();
    devices.iter().filter(counts).cloned().collect()
}

/// The minor of a node that lets a process use a MIG instance: `/dev/nvidia-caps/nvidia-cap<N>`. Its major is another on each boot.
pub(crate) fn capability_of(node: &Device) -> Option<u32> {
    node.path.strip_prefix("/dev/nvidia-caps/nvidia-cap")?;
    u32::try_from(node.minor).ok()
}

/// Major and minors of GPUs; minors above are control nodes (`nvidia-modprobe`, and the driver's `nv-linux.h`).
const MAJOR: i64 = 195;
const MINORS: std::ops::RangeInclusive<i64> = 0..=247;

/// The minor of a GPU's node: what its number says, whatever it is called, since that is what opens; else `/dev/nvidia<N>`.
pub(crate) fn minor_of(node: &Device) -> Option<u32> {
    if node.kind == "c" && node.major == MAJOR && MINORS.contains(&node.minor) {
        return u32::try_from(node.minor).ok();
    }
    let digits = node.path.strip_prefix("/dev/nvidia")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The device rule, in words, that opens a GPU for which there is no node: more than whoever gave nodes has given.
fn opened_unseen(spec: &SpecView, nodes: &[Device]) -> Option<String> {
    let has_node = |minor: i64| nodes.iter().any(|node| node.major == MAJOR && node.minor == minor);
    spec.rules_opening(MAJOR, MINORS).find(|rule| !rule.minor.is_some_and(has_node)).map(|rule| {
        let plural = if rule.minor.is_some() { "a GPU" } else { "every GPU" };
        format!("its device rule {rule} opens {plural}")
    })
}

fn is_driver_library(destination: &str) -> bool {
    let name = destination.rsplit('/').next().unwrap_or_default();
    ["libcuda.so", "libnvidia-ml.so"].iter().any(|library| name.starts_with(library))
}

/// CDI devices that annotations name and that are NVIDIA GPUs. What is no name of a device is containerd's to complain about, but not
/// every version looks: where a GPU may be meant, it is not passed over.
fn nvidia_names(annotations: &BTreeMap<String, String>) -> Result<Vec<QualifiedName>, Refusal> {
    let Ok(named) = cdi::annotation_devices(annotations) else {
        let mut asked = annotations.iter().filter(|(key, _)| key.starts_with("cdi.k8s.io/"));
        return match asked.find(|(_, value)| value.contains("nvidia.com/")) {
            Some((_, value)) => Err(Refusal::CdiUnresolved {
                name: value.clone(),
                why: "it, or another annotation cdi.k8s.io/*, is no list of names as vendor/class=device".into(),
            }),
            None => Ok(Vec::new()),
        };
    };
    Ok(named.into_iter().filter(|name| name.vendor.ends_with("nvidia.com")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'static> = Owner { namespace: "test", container: "c1" };

    fn spec(json: serde_json::Value) -> SpecView {
        serde_json::from_value(json).expect("a spec")
    }

    fn pod(kind: &str, more: &[(&str, &str)]) -> serde_json::Value {
        let mut annotations = serde_json::json!({
            "io.kubernetes.cri.container-type": kind,
            "io.kubernetes.cri.container-name": "web",
            "io.kubernetes.cri.sandbox-id": "s1",
            "io.kubernetes.cri.sandbox-name": "shop",
            "io.kubernetes.cri.sandbox-namespace": "team",
            "io.kubernetes.cri.sandbox-uid": "u1",
        });
        for (key, value) in more {
            annotations[*key] = serde_json::json!(value);
        }
        serde_json::json!({ "annotations": annotations })
    }

    #[test]
    fn a_container_that_says_nothing_of_gpus_asks_nothing() {
        let env =
            serde_json::json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=void", "PATH=/"]}});
        let other = pod("container", &[("notberth.dev/gpus", "1"), ("cdi.k8s.io/x", "a.com/b=c")]);
        let control = serde_json::json!({"linux": {"devices": [
            {"path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255},
        ]}});
        for quiet in [serde_json::json!({}), env, other, control] {
            assert!(Ask::read(OWNER, &spec(quiet.clone())).expect("fine").is_none(), "{quiet}");
        }
    }

    #[test]
    fn the_pause_container_never_asks() {
        let asking = spec(pod("sandbox", &[("berth.dev/gpus", "1")]));
        assert!(Ask::read(OWNER, &asking).expect("fine").is_none());
    }

    #[test]
    fn a_member_of_a_pod_is_known_by_its_pod() {
        let asking = spec(pod("container", &[("berth.dev/gpus", "1")]));
        let ask = Ask::read(OWNER, &asking).expect("fine").expect("it asks");
        assert_eq!((ask.sandbox.as_str(), ask.name()), ("s1", Some("web")));
        assert_eq!(ask.label(false), "team/shop/web");
        assert_eq!(ask.label(true), "team/shop");
    }

    #[test]
    fn outside_pods_a_container_is_its_own_sandbox() {
        let asking = spec(serde_json::json!({"annotations": {"berth.dev/gpus": "1"}}));
        let ask = Ask::read(OWNER, &asking).expect("fine").expect("it asks");
        assert_eq!((ask.sandbox.as_str(), ask.name()), ("c1", None));
        assert_eq!(ask.label(false), "test/c1");
    }

    #[test]
    fn each_trace_of_another_allocator_is_seen() {
        let traces = [
            serde_json::json!({"linux": {"devices": [
                {"path": "/dev/nvidia3", "type": "c", "major": 195, "minor": 3},
            ]}}),
            serde_json::json!({"linux": {"devices": [
                {"path": "/dev/other", "type": "c", "major": 195, "minor": 3},
            ]}}),
            serde_json::json!({"annotations": {"cdi.k8s.io/plugin_x": "nvidia.com/gpu=0"}}),
            serde_json::json!({"mounts": [
                {"destination": "/var/run/nvidia-container-devices/GPU-1", "source": "/dev/null"},
            ]}),
            serde_json::json!({"process": {"env": ["NVIDIA_VISIBLE_DEVICES=all"]}}),
        ];
        for trace in traces {
            assert!(Ask::read(OWNER, &spec(trace.clone())).expect("fine").is_some(), "{trace}");
        }
    }

    #[test]
    fn a_misspelt_cdi_device_is_not_passed_over() {
        let annotated = |value: &str| {
            let other = ("cdi.k8s.io/a", "no name");
            let spec = spec(pod("container", &[other, ("cdi.k8s.io/b", value)]));
            Ask::read(OWNER, &spec).map(|ask| ask.is_some())
        };
        let words = annotated("nvidia.com/gpu=../x").expect_err("refused").to_string();
        assert!(words.contains("nvidia.com/gpu=../x"), "{words}");
        assert!(annotated("nvidia.com/gpu=0").is_err());
        assert!(!annotated("example.com/nic=?").expect("another's to refuse"));
    }

    #[test]
    fn the_last_of_two_variables_counts() {
        let env = ["A=1".to_owned(), "A=2".to_owned(), "AB=3".to_owned()];
        assert_eq!(variable(&env, "A"), Some("2"));
        assert_eq!(variable(&env, "B"), None);
    }
}
