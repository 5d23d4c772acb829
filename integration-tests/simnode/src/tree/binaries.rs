//! The driver's programs and firmware.

use std::path::Path;

use crate::error::NodeError;
use crate::state::{Driver, State};

use super::write::Tree;
use crate::layout::Layout;

const PROGRAMS: [&str; 4] = [
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
];

pub(super) fn write(
    tree: &Tree,
    state: &State,
    driver: &Driver,
    nvidia_smi: &Path,
) -> Result<(), NodeError> {
    if state.layout == Layout::DebianAlternatives {
        tree.copy("usr/lib/nvidia/current/nvidia-smi", nvidia_smi, 0o755)?;
        let alternative = "/etc/alternatives/nvidia--nvidia-smi";
        tree.link(&alternative[1..], "/usr/lib/nvidia/current/nvidia-smi")?;
        tree.link("usr/bin/nvidia-smi", alternative)?;
    } else {
        tree.copy("usr/bin/nvidia-smi", nvidia_smi, 0o755)?;
    }
    for name in PROGRAMS {
        let script = format!(
            "#!/bin/sh\n# A stand-in of the simulated node.\necho \"{name}: simulated, driver {}\"\n",
            driver.version
        );
        tree.program(format!("usr/bin/{name}"), script)?;
    }
    for name in ["gsp_ga10x.bin", "gsp_tu10x.bin"] {
        let path = format!("usr/lib/firmware/nvidia/{}/{name}", driver.version);
        tree.file(path, format!("simulated GSP firmware {name} {}\n", driver.version))?;
    }
    Ok(())
}
