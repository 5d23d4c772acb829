//! Many processes at once: nobody gets what another has, nobody is refused what is free.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use engine::Rootfs;
use integration_tests::actors::{Actor, Container, Place, Prepared};
use integration_tests::suite::Suite;

use crate::actor;

/// Processes that ask at once.
const CROWD: usize = 64;
/// GPUs of the node.
const GPUS: usize = 8;
/// How often they race for what the dead held.
const ROUNDS: usize = 10;

pub fn trials(suite: &mut Suite) {
    suite.plain("crowd::of_64_processes_8_get_a_gpu_and_the_others_hear_why_not", None, one_each);
    suite.plain("crowd::of_64_members_of_a_pod_all_share_one_grant", None, one_pod);
    suite.plain("crowd::members_on_read_only_roots_have_a_loader_cache_each", None, read_only);
    suite.plain("crowd::what_8_dead_hold_goes_to_8_who_ask_at_once", None, after_the_dead);
}

/// Lets a process for each container ask, all at once; they stay, with the answer of each.
fn ask(
    place: &Place,
    sandbox: Option<u32>,
    containers: &[Prepared],
) -> Result<Vec<(Actor, String)>> {
    let steps = ["wait", "admit", "wait"];
    let start = |container| place.actor(container, sandbox, &steps, None);
    let mut actors = containers.iter().map(start).collect::<Result<Vec<Actor>>>()?;
    for actor in &mut actors {
        ensure!(actor.next_answer()? == "waiting", "it waits for the others");
    }
    for actor in &mut actors {
        actor.go_on()?;
    }
    let answered = |mut actor: Actor| {
        let answer = actor.next_answer()?;
        Ok((actor, answer))
    };
    actors.into_iter().map(answered).collect()
}

/// Everybody dies.
fn leave(place: &Place, actors: Vec<(Actor, String)>) -> Result<()> {
    drop(actors);
    place.node.reconcile(false)?;
    ensure!(place.grants()?.is_empty(), "the dead hold {:?}", place.grants()?);
    place.all_can_be_had()?;
    place.audit()
}

fn alone(place: &Place, names: &str, many: usize) -> Result<Vec<Prepared>> {
    (0..many).map(|at| place.prepare(&Container::alone(&format!("{names}{at}"), 1))).collect()
}

/// That this many GPUs are held, none by two.
fn held(place: &Place, many: usize) -> Result<()> {
    let grants = place.grants()?;
    let held = grants.iter().flat_map(|grant| grant.gpus.iter());
    let held: Vec<String> = held.map(|gpu| gpu.uuid.to_string()).collect();
    let different: BTreeSet<&String> = held.iter().collect();
    ensure!(held.len() == many && different.len() == many, "{many} were to be held: {held:?}");
    place.audit()
}

fn one_each() -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    let actors = ask(&place, None, &alone(&place, "c", CROWD)?)?;
    let (admitted, refused): (Vec<&String>, Vec<&String>) =
        actors.iter().map(|(_, answer)| answer).partition(|answer| answer.starts_with("admitted"));
    ensure!(admitted.len() == GPUS, "{} were admitted", admitted.len());
    let inventory = place.node.inventory()?;
    for refusal in refused {
        ensure!(refusal.starts_with("refused berth: no room for gpus 1: "), "{refusal:?}");
        let unnamed = inventory.gpus.iter().find(|gpu| !refusal.contains(gpu.uuid.as_str()));
        ensure!(unnamed.is_none(), "{unnamed:?} is not named: {refusal}");
    }
    held(&place, GPUS)?;
    leave(&place, actors)
}

fn one_pod() -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    let mut sandbox = place.init()?;
    let member = |at| Container::member(&format!("c{at}"), "sandbox", &format!("m{at}"), 2);
    let members = (0..CROWD).map(|at| place.prepare(&member(at))).collect::<Result<Vec<_>>>()?;
    let actors = ask(&place, Some(sandbox.pid()), &members)?;
    let answers: BTreeSet<&String> = actors.iter().map(|(_, answer)| answer).collect();
    ensure!(answers.len() == 1, "they have several answers: {answers:?}");
    let grants = place.grants()?;
    ensure!(grants.len() == 1, "the pod has {grants:?}");
    let members: BTreeSet<&String> = grants[0].members.iter().map(|one| &one.container).collect();
    ensure!(members.len() == CROWD, "{} members are recorded", members.len());
    held(&place, 2)?;
    sandbox.kill();
    leave(&place, actors)
}

fn after_the_dead() -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    (0..ROUNDS).try_for_each(|_| after_these_dead(&place))
}

fn after_these_dead(place: &Place) -> Result<()> {
    for dead in alone(place, "dead", GPUS)? {
        let ended = place.actor(&dead, None, &["admit"], Some("admit.taken"))?.end()?;
        ended.signal().context("it died")?;
    }
    let actors = ask(place, None, &alone(place, "c", GPUS)?)?;
    let refused = actors.iter().find(|(_, answer)| !answer.starts_with("admitted"));
    ensure!(refused.is_none(), "there is room for all: {refused:?}");
    held(place, GPUS)?;
    leave(place, actors)
}

fn read_only() -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    let sandbox = place.init()?;
    let mut members = Vec::new();
    for name in ["one", "other"] {
        let member = place.prepare(&Container::member(name, "sandbox", name, 1))?;
        let (bundle, ask) = member.read()?;
        let admitted = place.node.admit(&ask, &bundle, &Rootfs::default(), Some(sandbox.pid()))?;
        member.make_read_only()?;
        members.push((member, admitted));
    }
    for (member, admission) in &mut members {
        place.node.dress(admission, &member.rootfs())?;
    }
    ensure!(place.kept()?.len() == 2, "kept: {:?}", place.kept()?);
    for (_, admission) in &mut members {
        place.node.arm(admission, place.init()?.pid(), None)?;
    }
    ensure!(place.kept()?.is_empty(), "still kept: {:?}", place.kept()?);
    place.audit()
}
