//! A pod as the kubelet would make it: a sandbox on the host's network and containers in it,
//! removed when dropped.
//!
//! Decides names, cgroup parent and log files. Must not know which shim serves it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tonic::Status;

use super::Cri;
use super::messages::{
    CONTAINER, ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NODE, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RunPodSandboxRequest,
};
use crate::containerd::leftovers::{self, none_of};
use crate::containerd::{CRI_NAMESPACE, Containerd, unique};
use crate::images;
use crate::machine::ProcessRow;

/// A running pod.
pub struct Pod<'a> {
    /// Its sandbox's id.
    pub id: String,
    containerd: &'a Containerd,
    cri: &'a Cri,
    config: PodSandboxConfig,
}

impl<'a> Pod<'a> {
    /// Starts a pod with `handler`; `adjust` may change its configuration first.
    ///
    /// # Errors
    /// When its log folder cannot be made, or containerd refuses the pod.
    pub fn start(
        containerd: &'a Containerd,
        cri: &'a Cri,
        handler: &str,
        adjust: impl FnOnce(&mut PodSandboxConfig),
    ) -> Result<Self> {
        let name = unique("pod");
        let logs = containerd.scratch.folder(format!("logs/{name}"))?;
        let mut config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                uid: name.clone(),
                namespace: "tests".to_owned(),
                name,
                attempt: 0,
            }),
            hostname: String::new(),
            log_directory: logs.to_string_lossy().into_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", containerd.scratch.cgroup()),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxSandboxSecurityContext::default()
                }),
            }),
            ..PodSandboxConfig::default()
        };
        adjust(&mut config);
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let id = cri.run_pod_sandbox(request).with_context(|| {
            format!("run a pod; containerd's log ends:\n{}", containerd.log_tail())
        })?;
        containerd.note_socket(CRI_NAMESPACE, &id);
        Ok(Self { id, containerd, cri, config })
    }

    /// Creates, but does not start, a container that runs `command`; `adjust` may change its
    /// configuration first.
    pub fn create(
        &self,
        name: &str,
        command: &[&str],
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String, Status> {
        let mut config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: images::BUSYBOX.to_owned() }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: None,
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxContainerSecurityContext::default()
                }),
            }),
            ..ContainerConfig::default()
        };
        adjust(&mut config);
        self.cri.create_container(CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        })
    }

    /// Creates and starts a container that runs `command`, and gives its id.
    ///
    /// # Errors
    /// When either fails.
    pub fn run(&self, name: &str, command: &[&str]) -> Result<String> {
        self.run_adjusted(name, command, |_| ())
    }

    /// As [`Self::run`]; `adjust` may change the container's configuration first.
    ///
    /// # Errors
    /// When either fails.
    pub fn run_adjusted(
        &self,
        name: &str,
        command: &[&str],
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String> {
        let id = self.create(name, command, adjust)?;
        self.cri.start_container(&id)?;
        Ok(id)
    }

    /// Its name, which is its UID too.
    pub fn name(&self) -> &str {
        self.config.metadata.as_ref().map_or("", |metadata| &metadata.name)
    }

    /// What the log file of container `name` holds so far.
    pub fn log(&self, name: &str) -> String {
        let path = PathBuf::from(&self.config.log_directory).join(format!("{name}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// The bundle of the pod's container, or of its sandbox, with this id.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.containerd.bundles(CRI_NAMESPACE).join(id)
    }

    /// The first process of the pod's container, or of its sandbox, with this id.
    ///
    /// # Errors
    /// When it has none.
    pub fn pid_of(&self, id: &str) -> Result<u32> {
        let pid = self.containerd.ctr_in(CRI_NAMESPACE).task_pid(id)?;
        u32::try_from(pid).context("a task's pid")
    }

    /// The shim that serves the container with this id.
    ///
    /// # Errors
    /// When there is none.
    pub fn shim_of(&self, id: &str) -> Result<ProcessRow> {
        leftovers::shim_of(self.containerd, self.pid_of(id)?)
    }

    /// Stops and removes the pod, and makes sure that nothing of it is left. `containers` are the
    /// ids it had.
    ///
    /// # Errors
    /// When containerd refuses, or something is left.
    pub fn remove(self, containers: &[&str]) -> Result<()> {
        self.cri.stop_pod_sandbox(&self.id)?;
        self.cri.remove_pod_sandbox(&self.id)?;
        for id in containers.iter().chain([&self.id.as_str()]) {
            none_of(self.containerd, CRI_NAMESPACE, id)?;
        }
        Ok(())
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // A pod that was removed already is nothing to the plugin: both calls then do nothing.
        let _ = self.cri.stop_pod_sandbox(&self.id);
        let _ = self.cri.remove_pod_sandbox(&self.id);
    }
}

/// The host's network, since there is no CNI plugin; everything else of the pod's or the
/// container's own.
fn namespaces() -> NamespaceOption {
    NamespaceOption { network: NODE, pid: CONTAINER, ipc: 0 }
}
