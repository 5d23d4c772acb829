//! What is packaged: the commented configuration means the defaults, and the example pods do what their comments say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::GpuNode;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use serde_json::Value;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

/// `config show` of a configuration with this text.
fn shown(node: &GpuNode, text: &str) -> Result<Value> {
    fs::write(&node.config, text)?;
    node.json(&["config", "show"])
}

/// Every key is in the packaged file, commented out, with its default.
pub fn the_packaged_configuration_is_the_defaults(_stage: &Stage) -> Result<()> {
    let node = GpuNode::up("none", "")?;
    let defaults = shown(&node, "")?;
    let packaged = fs::read_to_string(packaging("config/config.toml"))?;
    ensure!(shown(&node, &packaged)? == defaults, "as it is packaged");
    let setting = |line: &&str| {
        line.starts_with("#[")
            || line.starts_with('#') && line.contains(" = ") && !line.starts_with("# ")
    };
    let all: Vec<&str> =
        packaged.lines().map(|line| if setting(&line) { &line[1..] } else { line }).collect();
    let uncommented = all.join("\n");
    let (plain, ceilings) =
        uncommented.split_once("[policy.ceilings").context("the example of a ceiling")?;
    ensure!(shown(&node, plain)? == defaults, "uncommented: {plain}");
    let mut with = shown(&node, &format!("{plain}[policy.ceilings{ceilings}"))?;
    ensure!(
        with["policy"]["ceilings"]["team-*"] == serde_json::json!({"gpus": 4, "memory": 327_680}),
        "{with:#}"
    );
    with["policy"]["ceilings"] = serde_json::json!({});
    ensure!(with == defaults, "{with:#}");
    let written: BTreeSet<&str> =
        plain.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
    for (section, keys) in defaults.as_object().context("sections")? {
        ensure!(plain.contains(&format!("[{section}]")), "{section} is not in the packaged file");
        let keys = keys.as_object().with_context(|| section.clone())?.keys();
        let missing: Vec<&String> =
            keys.filter(|key| *key != "ceilings" && !written.contains(key.as_str())).collect();
        ensure!(missing.is_empty(), "not in the packaged file: {missing:?} of {section}");
    }
    Ok(())
}

/// An example pod, as far as it is about Berth.
struct Manifest {
    annotations: Vec<(String, String)>,
    containers: Vec<String>,
}

/// Reads the few lines that matter. Indentation is what tells them apart, as it does for Kubernetes.
fn manifest(name: &str) -> Result<Manifest> {
    let text = fs::read_to_string(packaging(name))?;
    ensure!(
        text.contains("\nkind: Pod\n") && text.contains("\n  runtimeClassName: berth\n"),
        "{text}"
    );
    let pair = |line: &str| {
        let (key, value) = line.trim().split_once(": ")?;
        Some((key.to_owned(), value.trim_matches('"').to_owned()))
    };
    let containers = below(&text, "  containers:");
    let names = containers.iter().filter_map(|line| line.strip_prefix("    - name: "));
    Ok(Manifest {
        annotations: below(&text, "  annotations:").into_iter().filter_map(pair).collect(),
        containers: names.map(str::to_owned).collect(),
    })
}

/// The lines below this one that are indented more than it is.
fn below<'a>(text: &'a str, head: &str) -> Vec<&'a str> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let rest = text.lines().skip_while(|line| *line != head).skip(1);
    rest.take_while(|line| depth(line) > depth(head)).collect()
}

/// Every example is played; the numbers are those of their own comments.
pub fn the_example_pods_get_what_their_comments_say(stage: &Stage) -> Result<()> {
    let class = fs::read_to_string(packaging("kubernetes/runtimeclass.yaml"))?;
    ensure!(
        class.contains("\nkind: RuntimeClass\n") && class.contains("\nhandler: berth\n"),
        "{class}"
    );
    let kubelet = Kubelet::up(stage, "a30", TRUSTED)?;
    let mut played = 0;
    for entry in fs::read_dir(packaging("kubernetes"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let expected: &[(&str, usize)] = match name.as_str() {
            "runtimeclass.yaml" => continue,
            "one-gpu.yaml" => &[("cuda", 1)],
            "shared-claim.yaml" => &[("trainer", 2), ("watcher", 2), ("exporter", 0)],
            other => anyhow::bail!("{other} is played by nobody"),
        };
        let manifest = manifest(&format!("kubernetes/{name}"))?;
        ensure!(
            manifest.containers == expected.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            "{name}"
        );
        ensure!(!manifest.annotations.is_empty(), "{name}");
        let annotations: Vec<(&str, &str)> = manifest
            .annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let pod = kubelet.pod(&annotations)?;
        let mut ids = Vec::new();
        for (container, gpus) in expected {
            let id = pod.run(container, &SLEEP)?;
            let inside = kubelet.inside(&id)?;
            ensure!(
                inside.open.len() == *gpus && inside.nodes.len() == *gpus,
                "{name}: {container}: {inside:#?}"
            );
            ids.push(id);
        }
        ensure!(kubelet.node.grants()?.len() == 1, "{name}: one claim");
        pod.remove(&ids.iter().map(String::as_str).collect::<Vec<_>>())?;
        kubelet.node.is_free()?;
        played += 1;
    }
    ensure!(played == 2, "{played} were played");
    Ok(())
}
