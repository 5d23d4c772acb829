//! A process dies at each crash point; what it held comes back by reconciling, by the next admission alone, and by containerd's clean-up.

use anyhow::{Context, Result, ensure};
use engine::crash::POINTS;
use integration_tests::actors::{Container, Init, Place, Prepared, owner};
use integration_tests::suite::Suite;

use crate::actor;

/// What each claim here asks for.
const EACH: u32 = 2;

pub fn trials(suite: &mut Suite) {
    for point in POINTS {
        suite.plain(&format!("a_process_dies_at::{point}"), None, move || at(point));
    }
}

/// What is being done when the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// A container outside pods is made.
    Alone,
    /// The same on a root that cannot be written.
    ReadOnly,
    /// A pod's first member is made.
    First,
    /// A pod's second member is made; the first one lives.
    Second,
    /// A pod's member with a claim of its own is made.
    Own,
    /// An admission is taken back.
    Undone,
    /// A container outside pods is deleted.
    Deleted,
    /// A pod is deleted.
    PodDeleted,
    /// What another left is reconciled.
    Reconciled,
}

/// How what is left is cleared away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    Reconcile,
    NextAdmission,
    CleanUp,
}

/// The scenes that pass a point.
fn scenes(point: &str) -> &'static [Scene] {
    use Scene::{Alone, Deleted, First, Own, PodDeleted, ReadOnly, Reconciled, Second, Undone};
    match point {
        "admit.joined" => &[Second],
        "admit.decided" | "admit.in-progress" | "admit.reserved" => &[Alone, First, Own],
        "dress.kept" => &[ReadOnly],
        "undo.start" => &[Undone],
        "release.start" => &[Deleted, PodDeleted],
        point => match point.split('.').next() {
            Some("admit" | "dress" | "arm") => &[Alone, First, Second, Own],
            Some("release") => &[Deleted, PodDeleted, Undone],
            Some("reconcile") => &[Reconciled],
            _ => &[],
        },
    }
}

fn at(point: &'static str) -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    let mut neighbour = Member::alone("neighbour", &place)?;
    neighbour.live(&place, None)?;
    ensure!(!scenes(point).is_empty(), "no scene passes this point");
    for scene in scenes(point) {
        for repair in [Repair::Reconcile, Repair::NextAdmission, Repair::CleanUp] {
            let played = play(&place, point, *scene, repair);
            played.with_context(|| format!("{scene:?}, then {repair:?}"))?;
        }
    }
    neighbour.init.kill();
    place.all_can_be_had()?;
    place.node.reconcile(false)?;
    ensure!(place.grants()?.is_empty(), "all have ended: {:?}", place.grants()?);
    place.audit()
}

/// A container and its first process.
struct Member {
    spec: Container,
    container: Prepared,
    init: Init,
}

impl Member {
    fn of(container: &Container, place: &Place) -> Result<Self> {
        Ok(Self {
            spec: container.clone(),
            container: place.prepare(container)?,
            init: place.init()?,
        })
    }

    fn alone(id: &str, place: &Place) -> Result<Self> {
        Self::of(&Container::alone(id, EACH), place)
    }

    /// What a shim does to make it.
    fn making(&self) -> [String; 3] {
        ["admit".into(), "dress".into(), format!("arm {}", self.init.pid())]
    }

    /// Makes it, by a process that ends well, and says which grant it has.
    fn live(&self, place: &Place, sandbox: Option<&Init>) -> Result<String> {
        let steps = self.making();
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        let ended = place.actor(&self.container, sandbox.map(Init::pid), &steps, None)?.end()?;
        ensure!(ended.status.success(), "{}{:?}", ended.complaints, ended.answers);
        Ok(ended.answer("admitted").context("it was admitted")?.to_owned())
    }

    /// Lets a process take these steps and die at the point.
    fn die(
        &self,
        place: &Place,
        sandbox: Option<&Init>,
        steps: &[&str],
        point: &str,
    ) -> Result<()> {
        let ended =
            place.actor(&self.container, sandbox.map(Init::pid), steps, Some(point))?.end()?;
        let died = ended.signal() == Some(libc::SIGABRT);
        ensure!(died, "it did not die: {}, {:?} {}", ended.status, ended.answers, ended.complaints);
        Ok(())
    }
}

/// Everybody in one scene but the neighbour.
struct Cast {
    sandbox: Option<Init>,
    /// The one whose process dies comes last.
    members: Vec<Member>,
    /// Whether the claim lives on: until what is alive is killed, too.
    kept: bool,
}

fn play(place: &Place, point: &str, scene: Scene, repair: Repair) -> Result<()> {
    let mut cast = death(place, point, scene)?;
    if repair != Repair::CleanUp {
        clear(place, repair, if cast.kept { 2 * EACH } else { EACH })?;
        let held = place.grants()?.iter().filter(|grant| grant.label != "trial/neighbour").count();
        ensure!(held == usize::from(cast.kept), "{held} grants are kept");
        if repair == Repair::Reconcile {
            place.audit()?;
        }
        if let (true, Some(sandbox)) = (cast.kept, &cast.sandbox) {
            rejoined(place, sandbox, cast.members.last().context("who died")?)?;
        }
    }
    for member in &mut cast.members {
        member.init.kill();
    }
    if repair == Repair::CleanUp {
        for member in &cast.members {
            place.node.clean_up(owner(&member.container.id))?;
        }
    }
    if let Some(sandbox) = &mut cast.sandbox {
        sandbox.kill();
        if repair == Repair::CleanUp {
            place.node.clean_up(owner("sandbox"))?;
        }
    }
    clear(place, repair, EACH)?;
    let held: Vec<String> = place.grants()?.into_iter().map(|grant| grant.label).collect();
    ensure!(held == ["trial/neighbour"], "{held:?} hold something, and only the neighbour lives");
    if repair == Repair::NextAdmission {
        // An admission clears away what is in its way; a mark of nobody's is in nobody's.
        place.node.reconcile(false)?;
    }
    place.audit()
}

/// Plays a scene up to the death.
fn death(place: &Place, point: &str, scene: Scene) -> Result<Cast> {
    let order = |name: &str| POINTS.iter().position(|point| *point == name);
    let reserved = order(point) >= order("admit.reserved");
    let armed = order(point) >= order("arm.applied");
    match scene {
        Scene::Alone => {
            let member = Member::alone("alone", place)?;
            made_in_vain(place, None, &member, point)?;
            Ok(Cast { sandbox: None, members: vec![member], kept: armed })
        }
        Scene::ReadOnly => {
            let member = Member::alone("read-only", place)?;
            member.container.make_read_only()?;
            made_in_vain(place, None, &member, point)?;
            member.container.make_writable()?;
            Ok(Cast { sandbox: None, members: vec![member], kept: armed })
        }
        Scene::First | Scene::Own => {
            let sandbox = place.init()?;
            let mut container = Container::member("first", "sandbox", "main", EACH);
            if scene == Scene::Own {
                container = container.annotated("main.berth.dev/gpus", &EACH.to_string());
            }
            let member = Member::of(&container, place)?;
            made_in_vain(place, Some(&sandbox), &member, point)?;
            Ok(Cast { sandbox: Some(sandbox), members: vec![member], kept: reserved })
        }
        Scene::Second => {
            let sandbox = place.init()?;
            let first = Member::of(&Container::member("first", "sandbox", "main", EACH), place)?;
            first.live(place, Some(&sandbox))?;
            let second = Member::of(&Container::member("second", "sandbox", "side", EACH), place)?;
            made_in_vain(place, Some(&sandbox), &second, point)?;
            Ok(Cast { sandbox: Some(sandbox), members: vec![first, second], kept: true })
        }
        Scene::Undone => {
            let member = Member::alone("undone", place)?;
            member.die(place, None, &["admit", "undo"], point)?;
            Ok(Cast { sandbox: None, members: vec![member], kept: false })
        }
        Scene::Deleted => {
            let mut member = Member::alone("deleted", place)?;
            member.live(place, None)?;
            member.init.kill();
            member.die(place, None, &["release deleted"], point)?;
            Ok(Cast { sandbox: None, members: vec![member], kept: false })
        }
        Scene::PodDeleted => {
            let mut sandbox = place.init()?;
            let mut member =
                Member::of(&Container::member("first", "sandbox", "main", EACH), place)?;
            member.live(place, Some(&sandbox))?;
            member.init.kill();
            sandbox.kill();
            member.die(place, None, &["release first", "release sandbox"], point)?;
            Ok(Cast { sandbox: Some(sandbox), members: vec![member], kept: false })
        }
        Scene::Reconciled => {
            let member = Member::alone("left", place)?;
            member.die(place, None, &["admit"], "admit.reserved")?;
            member.die(place, None, &["reconcile"], point)?;
            Ok(Cast { sandbox: None, members: vec![member], kept: false })
        }
    }
}

fn made_in_vain(place: &Place, sandbox: Option<&Init>, member: &Member, point: &str) -> Result<()> {
    let steps = member.making();
    member.die(place, sandbox, &steps.each_ref().map(String::as_str), point)
}

/// Clears away what is left. `held` GPUs are held by the living, and none but those.
fn clear(place: &Place, repair: Repair, held: u32) -> Result<()> {
    match repair {
        Repair::Reconcile => {
            place.node.reconcile(false)?;
        }
        Repair::NextAdmission => {
            let total = u32::try_from(place.node.inventory()?.gpus.len())?;
            let next = Member::alone_with(&format!("next-{held}"), total - held, place)?;
            let steps = ["admit", &format!("release {}", next.id)];
            let ended = place.actor(&next, None, &steps, None)?.end()?;
            ensure!(ended.status.success(), "{:?}{}", ended.answers, ended.complaints);
        }
        Repair::CleanUp => {}
    }
    Ok(())
}

impl Member {
    fn alone_with(id: &str, gpus: u32, place: &Place) -> Result<Prepared> {
        place.prepare(&Container::alone(id, gpus))
    }
}

/// A container of the pod is made again, as the kubelet does, and has what the pod holds.
fn rejoined(place: &Place, sandbox: &Init, died: &Member) -> Result<()> {
    let held = |grant: &engine::Grant| grant.owner.sandbox == "sandbox";
    let before = place.grants()?.into_iter().find(held).context("the pod's grant")?;
    // In a new bundle, as always.
    let again = Member::of(&died.spec, place)?;
    let grant = again.live(place, Some(sandbox))?;
    ensure!(grant == before.id.to_string(), "the pod holds {}, and was given {grant}", before.id);
    Ok(())
}
