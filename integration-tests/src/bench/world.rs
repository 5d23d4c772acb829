//! Where one side's containers live. Decides what a bench's container is: the same on both sides, but for
//! the shim. Times nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest, Mount};
use containerd_shim_protos::shim::oci::Options;
use nix::mount::{MsFlags, mount};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::bundle::{Bundle, Spec};
use crate::busybox;
use crate::deadline::{Process, within};
use crate::events::Events;
use crate::scratch::Scratch;
use crate::shim::{Caller, Reply, Shim, Start};
use crate::stdio::make_fifo;
use crate::task::any;

/// Paths of a process's streams for a request: all fifos, or all empty for null streams. (The reference
/// refuses a mixture.)
#[derive(Debug, Clone, Default)]
pub struct StreamPaths {
    /// stdin's fifo.
    pub stdin: String,
    /// stdout's fifo.
    pub stdout: String,
    /// stderr's fifo.
    pub stderr: String,
}

/// One side's world. Dropping it takes down whatever is left of it.
pub struct World {
    caller: Caller,
    env: Vec<(String, String)>,
    image: PathBuf,
    _events: Events,
    scratch: Scratch,
}

/// What containerd has made ready before it calls a shim.
pub struct Prepared {
    /// The bundle, with its config.json.
    pub bundle: Bundle,
    spec: Spec,
    create: CreateTaskRequest,
    start: Start,
    /// The reading end of the log fifo. A shim writes a few lines at most: the pipe holds them.
    _log: File,
}

/// A created container.
pub struct Container {
    /// What it was made from.
    pub prepared: Prepared,
    /// The shim that has it.
    pub shim: Shim,
}

impl World {
    /// Makes the world of the shim at `shim`, with busybox as its image.
    pub async fn new(shim: PathBuf) -> Result<World> {
        World::make(shim, Vec::new(), busybox::build, Scratch::new()?).await
    }

    /// The same with an image that `build` makes in a folder, with `env` in the shim's environment, and with its bundles and the runtime's
    /// state in memory, as on a node whose /run is a tmpfs.
    pub async fn with(
        shim: PathBuf,
        env: Vec<(String, String)>,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<World> {
        let scratch = Scratch::new()?;
        for folder in ["bundles", "runc"] {
            in_memory(&scratch.folder(folder)?)?;
        }
        World::make(shim, env, build, scratch).await
    }

    async fn make(
        shim: PathBuf,
        env: Vec<(String, String)>,
        build: impl FnOnce(&Path) -> Result<()>,
        scratch: Scratch,
    ) -> Result<World> {
        let image = scratch.folder("image")?;
        build(&image)?;
        let events = Events::listen(&scratch.path("events.sock")).await?;
        let caller = Caller {
            shim,
            namespace: "bench".to_string(),
            address: scratch.path("containerd.sock"),
            events: Some(events.address().to_string()),
        };
        Ok(World { caller, env, image, _events: events, scratch })
    }

    /// The folder for fifos and the like.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        self.scratch.folder(name)
    }

    /// A container that stays until it is killed, with null streams, in the pod `pod` if one is named.
    pub fn prepare(&self, id: &str, pod: Option<&str>) -> Result<Prepared> {
        self.prepare_with(id, pod, &["sleep", "100000"], &StreamPaths::default())
    }

    /// As [`World::prepare`], outside pods, with an annotation if one is given.
    pub fn prepare_asking(&self, id: &str, annotation: Option<(&str, &str)>) -> Result<Prepared> {
        let spec = self.spec(id, &["sleep", "100000"]);
        let spec = match annotation {
            Some((name, value)) => spec.annotation(name, value),
            None => spec,
        };
        self.prepare_spec(id, spec, &StreamPaths::default())
    }

    /// A container that runs `args`.
    pub fn prepare_with(
        &self,
        id: &str,
        pod: Option<&str>,
        args: &[&str],
        streams: &StreamPaths,
    ) -> Result<Prepared> {
        let mut spec = self.spec(id, args);
        if let Some(pod) = pod {
            spec = spec.in_pod(pod);
        }
        self.prepare_spec(id, spec, streams)
    }

    fn spec(&self, id: &str, args: &[&str]) -> Spec {
        Spec::new("rootfs", &format!("/{}/{id}", self.scratch.cgroup()), args)
    }

    /// Writes the bundle of a container whose root file system is an overlay that Create mounts, as
    /// containerd's default snapshotter hands it over.
    fn prepare_spec(&self, id: &str, spec: Spec, streams: &StreamPaths) -> Result<Prepared> {
        let bundle = Bundle::create(&self.scratch.folder("bundles")?, id, Some(&spec))?;
        let log = bundle.path.join("log");
        make_fifo(&log)?;
        let log = File::options().read(true).write(true).open(&log).context("open the log fifo")?;
        let options = self.options()?;
        let create = CreateTaskRequest {
            id: id.into(),
            bundle: bundle.path.display().to_string(),
            rootfs: vec![self.overlay(id)?],
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            options: Some(options.clone()).into(),
            ..Default::default()
        };
        let start = Start { options: Some(options), env: self.env.clone(), ..Start::default() };
        Ok(Prepared { bundle, spec, create, start, _log: log })
    }

    fn options(&self) -> Result<Any> {
        let root = self.scratch.path("runc").display().to_string();
        let options = Options { root, ..Default::default() };
        Ok(any("containerd.runc.v1.Options", options.write_to_bytes()?))
    }

    fn overlay(&self, id: &str) -> Result<Mount> {
        let upper = self.scratch.folder(format!("snapshots/{id}/fs"))?;
        let work = self.scratch.folder(format!("snapshots/{id}/work"))?;
        let mut mount = Mount::new();
        mount.type_ = "overlay".into();
        mount.source = "overlay".into();
        mount.options = vec![
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", self.image.display()),
        ];
        Ok(mount)
    }

    /// The `start` command, from its call to its exit; its reply unread.
    pub async fn start_command(&self, prepared: &Prepared) -> Result<Vec<u8>> {
        let finished = self.caller.start(&self.scratch, &prepared.bundle, &prepared.start).await?;
        let (id, said) = (&prepared.bundle.id, finished.text());
        ensure!(finished.status.success(), "start of {id} failed ({}): {said}", finished.status);
        Ok(finished.stdout)
    }

    /// Connects to the shim that gave this reply.
    pub async fn connect(&self, prepared: &Prepared, reply: &[u8]) -> Result<Shim> {
        let reply = Reply::parse(reply)?;
        self.scratch.expect_socket(reply.socket());
        Shim::connect(reply, &prepared.bundle.id).await
    }

    /// Create, in a shim that runs.
    pub async fn create(&self, prepared: Prepared, shim: Shim) -> Result<Container> {
        within("Create", shim.task.create(&prepared.create)).await??;
        Ok(Container { prepared, shim })
    }

    /// The whole way to a running container in a shim of its own.
    pub async fn run(&self, id: &str) -> Result<Container> {
        self.run_prepared(self.prepare(id, None)?).await
    }

    /// As [`World::run`], from a bundle that is there.
    pub async fn run_prepared(&self, prepared: Prepared) -> Result<Container> {
        let reply = self.start_command(&prepared).await?;
        let shim = self.connect(&prepared, &reply).await?;
        let container = self.create(prepared, shim).await?;
        container.start().await?;
        Ok(container)
    }

    /// Adds an exec, starts it, awaits its end, deletes it.
    pub async fn exec(&self, container: &Container, id: &str, args: &[&str]) -> Result<()> {
        let (task, name) = (&container.shim.task, container.id());
        within("Exec", task.exec(&container.exec_request(id, args))).await??;
        within("Start", task.start(name, id)).await??;
        let ended = within("Wait", task.wait(name, id)).await??;
        ensure!(ended.exit_status == 0, "exec {args:?} ended with {}", ended.exit_status);
        within("Delete", task.delete(name, id)).await??;
        Ok(())
    }

    /// Kills a running container, takes it down, and shuts down its shim.
    pub async fn end(&self, container: Container) -> Result<()> {
        container.kill_and_delete().await?;
        let process = Process::open(container.shim.pid);
        // The connection breaks when the shim is gone before its answer is out.
        within("Shutdown", container.shim.task.shutdown(container.id())).await?.ok();
        if let Some(process) = process {
            process.exited().await?;
        }
        self.delete_command(&container.prepared).await?;
        self.remove(&container.prepared)
    }

    /// Removes the bundle and the snapshot, as containerd does last.
    pub fn remove(&self, prepared: &Prepared) -> Result<()> {
        prepared.bundle.remove()?;
        let snapshot = self.scratch.path("snapshots").join(&prepared.bundle.id);
        fs::remove_dir_all(&snapshot).with_context(|| format!("remove {}", snapshot.display()))
    }

    /// The `delete` command, which containerd runs when the shim is gone.
    pub async fn delete_command(&self, prepared: &Prepared) -> Result<()> {
        self.caller.delete(&self.scratch, &prepared.bundle).await.map(drop)
    }
}

impl Container {
    /// The id.
    pub fn id(&self) -> &str {
        &self.prepared.bundle.id
    }

    /// Start of the init.
    pub async fn start(&self) -> Result<()> {
        within("Start", self.shim.task.start(self.id(), "")).await??;
        Ok(())
    }

    /// Kill with SIGKILL, Wait, Delete.
    pub async fn kill_and_delete(&self) -> Result<()> {
        let (task, id) = (&self.shim.task, self.id());
        within("Kill", task.kill(id, "", libc::SIGKILL as u32, false)).await??;
        within("Wait", task.wait(id, "")).await??;
        within("Delete", task.delete(id, "")).await??;
        Ok(())
    }

    /// The request that containerd would send to add an exec with null streams.
    pub fn exec_request(&self, exec: &str, args: &[&str]) -> ExecProcessRequest {
        let process = self.prepared.spec.exec_process(args).to_string().into_bytes();
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/Process";
        ExecProcessRequest {
            id: self.id().into(),
            exec_id: exec.into(),
            spec: Some(any(kind, process)).into(),
            ..Default::default()
        }
    }
}

/// Mounts a tmpfs on a folder of a scratch folder, with which it goes.
pub fn in_memory(folder: &Path) -> Result<()> {
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("mount a tmpfs on {}", folder.display()))
}

/// Milliseconds since `start`.
pub fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
