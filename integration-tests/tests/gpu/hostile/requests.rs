//! Requests that were made to flood, to mislead or to pass for another's.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::given::Device;
use integration_tests::gpu::evil::{Canary, has_exactly_its_gpu};
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use integration_tests::machine;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::{fifo, link};

/// The longest that a refusal may be: the kubelet shows it in an event.
const WORDS: usize = 2000;

/// Whether a terminal shows something else for it than itself.
fn is_unseen(one: char) -> bool {
    one.is_control()
        || matches!(one, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// That a pod with these annotations gets no GPU, in few words and plain characters, and that what serves the pod lives on.
fn is_refused(kubelet: &Kubelet, annotations: &[(&str, &str)], container: &str) -> Result<String> {
    let pod = kubelet.pod(annotations)?;
    let shim = pod.shim_of(&pod.id)?.pid;
    let words = kubelet.refused(&pod, container, |config| config.log_path = "log".to_owned())?;
    ensure!(words.len() < WORDS, "{} bytes of words", words.len());
    ensure!(!words.chars().any(is_unseen), "{words:?}");
    ensure!(machine::process(shim).is_some_and(|row| row.state != 'Z'), "the pod's shim died");
    pod.remove(&[])?;
    Ok(words)
}

pub fn annotations_that_flood(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "t4", TRUSTED)?;
    let long = "1".repeat(1 << 20);
    for key in [
        "berth.dev/gpus",
        "berth.dev/devices",
        "berth.dev/driver-capabilities",
        "berth.dev/nothing",
    ] {
        let words = is_refused(&kubelet, &[(key, &long)], "web")?;
        ensure!(words.contains(key), "{words}");
    }
    let key = format!("berth.dev/{long}");
    is_refused(&kubelet, &[(&key, "1")], "web")?;
    let keys: Vec<String> = (0..10_000).map(|number| format!("berth.dev/key{number}")).collect();
    let many: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "1")).collect();
    is_refused(&kubelet, &many, "web")?;
    // Those of other containers are theirs, and are kept nowhere.
    let keys: Vec<String> = (0..10_000).map(|number| format!("c{number}.berth.dev/gpus")).collect();
    let mut many: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), &long[..8])).collect();
    many.push(("berth.dev/gpus", "1"));
    let pod = kubelet.pod(&many)?;
    let id = pod.run("web", &SLEEP)?;
    let grant = kubelet.only_grant()?;
    kubelet.has_exactly(&id, &grant)?;
    ensure!(grant.to_string().len() < 10_000, "{grant:#}");
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

pub fn values_that_look_like_others(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "t4", TRUSTED)?;
    for value in [
        "",
        " 1",
        "1\n",
        "1\0",
        "+1",
        "1e0",
        "0x1",
        "\u{ff11}",
        "\u{661}",
        "1\u{200b}",
        "\u{202e}1",
        "-1",
        "18446744073709551617",
        "\x1b[2J1",
    ] {
        let words = is_refused(&kubelet, &[("berth.dev/gpus", value)], "web")?;
        ensure!(words.contains("berth.dev/gpus="), "{value:?}: {words}");
    }
    for key in ["berth.dev/gpus\0", "berth.dev/g\u{440}us", "berth.dev/", "web.berth.dev/GPUS"] {
        is_refused(&kubelet, &[(key, "1")], "web")?;
    }
    kubelet.node.is_free()
}

/// A container's name is part of a key and of what is shown, and of no path.
pub fn names_that_are_paths(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "t4", TRUSTED)?;
    let canary = kubelet.node.path("canary");
    fs::create_dir(&canary)?;
    let out = format!("../../../../../../../..{}/made", canary.display());
    for name in [
        out.as_str(),
        "..",
        "/etc",
        "a b",
        "x\u{1b}[2J",
        "x\n- forged",
        "\u{202e}x",
        &"n".repeat(4096),
    ] {
        let key = format!("{name}.berth.dev/gpus");
        // containerd passes on what its pattern matches: a key with one slash.
        let pod = kubelet.pod(&[("berth.dev/gpus", "1"), (&key, "1")])?;
        let Ok(id) = pod.create(name, &SLEEP, |config| config.log_path = "log".to_owned()) else {
            continue;
        };
        if kubelet.cri.start_container(&id).is_ok() {
            let grant = kubelet.only_grant()?;
            kubelet.has_exactly(&id, &grant)?;
            for command in [&["ps"][..], &["explain", grant["grant"].as_str().unwrap_or_default()]]
            {
                let shown = kubelet.node.berth(command)?;
                let plain = |text: &str| !text.chars().any(|one| is_unseen(one) && one != '\n');
                ensure!(plain(&shown.out) && plain(&shown.err), "{command:?}: {shown:?}");
                ensure!(
                    !shown.out.lines().any(|line| line.starts_with("- forged")),
                    "{command:?}: {shown:?}"
                );
            }
        }
        pod.remove(&[&id])?;
        ensure!(canary.read_dir()?.next().is_none(), "{name:?}: something was made outside");
        kubelet.node.is_free()?;
    }
    Ok(())
}

/// A node under the name of one GPU with the number of another: what is held is what can be opened.
pub fn an_injected_node_that_lies(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let pod = kubelet.pod(&[])?;
    let lie = kubelet.node.path("lie");
    mknod(&lie, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(195, 3))?;
    let inject = |name: &str, path: &str| {
        let device = Device {
            host_path: lie.to_string_lossy().into_owned(),
            container_path: path.to_owned(),
            permissions: "rw".to_owned(),
        };
        let id = pod.create(name, &SLEEP, |config| config.devices.push(device))?;
        let started = kubelet.cri.start_container(&id);
        Ok::<_, anyhow::Error>((id, started))
    };
    // What opens is the number's; that the name stands there too is the caller's own doing.
    let (id, started) = inject("renumbered", "/dev/nvidia0")?;
    started?;
    let grant = kubelet.grant_of(&id)?;
    let [given] = uuids(&grant)[..] else { anyhow::bail!("{grant:#}") };
    ensure!(given == kubelet.uuid(3)?, "{grant:#}");
    let inside = kubelet.inside(&id)?;
    ensure!(inside.open == BTreeSet::from([3]), "{inside:#?}");
    ensure!(
        inside.env["NVIDIA_VISIBLE_DEVICES"] == given && inside.shown.len() == 1,
        "{inside:#?}"
    );
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// A sandbox's id is CRI's to set. Who sets it elsewhere gets a GPU of its own and none of that pod's.
pub fn a_forged_sandbox_shares_nothing(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "t4", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let id = pod.run("web", &SLEEP)?;
    let grant = kubelet.only_grant()?;
    let sandbox = format!("io.kubernetes.cri.sandbox-id={}", pod.id);
    let forged = [
        "io.kubernetes.cri.container-type=container",
        "io.kubernetes.cri.container-name=web",
        "io.kubernetes.cri.sandbox-namespace=tests",
        "io.kubernetes.cri.sandbox-name=forged",
        &sandbox,
        "berth.dev/gpus=1",
    ];
    let flags: Vec<&str> = forged.iter().flat_map(|one| ["--annotation", one]).collect();
    let task = integration_tests::containerd::task::Task::detached(
        &kubelet.containerd,
        "forged",
        &flags,
        &SLEEP,
    )?;
    let own = kubelet.grant_of(&task.id)?;
    ensure!(own["gpus"] != grant["gpus"] && kubelet.grant_of(&id)? == grant, "{own:#}\n{grant:#}");
    task.end()?;
    kubelet.node.berth(&["reconcile"])?;
    ensure!(kubelet.only_grant()? == grant, "the pod's own stays, and no other");
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

fn spec(device: &str, edits: &str) -> String {
    format!(
        r#"{{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{{"name":"{device}","containerEdits":{edits}}}]}}"#
    )
}

/// What stands among the CDI specs and is none, and a spec that gives more than a device.
pub fn cdi_files_that_are_traps(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let canary = Canary::plant(&world)?;
    let folder = world.node.path("cdi");
    fs::create_dir_all(folder.join("folder.json"))?;
    fifo(&folder, "fifo.json")?;
    link(&folder, "elsewhere.json", &canary.at("secret"))?;
    link(&folder, "loop.yaml", "loop.yaml")?;
    link(&folder, "endless.json", "/dev/zero")?;
    fs::File::create(folder.join("large.json"))?.set_len(1 << 40)?;
    let bomb: String =
        (0..30).map(|n| format!("a{n}: &a{n} [*a{p}, *a{p}]\n", p = n.max(1) - 1)).collect();
    fs::write(folder.join("bomb.yaml"), bomb)?;
    fs::write(folder.join("deep.json"), "[".repeat(1 << 20))?;
    fs::write(folder.join("deep.yaml"), "- ".repeat(1 << 18))?;
    let edits = r#"{"deviceNodes":[{"path":"/dev/nvidia0","hostPath":"/dev/nvidia0"}]}"#;
    fs::write(folder.join("good.json"), spec("good", edits))?;
    let ask = |name: &str| format!("cdi.k8s.io/trap=nvidia.com/gpu={name}");
    let task = world.sleeper(&["--null-io", "--annotation", &ask("good")])?;
    has_exactly_its_gpu(&world, &task)?;
    task.end()?;
    let hook = r#"{"hooks":[{"hookName":"createContainer","path":"/bin/false"}]}"#;
    fs::write(folder.join("hook.json"), spec("hook", hook))?;
    fs::write(
        folder.join("file.json"),
        spec("file", &edits.replace("/dev/nvidia0\"}", "/usr\"}")),
    )?;
    for name in ["hook", "file", "nowhere", "../../x"] {
        refused(&world, &ask(name)).with_context(|| name.to_owned())?;
    }
    canary.is_unharmed()?;
    world.node.is_free()
}

fn refused(world: &World, annotation: &str) -> Result<()> {
    let task = integration_tests::containerd::task::Task::named(&world.containerd, "refused");
    let said = task.foreground(
        integration_tests::containerd::task::BERTH,
        &["--annotation", annotation],
        &["true"],
    )?;
    ensure!(said.code() != 0 && said.err.len() < WORDS + 1000, "{} {said:?}", said.err.len());
    task.removed()?;
    world.node.is_free()
}

/// The asker's request stays its own where its root is the node's own.
pub fn the_node_s_own_root_is_not_dressed(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let root = world.node.root();
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/ld.so.cache"), b"")?;
    let canary = Canary::plant(&world)?;
    let task = integration_tests::containerd::task::Task::named(&world.containerd, "own");
    let task = task.of(&root.to_string_lossy());
    let flags = [&ONE_GPU[..], &["--rootfs"]].concat();
    let said = task.foreground(integration_tests::containerd::task::BERTH, &flags, &["true"])?;
    ensure!(said.code() != 0 && said.err.contains("the node's own root"), "{said:?}");
    task.removed()?;
    ensure!(Path::new(&root).join("etc/ld.so.cache").metadata()?.len() == 0, "it was written");
    canary.is_unharmed()?;
    world.node.is_free()
}
