//! A request in flags: `--gpus 2` is the annotation `berth.dev/gpus: "2"`, and nothing more.
//!
//! Decides which annotation each flag is. What a value means, and whether it makes sense, is read by whoever reads the annotation.

use std::collections::BTreeMap;

use anyhow::bail;
use engine::{Supposed, SupposedPod};

use super::{Container, Kind, Pod, Wanted};
use crate::cli::PlanArgs;

/// The pod that stands for one of a namespace.
const NAME: &str = "planned";

/// What the flags ask for.
pub fn read(args: &PlanArgs) -> anyhow::Result<Wanted> {
    let annotations = annotations(args)?;
    if annotations.is_empty() && args.env.is_empty() {
        bail!(
            "nothing is asked for: give a request (--gpus 2, --mig 1g.10gb, --annotation KEY=VALUE), or a manifest (-f pod.yaml)"
        );
    }
    let mut warnings = Vec::new();
    if args.namespace.is_some() {
        let unheard = annotations.keys().filter(|key| !Supposed::is_heard(key));
        warnings.extend(unheard.map(|key| {
            format!("annotation {key}: containerd's handler does not hand it on to Berth, so it asks nothing")
        }));
    }
    let (env, privileged) = (args.env.clone(), args.privileged);
    let (kubernetes, containerd) = (args.namespace.clone(), args.containerd_namespace.clone());
    let supposed = move |nth: u32| {
        let name = if nth == 0 { NAME.to_owned() } else { format!("{NAME}-{}", nth + 1) };
        let pod = kubernetes.as_ref().map(|namespace| SupposedPod {
            sandbox: format!("berth-{name}"),
            namespace: namespace.clone(),
            name: name.clone(),
            container: NAME.to_owned(),
        });
        Supposed {
            namespace: match &pod {
                Some(_) => "k8s.io".to_owned(),
                None => containerd.clone(),
            },
            container: name,
            pod,
            annotations: annotations.clone(),
            env: env.clone(),
            privileged,
            cpu_limit: None,
        }
    };
    let container =
        Container { name: String::new(), kind: Kind::Alone, supposed: Box::new(supposed) };
    let pod = Pod { name: None, containers: vec![container] };
    Ok(Wanted { pods: vec![pod], warnings })
}

fn annotations(args: &PlanArgs) -> anyhow::Result<BTreeMap<String, String>> {
    let fields = [
        ("gpus", &args.gpus),
        ("mig", &args.mig),
        ("devices", &args.devices),
        ("cpus", &args.cpus),
        ("numa", &args.numa),
        ("driver-capabilities", &args.driver_capabilities),
        ("extras", &args.extras),
    ];
    let mut all = BTreeMap::new();
    let fields = fields
        .into_iter()
        .filter_map(|(field, value)| Some((format!("berth.dev/{field}"), value.clone()?)));
    let mut written: Vec<(String, String)> = fields.collect();
    for text in &args.annotation {
        let Some((key, value)) = text.split_once('=') else {
            bail!(
                "--annotation {text:?} is not KEY=VALUE; write for example --annotation berth.dev/gpus=2"
            );
        };
        if !key.contains('/') {
            bail!(
                "--annotation {text:?} names no field of Berth's: write it with its domain, as in --annotation berth.dev/{key}={value}"
            );
        }
        written.push((key.to_owned(), value.to_owned()));
    }
    for (key, value) in written {
        if let Some(other) = all.insert(key.clone(), value) {
            bail!("{key} is given twice, and once as {other:?}; give it once");
        }
    }
    Ok(all)
}
