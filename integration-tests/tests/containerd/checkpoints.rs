//! Checkpoint and restore through ctr, where criu can work on this machine; and what is said where it cannot.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::suite::{Lacking, needs_criu};
use integration_tests::under_test::in_path;

/// When it began, in its memory alone (its /dev/shm): a container that began anew would have another.
const NOTES_ITS_BIRTH: [&str; 3] =
    ["sh", "-c", "cat /proc/uptime >/dev/shm/born; exec sleep 100000"];

fn born(task: &Task<'_>) -> Result<String> {
    let said =
        task.exec(&["sh", "-c", "until [ -s /dev/shm/born ]; do :; done; cat /dev/shm/born"])?;
    ensure!(said.code() == 0, "{said:?}");
    Ok(said.out)
}

pub fn a_container_goes_on_from_its_checkpoint(stage: &Stage) -> Result<()> {
    needs_criu()?;
    // criu keeps the network of what it saves still by it; ctr gives a container a network of its own.
    let iptables = in_path("iptables-restore");
    iptables
        .ok_or_else(|| Lacking("no network can be saved here: iptables is not installed".into()))?;
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "saved", &["--null-io"], &NOTES_ITS_BIRTH)?;
    let before = born(&task)?;
    let image = format!("localhost/berth/{}:saved", task.id);
    task.ctr.ok(&["containers", "checkpoint", "--image", "--rw", "--task", &task.id, &image])?;
    task.reaches("RUNNING")?;
    ensure!(born(&task)? == before, "it runs on");
    task.end()?;
    let back = Task::named(&containerd, "restored");
    back.ctr.ok(&["containers", "restore", "--rw", "--live", &back.id, &image])?;
    containerd.note_socket(containerd.namespace(), &back.id);
    back.reaches("RUNNING")?;
    ensure!(born(&back)? == before, "it began anew");
    back.ctr.ok(&["images", "rm", &image])?;
    back.end()
}

pub fn a_checkpoint_harms_nothing_whether_it_succeeds_or_not(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "checkpoint", &["--null-io"], &["sleep", "10000"])?;
    let said = task.ctr.run(&["task", "checkpoint", &task.id])?;
    ensure!(said.code() == 0 || !said.err.trim().is_empty(), "{said:?}");
    task.reaches("RUNNING")?;
    ensure!(task.exec(&["true"])?.code() == 0, "an exec still runs");
    task.end()
}
