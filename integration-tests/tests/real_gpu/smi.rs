//! What `nvidia-smi` says, as data. Decides how its answers are read; knows nothing of Berth.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::ground::Ground;

/// What is asked about each GPU, in this order.
const FIELDS: &str = "index,uuid,pci.bus_id,memory.total,name,compute_cap,driver_version";

/// A GPU as it is listed.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    pub index: u64,
    pub uuid: String,
    /// `0000:53:00.0`
    pub pci: String,
    pub memory_mib: u64,
    pub name: String,
    /// `9.0`
    pub compute: String,
    pub driver: String,
}

/// All GPUs.
pub fn gpus(ground: &Ground) -> Result<Vec<Listed>> {
    let query = format!("--query-gpu={FIELDS}");
    let answer = ground.nvidia_smi(&[&query, "--format=csv,noheader,nounits"])?;
    answer.lines().map(|line| listed(line).with_context(|| format!("read {line:?}"))).collect()
}

fn listed(line: &str) -> Result<Listed> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    let [index, uuid, bus, memory, name, compute, driver] = cells[..] else {
        anyhow::bail!("not as many fields as were asked for");
    };
    // Its PCI domain has eight digits, everybody else's four.
    let (domain, rest) = bus.split_once(':').context("a PCI address")?;
    let domain = u32::from_str_radix(domain, 16).context("a PCI domain")?;
    Ok(Listed {
        index: index.parse()?,
        uuid: uuid.to_owned(),
        pci: format!("{domain:04x}:{}", rest.to_lowercase()),
        memory_mib: memory.parse()?,
        name: name.to_owned(),
        compute: compute.to_owned(),
        driver: driver.to_owned(),
    })
}

/// `topo -m`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// `NV18`, `PIX` and so on, by the indices of the two.
    pub links: BTreeMap<(u64, u64), String>,
    /// NUMA node, where just one is named.
    pub numa: BTreeMap<u64, u64>,
}

/// How close the GPUs are.
pub fn topology(ground: &Ground) -> Result<Topology> {
    let answer = ground.nvidia_smi(&["topo", "-m"])?;
    matrix(&answer).with_context(|| format!("read:\n{answer}"))
}

fn matrix(answer: &str) -> Result<Topology> {
    let plain = without_escapes(answer);
    let mut lines = plain.lines().skip_while(|line| !line.trim_start().starts_with("GPU0"));
    let heads: Vec<&str> =
        lines.next().context("a line of heads")?.split('\t').map(str::trim).collect();
    let mut topology = Topology::default();
    for line in lines.take_while(|line| !line.trim().is_empty()) {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        let Some(one) = gpu(cells[0]) else { continue };
        for (head, cell) in heads.iter().zip(&cells).skip(1) {
            match (gpu(head), *head) {
                (Some(other), _) if other != one => {
                    topology.links.insert((one, other), (*cell).to_owned());
                }
                (None, "NUMA Affinity") => {
                    topology.numa.extend(cell.parse().ok().map(|node: u64| (one, node)));
                }
                _ => {}
            }
        }
    }
    let number = heads.iter().filter(|head| gpu(head).is_some()).count();
    ensure!(topology.links.len() == number * (number - 1), "the matrix has holes");
    Ok(topology)
}

/// `GPU3`, but not `GPU NUMA ID`.
fn gpu(head: &str) -> Option<u64> {
    head.strip_prefix("GPU")?.parse().ok()
}

/// It underlines the heads, terminal or not.
fn without_escapes(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + piece.split_once('m').map_or(piece, |(_, rest)| rest))
}

/// The readers, on what real machines said: on a machine without a GPU nothing else shows that they read.
pub fn read_what_real_machines_said() -> Result<()> {
    let line = "0, GPU-7a1c3f0e-2b6d-4c58-9e0f-1d2c3b4a5968, 00000000:3B:00.0, 143771, NVIDIA H200, 9.0, 580.159.04";
    let read = listed(line)?;
    ensure!((read.pci.as_str(), read.memory_mib) == ("0000:3b:00.0", 143_771), "{read:?}");
    ensure!((read.name.as_str(), read.compute.as_str()) == ("NVIDIA H200", "9.0"), "{read:?}");
    let two = "\t\u{1b}[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\u{1b}[0m\n\
               GPU0\t X \tNV18\tPXB\t0-47\t0\t\tN/A\nGPU1\tNV18\t X \tSYS\t48-95\t0-1\t\tN/A\n\
               NIC0\tPXB\tSYS\t X \t\t\t\t\n\nLegend:\n\n  X    = Self\n";
    let read = matrix(two)?;
    ensure!(read.links.len() == 2 && read.links[&(0, 1)] == "NV18", "{read:?}");
    ensure!(read.numa == BTreeMap::from([(0, 0)]), "{read:?}");
    ensure!(
        matrix(&two.replace("GPU1\tNV18\t X \tSYS\t48-95\t0-1\t\tN/A\n", "")).is_err(),
        "a hole"
    );
    Ok(())
}
