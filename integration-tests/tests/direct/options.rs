//! Task options, typed and as TOML: what they change, and what is refused. Must not know the dialects of
//! `start` (see starts.rs).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::deadline::within;
use integration_tests::lab::{Lab, Launch};
use integration_tests::runtime::substitute;
use integration_tests::shim::{Reply, Start};
use integration_tests::stdio::Streams;
use integration_tests::suite::Suite;
use integration_tests::task::{any, refused};
use integration_tests::trials;
use protobuf::well_known_types::any::Any;
use ttrpc::Code;

use crate::faults::runtime;
use crate::starts::takes_the_shim;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "options",
        [
            options_name_another_runtime_binary,
            options_in_a_toml_body_are_understood,
            options_in_a_toml_file_are_understood,
            switches_reach_the_runtime,
            switches_in_toml_reach_the_runtime,
            the_owner_of_the_streams_is_the_one_that_is_named,
            a_shim_cgroup_in_toml_takes_the_shim,
            malformed_toml_options_are_refused,
        ]
    );
}

/// A runtime that notes that it was asked, and then is runc, without the switches that not every machine and
/// release has: pivots, criu, systemd.
fn witness(lab: &Lab) -> Result<(PathBuf, PathBuf)> {
    let seen = lab.scratch.path("witnessed");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{}\n\
        for word in \"$@\"; do\nshift\ncase $word in --no-pivot|--systemd-cgroup|--criu|/no/criu) ;;\n\
        *) set -- \"$@\" \"$word\" ;;\nesac\ndone\nexec {} \"$@\"\n",
        seen.display(),
        lab.under_test.runtime.display()
    );
    let program = lab.scratch.path("witness");
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok((program, seen))
}

/// Lives through a container with these options, and says what the witness saw.
async fn witnessed(lab: &Lab, options: Any, seen: &Path) -> Result<String> {
    let launch = Launch { options: Some(options), ..lab.shell("birch", "exit 3") };
    let c = lab.run(launch).await?;
    ensure!(within("Wait", c.wait()).await?? == 3);
    lab.retire(c).await?;
    fs::read_to_string(seen).context("the runtime that the options name was never called")
}

fn ensure_private_root(lab: &Lab, calls: &str) -> Result<()> {
    let root = lab.runtime_root().display().to_string();
    ensure!(calls.contains(" create ") && calls.contains(&root), "{calls}");
    ensure!(!calls.contains("--systemd-cgroup"), "{calls}");
    Ok(())
}

async fn options_name_another_runtime_binary(lab: &Lab) -> Result<()> {
    let (program, seen) = witness(lab)?;
    let options = lab.options(|options| options.binary_name = program.display().to_string());
    ensure_private_root(lab, &witnessed(lab, options, &seen).await?)
}

fn toml_options(lab: &Lab, program: &Path) -> String {
    format!(
        "SystemdCgroup = false\nBinaryName = \"{}\"\nRoot = \"{}\"\n",
        program.display(),
        lab.runtime_root().display()
    )
}

/// runtimeoptions.v1.Options: type_url = 1, config_path = 2, config_body = 3.
fn runtime_options(path: &str, body: &[u8]) -> Result<Any> {
    let mut bytes = Vec::new();
    {
        let mut out = protobuf::CodedOutputStream::vec(&mut bytes);
        out.write_string(1, "io.containerd.runc.v2.Options")?;
        out.write_string(2, path)?;
        out.write_bytes(3, body)?;
        out.flush()?;
    }
    Ok(any("runtimeoptions.v1.Options", bytes))
}

async fn options_in_a_toml_body_are_understood(lab: &Lab) -> Result<()> {
    let (program, seen) = witness(lab)?;
    let options = runtime_options("", toml_options(lab, &program).as_bytes())?;
    ensure_private_root(lab, &witnessed(lab, options, &seen).await?)
}

async fn options_in_a_toml_file_are_understood(lab: &Lab) -> Result<()> {
    let (program, seen) = witness(lab)?;
    let file = lab.scratch.path("options.toml");
    fs::write(&file, toml_options(lab, &program))?;
    let options = runtime_options(&file.display().to_string(), b"")?;
    ensure_private_root(lab, &witnessed(lab, options, &seen).await?)
}

const SWITCHES: [&str; 3] = ["--systemd-cgroup", "--no-pivot", "--no-new-keyring"];

/// Each where it belongs: before the verb what is about the runtime, behind it what is about the create.
fn ensure_switches(calls: &str) -> Result<()> {
    let create = calls.lines().find(|line| line.contains(" create ")).context("no create")?;
    let (before, after) = create.split_once(" create ").context("found above")?;
    let [systemd, pivot, keyring] = SWITCHES;
    ensure!(before.contains(systemd), "{create}");
    ensure!(after.contains(pivot) && after.contains(keyring), "{create}");
    Ok(())
}

async fn switches_reach_the_runtime(lab: &Lab) -> Result<()> {
    let (program, seen) = witness(lab)?;
    let mut options = lab.options(|options| {
        options.binary_name = program.display().to_string();
        options.systemd_cgroup = true;
        options.no_pivot_root = true;
        options.no_new_keyring = true;
    });
    // criu_path, field 8, which containerd 2.x has reserved.
    protobuf::CodedOutputStream::vec(&mut options.value).write_string(8, "/no/criu")?;
    ensure_switches(&witnessed(lab, options, &seen).await?)
}

async fn switches_in_toml_reach_the_runtime(lab: &Lab) -> Result<()> {
    let (program, seen) = witness(lab)?;
    let text = toml_options(lab, &program).replace("SystemdCgroup = false", "SystemdCgroup = true")
        + "CriuPath = \"/no/criu\"\nNoPivotRoot = true\nNoNewKeyring = true\n";
    ensure_switches(&witnessed(lab, runtime_options("", text.as_bytes())?, &seen).await?)
}

/// So that a process in a user namespace may reopen its own output. The runtime then gives them to the process's
/// user; runc leaves the group, crun gives it, too.
async fn the_owner_of_the_streams_is_the_one_that_is_named(lab: &Lab) -> Result<()> {
    let seen = lab.scratch.path("owners");
    let looks = format!(
        "exec 3>&1 4>&2; stat -L -c %u:%g /proc/$$/fd/3 /proc/$$/fd/4 >>{}; exec 3>&- 4>&-",
        seen.display()
    );
    let program = runtime(lab, "--pid-file", &looks)?;
    let options = lab.options(|options| {
        options.binary_name = program.display().to_string();
        (options.io_uid, options.io_gid) = (1000, 5000);
    });
    let stat = ["stat", "-L", "-c", "%g", "/dev/stdout", "/dev/stderr"];
    let script = format!("{}; read line", stat.join(" "));
    let launch = Launch { options: Some(options), ..lab.shell("birch", &script) };
    let mut c = lab.run(Launch { streams: Streams::All, ..launch }).await?;
    let groups = if substitute().as_deref() == Some("crun") { "0\n0\n" } else { "5000\n5000\n" };
    c.io.stdout.as_ref().context("captured")?.shows(groups).await?;
    let leaf = lab.exec(&c, "leaf", &stat, Streams::Output).await?;
    ensure!(leaf.io.stdout_text().await? == groups);
    // Both streams of the container, then both of the exec.
    let owners = fs::read_to_string(&seen)?;
    ensure!(owners == "1000:5000\n".repeat(4), "{owners}");
    c.io.stdin.take().context("open")?.write("go\n").await?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    lab.retire(c).await
}

async fn a_shim_cgroup_in_toml_takes_the_shim(lab: &Lab) -> Result<()> {
    let (program, _) = witness(lab)?;
    let name = format!("/{}/shims", lab.scratch.cgroup());
    let text = format!("{}ShimCgroup = \"{name}\"\n", toml_options(lab, &program));
    takes_the_shim(lab, &name, runtime_options("", text.as_bytes())?).await
}

async fn malformed_toml_options_are_refused(lab: &Lab) -> Result<()> {
    for options in
        [runtime_options("", b"BinaryName = [")?, runtime_options("/no/such/options.toml", b"")?]
    {
        let launch = Launch { options: Some(options), ..lab.sleeper("birch") };
        let bundle = lab.bundle("birch", Some(&launch.spec))?;
        // start may refuse already, since it is handed the same options.
        let how = Start { options: launch.options.clone(), ..Start::default() };
        let finished = lab.caller.start(&lab.scratch, &bundle, &how).await?;
        if !finished.status.success() {
            lab.bury_unborn(&bundle).await?;
            continue;
        }
        let shim = integration_tests::shim::Shim::connect(Reply::parse(&finished.stdout)?, "birch")
            .await?;
        let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?.map(|c| c.pid);
        refused(created, Code::UNKNOWN, "options")?;
        lab.dismiss_shim(&shim, &bundle).await?;
    }
    Ok(())
}
