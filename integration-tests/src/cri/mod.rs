//! A client of the container runtime interface: what the kubelet asks of containerd, over gRPC on
//! its socket.
//!
//! Decides how a call is made and how long it may take. What a pod is made of is [`pod`]'s
//! business.

pub mod given;
pub mod messages;
pub mod pod;
pub mod statistics;
pub mod streaming;

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::deadline::STUCK;
use crate::{images, wait};
use messages::{
    ContainerStatus, ContainerStatusResponse, CreateContainerRequest, Empty, ExecSyncRequest,
    ExecSyncResponse, Id, ImageSpec, ImageStatusRequest, ImageStatusResponse,
    LinuxContainerResources, PodSandboxStatusResponse, RunPodSandboxRequest, StatusResponse,
    StopContainerRequest, UpdateContainerResourcesRequest,
};
use statistics::ContainerStatsResponse;
use streaming::{AttachRequest, ExecRequest, Url};

/// A connection to containerd's CRI plugin, for callers that block. It dials again by itself after
/// a restart.
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects to `socket` and waits until the plugin serves and knows the test images.
    ///
    /// # Errors
    /// When it does not within the deadline.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start a runtime for gRPC")?;
        let socket = socket.to_path_buf();
        let dial = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = {
            let _entered = runtime.enter();
            Endpoint::from_static("http://cri").connect_with_connector_lazy(dial)
        };
        let cri = Self { runtime, channel };
        cri.wait_until_ready()?;
        Ok(cri)
    }

    /// Waits until the plugin serves and knows the test images, as after a restart.
    ///
    /// # Errors
    /// When it does not within the deadline.
    pub fn wait_until_ready(&self) -> Result<()> {
        let mut last = String::new();
        wait::until("the CRI plugin", || match self.status() {
            Ok(answer) => {
                let conditions = answer.status.unwrap_or_default().conditions;
                last = format!("{conditions:?}");
                conditions.iter().any(|one| one.kind == "RuntimeReady" && one.status).then_some(())
            }
            Err(status) => {
                last = status.to_string();
                None
            }
        })
        .with_context(|| format!("it last said: {last}"))?;
        for name in [images::BUSYBOX, images::PAUSE] {
            wait::until("an image in the CRI plugin", || {
                self.image_status(name).ok().and_then(|answer| answer.image)
            })?;
        }
        Ok(())
    }

    /// Status of the runtime.
    pub fn status(&self) -> Result<StatusResponse, Status> {
        self.call("/runtime.v1.RuntimeService/Status", Empty {})
    }

    /// Status of an image; without one where there is none.
    pub fn image_status(&self, name: &str) -> Result<ImageStatusResponse, Status> {
        let image = Some(ImageSpec { image: name.to_owned() });
        self.call("/runtime.v1.ImageService/ImageStatus", ImageStatusRequest { image })
    }

    /// Starts a pod's sandbox and gives its id.
    pub fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<String, Status> {
        self.call::<_, Id>("/runtime.v1.RuntimeService/RunPodSandbox", request).map(|pod| pod.id)
    }

    /// Stops a pod and its containers.
    pub fn stop_pod_sandbox(&self, id: &str) -> Result<(), Status> {
        self.tell("/runtime.v1.RuntimeService/StopPodSandbox", id)
    }

    /// Removes a stopped pod.
    pub fn remove_pod_sandbox(&self, id: &str) -> Result<(), Status> {
        self.tell("/runtime.v1.RuntimeService/RemovePodSandbox", id)
    }

    /// Status of a pod.
    pub fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse, Status> {
        self.call("/runtime.v1.RuntimeService/PodSandboxStatus", Id { id: id.to_owned() })
    }

    /// Creates a container and gives its id.
    pub fn create_container(&self, request: CreateContainerRequest) -> Result<String, Status> {
        let path = "/runtime.v1.RuntimeService/CreateContainer";
        self.call::<_, Id>(path, request).map(|container| container.id)
    }

    /// Starts a created container.
    pub fn start_container(&self, id: &str) -> Result<(), Status> {
        self.tell("/runtime.v1.RuntimeService/StartContainer", id)
    }

    /// Stops a container: its stop signal, then SIGKILL after `timeout` seconds.
    pub fn stop_container(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout };
        self.call::<_, Empty>("/runtime.v1.RuntimeService/StopContainer", request).map(drop)
    }

    /// Removes a container.
    pub fn remove_container(&self, id: &str) -> Result<(), Status> {
        self.tell("/runtime.v1.RuntimeService/RemoveContainer", id)
    }

    /// Status of a container.
    pub fn container_status(&self, id: &str) -> Result<ContainerStatus, Status> {
        let path = "/runtime.v1.RuntimeService/ContainerStatus";
        let answer: ContainerStatusResponse = self.call(path, Id { id: id.to_owned() })?;
        answer.status.ok_or_else(|| Status::internal("a container status without a status"))
    }

    /// Statistics of a container.
    pub fn container_stats(&self, id: &str) -> Result<ContainerStatsResponse, Status> {
        self.call("/runtime.v1.RuntimeService/ContainerStats", Id { id: id.to_owned() })
    }

    /// Changes a container's resources.
    pub fn update(&self, id: &str, resources: LinuxContainerResources) -> Result<(), Status> {
        let request =
            UpdateContainerResourcesRequest { container_id: id.to_owned(), linux: Some(resources) };
        let path = "/runtime.v1.RuntimeService/UpdateContainerResources";
        self.call::<_, Empty>(path, request).map(drop)
    }

    /// Runs a command in a container to its end, for at most `timeout` seconds (0: no limit).
    pub fn exec_sync(
        &self,
        id: &str,
        cmd: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, Status> {
        let cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        self.call("/runtime.v1.RuntimeService/ExecSync", request)
    }

    /// Where a command's streams can be had.
    pub fn exec(&self, request: ExecRequest) -> Result<String, Status> {
        self.call::<_, Url>("/runtime.v1.RuntimeService/Exec", request).map(|answer| answer.url)
    }

    /// Where a container's streams can be had.
    pub fn attach(&self, request: AttachRequest) -> Result<String, Status> {
        self.call::<_, Url>("/runtime.v1.RuntimeService/Attach", request).map(|answer| answer.url)
    }

    /// Waits until the container has exited, and gives its last status.
    ///
    /// # Errors
    /// When it does not, or its status cannot be had.
    pub fn exited(&self, id: &str) -> Result<ContainerStatus> {
        let mut last = Err(anyhow!("never asked"));
        let exited = wait::until("a container's exit", || {
            let status = self.container_status(id);
            let done = status.as_ref().is_ok_and(|status| status.state == messages::EXITED);
            last = status.map_err(anyhow::Error::from);
            done.then_some(())
        });
        exited.with_context(|| format!("last seen: {last:?}"))?;
        last
    }

    fn tell(&self, path: &'static str, id: &str) -> Result<(), Status> {
        self.call::<_, Empty>(path, Id { id: id.to_owned() }).map(drop)
    }

    fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer = async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let path = path.parse().map_err(|_| Status::internal("a malformed method name"))?;
            grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await
        };
        self.runtime.block_on(async {
            match tokio::time::timeout(STUCK, answer).await {
                Ok(answer) => answer.map(tonic::Response::into_inner),
                Err(_) => Err(Status::new(Code::Cancelled, format!("stuck: {path}"))),
            }
        })
    }
}
