//! Device rules of cgroup v2, made by either OCI runtime and by either driver: what is granted opens and nothing else does, also after
//! systemd has read its units anew and after the kubelet has changed the container's resources.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_tests::cri::messages::LinuxContainerResources;
use integration_tests::cri::pod::Pod;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};

use crate::ground::{Ground, cgroup_file, held, seats};

pub fn cgroupfs_and_runc(ground: &Ground) -> Result<()> {
    hold(ground, "berth", false)
}

pub fn systemd_and_runc(ground: &Ground) -> Result<()> {
    hold(ground, "berth-systemd", true)
}

pub fn cgroupfs_and_crun(ground: &Ground) -> Result<()> {
    hold(ground, "berth-crun", false)
}

pub fn systemd_and_crun(ground: &Ground) -> Result<()> {
    hold(ground, "berth-crun-systemd", true)
}

fn hold(ground: &Ground, handler: &str, systemd: bool) -> Result<()> {
    let kubelet = ground.kubelet(TRUSTED)?;
    let pod = Pod::start(&kubelet.containerd, &kubelet.cri, handler, |config| {
        config.annotations = [("berth.dev/gpus".to_owned(), "1".to_owned())].into();
        let slice = format!("{}.slice", kubelet.containerd.scratch.cgroup().replace('-', "_"));
        if let Some(linux) = config.linux.as_mut().filter(|_| systemd) {
            linux.cgroup_parent = slice;
        }
    })?;
    let id = pod.run("main", &SLEEP)?;
    let grant = kubelet.grant_of(&id)?;
    is_so(&kubelet, &pod, &id, &grant, "at first")?;
    reload()?;
    is_so(&kubelet, &pod, &id, &grant, "after daemon-reload")?;
    kubelet.cri.update(
        &id,
        LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 150_000,
            memory_limit_in_bytes: 256 << 20,
            ..Default::default()
        },
    )?;
    is_so(&kubelet, &pod, &id, &grant, "after an update")?;
    let limit = cgroup_file(pod.pid_of(&id)?, "memory.max")?;
    ensure!(limit == (256_u64 << 20).to_string(), "the update did not arrive: {limit}");
    reload()?;
    is_so(&kubelet, &pod, &id, &grant, "after both")?;
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// systemd reads its units anew, and makes the device rules of its cgroups anew.
fn reload() -> Result<()> {
    let reloaded = Command::new("systemctl").arg("daemon-reload").status()?;
    ensure!(reloaded.success(), "systemctl daemon-reload: {reloaded}");
    Ok(())
}

/// The granted GPU opens and no other does; the CPUs are those of its node.
fn is_so(
    kubelet: &Kubelet,
    pod: &Pod<'_>,
    id: &str,
    grant: &serde_json::Value,
    when: &str,
) -> Result<()> {
    kubelet.has_exactly(id, grant).with_context(|| when.to_owned())?;
    let uuid = grant["gpus"][0]["uuid"].as_str().context("a GPU")?;
    let seats = seats(&kubelet.node)?;
    let state = kubelet.node.sim.state()?;
    let on = state.gpus[state.find(uuid)?].node;
    let seat = seats.iter().find(|seat| Some(seat.node) == on).context("its node")?;
    let has = held(pod.pid_of(id)?)?.cpus;
    ensure!(has == seat.cpus.to_string(), "{when}: CPUs {has}, not {}", seat.cpus);
    Ok(())
}
