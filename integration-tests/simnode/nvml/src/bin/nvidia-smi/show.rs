//! What nvidia-smi prints, in the shape of the real one.

use simnode::machine;

use crate::library::{Device, Failure, Nvml};

/// `-L`.
pub fn list(nvml: &Nvml) -> Result<String, Failure> {
    let mut text = String::new();
    for (index, device) in nvml.devices()?.into_iter().enumerate() {
        let (name, uuid) = (nvml.name(device)?, nvml.uuid(device)?);
        text.push_str(&format!("GPU {index}: {name} (UUID: {uuid})\n"));
        for (index, mig) in nvml.mig_devices(device)?.into_iter().enumerate() {
            let (whole, uuid) = (nvml.name(mig)?, nvml.uuid(mig)?);
            let profile = whole.rsplit(' ').next().unwrap_or(&whole);
            text.push_str(&format!("  MIG {profile:<11} Device {index:>2}: (UUID: {uuid})\n"));
        }
    }
    Ok(text)
}

/// `--query-gpu=…`, without the line of heads.
pub fn query(nvml: &Nvml, fields: &[&str], units: bool) -> Result<String, Failure> {
    let mut text = String::new();
    for (index, device) in nvml.devices()?.into_iter().enumerate() {
        let cell = |field: &&str| {
            Ok(match *field {
                "index" => index.to_string(),
                "uuid" => nvml.uuid(device)?,
                "name" => nvml.name(device)?,
                "pci.bus_id" => nvml.bus_id(device)?,
                "driver_version" => nvml.versions()?.0,
                "memory.total" => {
                    let unit = if units { " MiB" } else { "" };
                    format!("{}{unit}", nvml.memory(device)?.total >> 20)
                }
                "compute_cap" => {
                    let (major, minor) = nvml.compute(device)?;
                    format!("{major}.{minor}")
                }
                _ => return Err(Failure::Usage),
            })
        };
        let cells: Vec<String> = fields.iter().map(cell).collect::<Result<_, _>>()?;
        text.push_str(&cells.join(", "));
        text.push('\n');
    }
    Ok(text)
}

/// Without arguments.
pub fn table(nvml: &Nvml) -> Result<String, Failure> {
    let (driver, cuda) = nvml.versions()?;
    let cuda = format!("{}.{}", cuda / 1000, cuda % 1000 / 10);
    let rule = format!("+{}+\n", "-".repeat(89));
    let mut text = format!(
        "{rule}| NVIDIA-SMI {driver:<22} Driver Version: {driver:<14}   CUDA Version: {cuda:<6} |\n{rule}"
    );
    for (index, device) in nvml.devices()?.into_iter().enumerate() {
        let memory = nvml.memory(device)?;
        let (draw, limit) = nvml.power(device)?;
        text.push_str(&format!(
            "| {index:3}  {:<40} {:4}W / {:4}W | {:>8}MiB / {:>7}MiB |\n",
            nvml.name(device)?,
            draw / 1000,
            limit / 1000,
            memory.used >> 20,
            memory.total >> 20,
        ));
    }
    text.push_str(&rule);
    Ok(text)
}

/// `topo -m`.
pub fn topology(nvml: &Nvml) -> Result<String, Failure> {
    let devices = nvml.devices()?;
    let names = (0..devices.len()).map(|index| format!("GPU{index}"));
    let heads: Vec<String> = names.collect();
    let mut text = format!("\t{}\tCPU Affinity\n", heads.join("\t"));
    for (head, one) in heads.iter().zip(&devices) {
        let cells = devices.iter().enumerate().map(|(index, other)| match heads[index] == *head {
            true => Ok(" X ".to_owned()),
            false => closeness(nvml, *one, *other),
        });
        let cells: Vec<String> = cells.collect::<Result<_, _>>()?;
        let cpus = machine::list(&nvml.cpus(*one)?);
        text.push_str(&format!("{head}\t{}\t{cpus}\n", cells.join("\t")));
    }
    text.push_str(LEGEND);
    Ok(text)
}

fn closeness(nvml: &Nvml, one: Device, other: Device) -> Result<String, Failure> {
    let links = nvml.links(one, other)?;
    if links > 0 {
        return Ok(format!("NV{links}"));
    }
    Ok(match nvml.ancestor(one, other)? {
        0..=10 => "PIX",
        11..=20 => "PXB",
        21..=30 => "PHB",
        31..=40 => "NODE",
        _ => "SYS",
    }
    .to_owned())
}

const LEGEND: &str = "
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
";
