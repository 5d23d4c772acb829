//! Random sequences of what happens on a node, each compared with a plain map after every step.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow};
use engine::crash::POINTS;
use integration_tests::actors::{Container, Place};
use integration_tests::suite::Suite;

use crate::actor;
use crate::model::{Asked, Key, Stage};
use crate::play::{Play, Wish};
use integration_tests::dice::{Dice, seeds};

/// Sequences in an ordinary run.
const ORDINARY: u64 = 500;
/// Steps of a sequence.
const STEPS: usize = 18;

pub fn trials(suite: &mut Suite) {
    suite.plain("churn::random_sequences_hold_what_a_plain_map_holds", None, run);
}

/// Ten for each turn of a soak.
fn many() -> u64 {
    let soak = std::env::var("BERTH_SOAK").ok().and_then(|turns| turns.parse::<u64>().ok());
    soak.map_or(ORDINARY, |turns| ORDINARY.max(turns.saturating_mul(10)))
}

fn run() -> Result<()> {
    let seeds = seeds(many());
    println!("{} sequences, seeds from {}", seeds.end - seeds.start, seeds.start);
    let next = AtomicU64::new(seeds.start);
    let work = || -> Result<()> {
        let place = Place::up(actor(), "p5")?;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            if let Err(error) = sequence(&place, seed) {
                next.store(seeds.end, Ordering::Relaxed);
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        let ends = workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a sequence panicked"))?);
        ends.collect::<Result<()>>()
    })
}

fn sequence(place: &Place, seed: u64) -> Result<()> {
    let mut dice = Dice::of(seed);
    let mut play = Play::begin(place)?;
    let mut one = || -> Result<()> {
        for step in 0..STEPS {
            turn(&mut play, &mut dice, step)?;
            play.compare()?;
        }
        Ok(())
    };
    let outcome =
        catch_unwind(AssertUnwindSafe(&mut one)).unwrap_or_else(|_| Err(anyhow!("panicked")));
    let told = play.told.join("\n  ");
    let outcome = outcome.and_then(|()| play.end().context("at the end"));
    outcome.with_context(|| format!("again: BERTH_TEST_SEED={seed} make test\n  {told}\n"))
}

/// One thing happens.
fn turn(play: &mut Play<'_>, dice: &mut Dice, step: usize) -> Result<()> {
    let making = containers(play, |stage| matches!(stage, Stage::Making { .. }));
    let made = containers(play, |stage| matches!(stage, Stage::Armed(_)));
    let name = format!("c{step}");
    match dice.below(40) {
        0..10 => alone(play, dice, name),
        10..16 => member(play, dice, name),
        16..22 => arm(play, dice.one_of(&making)),
        22..24 => told(play, "undo", dice.one_of(&making), Play::undo),
        24 => {
            let kept: Vec<String> = play.admitted.keys().cloned().collect();
            told(play, "undo (whatever it is by now)", dice.one_of(&kept), Play::undo)
        }
        25..27 => told(play, "die while making", dice.one_of(&making), Play::abandon),
        27..30 => {
            let pids: Vec<u32> = play.model.alive.iter().copied().collect();
            if let Some(pid) = dice.one_of(&pids) {
                let sandbox = play.model.sandboxes.iter().find(|(_, init)| **init == pid);
                play.told.push(format!("kill {pid} {:?}", sandbox.map(|(id, _)| id)));
                play.kill(pid);
            }
            Ok(())
        }
        30..32 => told(play, "release", dice.one_of(&made), Play::release),
        32 => {
            let sandboxes = play.model.sandboxes.keys().cloned();
            let all: Vec<String> = made.into_iter().chain(sandboxes).collect();
            told(play, "clean up", dice.one_of(&all), Play::clean_up)
        }
        33 => delete_pod(play, dice),
        34..36 => {
            play.told.push("reconcile".into());
            play.reconcile()
        }
        36..38 => elsewhere(play, dice, &name),
        38 => {
            play.told.push("reload".into());
            play.reload()
        }
        _ => lose(play, dice),
    }
}

fn told<'a>(
    play: &mut Play<'a>,
    what: &str,
    whom: Option<String>,
    act: impl Fn(&mut Play<'a>, &str) -> Result<()>,
) -> Result<()> {
    let Some(whom) = whom else { return Ok(()) };
    play.told.push(format!("{what} {whom}"));
    act(play, &whom)
}

fn arm(play: &mut Play<'_>, whom: Option<String>) -> Result<()> {
    told(play, "arm", whom, Play::arm)
}

/// Containers at a stage, those included whose claims have gone.
fn containers(play: &Play<'_>, at: impl Fn(&Stage) -> bool) -> Vec<String> {
    let members = play.model.held.values().flat_map(|claim| &claim.members);
    let mut found: BTreeSet<String> =
        members.filter(|(_, stage)| at(stage)).map(|(id, _)| id.clone()).collect();
    let gone = play.admitted.values().filter(|(of, _, _)| !play.model.is_member(of));
    if at(&(Stage::Making { marked: false })) {
        found.extend(gone.map(|(of, _, _)| of.id.clone()));
    }
    found.into_iter().collect()
}

/// A container outside pods: a new one, or one that is made again after its death.
fn alone(play: &mut Play<'_>, dice: &mut Dice, name: String) -> Result<()> {
    let dead = |(key, _): &(&Key, _)| key.0.starts_with('c') && !play.model.lives(key);
    let dead: Vec<String> =
        play.model.held.iter().filter(dead).map(|(key, _)| key.0.clone()).collect();
    let id = dice.one_of(&dead).filter(|_| dice.below(3) == 0).unwrap_or(name);
    let number = [1, 1, 1, 2, 2, 3, 4, 8][dice.below(8)];
    let (container, asked) = match dice.below(6) {
        0 => {
            let these = pick(play, dice, number.min(3));
            let list: Vec<&str> = these.iter().map(String::as_str).collect();
            let container = bare(&id).annotated("berth.dev/devices", &list.join(","));
            (container, Asked::Exactly(these))
        }
        1 => {
            let these = pick(play, dice, number.min(3));
            let injected = these.iter().filter_map(|gpu| play.minors.get(gpu).copied()).collect();
            (Container { injected, ..bare(&id) }, Asked::Given(these))
        }
        _ => (Container::alone(&id, u32::try_from(number)?), Asked::Number(number)),
    };
    play.told.push(format!("admit {id}: {asked:?}"));
    play.admit(Wish { container, key: (id, None), asked })
}

fn bare(id: &str) -> Container {
    Container { id: id.to_owned(), pod: None, annotations: Vec::new(), injected: Vec::new() }
}

/// One or more GPUs of the node.
fn pick(play: &Play<'_>, dice: &mut Dice, number: usize) -> BTreeSet<String> {
    let all: Vec<String> = play.model.gpus.iter().cloned().collect();
    (0..number).filter_map(|_| dice.one_of(&all)).collect()
}

/// A member of a living pod, or of a new one; with a claim of its own perhaps. A pod asks for the same all its life.
fn member(play: &mut Play<'_>, dice: &mut Dice, id: String) -> Result<()> {
    let lives = |(_, pid): &(&String, &u32)| play.model.alive.contains(pid);
    let pods: Vec<String> =
        play.model.sandboxes.iter().filter(lives).map(|(id, _)| id.clone()).collect();
    let number = 1 + dice.below(3);
    let old = dice.one_of(&pods).filter(|_| dice.below(4) > 0);
    let sandbox = match old {
        Some(sandbox) => sandbox,
        None => {
            let sandbox = format!("pod{number}-{id}");
            play.new_sandbox(&sandbox)?;
            sandbox
        }
    };
    let pods = sandbox.strip_prefix("pod").and_then(|rest| rest.split('-').next());
    let pods: usize = pods.context("its name says what it asks for")?.parse()?;
    let role = ["a", "b"][dice.below(2)];
    let mut container = Container::member(&id, &sandbox, role, u32::try_from(pods)?);
    let own = dice.below(3) == 0;
    if own {
        container = container.annotated(&format!("{role}.berth.dev/gpus"), "1");
    }
    let key = (sandbox, own.then(|| role.to_owned()));
    let asked = Asked::Number(if own { 1 } else { pods });
    play.told.push(format!("admit {id} in {key:?}: {asked:?}"));
    play.admit(Wish { container, key, asked })
}

/// A pod is stopped and removed.
fn delete_pod(play: &mut Play<'_>, dice: &mut Dice) -> Result<()> {
    let pods: Vec<(String, u32)> =
        play.model.sandboxes.iter().map(|(id, pid)| (id.clone(), *pid)).collect();
    let Some((sandbox, pid)) = dice.one_of(&pods) else { return Ok(()) };
    play.told.push(format!("delete {sandbox}"));
    let claims = play.model.held.iter().filter(|(key, _)| key.0 == sandbox);
    let members: Vec<(String, Stage)> =
        claims.flat_map(|(_, claim)| claim.members.clone()).collect();
    for (id, stage) in members {
        if let Stage::Armed(init) = stage {
            play.kill(init);
            play.release(&id)?;
        }
    }
    play.kill(pid);
    play.release(&sandbox)
}

/// A process of its own makes a container and dies.
fn elsewhere(play: &mut Play<'_>, dice: &mut Dice, id: &str) -> Result<()> {
    let number = 1 + dice.below(4);
    let container = Container::alone(id, u32::try_from(number)?);
    let passed: Vec<&str> = POINTS
        .into_iter()
        .filter(|point| {
            ["admit", "dress", "arm"].contains(&point.split('.').next().unwrap_or_default())
        })
        .collect();
    let point = dice.one_of(&passed).filter(|_| dice.below(2) == 0);
    let after = dice.below(4);
    play.told.push(format!("{id} elsewhere: {number}, dies at {point:?} or after {after} answers"));
    play.die_elsewhere(&container, point, after)
}

fn lose(play: &mut Play<'_>, dice: &mut Dice) -> Result<()> {
    let all: Vec<String> = play.model.gpus.iter().cloned().collect();
    let Some(gpu) = dice.one_of(&all).filter(|_| dice.below(4) == 0) else { return Ok(()) };
    play.told.push(format!("lose {gpu}"));
    play.lose(&gpu)
}
