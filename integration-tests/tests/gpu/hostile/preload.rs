//! CVE-2025-23266: what an image says of its environment reaches no program that runs on the node.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::evil::{self, Canary, has_exactly_its_gpu};
use integration_tests::gpu::tool;
use integration_tests::gpu::world::{ONE_GPU, World};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::file;

/// What an image would set if any of it were read: by the dynamic loader, by libc, by NVIDIA's programs, by Berth's.
const ENVIRONMENT: [&str; 12] = [
    "LD_PRELOAD=./evil.so",
    "LD_AUDIT=/evil.so",
    "LD_LIBRARY_PATH=/:.",
    "GCONV_PATH=/",
    "GLIBC_TUNABLES=glibc.malloc.check=3",
    "NVIDIA_DRIVER_CAPABILITIES=all",
    "NVIDIA_CTK_CONFIG_FILE=/evil.toml",
    "CUDA_MPS_PIPE_DIRECTORY=/evil",
    "BERTH_CONFIG=/evil.toml",
    "BERTH_GRANT=evil",
    "BERTH_CRASH_AT=admit.start",
    "RUST_BACKTRACE=full",
];

/// A program in the place of `berth` that tells what it was given, then is it.
fn stand_in(world: &World) -> Result<std::path::PathBuf> {
    let (program, said) = (world.node.path("stand-in"), world.node.path("said"));
    let script = format!(
        "#!/bin/sh\n(echo \"args $*\"; tr '\\0' '\\n' </proc/$$/environ | sed 's/^/env /'\n\
         for fd in /proc/$$/fd/*; do echo \"fd ${{fd##*/}} $(readlink $fd)\"; done\n\
         echo \"cwd $(readlink /proc/$$/cwd)\") >>{said:?}\nexec {tool:?} \"$@\"\n",
        tool = tool()?
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let config = fs::read_to_string(&world.node.config)?;
    let changed = config.replace(&format!("tool = {:?}", tool()?), &format!("tool = {program:?}"));
    ensure!(changed != config, "{config}");
    fs::write(&world.node.config, changed)?;
    Ok(said)
}

pub fn cve_2025_23266_the_environment_of_an_image_stays_in_it(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let canary = Canary::plant(&world)?;
    let said = stand_in(&world)?;
    // As a service manager may leave it open to containerd, and so on to all that containerd starts.
    let open = fs::File::open(canary.at("secret"))?;
    fcntl(&open, FcntlArg::F_SETFD(FdFlag::empty()))?;
    world.containerd.stop()?;
    world.containerd.launch()?;
    drop(open);
    let image = "localhost/berth/preload:test";
    world.built(image, |root| {
        evil::root(root, |root| file(root, "evil.so", b"not a library: who loads it fails"))
    })?;
    let task = Task::named(&world.containerd, "evil").of(image);
    let env = ENVIRONMENT.iter().flat_map(|one| ["--env", one]);
    let flags: Vec<&str> = ["--null-io"].into_iter().chain(ONE_GPU).chain(env).collect();
    task.start(&flags, &["/bin/busybox", "sleep", "100000"])?;
    has_exactly_its_gpu(&world, &task)?;

    let told = fs::read_to_string(said).context("it was run")?;
    let lines = |kind: &str| -> Vec<&str> {
        let mut found: Vec<&str> =
            told.lines().filter_map(|line| line.strip_prefix(kind)).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    ensure!(
        lines("args ") == ["observe", "prepare-driver --capabilities compute,utility"],
        "{told}"
    );
    let config = format!("BERTH_CONFIG={}", world.node.config.display());
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    ensure!(lines("env ") == [config.as_str(), path], "{told}");
    ensure!(lines("cwd ") == ["/"], "{told}");
    // The shell's own is its script.
    let program = world.node.path("stand-in").to_string_lossy().into_owned();
    let run = world.node.path("run").to_string_lossy().into_owned();
    for descriptor in lines("fd ").into_iter().filter(|fd| !fd.ends_with(&program)) {
        let fine = descriptor.starts_with(&format!("0 {run}/")) && descriptor.ends_with(".lock")
            || descriptor.starts_with("1 pipe:")
            || descriptor.starts_with("2 pipe:");
        ensure!(fine, "{descriptor:?}, in {told}");
    }
    ensure!(told.contains("/stand-in\n"), "descriptors were listed: {told}");
    // What serves the container has nothing of it either.
    let shim = task.shim()?.pid;
    let environ = fs::read(format!("/proc/{shim}/environ"))?;
    let environ = String::from_utf8_lossy(&environ);
    ensure!(!environ.contains("evil"), "{environ:?}");
    task.end()?;
    canary.is_unharmed()?;
    world.node.is_free()
}

/// The variables by which containers name grants and GPUs are ours to set: saying another's changes nothing.
pub fn a_forged_grant_gives_nothing(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let owner = world.sleeper(&ONE_GPU)?;
    let grant = world.grant()?;
    let forged = format!("BERTH_GRANT={}", grant["grant"].as_str().context("an id")?);
    let uuid = integration_tests::gpu::world::uuids(&grant)[0].to_owned();
    let visible = format!("NVIDIA_VISIBLE_DEVICES={uuid}");
    let thief = world.sleeper(&["--env", &forged, "--env", &visible])?;
    let seen = thief.exec(&[
        "sh",
        "-c",
        "ls /dev /proc/driver/nvidia; mknod /probe c 195 0 && cat /probe",
    ])?;
    ensure!(!seen.out.contains("nvidia") && seen.err.contains("not permitted"), "{seen:?}");
    let still = world.grant()?;
    ensure!(still == grant, "{still:#} is not {grant:#}");
    let second = world.sleeper(&[&ONE_GPU[..], &["--env", &forged, "--env", &visible]].concat())?;
    let grants = world.node.grants()?;
    ensure!(grants.len() == 2 && grants[0]["gpus"] != grants[1]["gpus"], "{grants:#?}");
    for task in [owner, thief, second] {
        task.end()?;
    }
    world.node.is_free()
}
