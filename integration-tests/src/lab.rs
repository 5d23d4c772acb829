//! One trial's world: a scratch folder, an event service, an image, and the shim under test. Decides
//! the usual way through a container's life, so that a trial says only what is special about it.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use containerd_shim_protos::api::{self, CreateTaskRequest};
use containerd_shim_protos::shim::oci::Options;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::bundle::{Bundle, Spec};
use crate::deadline::{Process, within};
use crate::events::Events;
use crate::leaks;
use crate::shim::{Caller, Reply, Shim, Start};
use crate::stdio::{Capture, Stdio, Streams, make_fifo};
use crate::task::{Answer, any};
use crate::under_test::{UnderTest, under_test};
use crate::{busybox, scratch::Scratch};

pub use crate::container::{Container, Exec, Launch};

/// The containerd namespace of the direct suite.
pub const NAMESPACE: &str = "lab";

/// A trial's world.
pub struct Lab {
    /// What shims forward.
    pub events: Events,
    /// Which binaries are tested.
    pub under_test: &'static UnderTest,
    /// How shims are called.
    pub caller: Caller,
    /// The root file system that containers share unless Create mounts one.
    pub image: PathBuf,
    logs: Mutex<Vec<(String, Capture)>>,
    /// Dropped last: takes everything down.
    pub scratch: Scratch,
}

impl Lab {
    /// Makes the world.
    pub async fn new() -> Result<Lab> {
        let under_test = under_test()?;
        let scratch = Scratch::new()?;
        let image = scratch.folder("image")?;
        busybox::build(&image)?;
        scratch.folder("io")?;
        let events = Events::listen(&scratch.path("events.sock")).await?;
        let caller = Caller {
            shim: under_test.shim.clone(),
            namespace: NAMESPACE.to_string(),
            address: scratch.path("containerd.sock"),
            events: Some(events.address().to_string()),
        };
        Ok(Lab { events, under_test, caller, image, logs: Mutex::default(), scratch })
    }

    /// A config.json for container `id` that runs `args` on the shared image.
    pub fn spec(&self, id: &str, args: &[&str]) -> Spec {
        let image = self.image.display().to_string();
        Spec::new(&image, &format!("/{}/{id}", self.scratch.cgroup()), args)
    }

    /// A container that runs `script` in a shell.
    pub fn shell(&self, id: &str, script: &str) -> Launch {
        self.launch(id, self.spec(id, &["sh", "-c", script]))
    }

    /// A container that stays until it is killed. Its stdio is null.
    pub fn sleeper(&self, id: &str) -> Launch {
        Launch { streams: Streams::Null, ..self.launch(id, self.spec(id, &["sleep", "100000"])) }
    }

    /// A container with this config.json.
    pub fn launch(&self, id: &str, spec: Spec) -> Launch {
        let options = Some(self.options(|_| ()));
        let (streams, rootfs, checkpoint) = (Streams::Output, Vec::new(), String::new());
        Launch { id: id.into(), spec, streams, rootfs, options, checkpoint }
    }

    /// runc options with the trial's private root, changed by `change`.
    pub fn options(&self, change: impl FnOnce(&mut Options)) -> Any {
        let mut options =
            Options { root: self.runtime_root().display().to_string(), ..Default::default() };
        change(&mut options);
        let body = options.write_to_bytes().expect("options encode");
        any("containerd.runc.v1.Options", body)
    }

    /// Where the OCI runtime keeps its records; shims add the namespace.
    pub fn runtime_root(&self) -> PathBuf {
        self.scratch.path("runc")
    }

    /// Writes a bundle, with the log fifo that containerd makes and reads.
    pub fn bundle(&self, id: &str, spec: Option<&Spec>) -> Result<Bundle> {
        let bundle = Bundle::create(&self.scratch.folder("bundles")?, id, spec)?;
        self.read_log(&bundle)?;
        Ok(bundle)
    }

    /// Makes the bundle's log fifo and reads it as containerd does.
    pub fn read_log(&self, bundle: &Bundle) -> Result<()> {
        let fifo = bundle.path.join("log");
        make_fifo(&fifo)?;
        let capture = Capture::open_held(&fifo)?;
        self.logs.lock().expect("no panic while held").push((bundle.id.clone(), capture));
        Ok(())
    }

    /// What the shim of container `id` has logged.
    pub fn log_of(&self, id: &str) -> String {
        let logs = self.logs.lock().expect("no panic while held");
        logs.iter().filter(|(name, _)| name == id).map(|(_, log)| log.text()).collect()
    }

    /// Starts (or joins, in a pod) the shim for a bundle.
    pub async fn start_shim(&self, bundle: &Bundle, how: &Start) -> Result<Shim> {
        let finished = self.caller.start(&self.scratch, bundle, how).await?;
        if !finished.status.success() {
            bail!("start of {} failed ({}): {}", bundle.id, finished.status, finished.text());
        }
        let reply = Reply::parse(&finished.stdout)?;
        self.scratch.expect_socket(reply.socket());
        Shim::connect(reply, &bundle.id).await
    }

    /// The request that containerd would send for this container.
    pub fn create_request(
        &self,
        launch: &Launch,
        bundle: &Bundle,
        io: &Stdio,
    ) -> CreateTaskRequest {
        CreateTaskRequest {
            id: launch.id.clone(),
            bundle: bundle.path.display().to_string(),
            rootfs: launch.rootfs.clone(),
            terminal: launch.streams.is_terminal(),
            stdin: io.stdin_path.clone(),
            stdout: io.stdout_path.clone(),
            stderr: io.stderr_path.clone(),
            options: launch.options.clone().into(),
            checkpoint: launch.checkpoint.clone(),
            ..Default::default()
        }
    }

    /// Writes the bundle, starts the shim, creates the container.
    pub async fn create(&self, launch: Launch) -> Result<Container> {
        let bundle = self.bundle(&launch.id, Some(&launch.spec))?;
        let how = Start { options: launch.options.clone(), ..Start::default() };
        let shim = self.start_shim(&bundle, &how).await?;
        self.create_in(shim, bundle, launch).await?.map_err(Into::into)
    }

    /// Creates the container in a shim that runs. The outer error is the trial's, the inner the shim's.
    pub async fn create_in(
        &self,
        shim: Shim,
        bundle: Bundle,
        launch: Launch,
    ) -> Result<Answer<Container>> {
        let io = Stdio::prepare(&self.scratch.path("io"), &launch.id, &launch.streams)?;
        let request = self.create_request(&launch, &bundle, &io);
        let process = launch.spec.json["process"].clone();
        let created = within("Create", shim.task.create(&request)).await?;
        Ok(created.map(|pid| Container { bundle, shim, io, pid, process }))
    }

    /// Creates and starts.
    pub async fn run(&self, launch: Launch) -> Result<Container> {
        let container = self.create(launch).await?;
        container.start().await?;
        Ok(container)
    }

    /// Adds and starts an exec running `args`.
    pub async fn exec(
        &self,
        container: &Container,
        id: &str,
        args: &[&str],
        streams: Streams,
    ) -> Result<Exec> {
        let io = self.add_exec(container, id, args, &streams).await?;
        let pid = container.task().start(container.id(), id).await?;
        Ok(Exec { id: id.into(), io, pid })
    }

    /// Adds an exec without starting it.
    pub async fn add_exec(
        &self,
        container: &Container,
        id: &str,
        args: &[&str],
        streams: &Streams,
    ) -> Result<Stdio> {
        let name = format!("{}-{id}", container.id());
        let io = Stdio::prepare(&self.scratch.path("io"), &name, streams)?;
        container.task().exec(&container.exec_request(id, args, streams, &io)).await?;
        Ok(io)
    }

    /// Ends a container as containerd does: Delete, Shutdown, the `delete` command, the bundle's end.
    /// A running one is killed first.
    pub async fn retire(&self, container: Container) -> Result<()> {
        if container.status().await? != api::Status::STOPPED {
            container.kill(libc::SIGKILL).await.ok();
            within("Wait", container.wait()).await??;
        }
        within("Delete", container.delete()).await??;
        self.dismiss(container).await
    }

    /// Ends what is left after a Delete: Shutdown, the `delete` command, the bundle's end.
    pub async fn dismiss(&self, container: Container) -> Result<()> {
        // The connection breaks when the shim exits before its answer is out.
        within("Shutdown", container.task().shutdown(container.id())).await?.ok();
        self.bury(&container.bundle).await?;
        Ok(())
    }

    /// As [`Lab::dismiss`], for a shim whose container never came to be.
    pub async fn dismiss_shim(&self, shim: &Shim, bundle: &Bundle) -> Result<()> {
        within("Shutdown", shim.task.shutdown(&bundle.id)).await?.ok();
        self.bury_unborn(bundle).await
    }

    /// The `delete` command and the bundle's end for a container that never came to be. containerd's own
    /// shim fails the command when Create did not come as far as writing its files; containerd goes on.
    pub async fn bury_unborn(&self, bundle: &Bundle) -> Result<()> {
        let finished = self.caller.delete_raw(&self.scratch, bundle).await?;
        if !finished.status.success() && !self.under_test.reference {
            bail!("delete of {} failed ({}): {}", bundle.id, finished.status, finished.errors());
        }
        bundle.remove()
    }

    /// Kills the shim with SIGKILL and awaits its end.
    pub async fn kill_shim(&self, shim: &Shim) -> Result<()> {
        let process = Process::open(shim.pid).context("the shim is gone already")?;
        process.signal(libc::SIGKILL);
        process.exited().await
    }

    /// Cleans up after a dead shim as containerd does: the `delete` command, then the bundle.
    pub async fn bury(&self, bundle: &Bundle) -> Result<api::DeleteResponse> {
        let response = self.caller.delete(&self.scratch, bundle).await?;
        bundle.remove()?;
        Ok(response)
    }

    /// Names everything of this trial that is still on the machine.
    pub async fn assert_nothing_left(&self) -> Result<()> {
        leaks::assert_nothing_left(&self.scratch).await
    }
}
