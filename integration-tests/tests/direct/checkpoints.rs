//! Checkpoint and create from a checkpoint as far as they need no criu: what the runtime is told, what is refused, and a container that
//! is created from a checkpoint and does not run yet. A stand-in answers for runc's `checkpoint` and `restore`. Must not know what criu
//! does (see restores.rs).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::{CheckpointTaskRequest, Status};
use containerd_shim_protos::shim::oci::Options;
use integration_tests::deadline::within;
use integration_tests::lab::{Lab, Launch};
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::task::{any, refused, refused_as};
use integration_tests::trials;
use protobuf::well_known_types::any::Any;
use ttrpc::Code;

use crate::deaths::remove_socket_as_containerd_would;
use crate::faults::missed_deadline;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "checkpoints",
        [
            every_option_reaches_the_runtime,
            a_restore_is_a_start,
            a_container_that_was_never_restored_is_deleted,
            a_restore_that_fails_leaves_nothing_of_itself,
            a_missing_criu_is_named_with_a_way_out,
            an_image_that_is_not_there_is_named,
            a_checkpoint_to_nowhere_is_an_invalid_argument,
            what_does_not_run_cannot_be_saved,
            a_request_for_a_gpu_cannot_be_restored,
            options_of_another_type_are_refused,
            a_runtime_that_hangs_in_checkpoint_is_told_in_time,
            a_runtime_that_hangs_in_restore_is_told_in_time,
            a_shim_that_dies_before_the_restore_leaves_nothing,
        ]
    );
}

/// Makes a program of a shell script.
pub fn program(path: &Path, script: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{script}\n"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Options that name a criu: by field 8, which containerd 2.x has reserved.
pub fn with_criu(lab: &Lab, criu: &Path, change: impl FnOnce(&mut Options)) -> Result<Any> {
    let mut options = lab.options(change);
    let criu = criu.display().to_string();
    protobuf::CodedOutputStream::vec(&mut options.value).write_string(8, &criu)?;
    Ok(options)
}

/// A runtime that notes what it is told and which criu it would find. It saves nothing, and "restores" by running the bundle anew;
/// `special` comes before either. Else it is runc.
struct StandIn {
    options: Any,
    seen: PathBuf,
    criu: PathBuf,
}

fn stand_in(lab: &Lab, special: &str) -> Result<StandIn> {
    let (seen, criu) = (lab.scratch.path("seen"), lab.scratch.path("criu-5"));
    program(&criu, "exit 1")?;
    let runc = lab.under_test.runtime.display().to_string();
    let script = format!(
        "verb=; for word in \"$@\"; do case $word in checkpoint|restore) verb=$word;; esac; done\n\
        [ -n \"$verb\" ] || exec {runc} \"$@\"\n\
        echo \"$@\" criu=$(readlink $(command -v criu)) >>{seen}\n\
        {special}\n\
        [ $verb = restore ] || exit 0\n\
        skip=; for word in \"$@\"; do shift\n\
        case $skip$word in --image-path|--work-path) skip=1; continue;; esac\n\
        if [ -n \"$skip\" ]; then skip=; continue; fi\n\
        [ $word = restore ] && word=run\n\
        set -- \"$@\" \"$word\"; done\n\
        exec {runc} \"$@\"",
        seen = seen.display()
    );
    let runtime = lab.scratch.path("stand-in");
    program(&runtime, &script)?;
    let named = |options: &mut Options| options.binary_name = runtime.display().to_string();
    Ok(StandIn { options: with_criu(lab, &criu, named)?, seen, criu })
}

impl StandIn {
    fn running(&self, launch: Launch) -> Launch {
        Launch { options: Some(self.options.clone()), ..launch }
    }

    /// What the runtime was told, once.
    fn told(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.seen).context("neither verb was called")?.trim_end().to_owned())
    }
}

/// A folder that looks like an image.
fn image(lab: &Lab) -> Result<PathBuf> {
    let image = lab.scratch.folder("the-save")?;
    fs::write(image.join("inventory.img"), "")?;
    Ok(image)
}

fn from(image: &Path, launch: Launch) -> Launch {
    Launch { checkpoint: image.display().to_string(), ..launch }
}

async fn every_option_reaches_the_runtime(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, "")?;
    let c = lab.run(runtime.running(lab.sleeper("birch"))).await?;
    let (image, work) = (lab.scratch.path("saved"), lab.scratch.path("work"));
    c.checkpoint(&image, |_| ()).await?;
    let told = runtime.told()?;
    let (_, plain) = told.split_once(" checkpoint ").context("no checkpoint")?;
    let at = c.bundle.path.join("criu-work/work");
    let places =
        |work: &Path| format!("--image-path {} --work-path {}", image.display(), work.display());
    let criu = format!("criu={}", runtime.criu.display());
    ensure!(plain == format!("{} --leave-running birch {criu}", places(&at)), "{plain}");
    fs::remove_file(&runtime.seen)?;
    let every = |options: &mut containerd_shim_protos::shim::oci::CheckpointOptions| {
        options.exit = true;
        options.open_tcp = true;
        options.external_unix_sockets = true;
        options.terminal = true;
        options.file_locks = true;
        options.empty_namespaces = vec!["network".into()];
        options.cgroups_mode = "strict".into();
        options.image_path = "/not/this/one".into();
        options.work_path = work.display().to_string();
    };
    c.checkpoint(&image, every).await?;
    let told = runtime.told()?;
    let (_, all) = told.split_once(" checkpoint ").context("no checkpoint")?;
    let flags = "--tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode strict --empty-ns network";
    ensure!(all == format!("{} {flags} birch {criu}", places(&work)), "{all}");
    ensure!(work.is_dir() && !c.bundle.path.join("criu-work").exists());
    lab.retire(c).await
}

async fn a_restore_is_a_start(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, "")?;
    let image = image(lab)?;
    let launch = from(&image, runtime.running(lab.shell("birch", "echo back; exit 3")));
    let c = lab.create(launch).await?;
    ensure!(c.pid == 0 && c.status().await? == Status::CREATED);
    ensure!(!runtime.seen.exists(), "the runtime was called before the start");
    ensure!(c.task().pids("birch").await?.is_empty());
    let exec = c.exec_request("leaf", &["true"], &Streams::Null, &Stdio::default());
    refused(c.task().exec(&exec).await, Code::FAILED_PRECONDITION, "birch")?;
    refused(c.task().pause("birch").await, Code::UNKNOWN, "birch")?;
    refused(c.checkpoint(&image, |_| ()).await, Code::UNKNOWN, "birch")?;
    for all in [false, true] {
        let killed = c.task().kill("birch", "", 9, all).await;
        refused(killed, Code::FAILED_PRECONDITION, "birch")?;
    }
    let pid = c.start().await?;
    ensure!(pid > 0 && within("Wait", c.wait()).await?? == 3);
    ensure!(c.io.stdout_text().await? == "back\n");
    let told = runtime.told()?;
    let (_, told) = told.split_once(" restore ").context("no restore")?;
    let bundle = c.bundle.path.display();
    let wanted = format!(
        "--pid-file init.pid --bundle {bundle} --detach --image-path {} --work-path {bundle}/criu-work/work birch criu={}",
        image.display(),
        runtime.criu.display()
    );
    ensure!(told == wanted, "{told}");
    let created = lab.events.of("birch", "create", "").await?;
    ensure!(created.pid == 0, "{created:?}");
    let exited = lab.events.exit("birch").await?;
    ensure!(exited.pid == pid, "{exited:?}");
    ensure!(lab.events.labels("birch") == ["create", "start", "exit birch"]);
    lab.retire(c).await
}

async fn a_container_that_was_never_restored_is_deleted(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, "")?;
    let c = lab.create(from(&image(lab)?, runtime.running(lab.sleeper("birch")))).await?;
    let waits = tokio::spawn({
        let task = c.task().clone();
        async move { task.wait("birch", "").await }
    });
    // Answered after the Wait has reached the shim, which serves a connection's requests in their order.
    c.task().state("birch", "").await?;
    let deleted = within("Delete", c.delete()).await??;
    ensure!(deleted.pid == 0 && deleted.exit_status == 0, "{deleted:?}");
    let waited = within("Wait", waits).await???;
    ensure!(waited.exit_status == 255, "{waited:?}");
    refused(c.task().state("birch", "").await, Code::NOT_FOUND, "birch")?;
    ensure!(!runtime.seen.exists());
    lab.dismiss(c).await
}

async fn a_restore_that_fails_leaves_nothing_of_itself(lab: &Lab) -> Result<()> {
    // The second time it works.
    let once = format!(
        "if [ ! -e {0} ]; then echo >{0}; echo '(00.1) Error (criu/pstree.c:9): no such tree' >criu-work/work/restore.log\n\
        echo 4 >.init.pid; echo no luck >&2; exit 1; fi",
        lab.scratch.path("failed").display()
    );
    let runtime = stand_in(lab, &once)?;
    let launch = runtime.running(lab.shell("birch", "exit 3"));
    let c = lab.create(from(&image(lab)?, launch)).await?;
    let started = within("Start", c.start()).await?;
    let words = "restore failed: no luck: no such tree; criu's log is ";
    refused(started, Code::UNKNOWN, words)?;
    ensure!(c.status().await? == Status::CREATED);
    ensure!(c.bundle.path.join("criu-restore.log").exists());
    ensure!(!c.bundle.path.join("criu-work").exists());
    c.start().await?;
    ensure!(within("Wait", c.wait()).await?? == 3);
    lab.retire(c).await
}

async fn a_missing_criu_is_named_with_a_way_out(lab: &Lab) -> Result<()> {
    let options = with_criu(lab, Path::new("/no/such/criu"), |_| ())?;
    let c = lab.run(Launch { options: Some(options.clone()), ..lab.sleeper("birch") }).await?;
    let saved = lab.scratch.path("saved");
    let answer = c.checkpoint(&saved, |options| options.exit = true).await;
    let words =
        "cannot checkpoint container \"birch\": there is no \"/no/such/criu\"; install criu";
    refused(answer, Code::FAILED_PRECONDITION, words)?;
    ensure!(!saved.exists() && c.status().await? == Status::RUNNING);
    lab.retire(c).await?;
    let launch = Launch { options: Some(options), ..lab.sleeper("beech") };
    let words = "cannot restore container \"beech\": there is no \"/no/such/criu\"; install criu";
    create_refused(lab, from(&image(lab)?, launch), Code::FAILED_PRECONDITION, words).await
}

/// Create is refused, and leaves nothing.
async fn create_refused(lab: &Lab, launch: Launch, code: Code, words: &str) -> Result<()> {
    let id = launch.id.clone();
    let bundle = lab.bundle(&id, Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?;
    refused(created.map(|c| c.pid), code, words)?;
    refused(shim.task.state(&id, "").await, Code::NOT_FOUND, &id)?;
    ensure!(!bundle.path.join("berth.json").exists());
    lab.dismiss_shim(&shim, &bundle).await
}

async fn an_image_that_is_not_there_is_named(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, "")?;
    let empty = lab.scratch.folder("empty")?;
    for (id, path) in [("birch", Path::new("/no/such/image")), ("beech", &empty)] {
        let words = format!("container \"{id}\": there is no checkpoint in {}", path.display());
        let launch = from(path, runtime.running(lab.sleeper(id)));
        create_refused(lab, launch, Code::NOT_FOUND, &words).await?;
    }
    let image = image(lab)?;
    let c = lab.create(from(&image, runtime.running(lab.sleeper("alder")))).await?;
    fs::remove_dir_all(&image)?;
    refused(c.start().await, Code::NOT_FOUND, &image.display().to_string())?;
    ensure!(c.status().await? == Status::CREATED);
    c.delete().await?;
    lab.dismiss(c).await
}

async fn a_checkpoint_to_nowhere_is_an_invalid_argument(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, "")?;
    let c = lab.run(runtime.running(lab.sleeper("birch"))).await?;
    refused(c.checkpoint(Path::new(""), |_| ()).await, Code::INVALID_ARGUMENT, "birch")?;
    let relative = c.checkpoint(Path::new("some/image"), |_| ()).await;
    refused(relative, Code::INVALID_ARGUMENT, "some/image")?;
    let file = lab.scratch.path("a-file");
    fs::write(&file, "mine")?;
    refused(c.checkpoint(&file, |_| ()).await, Code::UNKNOWN, &file.display().to_string())?;
    ensure!(!runtime.seen.exists() && fs::read_to_string(&file)? == "mine");
    // Where only the options say it.
    let image = lab.scratch.path("saved").display().to_string();
    c.checkpoint(Path::new(""), |options| options.image_path = image.clone()).await?;
    ensure!(runtime.told()?.contains(&image));
    lab.retire(c).await
}

async fn what_does_not_run_cannot_be_saved(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, "")?;
    let image = lab.scratch.path("saved");
    let c = lab.create(runtime.running(lab.sleeper("birch"))).await?;
    refused(c.checkpoint(&image, |_| ()).await, Code::UNKNOWN, "birch")?;
    c.start().await?;
    c.kill(libc::SIGKILL).await?;
    within("Wait", c.wait()).await??;
    refused(c.checkpoint(&image, |_| ()).await, Code::UNKNOWN, "birch")?;
    ensure!(!image.exists() && !runtime.seen.exists());
    lab.retire(c).await
}

/// Before anything is given: there is no node to ask here. That one which holds a GPU cannot be saved: see the GPU suite.
async fn a_request_for_a_gpu_cannot_be_restored(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, "")?;
    let spec = lab.spec("birch", &["sleep", "100000"]).annotation("berth.dev/gpus", "1");
    let launch = Launch { streams: Streams::Null, ..lab.launch("birch", spec) };
    let words = "cannot restore container \"birch\" from a checkpoint: it is to have a GPU";
    let launch = from(&image(lab)?, runtime.running(launch));
    create_refused(lab, launch, Code::FAILED_PRECONDITION, words).await
}

async fn options_of_another_type_are_refused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for (kind, body) in
        [("other.Type", vec![]), ("containerd.runc.v1.CheckpointOptions", vec![0x3a, 0xff])]
    {
        let request = CheckpointTaskRequest {
            id: "birch".into(),
            path: lab.scratch.path("saved").display().to_string(),
            options: Some(any(kind, body)).into(),
            ..Default::default()
        };
        let codes = [Code::UNKNOWN, Code::FAILED_PRECONDITION];
        refused_as(c.task().checkpoint(&request).await, &codes, kind)?;
    }
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await
}

/// Less than the deadlines that are configured for the shim by default.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a runtime does that hangs the first time that it is called for either verb, in the middle of its work.
fn hangs_once(lab: &Lab) -> String {
    let hung = lab.scratch.path("hung");
    format!("if [ ! -e {0} ]; then echo >{0}; exec sleep 100000; fi", hung.display())
}

async fn a_runtime_that_hangs_in_checkpoint_is_told_in_time(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, &hangs_once(lab))?;
    let c = lab.run(runtime.running(lab.sleeper("birch"))).await?;
    let image = lab.scratch.path("saved");
    let request = CheckpointTaskRequest {
        id: "birch".into(),
        path: image.display().to_string(),
        ..Default::default()
    };
    let task = c.task().patient_for(PATIENCE);
    missed_deadline(within("Checkpoint", task.checkpoint(&request)).await?)?;
    ensure!(!image.exists() && c.status().await? == Status::RUNNING);
    task.checkpoint(&request).await?;
    lab.retire(c).await
}

async fn a_runtime_that_hangs_in_restore_is_told_in_time(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, &hangs_once(lab))?;
    let c = lab.create(from(&image(lab)?, runtime.running(lab.sleeper("birch")))).await?;
    let task = c.task().patient_for(PATIENCE);
    missed_deadline(within("Start", task.start("birch", "")).await?)?;
    ensure!(c.status().await? == Status::CREATED);
    c.start().await?;
    lab.retire(c).await
}

async fn a_shim_that_dies_before_the_restore_leaves_nothing(lab: &Lab) -> Result<()> {
    let runtime = stand_in(lab, "")?;
    let c = lab.create(from(&image(lab)?, runtime.running(lab.sleeper("birch")))).await?;
    lab.kill_shim(&c.shim).await?;
    lab.bury(&c.bundle).await?;
    remove_socket_as_containerd_would(lab);
    Ok(())
}
