//! Task options, typed and as TOML: what they change, and what is refused. Must not know the dialects of
//! `start` (see starts.rs).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::deadline::within;
use integration_tests::lab::{Lab, Launch};
use integration_tests::shim::{Reply, Start};
use integration_tests::suite::Suite;
use integration_tests::task::any;
use integration_tests::trials;
use protobuf::well_known_types::any::Any;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "options",
        [
            options_name_another_runtime_binary,
            options_in_a_toml_body_are_understood,
            options_in_a_toml_file_are_understood,
            malformed_toml_options_are_refused,
        ]
    );
}

/// A runtime that notes that it was asked, and then is runc.
fn witness(lab: &Lab) -> Result<(PathBuf, PathBuf)> {
    let seen = lab.scratch.path("witnessed");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n",
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
        let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?;
        ensure!(created.is_err(), "malformed options were taken");
        lab.dismiss_shim(&shim, &bundle).await?;
    }
    Ok(())
}
