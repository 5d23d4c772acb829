//! What a request is worth on this node: who may ask for what.
//!
//! Decides from the policy and from who asks. Must not know what is free, or what the request would cost.

use crate::extra::Extras;
use crate::glob;
use crate::policy::{AnnotationRequests, Audience, EnvRequests, Policy};
use crate::refusal::Refusal;
use crate::request::{Request, Want};
use crate::words::{listed, quoted};

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asker {
    /// The pod, in CRI; `None` for ctr, nerdctl, Docker.
    pub pod: Option<Pod>,
    /// containerd's namespace.
    pub containerd_namespace: String,
    /// CAP_SYS_ADMIN in the bounding set, or a device rule that allows everything: in words what makes it so.
    pub privileged: Option<String>,
}

/// A Kubernetes pod, as CRI's annotations describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The container's name in it.
    pub container: String,
}

/// Whether another allocator owns the node's GPUs, as far as the node shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OtherAllocator(pub Option<String>);

/// Decides whether `asker` may make `request` (annotations). `prior` tells that another allocator has decided already, so that nothing is allocated.
///
/// A container that opts out asks for nothing, so it always may.
///
/// # Errors
/// [`Refusal`] naming the annotation, the policy key that bars it and how it is set.
pub fn may_ask(
    request: &Request,
    asker: &Asker,
    policy: &Policy,
    other: &OtherAllocator,
    prior: bool,
) -> Result<(), Refusal> {
    if request.opted_out {
        return Ok(());
    }
    let key = request.asking().0;
    annotations_count(key, asker, policy)?;
    let allocates = request.want.is_some() && !prior;
    if let (true, true, Some(allocator)) =
        (allocates, other_matters(request, asker, policy), &other.0)
    {
        return Err(Refusal::OtherAllocator { key: key.to_owned(), allocator: allocator.clone() });
    }
    if allocates && matches!(request.want, Some(Want::Exactly(_) | Want::Instances(_))) {
        may_name_devices(key, asker, policy)?;
    }
    may_hold(key, asker, policy)
}

/// Whether `NVIDIA_VISIBLE_DEVICES` alone is a request of this asker's. Where it is not, it is ignored: images set it, too.
pub fn env_may_ask(asker: &Asker, policy: &Policy) -> bool {
    policy.env_requests == EnvRequests::NonCri && asker.pod.is_none()
}

/// Whether a container with these privileges may hold GPUs through Berth at all. `key` is the annotation or variable that asks.
///
/// # Errors
/// [`Refusal::Privileged`], saying what makes it so and which policy key would let it.
pub fn may_hold(key: &str, asker: &Asker, policy: &Policy) -> Result<(), Refusal> {
    match &asker.privileged {
        Some(why) if !policy.privileged => {
            Err(Refusal::Privileged { key: key.to_owned(), why: why.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether it makes a difference to [`may_ask`] who else allocates on this node: finding that out takes reading the kubelet's files.
pub fn other_matters(request: &Request, asker: &Asker, policy: &Policy) -> bool {
    let auto = policy.annotation_requests == AnnotationRequests::Auto;
    auto && asker.pod.is_some() && request.want.is_some()
}

fn annotations_count(key: &str, asker: &Asker, policy: &Policy) -> Result<(), Refusal> {
    let refused = |reason: String, setting: String| {
        Err(Refusal::NotAllowed { key: key.to_owned(), asker: asker.named(), reason, setting })
    };
    match (policy.annotation_requests, &asker.pod) {
        (AnnotationRequests::Deny, _) => {
            let reason = "policy.annotation-requests is \"deny\"";
            refused(reason.to_owned(), "policy.annotation-requests = \"auto\"".to_owned())
        }
        (AnnotationRequests::Auto, Some(pod)) => {
            let matches = |pattern: &String| glob::matches(pattern, &pod.namespace);
            if policy.namespaces.iter().any(matches) {
                return Ok(());
            }
            let names: Vec<String> = policy.namespaces.iter().map(|name| quoted(name)).collect();
            let reason = match names.is_empty() {
                true => "policy.namespaces is empty".to_owned(),
                false => format!("policy.namespaces has only {}", listed(&names)),
            };
            refused(reason, format!("add {} to policy.namespaces", quoted(&pod.namespace)))
        }
        _ => Ok(()),
    }
}

/// Whether exact devices may be named; `key` is the annotation or the variable that does.
///
/// # Errors
/// [`Refusal::NotAllowed`] naming it and the policy key.
pub fn may_name_devices(key: &str, asker: &Asker, policy: &Policy) -> Result<(), Refusal> {
    among(key, asker, policy.devices, "devices", "gpus and mig would not name devices")
}

/// Whether a GPU may be switched into MIG mode for this asker.
pub fn may_switch_mode(asker: &Asker, policy: &Policy) -> bool {
    is_among(asker, policy.mig_mode_switch)
}

fn is_among(asker: &Asker, audience: Audience) -> bool {
    match audience {
        Audience::All => true,
        Audience::NonCri => asker.pod.is_none(),
        Audience::Off => false,
    }
}

/// Whether a container may have CPUs for itself; `key` is the annotation that asks.
///
/// # Errors
/// [`Refusal::NotAllowed`] naming it and the policy key.
pub fn may_have_exclusive_cpus(key: &str, asker: &Asker, policy: &Policy) -> Result<(), Refusal> {
    among(key, asker, policy.exclusive_cpus, "exclusive-cpus", "auto would share CPUs")
}

/// Whether a container may have these extras; `key` is the annotation that asks.
///
/// # Errors
/// [`Refusal::NotAllowed`] naming it, the first that is barred, and its policy key.
pub fn may_have_extras(
    key: &str,
    extras: &Extras,
    asker: &Asker,
    policy: &Policy,
) -> Result<(), Refusal> {
    extras.iter().try_for_each(|extra| {
        let name = extra.name();
        among(key, asker, policy.audience_of(extra), name, &format!("it asks for {name}"))
    })
}

/// Whether the asker is among those whom `policy.<name>` lets; `otherwise` is said beside what it is now.
fn among(
    key: &str,
    asker: &Asker,
    audience: Audience,
    name: &str,
    otherwise: &str,
) -> Result<(), Refusal> {
    if is_among(asker, audience) {
        return Ok(());
    }
    let now = audience.word();
    let setting = if asker.pod.is_some() { "all" } else { "non-cri" };
    Err(Refusal::NotAllowed {
        key: key.to_owned(),
        asker: asker.named(),
        reason: format!("policy.{name} is \"{now}\", and {otherwise}"),
        setting: format!("policy.{name} = \"{setting}\""),
    })
}

impl Asker {
    /// As refusals name it.
    fn named(&self) -> String {
        match &self.pod {
            Some(pod) => format!("pods of namespace {}", quoted(&pod.namespace)),
            None => {
                format!("containers of containerd namespace {}", quoted(&self.containerd_namespace))
            }
        }
    }
}
