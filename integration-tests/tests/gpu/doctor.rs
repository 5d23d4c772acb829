//! `berth doctor`: its exit status says what it found, and every finding comes with what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::ctr::{Said, said};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::world::World;
use integration_tests::gpu::{GpuNode, tool};
use serde_json::Value;
use simnode::Change;

use crate::command::has_fields;

/// `berth doctor` on a machine whose containerd knows Berth, as far as it can see: a private mount namespace has another `/etc`.
fn doctor(node: &GpuNode, containerd: &str, arguments: &[&str]) -> Result<Said> {
    let (etc, bin) = (node.path("etc"), node.path("bin"));
    fs::create_dir_all(etc.join("containerd"))?;
    fs::write(etc.join("containerd/config.toml"), containerd)?;
    fs::create_dir_all(&bin)?;
    program(&bin.join("containerd-shim-berth-v2"), "exit 0")?;
    program(&bin.join("containerd"), "cat /etc/containerd/config.toml")?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let script = "mount --bind \"$0\" /etc && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    command.arg(etc).arg(tool()?).arg("doctor").args(arguments);
    said(command.env("BERTH_CONFIG", &node.config).env("PATH", path))
}

fn program(path: &Path, script: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{script}\n"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

pub fn doctor_exits_with_what_it_found(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let known = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/containerd/berth-v2.toml"),
    )?;
    // Nobody has made the links in /dev/char yet: a warning, with what to do.
    let warned = doctor(&world.node, &known, &[])?;
    ensure!(warned.code() == 1 && warned.out.contains("warn  /dev/char links: "), "{warned:?}");
    ensure!(
        warned.out.contains("      fix: nvidia-ctk system create-dev-char-symlinks"),
        "{warned:?}"
    );
    // One container with all GPUs makes them, as the fix says.
    let all = format!("berth.dev/gpus={}", world.state()?.gpus.len());
    world.sleeper(&["--annotation", &all])?.end()?;
    let well = doctor(&world.node, &known, &[])?;
    ensure!(well.code() == 0 && well.out.lines().all(|line| line.starts_with("ok  ")), "{well:?}");
    // Annotations that do not get through would be requests that nobody hears.
    let deaf = doctor(&world.node, &known.replace("berth.dev/*", "other.dev/*"), &[])?;
    ensure!(deaf.code() == 2 && deaf.out.contains("FAIL  containerd handler: "), "{deaf:?}");
    world.node.sim.change(Change::Unload)?;
    ensure!(
        doctor(&world.node, &known, &[])?.code() == 1,
        "no driver: containers without GPUs start"
    );
    world.node.sim.change(Change::Load)?;
    let uvm = world.node.root().join("dev/nvidia-uvm");
    fs::remove_file(&uvm)?;
    fs::write(uvm, "no device")?;
    let broken = doctor(&world.node, &known, &["--json"])?;
    ensure!(broken.code() == 2, "{broken:?}");
    let shown: Value = serde_json::from_str(&broken.out)?;
    let checks = shown["checks"].as_array().context("checks")?;
    for check in checks {
        has_fields(check, &["check", "status", "detail", "fix"])?;
        ensure!(
            (check["status"] == "ok" || check["status"] == "skipped") == check["fix"].is_null(),
            "{check}"
        );
    }
    let failed: Vec<&Value> = checks.iter().filter(|check| check["status"] == "failure").collect();
    ensure!(failed.len() == 1 && failed[0]["check"] == "device nodes", "{shown:#}");
    Ok(())
}

pub fn a_broken_configuration_is_its_first_finding(stage: &Stage) -> Result<()> {
    let _ = stage;
    let node = GpuNode::up("one", "")?;
    fs::write(&node.config, "[nod]\n")?;
    let said = node.berth(&["doctor"])?;
    ensure!(said.code() == 2 && said.out.starts_with("FAIL  configuration: "), "{said:?}");
    ensure!(said.out.contains("nod"), "the key: {said:?}");
    Ok(())
}
