//! An admission on this machine, without a container: what its `config.json` and its `/proc/driver/nvidia` would be.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use engine::config::Config;
use engine::{GivenGpu, Node, Rootfs};
use integration_tests::actors::{Container, Prepared};
use serde_json::Value;

use crate::ground::Ground;

/// One GPU, admitted; given back when this ends.
struct Admitted {
    node: Node,
    admission: Option<engine::Admission>,
    bundle: PathBuf,
    gpu: GivenGpu,
}

impl Admitted {
    fn one(ground: &Ground, id: &str) -> Result<Self> {
        let berth = ground.berth()?;
        // The engine here has no configuration in its environment for a child: let it find everything looked at and prepared.
        berth.json(&["topo"])?;
        let said = berth.berth(&["prepare-driver", "--capabilities", "compute,utility"])?;
        ensure!(said.code() == 0, "{}{}", said.out, said.err);
        let config: Config = toml::from_str(&fs::read_to_string(&berth.config)?)?;
        let node = Node::new(&config);
        let container: Prepared = Container::alone(id, 1).prepare(&berth.path("bundles"))?;
        let (bundle, ask) = container.read()?;
        let admission = node.admit(&ask, &bundle, &Rootfs::default(), None)?;
        let grants = node.grants()?;
        let grant = grants.iter().find(|grant| Some(&grant.id) == admission.grant());
        let gpu = grant.and_then(|grant| grant.gpus.first()).context("a GPU was granted")?.clone();
        Ok(Self { node, admission: Some(admission), bundle: container.bundle, gpu })
    }

    fn config(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.bundle.join("config.json"))?)?)
    }

    fn end(mut self) -> Result<()> {
        self.node.undo(self.admission.take().context("admitted")?)?;
        ensure!(self.node.grants()?.is_empty(), "it was given back");
        Ok(())
    }
}

pub fn nodes_are_those_of_the_machine(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    let admitted = Admitted::one(ground, "nodes")?;
    let config = admitted.config()?;
    let nodes = config["linux"]["devices"].as_array().context("a list of devices")?;
    let mut names = BTreeSet::new();
    for node in nodes {
        let path = node["path"].as_str().context("a path")?;
        let number = |key: &str| node[key].as_u64().with_context(|| format!("{path}: no {key}"));
        let wanted = (number("major")?, number("minor")?);
        let place = ground.root().join(path.trim_start_matches('/'));
        // The driver makes some of them when they are first used.
        if let Ok(meta) = fs::metadata(&place) {
            let device = meta.rdev();
            let is =
                (u64::from(nix::sys::stat::major(device) as u32), nix::sys::stat::minor(device));
            ensure!(
                is == wanted,
                "{path} is {is:?} on the machine and {wanted:?} in the container"
            );
        }
        let rules = config["linux"]["resources"]["devices"].as_array().context("device rules")?;
        let allows = |rule: &Value| {
            rule["allow"] == true && rule["major"] == wanted.0 && rule["minor"] == wanted.1
        };
        ensure!(rules.iter().any(allows), "no rule lets {path} through: {rules:?}");
        names.insert(path.to_owned());
    }
    let own = format!("/dev/nvidia{}", admitted.gpu.minor);
    let uvm = ground.has_uvm()?.then_some("/dev/nvidia-uvm");
    for name in [own.as_str(), "/dev/nvidiactl"].into_iter().chain(uvm) {
        ensure!(names.contains(name), "{name} is not among {names:?}");
    }
    let others =
        names.iter().filter_map(|name| name.strip_prefix("/dev/nvidia")?.parse::<u32>().ok());
    ensure!(others.eq([admitted.gpu.minor]), "other GPUs are among {names:?}");
    admitted.end()
}

pub fn proc_shows_the_granted_gpu_alone(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    let admitted = Admitted::one(ground, "proc")?;
    let boots = admitted.node.host().run.join(admitted.node.host().boot_id()?).join("proc");
    let shown = |tree: &Path| -> Result<Vec<String>> {
        let gpus = fs::read_dir(tree.join("gpus"))?.flatten();
        Ok(gpus.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    let wanted = [admitted.gpu.pci.to_string()];
    let mut trees = fs::read_dir(boots)?.flatten().map(|entry| entry.path().join("nvidia"));
    let tree = trees.find(|tree| shown(tree).is_ok_and(|gpus| gpus == wanted));
    let tree = tree.with_context(|| format!("no tree shows {wanted:?} alone"))?;
    let real = ground.root().join("proc/driver/nvidia");
    let same = |name: &str| {
        Ok::<_, anyhow::Error>(fs::read(tree.join(name))? == fs::read(real.join(name))?)
    };
    let information = format!("gpus/{}/information", admitted.gpu.pci);
    for name in ["version", &information] {
        ensure!(same(name)?, "{name} is not the machine's own");
    }
    let params = fs::read_to_string(tree.join("params"))?;
    ensure!(params.lines().any(|line| line == "ModifyDeviceFiles: 0"), "{params}");
    admitted.end()
}
