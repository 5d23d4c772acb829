//! What the kubelet asks of a running container: commands, logs, statistics, resources, its end.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::leftovers;
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::Cri;
use integration_tests::cri::messages::LinuxContainerResources;
use integration_tests::cri::pod::Pod;
use integration_tests::machine::cgroup_v2_only;
use integration_tests::wait;

const SLEEP: [&str; 2] = ["sleep", "10000"];
const MIB: i64 = 1 << 20;
/// More than fits into the pipes on the way.
const LINES: usize = 20_000;

pub fn commands_run_to_their_end_in_a_container(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let id = pod.run("main", &SLEEP)?;
    let said = cri.exec_sync(&id, &["sh", "-c", "echo out; echo err >&2; exit 6"], 0)?;
    ensure!(said.exit_code == 6 && said.stdout == b"out\n" && said.stderr == b"err\n", "{said:?}");
    let said = cri.exec_sync(&id, &["seq", "100000"], 0)?;
    let lines = said.stdout.split(|byte| *byte == b'\n').count() - 1;
    ensure!(said.exit_code == 0 && lines == 100_000, "{lines} lines, exit code {}", said.exit_code);
    let fails = cri.exec_sync(&id, &["/no/such/program"], 0);
    let words = fails.as_ref().err().map_or("", |status| status.message());
    ensure!(words.contains("/no/such/program"), "{fails:?}");
    pod.remove(&[&id])
}

pub fn a_command_that_takes_too_long_is_ended(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let id = pod.run("main", &SLEEP)?;
    let said = cri.exec_sync(&id, &["sleep", "20000"], 1);
    let words = said.as_ref().err().map_or("", |status| status.message());
    ensure!(words.contains("timeout") || words.contains("deadline"), "{said:?}");
    let stays = || {
        let lines = leftovers::of_container(&containerd, "k8s.io", &id);
        lines.iter().any(|line| line.contains("sleep 20000"))
    };
    wait::until("the end of the command", || (!stays()).then_some(()))?;
    ensure!(cri.exec_sync(&id, &["true"], 0)?.exit_code == 0, "the next command runs");
    pod.remove(&[&id])
}

pub fn logs_are_complete_and_in_order(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let script = format!("seq {LINES}; echo oops >&2; exec sleep 10000");
    let id = pod.run("writer", &["sh", "-c", &script])?;
    let last = format!(" stdout F {LINES}\n");
    let log = log_with(&pod, &[&last, " stderr F oops\n"])?;
    counts_up(&log, LINES)?;
    pod.remove(&[&id])
}

pub fn what_a_container_writes_before_it_ends_is_logged(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let script = format!("seq {LINES}; printf unfinished");
    let id = pod.run("writer", &["sh", "-c", &script])?;
    ensure!(cri.exited(&id)?.exit_code == 0, "the writer failed");
    counts_up(&log_with(&pod, &["unfinished"])?, LINES)?;
    pod.remove(&[&id])
}

/// Waits until the writer's log holds all of `parts`.
fn log_with(pod: &Pod<'_>, parts: &[&str]) -> Result<String> {
    wait::until("the end of the log", || {
        let log = pod.log("writer");
        parts.iter().all(|part| log.contains(part)).then_some(log)
    })
    .with_context(|| format!("the log ends: {:?}", pod.log("writer").lines().last()))
}

/// Each line of a log is a time, the stream, F for a full and P for a partial line, and the text:
/// on standard output, the numbers up to `last`.
fn counts_up(log: &str, last: usize) -> Result<()> {
    let fields = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
    let lines = log.lines().filter_map(fields).filter(|line| line.starts_with("stdout "));
    let mut counted = 0;
    for (line, number) in lines.zip(1..=last) {
        ensure!(line == format!("stdout F {number}"), "line {number}: {line}");
        counted = number;
    }
    ensure!(counted == last, "{counted} lines");
    Ok(())
}

pub fn statistics_show_use(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let id = pod.run("main", &SLEEP)?;
    let stats = cri.container_stats(&id)?.stats.unwrap_or_default();
    let cpu =
        stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.clone()).unwrap_or_default();
    let memory = stats
        .memory
        .as_ref()
        .and_then(|memory| memory.working_set_bytes.clone())
        .unwrap_or_default();
    // Nanoseconds: a process that only started has used more than a microsecond and less than a
    // minute.
    ensure!((1_000..60_000_000_000).contains(&cpu.value), "{stats:?}");
    ensure!((1..1 << 30).contains(&memory.value), "{stats:?}");
    pod.remove(&[&id])
}

pub fn changed_resources_reach_the_cgroup(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let id = pod.run("main", &SLEEP)?;
    let changed = LinuxContainerResources {
        cpu_shares: 512,
        memory_limit_in_bytes: 96 * MIB,
        ..LinuxContainerResources::default()
    };
    cri.update(&id, changed)?;
    let reads = |file: &str| -> Vec<String> {
        let folders = leftovers::cgroups(&containerd, &id);
        let texts =
            folders.iter().filter_map(|folder| std::fs::read_to_string(folder.join(file)).ok());
        texts.map(|text| text.trim().to_owned()).collect()
    };
    // One value, however often the hierarchy is mounted.
    let mut memory = [reads("memory.limit_in_bytes"), reads("memory.max")].concat();
    memory.dedup();
    ensure!(memory == [(96 * MIB).to_string()], "{memory:?}");
    let mut weight = [reads("cpu.shares"), reads("cpu.weight")].concat();
    weight.dedup();
    // On cgroup v2 a weight, whose formula depends on the runtime; the default is 100.
    let changed = if cgroup_v2_only() { weight != ["100"] } else { weight == ["512"] };
    ensure!(weight.len() == 1 && changed, "{weight:?}");
    ensure!(cri.exec_sync(&id, &["true"], 0)?.exit_code == 0, "it runs on");
    pod.remove(&[&id])
}

pub fn a_container_that_ignores_its_stop_signal_is_killed(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let polite =
        pod.run("polite", &["sh", "-c", "trap 'exit 7' TERM; echo set; sleep 10000 & wait"])?;
    let deaf = pod.run("deaf", &["sh", "-c", "trap '' TERM; echo set; sleep 10000"])?;
    for name in ["polite", "deaf"] {
        wait::until("the trap", || pod.log(name).contains("set").then_some(()))?;
    }
    cri.stop_container(&polite, 60)?;
    ensure!(cri.exited(&polite)?.exit_code == 7, "the polite one ends by itself");
    cri.stop_container(&deaf, 1)?;
    ensure!(cri.exited(&deaf)?.exit_code == 137, "the deaf one is killed");
    pod.remove(&[&polite, &deaf])
}

pub fn one_killed_for_memory_says_so(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let eater = ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"];
    let id = pod.run_adjusted("eater", &eater, |config| {
        if let Some(linux) = &mut config.linux {
            linux.resources = Some(LinuxContainerResources {
                memory_limit_in_bytes: 32 * MIB,
                ..LinuxContainerResources::default()
            });
        }
    })?;
    ensure!(cri.exited(&id)?.exit_code == 137, "the kernel kills it");
    let mut reason = String::new();
    wait::until("the reason OOMKilled", || {
        reason = cri.container_status(&id).ok()?.reason;
        (reason == "OOMKilled").then_some(())
    })
    .map_err(|error| error.context(format!("the reason given is {reason:?}")))?;
    pod.remove(&[&id])
}
