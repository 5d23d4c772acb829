//! OCI bundles as containerd writes them: a folder with config.json and `rootfs`. Decides what the
//! suites' config.json says. Must not know shims.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A config.json in the making. Every method changes one thing that a trial is about.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The document; trials may reach in for what has no method.
    pub json: Value,
}

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

impl Spec {
    /// A container that runs `args` on the root file system at `root` (absolute, or relative to the bundle).
    pub fn new(root: &str, cgroup: &str, args: &[&str]) -> Spec {
        let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
        Spec {
            json: json!({
                "ociVersion": "1.0.2",
                "process": {
                    "user": {"uid": 0, "gid": 0},
                    "args": args,
                    "env": ["PATH=/bin", "HOME=/root"],
                    "cwd": "/",
                    "capabilities": {
                        "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
                    },
                    "noNewPrivileges": true,
                },
                "root": {"path": root},
                "hostname": "berth-trial",
                "mounts": [
                    mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
                    mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                    mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                    mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                    mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                ],
                "linux": {
                    "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                    "cgroupsPath": cgroup,
                    "namespaces": [
                        {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                    ],
                    "maskedPaths": ["/proc/kcore"],
                    "readonlyPaths": ["/proc/sys"],
                },
            }),
        }
    }

    /// Sets the container's arguments.
    pub fn args(mut self, args: &[&str]) -> Spec {
        self.json["process"]["args"] = json!(args);
        self
    }

    /// Adds `NAME=value`.
    pub fn env(mut self, entry: &str) -> Spec {
        self.list("/process/env").push(json!(entry));
        self
    }

    /// Gives the process a terminal.
    pub fn terminal(mut self) -> Spec {
        self.json["process"]["terminal"] = json!(true);
        self
    }

    /// Adds an annotation.
    pub fn annotation(mut self, name: &str, value: &str) -> Spec {
        self.json["annotations"][name] = json!(value);
        self
    }

    /// Joins the pod `sandbox` by the annotation that the CRI plugin writes.
    pub fn in_pod(self, sandbox: &str) -> Spec {
        self.annotation("io.kubernetes.cri.sandbox-id", sandbox)
    }

    /// Leaves the container in the host's PID namespace, with the host's /proc as CRI gives it.
    pub fn host_pid(mut self) -> Spec {
        self.list("/linux/namespaces").retain(|namespace| namespace["type"] != "pid");
        for mount in self.list("/mounts") {
            if mount["destination"] == "/proc" {
                *mount = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "nosuid", "noexec", "nodev"]});
            }
        }
        self
    }

    /// Joins the PID namespace at `path` (`/proc/<pid>/ns/pid`).
    pub fn shared_pid(mut self, path: &str) -> Spec {
        for namespace in self.list("/linux/namespaces") {
            if namespace["type"] == "pid" {
                namespace["path"] = json!(path);
            }
        }
        self
    }

    /// Adds a user namespace in which root is `host_id`, 65,536 ids long.
    pub fn user_namespace(mut self, host_id: u32) -> Spec {
        self.list("/linux/namespaces").push(json!({"type": "user"}));
        let mapping = json!([{"containerID": 0, "hostID": host_id, "size": 65536}]);
        self.json["linux"]["uidMappings"] = mapping.clone();
        self.json["linux"]["gidMappings"] = mapping;
        self
    }

    /// Limits memory, in bytes, swap included.
    pub fn memory_limit(mut self, bytes: u64) -> Spec {
        self.json["linux"]["resources"]["memory"] = json!({"limit": bytes, "swap": bytes});
        self
    }

    /// Makes the root file system read-only.
    pub fn read_only(mut self) -> Spec {
        self.json["root"]["readonly"] = json!(true);
        self
    }

    /// Adds a bind mount of the host's `source`.
    pub fn bind(mut self, source: &Path, target: &str) -> Spec {
        self.list("/mounts").push(json!({"destination": target, "type": "bind", "source": source, "options": ["rbind", "rw"]}));
        self
    }

    /// The process part alone, as containerd sends it with Exec, running `args`.
    pub fn exec_process(&self, args: &[&str]) -> Value {
        let mut process = self.json["process"].clone();
        process["args"] = json!(args);
        process["terminal"] = json!(false);
        process
    }

    fn list(&mut self, pointer: &str) -> &mut Vec<Value> {
        self.json.pointer_mut(pointer).and_then(Value::as_array_mut).expect("new() made this list")
    }
}

/// A bundle on disk.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The container's id.
    pub id: String,
    /// The folder.
    pub path: PathBuf,
}

impl Bundle {
    /// Makes the folder `bundles/<id>` with an empty rootfs and, if given, a config.json.
    pub fn create(bundles: &Path, id: &str, spec: Option<&Spec>) -> Result<Bundle> {
        let path = bundles.join(id);
        fs::create_dir_all(path.join("rootfs"))
            .with_context(|| format!("making {}", path.display()))?;
        // containerd's link to where a shim may keep what is large: its own shim lets criu work there.
        fs::create_dir_all(path.join("work"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        if let Some(spec) = spec {
            fs::write(path.join("config.json"), serde_json::to_vec(&spec.json)?)?;
        }
        Ok(Bundle { id: id.to_string(), path })
    }

    /// The path of config.json.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// The path of the folder that Create's mounts go to.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Removes the folder as containerd does after a delete. Fails on a file system still mounted there.
    pub fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}
