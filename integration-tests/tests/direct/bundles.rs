//! Root file systems given to Create, user namespaces, and bundles that are missing or wrong. Each
//! refusal must leave nothing. Must not know the OCI runtime's own faults (see faults.rs).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use containerd_shim_protos::api::Mount;
use integration_tests::bundle::{Bundle, Spec};
use integration_tests::busybox;
use integration_tests::deadline::within;
use integration_tests::lab::{Lab, Launch};
use integration_tests::machine::mounts_below;
use integration_tests::shim::Shim;
use integration_tests::stdio::Stdio;
use integration_tests::suite::{Suite, needs_user_namespaces};
use integration_tests::task::{CallError, any, refused};
use integration_tests::trials;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "bundles",
        [
            an_overlay_given_to_create_is_mounted_and_unmounted,
            a_bind_mount_given_to_create_is_mounted_and_unmounted,
            a_read_only_bind_is_read_only,
            a_rootfs_mounted_beforehand_is_used,
            a_second_mount_that_fails_undoes_the_first,
            a_user_namespaced_container_runs_as_somebody_else,
            config_json_stays_byte_for_byte,
            create_with_a_missing_bundle_is_refused,
            start_without_config_json_fails_and_leaves_nothing,
            start_with_malformed_config_json_fails_and_leaves_nothing,
            create_without_config_json_is_refused,
            create_with_malformed_config_json_is_refused,
            create_with_a_missing_rootfs_is_refused,
            create_with_garbled_options_is_refused,
            create_with_options_of_an_unknown_type_is_refused_or_ignored,
            the_delete_command_without_a_task_leaves_nothing,
        ]
    );
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|option| option.to_string()).collect();
    Mount { type_: kind.into(), source: source.into(), options, ..Default::default() }
}

fn on_rootfs(lab: &Lab, args: &[&str], rootfs: Vec<Mount>) -> Launch {
    let spec = Spec::new("rootfs", &format!("/{}/birch", lab.scratch.cgroup()), args);
    Launch { rootfs, ..lab.launch("birch", spec) }
}

async fn an_overlay_given_to_create_is_mounted_and_unmounted(lab: &Lab) -> Result<()> {
    let upper = lab.scratch.folder("upper")?;
    let work = lab.scratch.folder("work")?;
    let options = [
        format!("lowerdir={}", lab.image.display()),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let rootfs = vec![mount("overlay", "overlay", &options)];
    let c = lab.run(on_rootfs(lab, &["sh", "-c", "echo grown >/leaf"], rootfs)).await?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    let rows = mounts_below(&c.bundle.rootfs())?;
    ensure!(rows.iter().any(|row| row.kind == "overlay"), "{rows:?}");
    c.delete().await?;
    ensure!(mounts_below(&c.bundle.rootfs())?.is_empty(), "Delete left the overlay");
    ensure!(fs::read_to_string(upper.join("leaf"))? == "grown\n");
    ensure!(!lab.image.join("leaf").exists());
    lab.dismiss(c).await
}

async fn a_bind_mount_given_to_create_is_mounted_and_unmounted(lab: &Lab) -> Result<()> {
    let rootfs = vec![mount("bind", &lab.image.display().to_string(), &["rbind", "rw"])];
    let c = lab.run(on_rootfs(lab, &["sh", "-c", "echo grown >/leaf"], rootfs)).await?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    c.delete().await?;
    ensure!(mounts_below(&c.bundle.rootfs())?.is_empty(), "Delete left the bind mount");
    ensure!(fs::read_to_string(lab.image.join("leaf"))? == "grown\n");
    lab.dismiss(c).await
}

async fn a_read_only_bind_is_read_only(lab: &Lab) -> Result<()> {
    let rootfs = vec![mount("bind", &lab.image.display().to_string(), &["rbind", "ro"])];
    let c = lab.run(on_rootfs(lab, &["touch", "/leaf"], rootfs)).await?;
    ensure!(within("Wait", c.wait()).await?? == 1);
    ensure!(c.io.stderr_text().await?.contains("Read-only"));
    lab.retire(c).await
}

async fn a_rootfs_mounted_beforehand_is_used(lab: &Lab) -> Result<()> {
    let launch = on_rootfs(lab, &["echo", "here"], Vec::new());
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let flags = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&lab.image), &bundle.rootfs(), None::<&str>, flags, None::<&str>)?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    let c = lab.create_in(shim, bundle, launch).await??;
    c.start().await?;
    ensure!(c.io.stdout_text().await? == "here\n");
    within("Wait", c.wait()).await??;
    c.delete().await?;
    // Whoever mounted it unmounts it; containerd's delete does that when the shim did not.
    nix::mount::umount(&c.bundle.rootfs()).ok();
    lab.dismiss(c).await
}

/// Writes the bundle, starts a shim, expects Create to be refused, and tidies up as containerd would.
async fn refusal(
    lab: &Lab,
    launch: Launch,
    spoil: impl FnOnce(&Bundle) -> Result<()>,
) -> Result<CallError> {
    let bundle = lab.bundle(&launch.id, Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    spoil(&bundle)?;
    let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?;
    let Err(err) = created else { bail!("Create was granted") };
    ensure!(mounts_below(&bundle.path)?.is_empty(), "mounts are left after: {err}");
    no_task(&shim, "birch").await?;
    lab.dismiss_shim(&shim, &bundle).await?;
    Ok(err)
}

async fn no_task(shim: &Shim, id: &str) -> Result<()> {
    ensure!(shim.task.state(id, "").await.is_err(), "{id} exists after a refused Create");
    Ok(())
}

async fn a_second_mount_that_fails_undoes_the_first(lab: &Lab) -> Result<()> {
    let rootfs = vec![
        mount("bind", &lab.image.display().to_string(), &["rbind", "rw"]),
        mount("no-such-file-system", "none", &[]),
    ];
    let err = refusal(lab, on_rootfs(lab, &["true"], rootfs), |_| Ok(())).await?;
    refused::<()>(Err(err), Code::UNKNOWN, "no-such-file-system")
}

async fn a_user_namespaced_container_runs_as_somebody_else(lab: &Lab) -> Result<()> {
    const HOST_ID: u32 = 200_000;
    needs_user_namespaces()?;
    let image = lab.scratch.folder("shifted")?;
    busybox::build(&image)?;
    let owner = format!("{HOST_ID}:{HOST_ID}");
    let chowned = Command::new("chown").args(["-R", &owner]).arg(&image).status()?;
    ensure!(chowned.success());
    let script = "id -u; cat /proc/self/uid_map; touch /mine && echo written";
    let cgroup = format!("/{}/birch", lab.scratch.cgroup());
    let mut spec = Spec::new(&image.display().to_string(), &cgroup, &["sh", "-c", script])
        .user_namespace(HOST_ID);
    // sysfs may be mounted only by the owner of the network namespace.
    spec.json["linux"]["namespaces"]
        .as_array_mut()
        .context("list")?
        .push(serde_json::json!({"type": "network"}));
    let c = lab.create(lab.launch("birch", spec)).await?;
    let map = fs::read_to_string(format!("/proc/{}/uid_map", c.pid))?;
    ensure!(map.split_whitespace().eq(["0", "200000", "65536"]), "{map:?}");
    c.start().await?;
    let (out, err) = (c.io.stdout_text().await?, c.io.stderr_text().await?);
    ensure!(
        out.starts_with("0\n") && out.contains("200000") && out.ends_with("written\n"),
        "{out:?} {err:?}"
    );
    ensure!(within("Wait", c.wait()).await?? == 0);
    let leaf = std::os::unix::fs::MetadataExt::uid(&fs::metadata(image.join("mine"))?);
    ensure!(leaf == HOST_ID, "what it wrote is owned by {leaf}");
    lab.retire(c).await
}

async fn config_json_stays_byte_for_byte(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    launch.spec.json["unknownToAnyShim"] = serde_json::json!({"kept": [1.5, "as it is", null]});
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let odd = format!("{}\n\n", serde_json::to_string_pretty(&launch.spec.json)?);
    fs::write(bundle.config(), &odd)?;
    let before = fs::metadata(bundle.config())?.modified()?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    let c = lab.create_in(shim, bundle, launch).await??;
    c.start().await?;
    ensure!(fs::read_to_string(c.bundle.config())? == odd);
    ensure!(fs::metadata(c.bundle.config())?.modified()? == before, "it was written anew");
    lab.retire(c).await
}

async fn create_with_a_missing_bundle_is_refused(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    let mut request = lab.create_request(&launch, &bundle, &Stdio::default());
    request.bundle = lab.scratch.path("bundles/nowhere").display().to_string();
    let created = within("Create", shim.task.create(&request)).await?;
    refused(created, Code::NOT_FOUND, "nowhere")?;
    no_task(&shim, "birch").await?;
    ensure!(!Path::new(&request.bundle).exists(), "the missing bundle was made");
    lab.dismiss_shim(&shim, &bundle).await
}

async fn failing_start(lab: &Lab, config: Option<&str>) -> Result<()> {
    let bundle = lab.bundle("birch", None)?;
    if let Some(text) = config {
        fs::write(bundle.config(), text)?;
    }
    let finished = lab.caller.start(&lab.scratch, &bundle, &Default::default()).await?;
    ensure!(!finished.status.success(), "start worked: {}", finished.text());
    ensure!(finished.text().contains("config.json") || config.is_some(), "{}", finished.text());
    lab.bury_unborn(&bundle).await
}

async fn start_without_config_json_fails_and_leaves_nothing(lab: &Lab) -> Result<()> {
    failing_start(lab, None).await
}

async fn start_with_malformed_config_json_fails_and_leaves_nothing(lab: &Lab) -> Result<()> {
    failing_start(lab, Some("{\"ociVersion\": ")).await
}

async fn create_without_config_json_is_refused(lab: &Lab) -> Result<()> {
    let spoil = |bundle: &Bundle| Ok(fs::remove_file(bundle.config())?);
    let err = refusal(lab, lab.sleeper("birch"), spoil).await?;
    refused::<()>(Err(err), Code::UNKNOWN, "config.json")
}

async fn create_with_malformed_config_json_is_refused(lab: &Lab) -> Result<()> {
    let spoil = |bundle: &Bundle| Ok(fs::write(bundle.config(), "{\"process\": 3")?);
    let err = refusal(lab, lab.sleeper("birch"), spoil).await?;
    refused::<()>(Err(err), Code::UNKNOWN, "config.json")
}

async fn create_with_a_missing_rootfs_is_refused(lab: &Lab) -> Result<()> {
    let cgroup = format!("/{}/birch", lab.scratch.cgroup());
    let nowhere = lab.scratch.path("no-image").display().to_string();
    let err =
        refusal(lab, lab.launch("birch", Spec::new(&nowhere, &cgroup, &["true"])), |_| Ok(()))
            .await?;
    ensure!(err.message.contains("no-image") || err.message.contains("rootfs"), "{err}");
    refused::<()>(Err(err), Code::UNKNOWN, "")
}

async fn create_with_garbled_options_is_refused(lab: &Lab) -> Result<()> {
    let options = any("containerd.runc.v1.Options", vec![0x0a, 0xff, 0xff]);
    let launch = Launch { options: Some(options), ..lab.sleeper("birch") };
    let err = refusal(lab, launch, |_| Ok(())).await?;
    refused::<()>(Err(err), Code::UNKNOWN, "containerd.runc.v1.Options")
}

async fn create_with_options_of_an_unknown_type_is_refused_or_ignored(lab: &Lab) -> Result<()> {
    let launch =
        Launch { options: Some(any("grove.v1.Options", vec![1, 2, 3])), ..lab.sleeper("birch") };
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    match lab.create_in(shim.clone(), bundle.clone(), launch).await? {
        Ok(c) => lab.retire(c).await,
        Err(err) => {
            refused::<()>(Err(err), Code::UNKNOWN, "grove.v1.Options")?;
            lab.dismiss_shim(&shim, &bundle).await
        }
    }
}

async fn the_delete_command_without_a_task_leaves_nothing(lab: &Lab) -> Result<()> {
    let bundle = lab.bundle("birch", Some(&lab.sleeper("birch").spec))?;
    let response = lab.bury(&bundle).await?;
    ensure!(response.exit_status == 137, "{response:?}");
    Ok(())
}
