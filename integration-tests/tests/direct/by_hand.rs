//! What the shim does without `start` and `delete`: `-v`, `-info`, and serving in the foreground. Must not
//! know the dialects of `start`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::types::introspection::RuntimeInfo;
use integration_tests::command::{Finished, Joined, run};
use integration_tests::deadline::{Process, eventually, within};
use integration_tests::lab::Lab;
use integration_tests::scratch::MARK;
use integration_tests::shim::{Reply, Shim};
use integration_tests::suite::Suite;
use integration_tests::trials;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::Value;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "by_hand",
        [
            the_version_is_that_of_the_workspace,
            info_tells_name_version_and_features,
            info_gives_the_options_back,
            info_of_a_runtime_without_features_has_none,
            info_of_a_runtime_that_is_nowhere_names_it,
            info_of_garbage_is_refused,
            info_of_a_runtime_that_lingers_is_answered_without_it,
            an_idle_shim_in_the_foreground_ends_on_sigterm,
            a_busy_shim_in_the_foreground_stays_on_sigterm,
        ]
    );
}

/// The suites have the version of the shim that is built beside them.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The shim with a configuration of the trial's own, so that the machine's has no say.
fn shim(lab: &Lab) -> Result<Command> {
    let config = lab.scratch.node_config()?;
    let mut command = Command::new(&lab.under_test.shim);
    command.current_dir(lab.scratch.root()).env(MARK, lab.scratch.root());
    command.env("BERTH_CONFIG", config).env_remove("TTRPC_ADDRESS");
    Ok(command)
}

async fn the_version_is_that_of_the_workspace(lab: &Lab) -> Result<()> {
    for flag in ["-v", "--version"] {
        let mut command = shim(lab)?;
        command.arg(flag);
        let finished = run(command, Vec::new(), Joined::No).await?;
        let text = finished.text();
        let tells =
            |line: &str| line.trim_start().starts_with("Version:") && line.ends_with(VERSION);
        ensure!(finished.status.success() && text.lines().any(tells), "{flag}: {text}");
        ensure!(text.contains("containerd-shim-berth-v2") && finished.stderr.is_empty(), "{text}");
    }
    Ok(())
}

async fn ask(lab: &Lab, input: Vec<u8>) -> Result<Finished> {
    let mut command = shim(lab)?;
    command.arg("-info");
    run(command, input, Joined::No).await
}

async fn info(lab: &Lab, options: Option<&Any>) -> Result<RuntimeInfo> {
    let input = options.map(Any::write_to_bytes).transpose()?.unwrap_or_default();
    let finished = ask(lab, input).await?;
    ensure!(finished.status.success(), "{}", finished.errors());
    Ok(RuntimeInfo::parse_from_bytes(&finished.stdout)?)
}

async fn info_tells_name_version_and_features(lab: &Lab) -> Result<()> {
    let told = info(lab, None).await?;
    ensure!(told.name == "io.containerd.berth.v2", "{}", told.name);
    ensure!(told.version.version == VERSION && !told.version.revision.is_empty(), "{told:?}");
    ensure!(told.options.is_none(), "{:?}", told.options);
    let mut runc = Command::new(&lab.under_test.runtime);
    runc.arg("features");
    let runc = run(runc, Vec::new(), Joined::No).await?;
    if !runc.status.success() {
        ensure!(told.features.is_none(), "{:?}", told.features);
        return Ok(());
    }
    let features = told.features.as_ref().context("runc has features")?;
    ensure!(
        features.type_url == "types.containerd.io/opencontainers/runtime-spec/1/features/Features",
        "{}",
        features.type_url
    );
    let json: Value = serde_json::from_slice(&features.value)?;
    ensure!(json["mountOptions"].is_array() && json["linux"].is_object(), "{json}");
    ensure!(json == serde_json::from_slice::<Value>(&runc.stdout)?, "not runc's own: {json}");
    // The second time the answer may come out of a file.
    ensure!(info(lab, None).await? == told, "another answer to the same question");
    Ok(())
}

async fn info_gives_the_options_back(lab: &Lab) -> Result<()> {
    let binary = lab.under_test.runtime.display().to_string();
    let options = lab.options(|options| options.binary_name = binary);
    let told = info(lab, Some(&options)).await?;
    ensure!(told.options.as_ref() == Some(&options), "{:?}", told.options);
    Ok(())
}

/// A runtime that does what `script` says.
fn runtime(lab: &Lab, script: &str) -> Result<PathBuf> {
    let program = lab.scratch.path("runtime");
    fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

async fn info_of_a_runtime_without_features_has_none(lab: &Lab) -> Result<()> {
    for script in ["echo '{}'; exit 1", "echo 'unknown command'"] {
        let program = runtime(lab, script)?;
        let options = lab.options(|options| options.binary_name = program.display().to_string());
        let told = info(lab, Some(&options)).await?;
        ensure!(told.features.is_none(), "{script}: {:?}", told.features);
        ensure!(told.name == "io.containerd.berth.v2", "{}", told.name);
    }
    Ok(())
}

async fn info_of_a_runtime_that_is_nowhere_names_it(lab: &Lab) -> Result<()> {
    let nowhere = "/no/such/oci-runtime";
    let options = lab.options(|options| options.binary_name = nowhere.into());
    let finished = ask(lab, options.write_to_bytes()?).await?;
    ensure!(!finished.status.success() && finished.stdout.is_empty(), "{finished:?}");
    ensure!(finished.errors().contains(nowhere), "{}", finished.errors());
    Ok(())
}

async fn info_of_garbage_is_refused(lab: &Lab) -> Result<()> {
    let finished = ask(lab, vec![0xff; 64]).await?;
    ensure!(!finished.status.success() && finished.stdout.is_empty(), "{finished:?}");
    ensure!(finished.errors().contains("standard input"), "{}", finished.errors());
    Ok(())
}

/// It closes its output and goes on: whoever waits for its end must not wait for ever.
async fn info_of_a_runtime_that_lingers_is_answered_without_it(lab: &Lab) -> Result<()> {
    let program = runtime(lab, "echo '{}'; exec >&-; exec sleep 100000")?;
    let options = lab.options(|options| options.binary_name = program.display().to_string());
    let (own, config) = (lab.scratch.node_config()?, lab.scratch.path("impatient.toml"));
    let own = fs::read_to_string(own)?;
    fs::write(&config, format!("{own}[runtime]\ncontrol-deadline = 1\n"))?;
    let mut command = shim(lab)?;
    command.arg("-info").env("BERTH_CONFIG", config);
    let finished = run(command, options.write_to_bytes()?, Joined::No).await?;
    ensure!(finished.status.success(), "{}", finished.errors());
    let told = RuntimeInfo::parse_from_bytes(&finished.stdout)?;
    ensure!(told.features.is_none() && told.name == "io.containerd.berth.v2", "{told:?}");
    Ok(())
}

/// A shim in the foreground that answers at `socket`, and its log.
async fn in_the_foreground(lab: &Lab, socket: &Path) -> Result<(Child, Shim, PathBuf)> {
    lab.scratch.expect_socket(socket.to_owned());
    let log = lab.scratch.path("foreground.log");
    let mut command = shim(lab)?;
    command.args(["-namespace", &lab.caller.namespace, "-id", "birch", "-address"]);
    command.arg(&lab.caller.address).arg("-socket").arg(socket);
    let mut child = command.stdin(Stdio::null()).stderr(File::create(&log)?).spawn()?;
    // The name is there a moment before anybody listens behind it.
    eventually("a shim behind the socket", || {
        let ended = child.try_wait()?;
        ensure!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(&log)?);
        Ok(UnixStream::connect(socket).ok().map(drop))
    })
    .await?;
    let address = format!("unix://{}", socket.display());
    let reply = Reply { version: 2, address, protocol: "ttrpc".into() };
    let shim = Shim::connect(reply, "birch").await?;
    ensure!(shim.pid == child.id(), "{shim:?} is not process {}", child.id());
    Ok((child, shim, log))
}

fn terminate(child: &Child) -> Result<()> {
    let process = Process::open(child.id()).context("the shim is gone already")?;
    ensure!(process.signal(libc::SIGTERM), "no SIGTERM to {process:?}");
    Ok(())
}

async fn ended(mut child: Child) -> Result<ExitStatus> {
    let status = tokio::task::spawn_blocking(move || child.wait());
    Ok(within("the shim's end", status).await???)
}

async fn an_idle_shim_in_the_foreground_ends_on_sigterm(lab: &Lab) -> Result<()> {
    let socket = lab.scratch.path("hand.sock");
    let (child, _shim, log) = in_the_foreground(lab, &socket).await?;
    terminate(&child)?;
    let status = ended(child).await?;
    ensure!(status.success(), "{status}: {}", fs::read_to_string(log)?);
    ensure!(!socket.exists(), "the socket is left");
    Ok(())
}

async fn a_busy_shim_in_the_foreground_stays_on_sigterm(lab: &Lab) -> Result<()> {
    let socket = lab.scratch.path("hand.sock");
    let (child, shim, log) = in_the_foreground(lab, &socket).await?;
    let launch = lab.sleeper("birch");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let c = lab.create_in(shim, bundle, launch).await??;
    c.start().await?;
    terminate(&child)?;
    eventually("the shim's word that it stays", || {
        Ok(fs::read_to_string(&log)?.contains("asked to end").then_some(()))
    })
    .await?;
    ensure!(c.task().pids("birch").await? == [c.pid], "the container runs on");
    lab.retire(c).await?;
    let status = ended(child).await?;
    ensure!(status.success(), "{status}: {}", fs::read_to_string(log)?);
    ensure!(!socket.exists(), "the socket is left");
    Ok(())
}
