//! stdio given as a URI: `file://` and `binary://`. Must not know fifos.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration_tests::deadline::{Process, within};
use integration_tests::lab::{Lab, Launch};
use integration_tests::machine;
use integration_tests::stdio::Streams;
use integration_tests::suite::Suite;
use integration_tests::task::{CallError, refused};
use integration_tests::trials;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "loggers",
        [
            a_file_gets_the_output,
            a_file_is_appended_to,
            a_binary_gets_output_and_errors_apart_and_knows_the_container,
            an_exec_may_log_to_a_binary_of_its_own,
            a_binary_that_does_not_exist_fails_create,
            a_binary_that_exits_at_once_fails_create_or_loses_its_output,
            a_terminals_output_goes_to_a_binary,
            a_terminal_outlives_its_binary,
            a_binary_that_is_never_ready_fails_create_in_time,
            a_binary_that_stays_ends_with_a_failed_create,
            a_binary_that_stays_ends_with_its_shim,
            an_unknown_scheme_is_refused,
        ]
    );
}

fn logging_to(lab: &Lab, uri: String, script: &str) -> Launch {
    Launch { streams: Streams::Uri(uri), ..lab.shell("birch", script) }
}

/// A logger that copies descriptor 3 to `<folder>/out` and 4 to `<folder>/err`, and says it is ready by
/// closing descriptor 5. Its folder comes as the argument after `into`.
fn logger(lab: &Lab) -> Result<PathBuf> {
    // Shims send SIGTERM once the streams have ended; this one finishes its copying first.
    let script = "#!/bin/sh\n\
        trap '' TERM\n\
        folder=$2\n\
        cat <&3 5>&- >\"$folder/out\" & cat <&4 5>&- >\"$folder/err\" &\n\
        echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $1\" >\"$folder/who\"\n\
        exec 3<&- 4<&- 5>&-\n\
        wait\n\
        echo done >>\"$folder/who\"\n";
    program(lab, "logger", script)
}

pub fn program(lab: &Lab, name: &str, script: &str) -> Result<PathBuf> {
    let path = lab.scratch.path(name);
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

async fn read_until(path: &Path, ending: &str) -> Result<String> {
    integration_tests::deadline::eventually(
        &format!("{} ends with {ending:?}", path.display()),
        || {
            let text = fs::read_to_string(path).unwrap_or_default();
            Ok(text.ends_with(ending).then_some(text))
        },
    )
    .await
}

async fn a_file_gets_the_output(lab: &Lab) -> Result<()> {
    let file = lab.scratch.path("deep/er/log.txt");
    let c = lab
        .run(logging_to(lab, format!("file://{}", file.display()), "echo out; echo err >&2"))
        .await?;
    within("Wait", c.wait()).await??;
    lab.retire(c).await?;
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains("out\n") && text.contains("err\n") && text.len() == 8, "{text:?}");
    Ok(())
}

async fn a_file_is_appended_to(lab: &Lab) -> Result<()> {
    let file = lab.scratch.path("log.txt");
    fs::write(&file, "old\n")?;
    let c = lab.run(logging_to(lab, format!("file://{}", file.display()), "echo new")).await?;
    within("Wait", c.wait()).await??;
    lab.retire(c).await?;
    ensure!(fs::read_to_string(&file)? == "old\nnew\n");
    Ok(())
}

async fn a_binary_gets_output_and_errors_apart_and_knows_the_container(lab: &Lab) -> Result<()> {
    let folder = lab.scratch.folder("logged")?;
    let uri = format!("binary://{}?into={}", logger(lab)?.display(), folder.display());
    let c =
        lab.run(logging_to(lab, uri, "echo out; echo err >&2; seq 1 100000 | tail -n 1")).await?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    lab.retire(c).await?;
    ensure!(read_until(&folder.join("who"), "done\n").await? == "birch lab into\ndone\n");
    ensure!(fs::read_to_string(folder.join("out"))? == "out\n100000\n");
    ensure!(fs::read_to_string(folder.join("err"))? == "err\n");
    Ok(())
}

async fn an_exec_may_log_to_a_binary_of_its_own(lab: &Lab) -> Result<()> {
    let folder = lab.scratch.folder("logged")?;
    let uri = format!("binary://{}?into={}", logger(lab)?.display(), folder.display());
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["echo", "from the exec"], Streams::Uri(uri)).await?;
    within("Wait", c.task().wait("birch", "leaf")).await??;
    c.task().delete("birch", "leaf").await?;
    read_until(&folder.join("who"), "done\n").await?;
    ensure!(fs::read_to_string(folder.join("out"))? == "from the exec\n");
    lab.retire(c).await
}

/// Creates with this URI in a fresh shim, expects a refusal, and tidies up as containerd would.
async fn refusal(lab: &Lab, uri: String) -> Result<CallError> {
    let launch = logging_to(lab, uri, "true");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?;
    let Err(err) = created else { anyhow::bail!("Create was granted") };
    lab.dismiss_shim(&shim, &bundle).await?;
    Ok(err)
}

async fn a_binary_that_does_not_exist_fails_create(lab: &Lab) -> Result<()> {
    let nowhere = lab.scratch.path("nowhere");
    let err = refusal(lab, format!("binary://{}", nowhere.display())).await?;
    refused::<()>(Err(err), Code::UNKNOWN, "nowhere")
}

async fn a_binary_that_exits_at_once_fails_create_or_loses_its_output(lab: &Lab) -> Result<()> {
    // Its descriptor 5 closes with it, which looks like readiness: what counts is that nothing hangs.
    let quitter = program(lab, "quitter", "#!/bin/sh\nexit 1\n")?;
    let launch = logging_to(lab, format!("binary://{}", quitter.display()), "seq 1 100000; exit 0");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    match lab.create_in(shim.clone(), bundle.clone(), launch).await? {
        Err(_) => lab.dismiss_shim(&shim, &bundle).await,
        Ok(c) => {
            c.start().await?;
            within("Wait", c.wait()).await??;
            lab.retire(c).await
        }
    }
}

async fn an_unknown_scheme_is_refused(lab: &Lab) -> Result<()> {
    let err = refusal(lab, "pigeon:///loft".into()).await?;
    refused::<()>(Err(err), Code::UNKNOWN, "pigeon")
}

async fn a_terminals_output_goes_to_a_binary(lab: &Lab) -> Result<()> {
    let folder = lab.scratch.folder("logged")?;
    let uri = format!("binary://{}?into={}", logger(lab)?.display(), folder.display());
    let c = lab.run(on_a_terminal(logging_to(lab, uri, "echo out; echo err >&2"))).await?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    lab.retire(c).await?;
    read_until(&folder.join("who"), "done\n").await?;
    ensure!(fs::read_to_string(folder.join("out"))? == "out\r\nerr\r\n");
    ensure!(fs::read_to_string(folder.join("err"))?.is_empty());
    Ok(())
}

fn on_a_terminal(launch: Launch) -> Launch {
    let streams = match launch.streams {
        Streams::Uri(uri) => Streams::TerminalUri(uri),
        other => other,
    };
    Launch { streams, spec: launch.spec.terminal(), ..launch }
}

/// A terminal that nobody reads stops whoever writes to it.
async fn a_terminal_outlives_its_binary(lab: &Lab) -> Result<()> {
    let quitter = program(lab, "quitter", "#!/bin/sh\nexit 0\n")?;
    let uri = format!("binary://{}", quitter.display());
    let launch = logging_to(lab, uri, "head -c 1000000 /dev/zero; exit 3");
    let c = lab.run(on_a_terminal(launch)).await?;
    ensure!(within("Wait", c.wait()).await?? == 3);
    lab.retire(c).await
}

async fn a_binary_that_is_never_ready_fails_create_in_time(lab: &Lab) -> Result<()> {
    let sloth = program(lab, "sloth", "#!/bin/sh\nexec sleep 100000\n")?;
    let launch = logging_to(lab, format!("binary://{}", sloth.display()), "true");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let mut shim = lab.start_shim(&bundle, &Default::default()).await?;
    shim.task = shim.task.patient_for(Duration::from_secs(5));
    let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?.map(|c| c.pid);
    refused(created, Code::UNKNOWN, "sloth")?;
    lab.dismiss_shim(&shim, &bundle).await
}

/// A logger that ends neither with its input nor when it is asked to, and where it writes its PID.
fn stayer(lab: &Lab) -> Result<(String, PathBuf)> {
    let pid = lab.scratch.path("stayer.pid");
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\necho $$ >{}\nexec 5>&-\nwhile :; do sleep 1; done\n",
        pid.display()
    );
    let path = program(lab, "stayer", &script)?;
    Ok((format!("binary://{}", path.display()), pid))
}

/// The process whose PID is in the file, unless it has gone.
fn process_in(file: &Path) -> Result<Option<Process>> {
    let pid = fs::read_to_string(file)?.trim().parse()?;
    let held = Process::open(pid);
    let is_it = machine::process(pid).is_some_and(|row| row.command.contains("stayer"));
    Ok(held.filter(|_| is_it))
}

async fn a_binary_that_stays_ends_with_a_failed_create(lab: &Lab) -> Result<()> {
    let (uri, pid) = stayer(lab)?;
    let spec = lab.spec("birch", &["no-such-program"]);
    let launch = Launch { streams: Streams::Uri(uri), ..lab.launch("birch", spec) };
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?.map(|c| c.pid);
    refused(created, Code::UNKNOWN, "no-such-program")?;
    let stays = process_in(&pid)?;
    lab.dismiss_shim(&shim, &bundle).await?;
    match stays {
        Some(stays) => stays.exited().await,
        None => Ok(()),
    }
}

async fn a_binary_that_stays_ends_with_its_shim(lab: &Lab) -> Result<()> {
    let (uri, pid) = stayer(lab)?;
    let c = lab.run(logging_to(lab, uri, "echo out")).await?;
    within("Wait", c.wait()).await??;
    let stays = process_in(&pid)?.context("it ended by itself")?;
    lab.retire(c).await?;
    stays.exited().await
}
