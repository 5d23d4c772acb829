//! `berth doctor` on a machine with a GPU.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::ground::Ground;

pub fn it_finds_driver_gpus_and_files(ground: &Ground) -> Result<()> {
    let said = ground.berth()?.berth(&["doctor", "--json"])?;
    let answer: Value = serde_json::from_str(&said.out).with_context(|| format!("{said:?}"))?;
    let checks = answer["checks"].as_array().context("a list of checks")?;
    let status = |name: &str| {
        let check = checks.iter().find(|check| check["check"] == name);
        check.and_then(|check| check["status"].as_str()).unwrap_or("absent")
    };
    for name in ["configuration", "driver", "driver files", "ledger", "leftovers"] {
        ensure!(status(name) == "ok", "{name} is {}: {answer:#}", status(name));
    }
    // A warning where some are in MIG mode, or where uvm comes later.
    ensure!(["ok", "warning"].contains(&status("gpus")), "{answer:#}");
    let worst = checks.iter().filter_map(|check| match check["status"].as_str()? {
        "failure" => Some(2),
        "warning" => Some(1),
        _ => Some(0),
    });
    ensure!(Some(said.code()) == worst.max(), "exit status {} for {answer:#}", said.code());
    let told = checks
        .iter()
        .filter(|check| ["warning", "failure"].iter().any(|bad| check["status"] == *bad));
    for check in told {
        ensure!(check["fix"].is_string(), "no way out is told of {check}");
    }
    Ok(())
}
