//! Pause, Resume, Update and Stats. Must not know which cgroup version the host has, but through the
//! helpers that do.

use std::fs;

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::Status;
use containerd_shim_protos::{cgroups, cgroups_v2};
use integration_tests::deadline::{eventually, within};
use integration_tests::lab::{Container, Lab};
use integration_tests::machine::{self, cgroup_folder, cgroup_v2_only};
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::task::refused;
use integration_tests::trials;
use protobuf::Message;
use serde_json::json;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "resources",
        [
            pause_stops_the_container_and_resume_lets_it_go_on,
            pausing_twice_or_resuming_a_running_container_is_refused,
            a_paused_container_cannot_be_deleted_or_entered,
            update_changes_the_memory_limit,
            update_leaves_device_rules_alone,
            update_with_garbled_resources_is_refused_and_changes_nothing,
            update_of_a_stopped_container_is_refused,
            stats_have_the_hosts_type_and_count_the_container_alone,
            stats_of_a_created_container_answer,
            stats_answer_after_the_exit,
        ]
    );
}

async fn pause_stops_the_container_and_resume_lets_it_go_on(lab: &Lab) -> Result<()> {
    let mut launch = lab.shell("birch", "while read line; do echo \"$line\"; done");
    launch.streams = Streams::All;
    let mut c = lab.run(launch).await?;
    let mut input = c.io.stdin.take().context("open")?;
    let out = c.io.stdout.take().context("captured")?;
    input.write("one\n").await?;
    out.shows("one\n").await?;
    c.task().pause("birch").await?;
    ensure!(c.status().await? == Status::PAUSED);
    let frozen = if cgroup_v2_only() {
        fs::read_to_string(folder(lab, "freezer")?.join("cgroup.events"))?.contains("frozen 1")
    } else {
        fs::read_to_string(folder(lab, "freezer")?.join("freezer.state"))?.trim() == "FROZEN"
    };
    ensure!(frozen, "the cgroup is not frozen");
    c.task().resume("birch").await?;
    ensure!(c.status().await? == Status::RUNNING);
    input.write("two\n").await?;
    out.shows("two\n").await?;
    lab.retire(c).await
}

fn folder(lab: &Lab, controller: &str) -> Result<std::path::PathBuf> {
    cgroup_folder(controller, &format!("{}/birch", lab.scratch.cgroup()))
}

async fn pausing_twice_or_resuming_a_running_container_is_refused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    refused(c.task().resume("birch").await, Code::UNKNOWN, "birch")?;
    c.task().pause("birch").await?;
    refused(c.task().pause("birch").await, Code::UNKNOWN, "birch")?;
    c.task().resume("birch").await?;
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await
}

async fn a_paused_container_cannot_be_deleted_or_entered(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    c.task().pause("birch").await?;
    refused(c.delete().await, Code::UNKNOWN, "birch")?;
    let request = c.exec_request("leaf", &["true"], &Streams::Null, &Stdio::default());
    refused(c.task().exec(&request).await, Code::UNKNOWN, "birch")?;
    ensure!(c.status().await? == Status::PAUSED);
    c.task().resume("birch").await?;
    lab.retire(c).await
}

fn memory_limit(lab: &Lab) -> Result<String> {
    let file = if cgroup_v2_only() { "memory.max" } else { "memory.limit_in_bytes" };
    Ok(fs::read_to_string(folder(lab, "memory")?.join(file))?.trim().to_string())
}

async fn update_changes_the_memory_limit(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    launch.spec = launch.spec.memory_limit(64 << 20);
    let c = lab.run(launch).await?;
    ensure!(memory_limit(lab)? == (64 << 20).to_string());
    c.task().update("birch", &json!({"memory": {"limit": 96 << 20, "swap": 96 << 20}})).await?;
    ensure!(memory_limit(lab)? == (96 << 20).to_string(), "{}", memory_limit(lab)?);
    lab.retire(c).await
}

/// The device rules as a process inside finds them: EPERM where a node may not be opened, ENXIO where it may
/// (nothing drives it).
async fn may_open_195(lab: &Lab, c: &Container, exec: &str) -> Result<bool> {
    let script = "[ -e /tmp/n ] || mknod /tmp/n c 195 7; cat /tmp/n";
    let leaf = lab.exec(c, exec, &["sh", "-c", script], Streams::Output).await?;
    let errors = leaf.io.stderr_text().await?;
    within("Wait", c.task().wait("birch", exec)).await??;
    ensure!(errors.contains("No such device") || errors.contains("not permitted"), "{errors:?}");
    Ok(errors.contains("No such device"))
}

async fn update_leaves_device_rules_alone(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"},
        {"allow": true, "type": "c", "major": 195, "minor": 7, "access": "rw"}]);
    launch.spec.json["linux"]["resources"]["devices"] = rules;
    let c = lab.run(launch).await?;
    ensure!(may_open_195(lab, &c, "before").await?, "the rule in config.json does not work");
    // containerd resends the whole stored resources, with devices as they were before any shim's change.
    let resources =
        json!({"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 96 << 20}});
    c.task().update("birch", &resources).await?;
    ensure!(memory_limit(lab)? == (96 << 20).to_string());
    ensure!(may_open_195(lab, &c, "after").await?, "Update took a device away");
    lab.retire(c).await
}

async fn update_with_garbled_resources_is_refused_and_changes_nothing(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    launch.spec = launch.spec.memory_limit(64 << 20);
    let c = lab.run(launch).await?;
    let garbled = json!({"memory": {"limit": "much"}});
    refused(c.task().update("birch", &garbled).await, Code::UNKNOWN, "memory.limit")?;
    ensure!(memory_limit(lab)? == (64 << 20).to_string());
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await
}

async fn update_of_a_stopped_container_is_refused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.shell("birch", "true")).await?;
    within("Wait", c.wait()).await??;
    refused(
        c.task().update("birch", &json!({"memory": {"limit": 96 << 20}})).await,
        Code::UNKNOWN,
        "birch",
    )?;
    lab.retire(c).await
}

struct Usage {
    processes: u64,
    cpu_nanoseconds: u64,
    memory_bytes: u64,
}

async fn usage(c: &Container) -> Result<Usage> {
    let any = within("Stats", c.task().stats("birch")).await??;
    if cgroup_v2_only() {
        ensure!(any.type_url == "io.containerd.cgroups.v2.Metrics", "{}", any.type_url);
        let metrics = cgroups_v2::metrics::Metrics::parse_from_bytes(&any.value)?;
        return Ok(Usage {
            processes: metrics.pids.current,
            cpu_nanoseconds: metrics.cpu.usage_usec * 1000,
            memory_bytes: metrics.memory.usage,
        });
    }
    ensure!(any.type_url == "io.containerd.cgroups.v1.Metrics", "{}", any.type_url);
    let metrics = cgroups::metrics::Metrics::parse_from_bytes(&any.value)?;
    Ok(Usage {
        processes: metrics.pids.current,
        cpu_nanoseconds: metrics.cpu.usage.total,
        memory_bytes: metrics.memory.usage.usage,
    })
}

async fn stats_have_the_hosts_type_and_count_the_container_alone(lab: &Lab) -> Result<()> {
    let script = "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; sleep 100000 & sleep 100000 & echo ready; wait";
    let c = lab.run(lab.shell("birch", script)).await?;
    c.io.stdout.as_ref().context("captured")?.shows("ready").await?;
    let usage = usage(&c).await?;
    ensure!(usage.processes == 3, "{} processes", usage.processes);
    ensure!(
        usage.memory_bytes > 0 && usage.memory_bytes < 64 << 20,
        "{} bytes",
        usage.memory_bytes
    );
    // The loop takes tens of milliseconds; in other units the figure would be off a thousandfold.
    let cpu = usage.cpu_nanoseconds;
    ensure!(cpu > 5_000_000 && cpu < 60_000_000_000, "{cpu} ns");
    lab.retire(c).await
}

async fn stats_of_a_created_container_answer(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    let usage = usage(&c).await?;
    ensure!(usage.processes >= 1, "{} processes", usage.processes);
    lab.retire(c).await
}

async fn stats_answer_after_the_exit(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.shell("birch", "true")).await?;
    within("Wait", c.wait()).await??;
    eventually("the init is reaped", || Ok(machine::process(c.pid).is_none().then_some(())))
        .await?;
    let usage = usage(&c).await?;
    ensure!(usage.processes == 0, "{} processes", usage.processes);
    lab.retire(c).await
}
