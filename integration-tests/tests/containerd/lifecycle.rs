//! From `ctr run` to `ctr containers delete`.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::leftovers::{cgroups, runtime_state};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::containerd::watch::Watch;
use integration_tests::runtime;
use integration_tests::suite::needs_user_namespaces;
use integration_tests::under_test::reference;

pub fn run_shows_what_the_container_writes(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::named(&containerd, "hello");
    let said = task.foreground(BERTH, &["--rm"], &["sh", "-c", "echo out; echo err >&2"])?;
    ensure!(said.code() == 0 && said.out == "out\n" && said.err == "err\n", "{said:?}");
    task.removed()
}

pub fn the_runtime_can_be_given_as_a_path(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::named(&containerd, "by-path");
    let shim = containerd.shim.to_string_lossy().into_owned();
    let said = task.foreground(&shim, &["--rm"], &["echo", "by path"])?;
    ensure!(said.code() == 0 && said.out == "by path\n", "{said:?}");
    task.removed()
}

pub fn a_container_is_run_entered_killed_and_deleted(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "entered", &[], &["sleep", "10000"])?;
    task.reaches("RUNNING")?;
    let said = task.exec(&["sh", "-c", "echo inside; cat /proc/1/comm; exit 3"])?;
    ensure!(said.code() == 3 && said.out == "inside\nsleep\n", "{said:?}");
    task.end()
}

pub fn the_runtime_under_test_is_the_one_that_is_called(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "made", &[], &["sleep", "10000"])?;
    ensure!(runtime::keeps(&runtime_state(containerd.namespace(), &task.id)));
    task.end()
}

pub fn exit_codes_reach_the_caller(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    for code in [0, 1, 42, 255] {
        let task = Task::named(&containerd, "exits");
        let said = task.foreground(BERTH, &["--rm"], &["sh", "-c", &format!("exit {code}")])?;
        ensure!(said.code() == code, "exit {code}: {said:?}");
        task.removed()?;
    }
    let task = Task::named(&containerd, "exits");
    let said = task.foreground(BERTH, &["--rm"], &["sh", "-c", "trap - TERM; (kill -9 $$)"])?;
    // A first process cannot kill itself from inside its namespace: the shell lives on and ends
    // well.
    ensure!(said.code() == 0, "{said:?}");
    task.removed()
}

pub fn deleting_a_running_task_is_refused(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "busy", &[], &["sleep", "10000"])?;
    let said = task.ctr.run(&["task", "delete", &task.id])?;
    ensure!(said.code() != 0 && said.err.contains("stopped before deletion"), "{said:?}");
    task.reaches("RUNNING")?;
    task.end()
}

pub fn a_paused_container_stands_still(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "paused", &[], &["sleep", "10000"])?;
    task.ctr.ok(&["task", "pause", &task.id])?;
    task.reaches("PAUSED")?;
    let frozen = cgroups(&containerd, &task.id).iter().any(|folder| {
        let reads = |file: &str, frozen: &str| {
            std::fs::read_to_string(folder.join(file)).is_ok_and(|text| text.contains(frozen))
        };
        reads("freezer.state", "FROZEN") || reads("cgroup.events", "frozen 1")
    });
    ensure!(frozen, "no cgroup of the container is frozen");
    task.ctr.ok(&["task", "resume", &task.id])?;
    task.reaches("RUNNING")?;
    let said = task.exec(&["echo", "awake"])?;
    ensure!(said.out == "awake\n", "{said:?}");
    task.end()
}

pub fn metrics_show_what_the_container_uses(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "metrics", &[], &["sleep", "10000"])?;
    let table = task.ctr.ok(&["task", "metrics", &task.id])?;
    let usage = table
        .lines()
        .filter(|line| line.starts_with("memory.usage"))
        .find_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .with_context(|| format!("no memory usage in:\n{table}"))?;
    ensure!(usage > 0, "a running container uses memory:\n{table}");
    task.end()
}

pub fn ps_lists_the_processes_of_container_and_exec(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "ps", &[], &["sleep", "10000"])?;
    let first = task.ctr.task_pid(&task.id)?.to_string();
    let started = task.exec(&["sh", "-c", "sleep 10000 >/dev/null 2>&1 & echo started"])?;
    ensure!(started.out == "started\n", "{started:?}");
    let listed = task.ctr.ok(&["task", "ps", &task.id])?;
    let pids: Vec<_> =
        listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(
        pids.len() == 2 && pids.contains(&first.as_str()),
        "wants {first} and one more:\n{listed}"
    );
    task.end()
}

pub fn root_of_a_user_namespace_is_not_the_machines_root(stage: &Stage) -> Result<()> {
    needs_user_namespaces()?;
    let containerd = stage.containerd()?;
    let task = Task::named(&containerd, "mapped");
    let flags = ["--rm", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let script = "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; ls -ldn /etc";
    // ctr 1.x sends options of a type for containerd's first shim, which is gone, to any runtime
    // but runc's own.
    let runtime = if reference() { "io.containerd.runc.v2" } else { BERTH };
    let said = task.foreground(runtime, &flags, &["sh", "-c", script])?;
    let words: Vec<_> = said.out.split_whitespace().take(8).collect();
    ensure!(words == ["0", "0", "0", "100000", "65536", "0", "200000", "65536"], "{said:?}");
    task.removed()
}

pub fn events_come_in_the_order_of_what_happened(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let watch = Watch::start(&containerd)?;
    let task = Task::detached(&containerd, "ordered", &[], &["sleep", "10000"])?;
    ensure!(task.exec(&["true"])?.code() == 0, "exec true");
    task.kill("SIGKILL")?;
    task.stopped()?;
    task.delete()?;
    let topics = watch.topics_to_the_end(&task.id)?;
    let wanted = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/exit",
        "/tasks/delete",
    ];
    ensure!(topics == wanted, "{topics:?}");
    task.removed()
}
