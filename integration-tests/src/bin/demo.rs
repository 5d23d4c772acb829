//! What `make demo` shows: a private containerd launches a pod of two containers through Berth, one
//! shim serves both, and afterwards nothing is left.
//!
//! Decides what is shown and in which order; the work is the harness's. Touches nothing of a
//! containerd that the machine runs.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::{CRI_NAMESPACE, Containerd, leftovers};
use integration_tests::cri::Cri;
use integration_tests::cri::pod::Pod;
use integration_tests::machine;
use integration_tests::under_test::under_test;
use integration_tests::versions::{self, Installation};
use integration_tests::wait;

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
    println!("Berth demo: a pod of two containers");
    println!("  shim        {}", shown(&shim));
    println!("  containerd  {} ({})", installation.version, installation.bin.display());

    step("Starting a private containerd and giving it an image of busybox");
    let containerd = Containerd::start(&installation, &shim)?;
    let cri = Cri::connect(&containerd.socket())?;
    fact(&format!("it listens on {}", containerd.socket().display()));

    step("Launching the pod, as the kubelet would: RuntimeClass \"berth\", two containers");
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    fact(&format!("sandbox {}", short(&pod.id)));
    let mut containers = Vec::new();
    for (name, line) in [
        ("trainer", "echo \"trainer: I am process $$ on $(nproc) CPUs\"; exec sleep 10000"),
        ("exporter", "echo \"exporter: Linux $(uname -r), root is $(id -un)\"; exec sleep 10000"),
    ] {
        let id = pod.run(name, &["sh", "-c", line])?;
        fact(&format!("container {} ({name})", short(&id)));
        containers.push((name, id));
    }

    step("What the containers write");
    for (name, _) in &containers {
        let line = wait::until(&format!("output of {name}"), || {
            pod.log(name).lines().find_map(|line| line.splitn(4, ' ').nth(3).map(str::to_owned))
        })?;
        fact(&line);
    }
    let (_, trainer) = containers.first().context("a first container")?;
    let said = cri.exec_sync(trainer, &["echo", "exec:    and commands run in it"], 0)?;
    fact(String::from_utf8_lossy(&said.stdout).trim_end());

    step("One shim process serves the whole pod");
    let shims = leftovers::shims(&containerd);
    for row in &shims {
        let pss = machine::memory_kib(row.pid, "smaps_rollup", "Pss")?;
        fact(&format!("pid {}  PSS {:.1} MiB  {}", row.pid, kib_as_mib(pss), row.command));
        for child in machine::children(row.pid) {
            fact(&format!("  └ pid {}  {}", child.pid, child.command));
        }
    }
    ensure!(shims.len() == 1, "{} shim processes serve one pod", shims.len());

    step("Stopping and removing the pod");
    let sandbox = pod.id.clone();
    let ids: Vec<&str> = containers.iter().map(|(_, id)| id.as_str()).collect();
    pod.remove(&ids)?;
    for (name, id) in containers.iter().map(|(name, id)| (*name, id)).chain([("sandbox", &sandbox)])
    {
        leftovers::none_of(&containerd, CRI_NAMESPACE, id)?;
        fact(&format!("{name}: no process, mount, cgroup or bundle is left"));
    }
    wait::until("the shim's end", || leftovers::shims(&containerd).is_empty().then_some(()))?;
    fact("no shim process is left");

    step("Stopping the private containerd");
    let folder = containerd.scratch.root().to_path_buf();
    drop(containerd);
    ensure!(!folder.exists(), "{} is still there", folder.display());
    fact(&format!("{} is gone", folder.display()));
    Ok(())
}

/// The machine's containerd, or else one that was fetched for the tests.
fn containerd_to_use() -> Result<Installation> {
    Installation::of_the_machine()
        .or_else(|error| versions::find().installations.into_iter().next().ok_or(error))
}

fn step(what: &str) {
    println!("\n==> {what}");
}

fn fact(what: &str) {
    println!("    {what}");
}

/// As much of an id as tells it from the others.
fn short(id: &str) -> &str {
    &id[..id.len().min(12)]
}

/// A path as short as it can be said from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

#[allow(clippy::cast_precision_loss, reason = "sizes of processes are far below 2^52 KiB")]
fn kib_as_mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
