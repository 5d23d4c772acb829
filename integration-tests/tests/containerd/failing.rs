//! What cannot be done is refused in the words that users know, and leaves nothing behind.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, RUNC, Task};

pub fn a_missing_program_is_named_and_leaves_nothing(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::named(&containerd, "missing");
    let said = task.foreground(BERTH, &[], &["/no/such/program"])?;
    ensure!(said.code() == 1 && said.err.contains("OCI runtime create failed: "), "{said:?}");
    ensure!(said.err.contains("/no/such/program"), "{said:?}");
    task.removed()?;
    // The very words of the shim that came with this containerd.
    let task = Task::named(&containerd, "missing");
    let reference = task.foreground(RUNC, &[], &["/no/such/program"])?;
    ensure!(said.err == reference.err, "{said:?} but {reference:?}");
    task.removed()
}

pub fn a_missing_program_of_an_exec_is_named(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let mut errors = Vec::new();
    for runtime in [BERTH, RUNC] {
        let task = Task::named(&containerd, "exec-missing");
        let run = task.foreground(runtime, &["--detach", "--null-io"], &["sleep", "10000"])?;
        ensure!(run.code() == 0, "{run:?}");
        let said = task.exec(&["/no/such/program"])?;
        ensure!(said.code() == 1 && said.err.contains("OCI runtime exec failed: "), "{said:?}");
        errors.push(said.err.replace(&task.id, "ID"));
        ensure!(task.exec(&["true"])?.code() == 0, "the next exec runs");
        task.end()?;
    }
    // The very words of the shim that came with this containerd.
    ensure!(errors[0] == errors[1], "{errors:?}");
    Ok(())
}

pub fn a_duplicate_container_is_refused(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "twice", &[], &["sleep", "10000"])?;
    let said = task.foreground(BERTH, &["--null-io"], &["true"])?;
    ensure!(said.code() == 1 && said.err.contains("already exists"), "{said:?}");
    task.reaches("RUNNING")?;
    task.end()
}
