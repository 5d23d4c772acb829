//! CPUs next to the GPU.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::task::Task;

use crate::ground::{Ground, Held, cgroup_file, held, pid, seats};

const SLEEP: [&str; 2] = ["sleep", "100000"];

pub fn a_gpu_s_node_is_its_container_s_and_its_execs(ground: &Ground) -> Result<()> {
    let kubelet = ground.kubelet("")?;
    for seat in seats(&kubelet.node)? {
        let device = format!("berth.dev/devices={}", seat.uuid);
        let flags = ["--annotation", &device];
        let task = Task::detached(&kubelet.containerd, "near", &flags, &SLEEP)?;
        let first = held(pid(&task)?)?;
        let cpus = seat.cpus.to_string();
        ensure!(first.cpus == cpus, "GPU of node {}: {first:?}, not {cpus}", seat.node);
        let file = cgroup_file(pid(&task)?, "cpuset.cpus.effective")?;
        ensure!(file == cpus, "its cgroup has {file}, not {cpus}");
        let said = task.exec(&["cat", "/proc/self/status"])?;
        ensure!(Held::parse(&said.out)? == first, "an exec is elsewhere: {}", said.out);
        let maps = std::fs::read_to_string(format!("/proc/{}/numa_maps", pid(&task)?))?;
        // `prefer (many)=static:1` on kernels that know several.
        let policy = maps.lines().next().context("a mapping")?;
        let wanted = format!("=static:{} ", seat.near);
        ensure!(policy.contains(" prefer") && policy.contains(&wanted), "{wanted}: {policy}");
        task.end()?;
    }
    kubelet.node.is_free()
}
