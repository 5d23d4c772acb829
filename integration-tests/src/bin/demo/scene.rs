//! The acts of the demo: containers through ctr, a pod through CRI, a refusal, a killed shim.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::{Containerd, leftovers, unique};
use integration_tests::cri::Cri;
use integration_tests::cri::pod::Pod;
use integration_tests::gpu::Berth;
use integration_tests::images::glibc::Layout;
use integration_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{all_returned, fact, inside, lines, short, step};

/// Where it plays.
pub struct Scene<'a> {
    pub node: &'a Berth,
    pub containerd: &'a Containerd,
    pub cri: &'a Cri,
    pub simulated: bool,
    /// The CPU that is set aside for whoever asks for one; none where the machine has no second.
    pub spare_cpu: Option<usize>,
}

impl Scene<'_> {
    /// All acts in order. Afterwards nobody holds a GPU.
    pub fn play(&self) -> Result<()> {
        let gpus = self.count()?;
        let one = self.container("one GPU through ctr", &["berth.dev/gpus=1"])?;
        inside::look(&|question| self.ask(&one, question), gpus, self.simulated)?;
        let mut held = vec![one];
        if gpus >= 4 {
            let two = self.container("two GPUs, close to each other", &["berth.dev/gpus=2"])?;
            inside::glance(&|question| self.ask(&two, question), gpus)?;
            self.berth(&["explain", &two])?;
            held.push(two);
            self.pod(gpus)?;
        } else {
            step("Left out: a container with two GPUs, and a pod of two containers that share one");
            fact(&format!("they need 4 GPUs, and this node has {gpus}"));
        }
        if self.simulated {
            for profile in ["1g.10gb", "3g.40gb"] {
                held.push(self.slice(profile)?);
            }
        }
        held.extend(self.own_cpu(gpus)?);
        self.too_many(gpus + 1)?;
        step("berth ps: who holds what");
        self.berth(&["ps"])?;
        step("berth topo --map: who sits where");
        self.berth(&["topo", "--map"])?;
        let victim = held.remove(0);
        self.kill_shim(&victim)?;
        step("Deleting what is left");
        for id in held {
            self.end(&id)?;
        }
        all_returned(self.node)?;
        self.berth(&["ps"])
    }

    fn count(&self) -> Result<usize> {
        Ok(self.node.json(&["topo"])?["gpus"].as_array().map_or(0, Vec::len))
    }

    fn berth(&self, arguments: &[&str]) -> Result<()> {
        let said = self.node.berth(arguments)?;
        ensure!(said.code() == 0, "berth {arguments:?} failed: {}", said.err);
        lines(&said.out);
        Ok(())
    }

    /// Runs a container in the background; its id and what ctr said on standard error.
    fn run(&self, annotations: &[&str]) -> Result<(Option<String>, String)> {
        let id = unique("demo");
        let ctr = self.containerd.ctr();
        let image = Layout::Debian.name();
        let arguments = ["run", "--detach", "--runtime", "io.containerd.berth.v2"];
        let asked: Vec<&str> = annotations.iter().flat_map(|one| ["--annotation", *one]).collect();
        let more = [image, &id, "sleep", "100000"];
        let said = ctr.run(&[&arguments[..], &asked, &more].concat())?;
        if said.code() == 0 {
            return Ok((Some(id), said.err));
        }
        // ctr keeps the container's metadata when its task was refused.
        ctr.run(&["containers", "delete", &id])?;
        Ok((None, said.err))
    }

    fn container(&self, what: &str, annotations: &[&str]) -> Result<String> {
        let asked = annotations.join(" --annotation ");
        step(&format!("{what}: ctr run --runtime io.containerd.berth.v2 --annotation {asked} …"));
        let (id, words) = self.run(annotations)?;
        let id = id.with_context(|| format!("ctr run: {words}"))?;
        self.containerd.note_socket(self.containerd.namespace(), &id);
        fact(&format!("container {id}"));
        Ok(id)
    }

    /// A container with a MIG instance that is made for it.
    fn slice(&self, profile: &str) -> Result<String> {
        let asked = format!("berth.dev/mig={profile}");
        let id = self.container("a MIG instance, made for its container", &[&asked])?;
        for (what, question) in [
            ("devices", "ls /dev | grep nvidia | xargs"),
            ("in nvidia-caps", "ls /dev/nvidia-caps | xargs"),
            ("NVIDIA_VISIBLE_DEVICES", "echo $NVIDIA_VISIBLE_DEVICES"),
        ] {
            fact(&format!("{what}: {}", self.ask(&id, question)?.trim_end()));
        }
        lines(&self.ask(&id, "nvidia-smi -L")?);
        Ok(id)
    }

    /// A container with a CPU of its own, where the machine has as much to give.
    fn own_cpu(&self, gpus: usize) -> Result<Option<String>> {
        let Some(cpu) = self.spare_cpu else {
            step("Left out: a container with a CPU of its own");
            fact("this machine has one CPU, and all else must run somewhere");
            return Ok(None);
        };
        let (what, asked) = match (self.simulated, gpus) {
            (true, _) => ("a MIG instance", "berth.dev/mig=2g.20gb"),
            (false, 2..) => ("a GPU", "berth.dev/gpus=1"),
            (false, _) => {
                step("Left out: a container with a CPU of its own");
                fact("its GPU would be a second one, and this node has one");
                return Ok(None);
            }
        };
        let id =
            self.container(&format!("{what}, and a CPU of its own"), &[asked, "berth.dev/cpus=1"])?;
        fact(&format!("set aside by the operator: node.exclusive-cpus = \"{cpu}\""));
        let question = "grep Cpus_allowed_list /proc/self/status | cut -f2";
        let own = self.ask(&id, question)?;
        fact(&format!("its CPUs, from inside (Cpus_allowed_list): {}", own.trim_end()));
        ensure!(own.trim_end() == cpu.to_string(), "it has CPUs {own}, not {cpu}");
        fact(&format!("nproc: {}", self.ask(&id, "nproc")?.trim_end()));
        Ok(Some(id))
    }

    /// What a container's shell says to a question.
    fn ask(&self, id: &str, question: &str) -> Result<String> {
        let exec = unique("look");
        let arguments = ["task", "exec", "--exec-id", &exec, id, "sh", "-c", question];
        let said = self.containerd.ctr().run(&arguments)?;
        Ok(said.out + &said.err)
    }

    /// More GPUs than the node has.
    fn too_many(&self, gpus: usize) -> Result<()> {
        step("A request that cannot be met is refused, with every candidate named");
        let (id, words) = self.run(&[&format!("berth.dev/gpus={gpus}")])?;
        ensure!(id.is_none(), "{gpus} GPUs were given, and there are not as many");
        ensure!(words.contains(&format!("berth: no room for gpus {gpus}: ")), "{words}");
        lines(words.trim_end());
        Ok(())
    }

    /// A pod of two containers that share one claim, removed again.
    fn pod(&self, gpus: usize) -> Result<()> {
        step("A pod of two containers that share one claim, as the kubelet would make it");
        let pod = Pod::start(self.containerd, self.cri, "berth", |config| {
            config.annotations.insert("berth.dev/gpus".into(), "1".into());
        })?;
        let mut ids = Vec::new();
        for name in ["trainer", "watcher"] {
            // CRI passes the pod's annotations on to each container.
            let id = pod.run(name, &["sleep", "100000"])?;
            fact(&format!("container {} ({name})", short(&id)));
            let ask = |question: &str| {
                let said = self.cri.exec_sync(&id, &["sh", "-c", question], 0)?;
                Ok(String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
            };
            inside::glance(&ask, gpus)?;
            ids.push(id);
        }
        self.berth(&["ps"])?;
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        pod.remove(&ids)?;
        fact("the pod is removed");
        Ok(())
    }

    fn kill_shim(&self, id: &str) -> Result<()> {
        step("kill -9 of a shim: containerd cleans up, and the GPU comes back");
        let pid = u32::try_from(self.containerd.ctr().task_pid(id)?)?;
        let shim = leftovers::shim_of(self.containerd, pid)?;
        fact(&format!("killing pid {}: {}", shim.pid, shim.command));
        kill(Pid::from_raw(i32::try_from(shim.pid)?), Signal::SIGKILL)?;
        wait::until("the grant's end", || {
            let held = self.node.grants().ok()?;
            let still = held.iter().any(|grant| grant["sandbox"] == id);
            (!still).then_some(())
        })?;
        fact("its GPU is free again");
        self.containerd.ctr().run(&["task", "delete", "--force", id])?;
        self.containerd.ctr().run(&["containers", "delete", id])?;
        leftovers::none_of(self.containerd, self.containerd.namespace(), id)?;
        fact("no process, mount or cgroup of its container is left");
        Ok(())
    }

    fn end(&self, id: &str) -> Result<()> {
        let ctr = self.containerd.ctr();
        ctr.ok(&["task", "delete", "--force", id])?;
        ctr.ok(&["containers", "delete", id])?;
        fact(&format!("{id} is deleted"));
        Ok(())
    }
}
