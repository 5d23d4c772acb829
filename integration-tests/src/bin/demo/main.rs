//! What `make demo` shows: containers get exactly the GPUs that they ask for, and give them back.
//!
//! Decides what is shown and in which order; the work is the harness's. The containerd is private; the GPUs are a simulated node's, or
//! this machine's own where an NVIDIA driver is loaded. Touches nothing else of the machine.

mod inside;
mod scene;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::Containerd;
use integration_tests::cri::Cri;
use integration_tests::gpu::{Berth, GpuNode};
use integration_tests::images;
use integration_tests::leaks::Leftovers;
use integration_tests::machine;
use integration_tests::under_test::under_test;
use integration_tests::versions::{self, Installation};
use integration_tests::wait;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use scene::Scene;

fn main() -> ExitCode {
    let started = Instant::now();
    match show() {
        Ok(()) => {
            println!("\nDone in {:.1} s.", started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "launching containers needs root: run it with sudo");
    let shim = under_test()?.shim.clone();
    let installation = containerd_to_use()?;
    let real = Path::new("/proc/driver/nvidia/version").exists();
    println!("Berth demo: GPUs for containers, given and taken back");
    println!("  shim        {}", shown(&shim));
    println!("  containerd  {} ({})", installation.version, installation.bin.display());
    println!(
        "  GPUs        {}",
        if real { "this machine's own" } else { "simulated: a node of 8 H100" }
    );

    step("Starting a private containerd and giving it images");
    let spare_cpu = spare_cpu()?;
    let pool = spare_cpu.map_or_else(String::new, |cpu| format!("exclusive-cpus = \"{cpu}\"\n"));
    let keys = format!("{pool}{POLICY}");
    if real {
        return play(&installation, &shim, &Berth::of_the_machine(&keys)?, spare_cpu, false);
    }
    let node = GpuNode::up("p5", &keys)?;
    // As an operator does who wants slices of one GPU and the others whole.
    node.sim.set_mig_mode("0", true)?;
    play(&installation, &shim, &node, spare_cpu, true)
}

fn play(
    installation: &Installation,
    shim: &Path,
    node: &Berth,
    spare_cpu: Option<usize>,
    simulated: bool,
) -> Result<()> {
    let containerd = Containerd::start_on(installation, shim, Some(&node.config))?;
    let archive = containerd.scratch.path("glibc.tar");
    images::write_glibc_archive(&archive)?;
    let archive = archive.to_string_lossy();
    containerd.ctr().ok(&["images", "import", archive.as_ref()])?;
    let cri = Cri::connect(&containerd.socket())?;
    fact(&format!("it listens on {}", containerd.socket().display()));

    step("berth topo: what the node has");
    let topo = node.berth(&["topo"])?;
    ensure!(topo.code() == 0, "berth topo failed: {}", topo.err);
    lines(&topo.out);

    Scene { node, containerd: &containerd, cri: &cri, simulated, spare_cpu }.play()?;

    step("Stopping the private containerd");
    let (folder, cgroup) =
        (containerd.scratch.root().to_path_buf(), containerd.scratch.cgroup().to_owned());
    containerd.stop()?;
    let mut left = Leftovers::default();
    // A shim ends a moment after its last container.
    let none = wait::until("the end of all that the demo began", || {
        left = Leftovers::of(&containerd.scratch).ok()?;
        left.is_empty().then_some(())
    });
    none.with_context(|| format!("left behind:\n{left}"))?;
    drop(containerd);
    ensure!(!folder.exists(), "{} is still there", folder.display());
    let cgroups = machine::cgroups_named(&cgroup)?;
    ensure!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
    for folder in [&folder, node.folder()] {
        ensure!(machine::mounts_below(folder)?.is_empty(), "mounts below {}", folder.display());
    }
    let place = node.folder().to_string_lossy();
    let mut running = machine::processes().into_values();
    let running = running.find(|row| row.command.contains(&*place));
    ensure!(running.is_none(), "it still runs: {running:?}");
    fact("no process, mount or cgroup of the demo is left");
    Ok(())
}

/// Pods may ask here: by default they may not, since any pod's author can write annotations. Nor may anybody ask for CPUs of its own.
const POLICY: &str = "[policy]\nnamespaces = [\"tests\"]\nexclusive-cpus = \"non-cri\"";

/// A CPU that this machine can do without: the second that it lets us have.
fn spare_cpu() -> Result<Option<usize>> {
    let cpus = sched_getaffinity(Pid::this())?;
    let may_use = |cpu: &usize| cpus.is_set(*cpu).unwrap_or_default();
    Ok((0..CpuSet::count()).filter(may_use).nth(1))
}

/// The machine's containerd, or else one that was fetched for the tests.
fn containerd_to_use() -> Result<Installation> {
    Installation::of_the_machine()
        .or_else(|error| versions::find().installations.into_iter().next().ok_or(error))
}

/// Says what comes now.
pub fn step(what: &str) {
    println!("\n==> {what}");
}

/// Says what was found.
pub fn fact(what: &str) {
    println!("    {what}");
}

/// Shows a text, indented.
pub fn lines(text: &str) {
    for line in text.lines() {
        fact(line);
    }
}

/// As much of an id as tells it from the others.
pub fn short(id: &str) -> &str {
    &id[..id.len().min(12)]
}

/// A path as short as it can be said from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// Waits until nobody holds a GPU.
///
/// # Errors
/// When somebody still does.
pub fn all_returned(node: &Berth) -> Result<()> {
    wait::until("the GPUs' return", || node.grants().ok()?.is_empty().then_some(()))
        .context("GPUs were not given back")
}
