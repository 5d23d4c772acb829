//! The main line: one container, one GPU, and all of it given back.

use anyhow::{Result, ensure};
use integration_tests::containerd::Containerd;
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::GpuNode;

/// One GPU through ctr: its node opens, another's does not, and the ledger knows.
pub fn a_container_gets_the_gpu_that_it_asked_for(stage: &Stage) -> Result<()> {
    let node = GpuNode::up("p5", "")?;
    let containerd = Containerd::start_on(&stage.installation, &stage.shim()?, Some(&node.config))?;
    let flags = ["--annotation", "berth.dev/gpus=1"];
    let task = Task::detached(&containerd, "one", &flags, &["sleep", "100000"])?;
    let grants = node.grants()?;
    ensure!(grants.len() == 1, "{grants:#?}");
    let gpus = &grants[0]["gpus"];
    ensure!(gpus.as_array().is_some_and(|gpus| gpus.len() == 1), "{gpus}");
    let listed = task.exec(&["sh", "-c", "ls /dev/nvidia*; ls /proc/driver/nvidia/gpus; env"])?;
    ensure!(listed.out.contains("/dev/nvidiactl"), "{}{}", listed.out, listed.err);
    ensure!(listed.out.contains("BERTH_GRANT=g-"), "{}{}", listed.out, listed.err);
    println!("{}", listed.out);
    task.end()?;
    node.is_free()
}
