//! What Berth says of the GPUs is what the driver's own program says of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::ground::{Ground, lacking};
use crate::smi::{self, Listed};

pub fn every_gpu_is_as_nvidia_smi_says(ground: &Ground) -> Result<()> {
    let wanted = smi::gpus(ground)?;
    let topo = ground.berth()?.json(&["topo"])?;
    let capabilities = compute_capabilities(ground)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let gpus = topo["gpus"].as_array().context("a list of GPUs")?;
    let found: Vec<Listed> = gpus
        .iter()
        .map(|gpu| Listed {
            index: gpu["index"].as_u64().unwrap_or(u64::MAX),
            uuid: text(&gpu["uuid"]),
            pci: text(&gpu["pci"]),
            memory_mib: gpu["memory_mib"].as_u64().unwrap_or(0),
            name: text(&gpu["model"]),
            compute: capabilities.get(&text(&gpu["uuid"])).cloned().unwrap_or_default(),
            driver: text(&topo["driver"]["version"]),
        })
        .collect();
    ensure!(found == wanted, "berth: {found:#?}\nnvidia-smi: {wanted:#?}");
    Ok(())
}

/// By UUID, as the observation keeps them: no command shows them.
fn compute_capabilities(ground: &Ground) -> Result<BTreeMap<String, String>> {
    let seen: Value = serde_json::from_slice(&fs::read(observation(ground)?)?)?;
    let gpus = seen["seen"]["inventory"]["gpus"].as_array().context("a list of GPUs")?;
    let one = |gpu: &Value| {
        let number = |key: &str| gpu["compute_capability"][key].as_u64();
        let capability = format!("{}.{}", number("major")?, number("minor")?);
        Some((gpu["uuid"].as_str()?.to_owned(), capability))
    };
    Ok(gpus.iter().filter_map(one).collect())
}

/// The one file of the kind: there is one boot.
fn observation(ground: &Ground) -> Result<PathBuf> {
    let boots = fs::read_dir(ground.berth()?.path("run"))?;
    let mut files = boots.flatten().map(|boot| boot.path().join("inventory.json"));
    files.find(|file| file.is_file()).context("the node was never observed")
}

pub fn closeness_is_as_nvidia_smi_says(ground: &Ground) -> Result<()> {
    smi::read_what_real_machines_said()?;
    let wanted = smi::topology(ground)?;
    let topo = ground.berth()?.json(&["topo"])?;
    let gpus = topo["gpus"].as_array().context("a list of GPUs")?;
    let index = |gpu: &Value| gpu["index"].as_u64().context("an index");
    let mut links = BTreeMap::new();
    for one in gpus {
        for other in gpus.iter().filter(|other| other["uuid"] != one["uuid"]) {
            let link = &one["links"][other["uuid"].as_str().context("a UUID")?];
            let words = match link["nvlinks"].as_u64() {
                Some(0) => link["ancestor"].as_str().unwrap_or("?").to_owned(),
                Some(number) => format!("NV{number}"),
                None => "?".to_owned(),
            };
            links.insert((index(one)?, index(other)?), words);
        }
        // Where the machine does not say which node, one program answers nothing and the other the first.
        if let (Some(said), Some(node)) = (wanted.numa.get(&index(one)?), one["numa_node"].as_u64())
        {
            ensure!(
                *said == node,
                "GPU {}: node {said} by nvidia-smi, {node} by berth",
                index(one)?
            );
        }
    }
    ensure!(links == wanted.links, "berth: {links:#?}\nnvidia-smi: {:#?}", wanted.links);
    if links.is_empty() { Err(lacking("one GPU alone is close to none")) } else { Ok(()) }
}

pub fn a_second_look_answers_from_the_first(ground: &Ground) -> Result<()> {
    let berth = ground.berth()?;
    let first = berth.json(&["topo"])?;
    let written = || Ok::<_, anyhow::Error>(fs::metadata(observation(ground)?)?.ino());
    let before = written()?;
    ensure!(berth.json(&["topo"])?["gpus"] == first["gpus"], "another answer to the same question");
    ensure!(written()? == before, "the driver was asked again");
    let observed = berth.berth(&["observe"])?;
    ensure!(observed.code() == 0, "{}{}", observed.out, observed.err);
    ensure!(written()? != before, "berth observe looks and writes anew");
    ensure!(berth.json(&["topo"])?["gpus"] == first["gpus"], "another answer after another look");
    Ok(())
}
