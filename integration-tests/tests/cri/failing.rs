//! Starts that fail and shims that are killed.

use anyhow::{Result, ensure};
use integration_tests::containerd::leftovers::none_of;
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::Cri;
use integration_tests::cri::messages::EXITED;
use integration_tests::cri::pod::Pod;
use integration_tests::deadline::{Process, STUCK};

pub fn a_missing_program_fails_the_start_and_leaves_nothing(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let mut words = Vec::new();
    for handler in ["berth", "runc"] {
        let pod = Pod::start(&containerd, &cri, handler, |_| ())?;
        let id = pod.create("missing", &["/no/such/program"], |_| ())?;
        let refused = cri.start_container(&id);
        let message = refused.as_ref().err().map_or("", |status| status.message());
        ensure!(message.contains("OCI runtime create failed: "), "{refused:?}");
        words.push(message.replace(&id, "ID"));
        let status = cri.container_status(&id)?;
        ensure!(status.state == EXITED && status.exit_code == 128, "{status:?}");
        ensure!(status.reason == "StartError", "{status:?}");
        none_of(&containerd, "k8s.io", &id)?;
        let next = pod.run("next", &["sleep", "10000"])?;
        ensure!(cri.exec_sync(&next, &["true"], 0)?.exit_code == 0, "the pod takes the next one");
        pod.remove(&[&id, &next])?;
    }
    // The very words of the shim that came with this containerd.
    ensure!(words[0] == words[1], "{words:?}");
    Ok(())
}

pub fn a_killed_shim_takes_its_pod_with_it(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let one = pod.run("one", &["sh", "-c", "sleep 10000 & sleep 10000"])?;
    let two = pod.run("two", &["sleep", "10000"])?;
    let shim = pod.shim_of(&pod.id)?;
    let first: Vec<Process> = [&pod.id, &one, &two]
        .into_iter()
        .filter_map(|id| Process::open(pod.pid_of(id).ok()?))
        .collect();
    ensure!(first.len() == 3, "three first processes");
    ensure!(
        Process::open(shim.pid).is_some_and(|shim| shim.signal(libc::SIGKILL)),
        "kill {shim:?}"
    );
    for process in first {
        ensure!(process.exited_within(STUCK), "{process:?} outlived its shim's cleanup");
    }
    for id in [&one, &two] {
        let status = cri.exited(id)?;
        ensure!(status.exit_code != 0, "{status:?}");
    }
    pod.remove(&[&one, &two])
}
