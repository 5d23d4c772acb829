//! What belongs to a container: its processes, in whichever PID namespace and nested cgroup. Must not
//! know how a shim finds them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration_tests::deadline::{Process, eventually, within};
use integration_tests::lab::{Container, Lab};
use integration_tests::machine;
use integration_tests::stdio::Streams;
use integration_tests::suite::Suite;
use integration_tests::trials;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "processes",
        [
            pids_lists_init_execs_and_children,
            pids_tell_which_process_is_which_exec,
            pids_of_a_nested_cgroup_are_listed,
            a_child_left_in_the_host_pid_namespace_dies_with_the_init,
            a_child_left_in_a_shared_pid_namespace_dies_with_the_init,
            an_exec_left_in_the_host_pid_namespace_dies_with_the_init,
            the_shim_is_a_subreaper_without_zombies,
            the_shim_is_its_own_session_and_keeps_no_foreign_descriptor,
            the_shims_oom_score_is_above_its_parents,
        ]
    );
}

fn sorted(mut pids: Vec<u32>) -> Vec<u32> {
    pids.sort_unstable();
    pids
}

async fn pids_lists_init_execs_and_children(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.shell("birch", "sleep 100000 & echo ready; wait")).await?;
    c.io.stdout.as_ref().context("captured")?.shows("ready").await?;
    let leaf = lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    let child = machine::children(c.pid).first().context("the init has a child")?.pid;
    let want = sorted(vec![c.pid, leaf.pid, child]);
    ensure!(sorted(c.task().pids("birch").await?) == want, "want {want:?}");
    lab.retire(c).await
}

/// `ctr task ps` and the kubelet's debuggers go by this.
async fn pids_tell_which_process_is_which_exec(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let leaf = lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    let twig = lab.exec(&c, "twig", &["sleep", "100000"], Streams::Null).await?;
    let mut told = c.task().processes("birch").await?;
    told.sort_unstable();
    let named = |exec: &str| Some(exec.to_owned());
    let mut want = vec![(c.pid, None), (leaf.pid, named("leaf")), (twig.pid, named("twig"))];
    want.sort_unstable();
    ensure!(told == want, "told {told:?}, want {want:?}");
    lab.retire(c).await
}

async fn pids_of_a_nested_cgroup_are_listed(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let leaf = lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    for folder in cgroups_of(lab, &c)? {
        let nested = folder.join("nested");
        fs::create_dir(&nested)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read(folder.join(file)) {
                fs::write(nested.join(file), value).ok();
            }
        }
        fs::write(nested.join("cgroup.procs"), leaf.pid.to_string())
            .with_context(|| format!("moving a process to {}", nested.display()))?;
    }
    let want = sorted(vec![c.pid, leaf.pid]);
    let got = sorted(c.task().pids("birch").await?);
    ensure!(got == want, "got {got:?}, want {want:?}");
    lab.retire(c).await
}

/// The container's cgroup in each hierarchy.
fn cgroups_of(lab: &Lab, c: &Container) -> Result<Vec<PathBuf>> {
    let all = machine::cgroups_named(lab.scratch.cgroup())?;
    Ok(all.into_iter().filter(|folder| folder.ends_with(c.id())).collect())
}

/// Runs a container whose init leaves a `sleep` behind, ends the init, and awaits the end of the sleep.
async fn leaves_nobody(lab: &Lab, spec: integration_tests::bundle::Spec) -> Result<()> {
    let mut launch = lab.launch("birch", spec);
    launch.streams = Streams::All;
    let mut c = lab.run(launch).await?;
    c.io.stdout.as_ref().context("captured")?.shows("ready").await?;
    let left: Vec<Process> =
        c.task().pids("birch").await?.into_iter().filter_map(Process::open).collect();
    ensure!(left.len() == 2, "{left:?}");
    c.io.stdin.take().context("open")?.write("go\n").await?;
    ensure!(within("Wait", c.wait()).await?? == 4);
    for process in left {
        process.exited().await?;
    }
    lab.retire(c).await
}

const LEAVER: &[&str] =
    &["sh", "-c", "sleep 100000 </dev/null >/dev/null 2>&1 & echo ready; read line; exit 4"];

async fn a_child_left_in_the_host_pid_namespace_dies_with_the_init(lab: &Lab) -> Result<()> {
    leaves_nobody(lab, lab.spec("birch", LEAVER).host_pid()).await
}

async fn a_child_left_in_a_shared_pid_namespace_dies_with_the_init(lab: &Lab) -> Result<()> {
    let mut keeper = lab.sleeper("grove");
    keeper.spec = keeper.spec.in_pod("grove");
    let keeper = lab.run(keeper).await?;
    let path = format!("/proc/{}/ns/pid", keeper.pid);
    leaves_nobody(lab, lab.spec("birch", LEAVER).shared_pid(&path).in_pod("grove")).await?;
    ensure!(keeper.task().pids("grove").await? == [keeper.pid]);
    lab.retire(keeper).await
}

async fn an_exec_left_in_the_host_pid_namespace_dies_with_the_init(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    launch.spec = launch.spec.host_pid();
    let c = lab.run(launch).await?;
    lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    c.kill(libc::SIGKILL).await?;
    ensure!(within("Wait of the exec", c.task().wait("birch", "leaf")).await??.exit_status == 137);
    ensure!(within("Wait", c.wait()).await?? == 137);
    lab.retire(c).await
}

async fn the_shim_is_a_subreaper_without_zombies(lab: &Lab) -> Result<()> {
    let orphans = "for n in 1 2 3 4 5; do (setsid sleep 0.01 &) ; done; echo made; read line";
    let mut launch = lab.shell("birch", orphans);
    launch.spec = launch.spec.host_pid();
    launch.streams = Streams::All;
    let mut c = lab.run(launch).await?;
    c.io.stdout.as_ref().context("captured")?.shows("made").await?;
    // The five are orphans in the host's PID namespace: they have fallen to the shim, which must reap them.
    eventually("the shim has one child, its init", || {
        let children = machine::children(c.shim.pid);
        Ok((children.len() == 1 && children[0].pid == c.pid).then_some(()))
    })
    .await?;
    c.io.stdin.take().context("open")?.write("go\n").await?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    eventually("the shim has no child left, not even a zombie", || {
        Ok(machine::children(c.shim.pid).is_empty().then_some(()))
    })
    .await?;
    lab.retire(c).await
}

async fn the_shim_is_its_own_session_and_keeps_no_foreign_descriptor(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", c.shim.pid))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    ensure!(
        fields[2] == c.shim.pid.to_string(),
        "process group {} of shim {}",
        fields[2],
        c.shim.pid
    );
    let mine = fs::read_link("/proc/self/fd/1")?.display().to_string();
    let open = machine::descriptors(c.shim.pid)?;
    ensure!(!mine.starts_with("pipe:") || !open.contains(&mine), "{open:?}");
    lab.retire(c).await
}

async fn the_shims_oom_score_is_above_its_parents(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let score = |pid: u32| -> Result<i32> {
        Ok(fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim().parse()?)
    };
    let (mine, shims) = (score(std::process::id())?, score(c.shim.pid)?);
    ensure!(shims == (mine + 1).min(1000), "mine {mine}, the shim's {shims}");
    lab.retire(c).await
}
