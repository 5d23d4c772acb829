//! `start` and the other commands in the dialects of containerd's releases, and the task options. Must
//! not know what a started shim does later.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_tests::command::{Joined, run};
use integration_tests::deadline::within;
use integration_tests::lab::Lab;
use integration_tests::machine;
use integration_tests::shim::{Dialect, Reply, Start, conventional_sockets};
use integration_tests::suite::Suite;
use integration_tests::trials;
use protobuf::well_known_types::any::Any;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "starts",
        [
            start_replies_to_1_6,
            start_replies_to_1_7,
            start_replies_to_2_3,
            start_replies_to_2_3_in_its_socket_folder,
            the_reply_is_the_address_file_and_the_conventional_socket,
            a_second_start_of_the_same_id_finds_the_running_shim,
            a_stale_socket_of_a_dead_shim_is_replaced,
            without_an_events_address_everything_works,
            an_events_address_where_nobody_listens_blocks_nothing,
            garbage_on_stdin_of_start_is_refused_or_ignored,
            shim_cgroup_takes_the_shim,
            the_version_flag_tells_and_exits,
            an_unknown_command_fails,
        ]
    );
}

async fn lives_through(lab: &Lab, how: Start) -> Result<Reply> {
    let launch = lab.shell("birch", "exit 3");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let how = Start { options: launch.options.clone(), ..how };
    let shim = lab.start_shim(&bundle, &how).await?;
    let reply = shim.reply.clone();
    let c = lab.create_in(shim, bundle, launch).await??;
    c.start().await?;
    ensure!(within("Wait", c.wait()).await?? == 3);
    lab.events.exit("birch").await?;
    lab.retire(c).await?;
    Ok(reply)
}

async fn start_replies_to_1_6(lab: &Lab) -> Result<()> {
    let reply = lives_through(lab, Start { dialect: Dialect::V1_6, ..Start::default() }).await?;
    ensure!(reply.version == 2, "1.6 takes a plain address only: {reply:?}");
    Ok(())
}

async fn start_replies_to_1_7(lab: &Lab) -> Result<()> {
    let reply = lives_through(lab, Start::default()).await?;
    ensure!(
        reply.version == 2 && reply.protocol == "ttrpc",
        "1.7 refuses versions above 2: {reply:?}"
    );
    Ok(())
}

async fn start_replies_to_2_3(lab: &Lab) -> Result<()> {
    let reply = lives_through(lab, Start { dialect: Dialect::V2_3, ..Start::default() }).await?;
    ensure!([2, 3].contains(&reply.version) && reply.protocol == "ttrpc", "{reply:?}");
    Ok(())
}

async fn start_replies_to_2_3_in_its_socket_folder(lab: &Lab) -> Result<()> {
    let folder = lab.scratch.folder("s")?;
    let how =
        Start { dialect: Dialect::V2_3, socket_dir: Some(folder.clone()), ..Start::default() };
    let reply = lives_through(lab, how).await?;
    ensure!(reply.socket().starts_with(&folder), "{reply:?}");
    Ok(())
}

async fn the_reply_is_the_address_file_and_the_conventional_socket(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    let file = fs::read_to_string(c.bundle.path.join("address"))?;
    ensure!(file == c.shim.reply.address, "{file:?}");
    let socket = c.shim.reply.socket();
    let expected = conventional_sockets(&lab.caller.address, &lab.caller.namespace, "birch");
    ensure!(expected.contains(&socket), "{}", socket.display());
    ensure!(c.shim.reply.address.len() <= "unix://".len() + 106);
    let mode = fs::metadata(&socket)?.permissions().mode() & 0o777;
    ensure!(mode & 0o077 == 0, "others may use the socket: {mode:o}");
    lab.retire(c).await
}

async fn a_second_start_of_the_same_id_finds_the_running_shim(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let again = lab.start_shim(&c.bundle, &Start::default()).await?;
    ensure!(again.reply == c.shim.reply && again.pid == c.shim.pid, "{again:?}");
    lab.retire(c).await
}

async fn a_stale_socket_of_a_dead_shim_is_replaced(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    lab.kill_shim(&c.shim).await?;
    ensure!(c.shim.reply.socket().exists(), "the trial needs the dead shim's socket");
    let again = lab.start_shim(&c.bundle, &Start::default()).await?;
    ensure!(again.pid != c.shim.pid && again.reply == c.shim.reply, "{again:?}");
    within("Shutdown", again.task.shutdown("birch")).await?.ok();
    lab.bury(&c.bundle).await?;
    Ok(())
}

async fn without_an_events_address_everything_works(lab: &Lab) -> Result<()> {
    let launch = lab.shell("birch", "exit 3");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let mut caller = lab.caller.clone();
    caller.events = None;
    let finished = caller
        .start(&lab.scratch, &bundle, &Start { dialect: Dialect::V1_6, ..Start::default() })
        .await?;
    ensure!(finished.status.success(), "{}", finished.text());
    let shim =
        integration_tests::shim::Shim::connect(Reply::parse(&finished.stdout)?, "birch").await?;
    let c = lab.create_in(shim, bundle, launch).await??;
    c.start().await?;
    ensure!(within("Wait", c.wait()).await?? == 3);
    lab.retire(c).await
}

async fn an_events_address_where_nobody_listens_blocks_nothing(lab: &Lab) -> Result<()> {
    let launch = lab.shell("birch", "exit 3");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let mut caller = lab.caller.clone();
    caller.events = Some(lab.scratch.path("nobody.sock").display().to_string());
    let finished = caller.start(&lab.scratch, &bundle, &Start::default()).await?;
    ensure!(finished.status.success(), "{}", finished.text());
    let shim =
        integration_tests::shim::Shim::connect(Reply::parse(&finished.stdout)?, "birch").await?;
    let c = lab.create_in(shim, bundle, launch).await??;
    c.start().await?;
    ensure!(within("Wait", c.wait()).await?? == 3);
    lab.retire(c).await
}

async fn garbage_on_stdin_of_start_is_refused_or_ignored(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let how = Start { raw_stdin: Some(vec![0xff; 64]), ..Start::default() };
    let finished = lab.caller.start(&lab.scratch, &bundle, &how).await?;
    if !finished.status.success() {
        return lab.bury_unborn(&bundle).await;
    }
    let shim =
        integration_tests::shim::Shim::connect(Reply::parse(&finished.stdout)?, "birch").await?;
    let c = lab.create_in(shim, bundle, launch).await??;
    lab.retire(c).await
}

async fn shim_cgroup_takes_the_shim(lab: &Lab) -> Result<()> {
    let name = format!("/{}/shims", lab.scratch.cgroup());
    let options = lab.options(|options| options.shim_cgroup = name.clone());
    takes_the_shim(lab, &name, options).await
}

/// Makes the cgroup `name`, and holds when `options` bring a shim there.
pub async fn takes_the_shim(lab: &Lab, name: &str, options: Any) -> Result<()> {
    let mut folders = Vec::new();
    for (_, root) in machine::cgroup_hierarchies()? {
        let folder = root.join(name.trim_start_matches('/'));
        fs::create_dir_all(&folder)?;
        for file in ["cpuset.mems", "cpuset.cpus"] {
            // A new v1 cpuset takes nobody before it has both, its parent before it.
            for folder in [folder.parent().context("parent")?, &folder] {
                if let Ok(value) = fs::read(folder.parent().context("parent")?.join(file)) {
                    fs::write(folder.join(file), value).ok();
                }
            }
        }
        folders.push(folder);
    }
    let mut launch = lab.sleeper("birch");
    launch.options = Some(options);
    let c = lab.create(launch).await?;
    let where_it_is = fs::read_to_string(format!("/proc/{}/cgroup", c.shim.pid))?;
    ensure!(where_it_is.contains(name), "the shim is in\n{where_it_is}");
    let shim = integration_tests::deadline::Process::open(c.shim.pid);
    lab.retire(c).await?;
    if let Some(shim) = shim {
        shim.exited().await?;
    }
    for folder in folders {
        integration_tests::deadline::eventually("the shims' cgroup is free", || {
            Ok((fs::remove_dir(&folder).is_ok() || !folder.exists()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn the_version_flag_tells_and_exits(lab: &Lab) -> Result<()> {
    let mut command = Command::new(&lab.under_test.shim);
    command.arg("-v").current_dir(lab.scratch.root());
    let finished = run(command, Vec::new(), Joined::Yes).await?;
    ensure!(finished.status.success() && finished.text().contains("ersion"), "{finished:?}");
    Ok(())
}

async fn an_unknown_command_fails(lab: &Lab) -> Result<()> {
    let mut command = Command::new(&lab.under_test.shim);
    command.args(["-namespace", "lab", "-id", "birch", "levitate"]).current_dir(lab.scratch.root());
    let finished = run(command, Vec::new(), Joined::No).await?;
    ensure!(!finished.status.success(), "{finished:?}");
    Ok(())
}
