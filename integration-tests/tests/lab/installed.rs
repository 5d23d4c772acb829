//! Berth as an administrator installs it: `make install`, the packaged handler in containerd's own configuration, systemd's containerd.
//!
//! Decides what an administrator writes. The node is a virtual machine of the lab's own, so its `/etc` and its containerd are the trial's.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::ctr::{Ctr, Said, said};
use integration_tests::images;

use crate::ground::{Ground, cgroup_file, held, seats};

/// Where the sources and what was built of them are.
const SOURCES: &str = "/lab/src";
const HANDLER: &str = include_str!("../../../packaging/containerd/berth-v2.toml");

pub fn an_administrator_installs_uses_and_removes_it(ground: &Ground) -> Result<()> {
    let node = ground.node("")?;
    make("install")?;
    // What the file has by default is left to it; root and library stand for the GPUs that are not there.
    let mut settings = OpenOptions::new().append(true).open("/etc/berth/config.toml")?;
    let nvml = node.sim.nvml_path()?;
    writeln!(settings, "[node]\nroot = {:?}\nnvml = {nvml:?}", node.root())?;
    let packaged = fs::read_to_string("/etc/berth/config.toml")?;
    // A table may be written once: the packaged one has nothing but comments.
    fs::write("/etc/berth/config.toml", packaged.replacen("[node]", "# [node]", 1))?;
    configure_containerd()?;
    systemctl("start")?;
    let used = use_it(&node);
    systemctl("stop")?;
    used?;
    make("uninstall")?;
    for program in ["berth", "containerd-shim-berth-v2"] {
        ensure!(!Path::new("/usr/local/bin").join(program).exists(), "{program} is still there");
    }
    ensure!(Path::new("/etc/berth/config.toml").exists(), "a configuration that was changed stays");
    Ok(())
}

fn use_it(node: &integration_tests::gpu::GpuNode) -> Result<()> {
    let ctr = Ctr::new("/usr/bin/ctr".into(), "/run/containerd/containerd.sock".into(), "lab");
    let archive = node.path("images.tar");
    images::write_archive(&archive)?;
    ctr.ok(&["images", "import", archive.to_string_lossy().as_ref()])?;
    let seats = seats(node)?;
    let last = seats.last().context("a GPU")?;
    let device = format!("berth.dev/devices={}", last.uuid);
    let run =
        ["run", "--detach", "--null-io", "--runtime", "io.containerd.berth.v2", "--annotation"];
    ctr.ok(&[&run[..], &[&device, images::BUSYBOX, "used", "sleep", "100000"]].concat())?;
    let pid = u32::try_from(ctr.task_pid("used")?)?;
    ensure!(held(pid)?.cpus == last.cpus.to_string(), "{:?}", held(pid)?);
    ensure!(cgroup_file(pid, "cpuset.cpus")? == last.cpus.to_string(), "its cgroup");
    let listed = berth(&["--json", "ps"])?;
    ensure!(listed.code() == 0 && listed.out.contains(&last.uuid), "{listed:?}");
    let checked = berth(&["doctor"])?;
    ensure!(checked.code() < 2, "{checked:?}");
    ctr.ok(&["task", "delete", "--force", "used"])?;
    ctr.ok(&["container", "delete", "used"])?;
    let listed = berth(&["--json", "ps"])?;
    ensure!(!listed.out.contains(&last.uuid), "still held: {listed:?}");
    Ok(())
}

fn configure_containerd() -> Result<()> {
    let config = Path::new("/etc/containerd/config.toml");
    fs::create_dir_all("/etc/containerd")?;
    let own = fs::read_to_string(config).unwrap_or_default();
    let own = if own.contains("version") { own } else { format!("version = 2\n{own}") };
    let handler: String = HANDLER
        .lines()
        .filter(|line| !line.starts_with("version"))
        .flat_map(|line| [line, "\n"])
        .collect();
    Ok(fs::write(config, format!("{own}\n{handler}"))?)
}

fn make(target: &str) -> Result<()> {
    let said = said(Command::new("make").args(["-C", SOURCES, target]))?;
    ensure!(said.code() == 0, "make {target}: {said:?}");
    Ok(())
}

fn systemctl(verb: &str) -> Result<()> {
    let said = said(Command::new("systemctl").args([verb, "containerd.service"]))?;
    ensure!(said.code() == 0, "systemctl {verb} containerd: {said:?}");
    Ok(())
}

fn berth(arguments: &[&str]) -> Result<Said> {
    said(Command::new("/usr/local/bin/berth").args(arguments))
}
