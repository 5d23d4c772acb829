//! Kubernetes' manifests, as far as a container's start on a node depends on them.
//!
//! Decides which objects make pods, in which order their containers start, and what of them would let somebody else decide. What is written in
//! annotations is read by whoever reads a container's. Source: Kubernetes API reference, v1 Pod and the workloads' templates.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail};
use engine::{Supposed, SupposedPod};
use serde_json::{Map, Value};

use super::quantity::milli_cpus;
use super::{Container, Kind, Pod, Wanted};
use crate::cli::PlanArgs;

/// The most documents that one file may have.
const MOST: usize = 256;
/// The class by which pods reach Berth, as packaged.
const CLASS: &str = "berth";

/// The pods of a manifest; `origin` names it.
pub fn read(text: &str, origin: &str, args: &PlanArgs) -> anyhow::Result<Wanted> {
    let documents = engine::yaml::documents(text, MOST);
    let documents = documents.map_err(|problem| anyhow!("{origin}: {problem}"))?;
    let mut wanted = Wanted { pods: Vec::new(), warnings: Vec::new() };
    let mut objects: Vec<&Value> = Vec::new();
    for document in &documents {
        match document["items"].as_array() {
            Some(items) if word(document, "kind").ends_with("List") => objects.extend(items),
            _ => objects.push(document),
        }
    }
    for object in objects {
        let kind = word(object, "kind");
        if kind.is_empty() {
            bail!(
                "{origin}: a document without kind; an object of Kubernetes has apiVersion and kind"
            );
        }
        match template(kind, object) {
            None => wanted.warnings.push(format!(
                "{kind} {}: it makes no pods that this command knows of, and is passed over",
                word(&object["metadata"], "name")
            )),
            Some(template) => {
                let name = format!("{kind} {}", word(&object["metadata"], "name"));
                let mut manifest = Manifest {
                    object,
                    template,
                    args,
                    number: wanted.pods.len(),
                    warnings: vec![],
                };
                let pod = manifest.pod().with_context(|| format!("{origin}: {}", name.trim_end()));
                let pod = pod.map_err(|error| anyhow!("{error:#}"))?;
                wanted.warnings.append(&mut manifest.warnings);
                wanted.pods.push(pod);
            }
        }
    }
    if wanted.pods.is_empty() {
        bail!(
            "{origin}: there is no pod in it; a Pod is planned, and the pods of a Deployment, ReplicaSet, StatefulSet, DaemonSet, Job or CronJob"
        );
    }
    Ok(wanted)
}

/// Where the object has what its pods are made of.
fn template<'a>(kind: &str, object: &'a Value) -> Option<&'a Value> {
    match kind {
        "Pod" => Some(object),
        "Deployment"
        | "ReplicaSet"
        | "StatefulSet"
        | "DaemonSet"
        | "Job"
        | "ReplicationController" => Some(&object["spec"]["template"]),
        "CronJob" => Some(&object["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// One object that makes a pod.
struct Manifest<'a> {
    object: &'a Value,
    template: &'a Value,
    args: &'a PlanArgs,
    /// How many pods are before it.
    number: usize,
    warnings: Vec<String>,
}

impl Manifest<'_> {
    fn pod(&mut self) -> anyhow::Result<Pod> {
        let (namespace, name) = (self.namespace()?, self.name());
        let spec = &self.template["spec"];
        let mut listed = Vec::new();
        for field in ["initContainers", "containers"] {
            for (at, container) in list(spec, field)?.iter().enumerate() {
                let kind = match (field, word(container, "restartPolicy")) {
                    ("containers", _) => Kind::App,
                    (_, "Always") => Kind::Sidecar,
                    _ => Kind::Init,
                };
                if word(container, "name").is_empty() {
                    bail!("spec.{field}[{at}] has no name");
                }
                listed.push((container, kind));
            }
        }
        if !listed.iter().any(|(_, kind)| *kind == Kind::App) {
            bail!("spec.containers is empty or not there; a pod has at least one container");
        }
        let annotations = self.annotations()?;
        let label = format!("{namespace}/{name}");
        self.mind(&label, &listed, &annotations);
        let mut containers = Vec::new();
        for (container, kind) in listed {
            let own = word(container, "name").to_owned();
            let named = || format!("container {own}");
            let (env, limit) = (env(container), cpu_limit(container).with_context(named)?);
            let (privileged, annotations) = (is_privileged(container), annotations.clone());
            let (namespace, name, number) = (namespace.clone(), name.clone(), self.number);
            let supposed = {
                let own = own.clone();
                move |nth: u32| {
                    let sandbox = format!("berth-planned-{number}-{nth}");
                    let name = if nth == 0 { name.clone() } else { format!("{name}-{}", nth + 1) };
                    Supposed {
                        namespace: "k8s.io".to_owned(),
                        container: format!("{sandbox}-{own}"),
                        pod: Some(SupposedPod {
                            sandbox,
                            namespace: namespace.clone(),
                            name,
                            container: own.clone(),
                        }),
                        annotations: annotations.clone(),
                        env: env.clone(),
                        privileged,
                        cpu_limit: limit,
                    }
                }
            };
            containers.push(Container { name: own, kind, supposed: Box::new(supposed) });
        }
        Ok(Pod { name: Some(label), containers })
    }

    /// The object's; else that of the flag, else `default`. As with kubectl, the two may not differ.
    fn namespace(&self) -> anyhow::Result<String> {
        let written = word(&self.object["metadata"], "namespace");
        match &self.args.namespace {
            Some(flag) if !written.is_empty() && flag != written => {
                bail!("its namespace is {written:?}, and --namespace says {flag:?}; leave one out")
            }
            Some(flag) => Ok(flag.clone()),
            None if written.is_empty() => Ok("default".to_owned()),
            None => Ok(written.to_owned()),
        }
    }

    fn name(&self) -> String {
        let metadata = &self.object["metadata"];
        let names = [word(metadata, "name"), word(metadata, "generateName").trim_end_matches('-')];
        let named = names.into_iter().find(|name| !name.is_empty());
        named.unwrap_or("unnamed").to_owned()
    }

    fn annotations(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let empty = Map::new();
        let written = match &self.template["metadata"]["annotations"] {
            Value::Null => &empty,
            Value::Object(written) => written,
            _ => bail!("metadata.annotations is not a map"),
        };
        let text = |(key, value): (&String, &Value)| match value.as_str() {
            Some(text) => Ok((key.clone(), text.to_owned())),
            None => Err(anyhow!(
                "annotation {key}: {value} is not text, and Kubernetes takes no other; write {key}: \"{}\"",
                value.to_string().trim_matches('"')
            )),
        };
        written.iter().map(text).collect()
    }

    /// Notes what would let the pod come out otherwise than it is planned.
    fn mind(
        &mut self,
        label: &str,
        containers: &[(&Value, Kind)],
        annotations: &BTreeMap<String, String>,
    ) {
        let mut notes = Vec::new();
        match word(&self.template["spec"], "runtimeClassName") {
            CLASS => {}
            "" => notes.push(format!(
                "there is no runtimeClassName, so Berth is not asked; write runtimeClassName: {CLASS}"
            )),
            other => notes.push(format!(
                "runtimeClassName is {other:?}, not {CLASS:?}: Berth is asked only if that class's handler is Berth's"
            )),
        }
        for (container, _) in containers {
            let name = word(container, "name");
            for resource in allocated(container) {
                notes.push(format!(
                    "container {name} asks for {resource} in its resources: another allocator decides then, and Berth takes what that gives"
                ));
            }
        }
        for key in annotations.keys() {
            let addressed = key.split_once(".berth.dev/").map(|(container, _)| container);
            let is_there = |name: &str| containers.iter().any(|(one, _)| word(one, "name") == name);
            if let Some(nobody) = addressed.filter(|name| !is_there(name)) {
                notes.push(format!("annotation {key}: the pod has no container {nobody:?}"));
            }
        }
        let spec = &self.object["spec"];
        let many = ["replicas", "parallelism"]
            .into_iter()
            .find_map(|field| Some((field, spec[field].as_u64().filter(|number| *number > 1)?)));
        if let Some((field, number)) = many.filter(|_| self.args.count == 1) {
            notes.push(format!(
                "{field} is {number}, and one pod is planned; --count {number} plans as many on this node"
            ));
        }
        self.warnings.extend(notes.into_iter().map(|note| format!("{label}: {note}")));
    }
}

/// A field that is text; empty where it is not.
fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn list<'a>(spec: &'a Value, field: &str) -> anyhow::Result<&'a [Value]> {
    match &spec[field] {
        Value::Null => Ok(&[]),
        Value::Array(list) => Ok(list),
        _ => bail!("spec.{field} is not a list"),
    }
}

/// Variables with a value of their own; what comes from elsewhere is not known here.
fn env(container: &Value) -> Vec<String> {
    let entries = container["env"].as_array().map_or(&[][..], Vec::as_slice);
    let variable = |entry: &Value| {
        let value = entry["value"].as_str()?;
        Some(format!("{}={value}", word(entry, "name")))
    };
    entries.iter().filter_map(variable).collect()
}

fn is_privileged(container: &Value) -> bool {
    let context = &container["securityContext"];
    let added = context["capabilities"]["add"].as_array().map_or(&[][..], Vec::as_slice);
    let is_admin = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        ["SYS_ADMIN", "CAP_SYS_ADMIN", "ALL"].iter().any(|admin| name.eq_ignore_ascii_case(admin))
    };
    context["privileged"] == true || added.iter().any(is_admin)
}

fn cpu_limit(container: &Value) -> anyhow::Result<Option<u64>> {
    let limit = match &container["resources"]["limits"]["cpu"] {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let limit = milli_cpus(&limit).ok_or_else(|| {
        anyhow!("resources.limits.cpu: {limit:?} is no number of CPUs; write for example \"2\" or \"500m\"")
    })?;
    Ok(Some(limit).filter(|limit| *limit > 0))
}

/// What of a container's resources somebody else allocates: a device plugin, a DRA driver.
fn allocated(container: &Value) -> Vec<String> {
    let resources = &container["resources"];
    let named = ["limits", "requests"].into_iter().filter_map(|field| resources[field].as_object());
    let mut found: Vec<String> =
        named.flat_map(Map::keys).filter(|name| name.starts_with("nvidia.com/")).cloned().collect();
    let claims = resources["claims"].as_array().map_or(&[][..], Vec::as_slice);
    found
        .extend(claims.iter().map(|claim| format!("the resource claim {:?}", word(claim, "name"))));
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests;
