//! Joining what is held, and what is held by others: a claim is what it was, and the facts of the node decide whether it still does.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::{Result, bail, ensure};
use engine::{Admission, Denied, Rootfs};
use integration_tests::actors::{Container, Init, Place, Prepared, owner};
use integration_tests::suite::Suite;
use serde_json::{Value, json};
use simnode::Change;
use simnode::state::MigMode;

use crate::actor;

pub fn trials(suite: &mut Suite) {
    suite.plain("joins::another_image_s_requirement_is_checked_too", None, requirement);
    suite.plain("joins::a_claim_with_a_lost_gpu_is_not_joined", None, lost);
    suite.plain("joins::a_claim_is_joined_with_its_own_request_alone", None, other_request);
    suite.plain("joins::clean_up_leaves_what_still_runs", None, still_running);
    suite.plain("joins::a_sandbox_that_goes_first_frees_nothing_in_use", None, sandbox_first);
    suite.plain("joins::clean_up_waits_for_no_driver", None, hung_driver);
    suite.plain("joins::an_image_s_own_directories_are_not_covered", None, covered);
    suite.plain("joins::a_gpu_in_mig_mode_that_others_gave_as_a_whole_is_refused", None, mig);
    suite.plain("joins::a_rule_that_opens_more_than_is_given_is_privilege", None, wide_rule);
    suite.plain("joins::a_user_namespace_needs_the_node_s_own_device_nodes", None, user_namespace);
}

/// A pod with its first member, which runs.
struct World {
    place: Place,
    sandbox: Init,
    first: Init,
}

impl World {
    fn up() -> Result<Self> {
        let place = Place::up(actor(), "p5")?;
        let (sandbox, first) = (place.init()?, place.init()?);
        let world = Self { place, sandbox, first };
        let mut admission = world.join("first", "a", 2, |_| ())??;
        world.place.node.arm(&mut admission, world.first.pid(), None)?;
        Ok(world)
    }

    /// A member of the pod that asks for so many GPUs, with this in its specification.
    fn join(
        &self,
        id: &str,
        name: &str,
        gpus: u32,
        more: impl FnOnce(&mut Value),
    ) -> Result<Result<Admission, Denied>> {
        let container = Container::member(id, "pod", name, gpus);
        let prepared = self.place.prepare(&container)?;
        patch(&prepared, more)?;
        admit(&self.place, &prepared, Some(self.sandbox.pid()))
    }

    fn holds(&self, containers: &[&str]) -> Result<()> {
        let grants = self.place.grants()?;
        let [grant] = &grants[..] else { bail!("not one grant: {grants:?}") };
        let members: Vec<&str> = grant.members.iter().map(|one| one.container.as_str()).collect();
        ensure!(members == containers && grant.gpus.len() == 2, "{grant:?}");
        Ok(())
    }
}

fn patch(prepared: &Prepared, more: impl FnOnce(&mut Value)) -> Result<()> {
    let path = prepared.bundle.join("config.json");
    let mut spec = serde_json::from_slice(&fs::read(&path)?)?;
    more(&mut spec);
    Ok(fs::write(path, serde_json::to_vec(&spec)?)?)
}

fn admit(
    place: &Place,
    prepared: &Prepared,
    sandbox: Option<u32>,
) -> Result<Result<Admission, Denied>> {
    let (bundle, ask) = prepared.read()?;
    Ok(place.node.admit(&ask, &bundle, &Rootfs::default(), sandbox))
}

/// What a refusal says.
fn refused(said: Result<Admission, Denied>) -> Result<String> {
    match said {
        Err(Denied::Refused(refusal)) => Ok(refusal.to_string()),
        Err(Denied::Broken(fault)) => bail!("broken: {fault}"),
        Ok(admission) => bail!("admitted: {:?}", admission.grant()),
    }
}

fn requirement() -> Result<()> {
    let world = World::up()?;
    let needs = |spec: &mut Value| spec["process"]["env"] = json!(["NVIDIA_REQUIRE_CUDA=cuda>=99"]);
    let words = refused(world.join("second", "b", 2, needs)?)?;
    ensure!(
        words.starts_with("berth: the image needs NVIDIA_REQUIRE_CUDA=\"cuda>=99\""),
        "{words}"
    );
    world.holds(&["first"])
}

fn lost() -> Result<()> {
    let world = World::up()?;
    let gpu = world.place.grants()?[0].gpus[0].uuid.to_string();
    world.place.gpus.sim.change(Change::Lost { gpu: gpu.clone(), lost: true })?;
    fs::remove_file(world.place.boot()?.join("inventory.json"))?;
    let words = refused(world.join("second", "b", 2, |_| ())?)?;
    ensure!(
        words.starts_with(&format!("berth: {gpu}, which default/pod holds by grant ")),
        "{words}"
    );
    ensure!(words.contains("is no longer on this node"), "{words}");
    world.holds(&["first"])
}

fn other_request() -> Result<()> {
    let world = World::up()?;
    let words = refused(world.join("second", "b", 3, |_| ())?)?;
    ensure!(words.starts_with("berth: annotation berth.dev/gpus=\"3\": the grant g-"), "{words}");
    ensure!(words.contains("has already given this container GPU-"), "{words}");
    world.join("third", "c", 2, |_| ())??;
    world.holds(&["first", "third"])
}

/// A process in the driver cannot be killed: containerd's `delete` runs all the same.
fn still_running() -> Result<()> {
    let mut world = World::up()?;
    world.sandbox.kill();
    world.place.node.clean_up(owner("pod"))?;
    world.place.node.clean_up(owner("first"))?;
    world.holds(&["first"])?;
    let six = world.place.prepare(&Container::alone("other", 7))?;
    ensure!(refused(admit(&world.place, &six, None)?)?.contains("held by default/pod"), "taken");
    world.first.kill();
    world.place.node.clean_up(owner("first"))?;
    ensure!(world.place.grants()?.is_empty(), "{:?}", world.place.grants()?);
    world.place.all_can_be_had()
}

fn sandbox_first() -> Result<()> {
    let mut world = World::up()?;
    world.sandbox.kill();
    world.place.node.release(owner("pod"))?;
    world.holds(&["first"])?;
    world.first.kill();
    world.place.node.release(owner("first"))?;
    ensure!(world.place.grants()?.is_empty(), "{:?}", world.place.grants()?);
    world.place.all_can_be_had()
}

/// containerd gives its `delete` five seconds: nothing in it may look at the node, whose driver may hang.
fn hung_driver() -> Result<()> {
    let mut world = World::up()?;
    fs::remove_file(world.place.boot()?.join("inventory.json"))?;
    fs::write(world.place.gpus.path("tool"), "#!/bin/sh\nexit 1\n")?;
    ensure!(world.place.node.inventory().is_err(), "the node can be looked at");
    world.first.kill();
    world.sandbox.kill();
    world.place.node.clean_up(owner("first"))?;
    ensure!(world.place.grants()?.is_empty(), "{:?}", world.place.grants()?);
    Ok(())
}

/// An overlay shows the owner and mode of the uppermost layer that has a directory, which must stay the image's.
fn covered() -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    let layer = place.gpus.path("layer");
    fs::create_dir_all(layer.join("etc"))?;
    fs::create_dir_all(layer.join("usr/local"))?;
    let is_layered = |id: &str| {
        let prepared = place.prepare(&Container::alone(id, 1))?;
        let (bundle, ask) = prepared.read()?;
        let rootfs = Rootfs { layers: vec![layer.clone()], own: true };
        let admission = place.node.admit(&ask, &bundle, &rootfs, None)?;
        let layered = admission.layer().is_some();
        place.node.undo(admission)?;
        Ok::<_, anyhow::Error>(layered)
    };
    ensure!(is_layered("usual")?, "an image like others has the driver as a layer");
    fs::set_permissions(layer.join("etc"), fs::Permissions::from_mode(0o775))?;
    ensure!(!is_layered("mode")?, "a mode of the image's is covered");
    fs::set_permissions(layer.join("etc"), fs::Permissions::from_mode(0o755))?;
    chown(layer.join("usr/local"), Some(1000), None)?;
    ensure!(!is_layered("owner")?, "an owner of the image's is covered");
    Ok(())
}

fn mig() -> Result<()> {
    let mode = MigMode { current: true, pending: true };
    let place = Place::up(actor(), "p5")?;
    let uuid = place.node.inventory()?.gpus[0].uuid.to_string();
    place.gpus.sim.change(Change::Mig { gpu: uuid.clone(), mode })?;
    fs::remove_file(place.boot()?.join("inventory.json"))?;
    let minor = place.node.inventory()?.gpus[0].minor;
    let bare =
        Container { annotations: Vec::new(), injected: vec![minor], ..Container::alone("c", 1) };
    let words = refused(admit(&place, &place.prepare(&bare)?, None)?)?;
    let expected = format!(
        "berth: injected gave this container {uuid} as a whole, which is in MIG mode, so that nothing can run on it; \
         let it give an instance, or switch the mode off (nvidia-smi -i {uuid} -mig 0)"
    );
    ensure!(words == expected, "{words}");
    Ok(())
}

fn wide_rule() -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    for (rule, words) in [
        (
            json!({"allow": true, "type": "c", "major": 195, "access": "rw"}),
            "c 195:* rw opens every GPU",
        ),
        (
            json!({"allow": true, "type": "c", "major": 195, "minor": 3, "access": "r"}),
            "c 195:3 r opens a GPU",
        ),
    ] {
        let prepared = place.prepare(&Container::alone("c", 1))?;
        patch(&prepared, |spec| spec["linux"]["resources"]["devices"] = json!([rule]))?;
        let said = refused(admit(&place, &prepared, None)?)?;
        ensure!(said.contains("the container is privileged") && said.contains(words), "{said}");
    }
    // Control nodes are nobody's GPU, and a rule that is taken back opens nothing.
    let harmless = json!([
        {"allow": true, "type": "c", "major": 195, "minor": 255, "access": "rw"},
        {"allow": true, "type": "c", "major": 195, "access": "rw"},
        {"allow": false, "access": "rwm"},
    ]);
    let prepared = place.prepare(&Container::alone("c", 1))?;
    patch(&prepared, |spec| spec["linux"]["resources"]["devices"] = harmless)?;
    let admission = admit(&place, &prepared, None)??;
    ensure!(!place.grants()?[0].unconfined, "{:?}", place.grants()?);
    Ok(place.node.undo(admission)?)
}

fn user_namespace() -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    let prepared = place.prepare(&Container::alone("c", 1))?;
    patch(&prepared, |spec| {
        if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({"type": "user"}));
        }
    })?;
    // The simulated node's nodes are not in the machine's /dev, from where the OCI runtime would bind them.
    let words = refused(admit(&place, &prepared, None)?)?;
    let expected = "berth: device node /dev/nvidiactl: it is not there, and a container with a user namespace gets the host's own; \
                    make it with nvidia-modprobe, or check it with berth doctor";
    ensure!(words == expected, "{words}");
    ensure!(place.grants()?.is_empty(), "what was refused holds nothing");
    Ok(())
}
