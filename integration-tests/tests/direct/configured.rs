//! The node's configuration file, named by BERTH_CONFIG: version 3 of the reply to `start` and the cleanup
//! that goes with it, and files that cannot be used. Must not know what else can be configured.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::{Mount, Status};
use containerd_shim_protos::bootstrap_api::BootstrapResult;
use integration_tests::deadline::{Process, within};
use integration_tests::lab::{Container, Lab, Launch};
use integration_tests::machine;
use integration_tests::shim::{Dialect, Reply, Shim, Start};
use integration_tests::suite::Suite;
use integration_tests::trials;
use protobuf::Message;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "configured",
        [
            by_default_every_release_gets_an_address,
            version_3_is_json_for_2_0,
            version_3_is_protobuf_for_2_3,
            version_3_joins_the_shim_of_a_pod,
            a_dead_version_3_shim_is_cleaned_up_by_the_sandbox_alone,
            a_living_version_3_shim_keeps_its_members,
            an_unknown_key_fails_start,
            a_missing_file_fails_start,
        ]
    );
}

const ALL: [Dialect; 4] = [Dialect::V1_6, Dialect::V1_7, Dialect::V2_0, Dialect::V2_3];

/// A call of `start` under a configuration file with this text.
fn configured(lab: &Lab, dialect: Dialect, text: &str) -> Result<Start> {
    let file = lab.scratch.path("berth.toml");
    fs::write(&file, text)?;
    Ok(under(dialect, &file))
}

fn under(dialect: Dialect, file: &Path) -> Start {
    let env = vec![("BERTH_CONFIG".to_owned(), file.display().to_string())];
    Start { dialect, env, ..Start::default() }
}

fn version_3(lab: &Lab, dialect: Dialect) -> Result<Start> {
    configured(lab, dialect, "[shim]\nbootstrap = \"v3\"\n")
}

/// What `start` prints, and the life of a container behind it, over the service that the reply implies.
async fn reply_and_life(lab: &Lab, how: Start) -> Result<Vec<u8>> {
    let launch = lab.shell("birch", "exit 3");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let how = Start { options: launch.options.clone(), ..how };
    let finished = lab.caller.start(&lab.scratch, &bundle, &how).await?;
    ensure!(finished.status.success(), "{}", finished.text());
    let reply = Reply::parse(&finished.stdout)?;
    lab.scratch.expect_socket(reply.socket());
    let shim = Shim::connect(reply, "birch").await?;
    let c = lab.create_in(shim, bundle, launch).await??;
    c.start().await?;
    ensure!(within("Wait", c.wait()).await?? == 3);
    lab.events.exit("birch").await?;
    lab.retire(c).await?;
    Ok(finished.stdout)
}

async fn by_default_every_release_gets_an_address(lab: &Lab) -> Result<()> {
    for dialect in ALL {
        // An empty file, so that the machine's own has no say.
        let said = reply_and_life(lab, configured(lab, dialect, "")?).await?;
        let text = String::from_utf8(said)?;
        ensure!(text.starts_with("unix:///") && !text.contains('{'), "{dialect:?}: {text:?}");
    }
    Ok(())
}

async fn version_3_is_json_for_2_0(lab: &Lab) -> Result<()> {
    let said = reply_and_life(lab, version_3(lab, Dialect::V2_0)?).await?;
    let json: serde_json::Value = serde_json::from_slice(&said)?;
    ensure!(json["version"] == 3 && json["protocol"] == "ttrpc", "{json}");
    ensure!(json["address"].as_str().is_some_and(|text| text.starts_with("unix:///")), "{json}");
    Ok(())
}

async fn version_3_is_protobuf_for_2_3(lab: &Lab) -> Result<()> {
    let said = reply_and_life(lab, version_3(lab, Dialect::V2_3)?).await?;
    let result = BootstrapResult::parse_from_bytes(&said)?;
    ensure!(result.version == 3 && result.protocol == "ttrpc", "{result:?}");
    ensure!(result.address.starts_with("unix:///"), "{result:?}");
    Ok(())
}

async fn version_3_joins_the_shim_of_a_pod(lab: &Lab) -> Result<()> {
    let how = version_3(lab, Dialect::V2_0)?;
    let mut launches = [lab.sleeper("grove"), lab.sleeper("birch")];
    for launch in &mut launches {
        launch.spec = launch.spec.clone().in_pod("grove");
    }
    let [first, second] = launches;
    let bundle = lab.bundle("grove", Some(&first.spec))?;
    let shim = lab.start_shim(&bundle, &how).await?;
    let sandbox = lab.create_in(shim, bundle, first).await??;
    let bundle = lab.bundle("birch", Some(&second.spec))?;
    let joined = lab.start_shim(&bundle, &how).await?;
    ensure!(joined.reply.version == 3 && joined.reply == sandbox.shim.reply, "{joined:?}");
    ensure!(joined.pid == sandbox.shim.pid, "{joined:?}");
    let member = lab.create_in(joined, bundle, second).await??;
    lab.retire(member).await?;
    lab.retire(sandbox).await
}

/// A sandbox and two members, each with a file system that Create mounted. After a version 3 reply
/// containerd calls `start` for the sandbox alone.
async fn pod(lab: &Lab) -> Result<Vec<Container>> {
    let mounted = |id: &str| -> Launch {
        let mut launch = lab.sleeper(id);
        launch.spec = launch.spec.in_pod("grove");
        launch.spec.json["root"]["path"] = "rootfs".into();
        launch.rootfs = vec![Mount {
            type_: "bind".into(),
            source: lab.image.display().to_string(),
            options: vec!["rbind".into(), "rw".into()],
            ..Default::default()
        }];
        launch
    };
    let launch = mounted("grove");
    let bundle = lab.bundle("grove", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &version_3(lab, Dialect::V2_0)?).await?;
    ensure!(shim.reply.version == 3, "{:?}", shim.reply);
    let mut all = vec![lab.create_in(shim.clone(), bundle, launch).await??];
    for id in ["birch", "beech"] {
        let launch = mounted(id);
        let bundle = lab.bundle(id, Some(&launch.spec))?;
        all.push(lab.create_in(shim.clone(), bundle, launch).await??);
    }
    for c in &all {
        c.start().await?;
    }
    Ok(all)
}

/// The cgroups of container `id`.
fn cgroups_of(lab: &Lab, id: &str) -> Result<usize> {
    let all = machine::cgroups_named(lab.scratch.cgroup())?;
    Ok(all.iter().filter(|folder| folder.ends_with(id)).count())
}

async fn a_dead_version_3_shim_is_cleaned_up_by_the_sandbox_alone(lab: &Lab) -> Result<()> {
    let all = pod(lab).await?;
    let mut inits = Vec::new();
    for c in &all {
        inits.push(Process::open(c.pid).context("the init runs")?);
        ensure!(!machine::mounts_below(&c.bundle.path)?.is_empty(), "{} has a mount", c.id());
        ensure!(cgroups_of(lab, c.id())? > 0, "{} has cgroups", c.id());
    }
    lab.kill_shim(&all[0].shim).await?;
    lab.caller.delete(&lab.scratch, &all[0].bundle).await?;
    for init in inits {
        init.exited().await?;
    }
    for c in &all {
        let mounts = machine::mounts_below(&c.bundle.path)?;
        ensure!(mounts.is_empty(), "{}: {mounts:?}", c.id());
        ensure!(cgroups_of(lab, c.id())? == 0, "{} has cgroups", c.id());
        c.bundle.remove()?;
    }
    Ok(())
}

async fn a_living_version_3_shim_keeps_its_members(lab: &Lab) -> Result<()> {
    let mut all = pod(lab).await?;
    let sandbox = all.remove(0);
    sandbox.kill(libc::SIGKILL).await?;
    within("Wait", sandbox.wait()).await??;
    sandbox.delete().await?;
    lab.caller.delete(&lab.scratch, &sandbox.bundle).await?;
    for member in &all {
        ensure!(member.status().await? == Status::RUNNING, "{}", member.id());
        ensure!(member.task().pids(member.id()).await? == [member.pid], "{}", member.id());
        ensure!(!machine::mounts_below(&member.bundle.path)?.is_empty(), "{}", member.id());
    }
    let shim = Process::open(sandbox.shim.pid).context("the shim runs")?;
    for member in all {
        lab.retire(member).await?;
    }
    shim.exited().await?;
    sandbox.bundle.remove()
}

/// `start` fails, says all of `words`, and leaves nothing.
async fn start_fails(lab: &Lab, how: &Start, words: &[&str]) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let finished = lab.caller.start(&lab.scratch, &bundle, how).await?;
    ensure!(!finished.status.success(), "taken: {}", finished.text());
    for word in words {
        ensure!(finished.text().contains(word), "no {word:?} in {:?}", finished.text());
    }
    ensure!(!bundle.path.join("address").exists(), "an address is left");
    ensure!(lab.scratch.sockets().is_empty(), "{:?}", lab.scratch.sockets());
    lab.bury_unborn(&bundle).await
}

async fn an_unknown_key_fails_start(lab: &Lab) -> Result<()> {
    let text = "[shim]\nbootstrap = \"v3\"\nbootstrp = \"v3\"\n";
    let how = configured(lab, Dialect::V1_7, text)?;
    let file = lab.scratch.path("berth.toml");
    start_fails(lab, &how, &["bootstrp", "line 3", &file.display().to_string()]).await
}

async fn a_missing_file_fails_start(lab: &Lab) -> Result<()> {
    let file = lab.scratch.path("nowhere.toml");
    start_fails(lab, &under(Dialect::V1_7, &file), &[&file.display().to_string()]).await
}
