//! `berth plan`: what a container, or the containers of a manifest's pods, would get on this node now.
//!
//! Decides the order in which they are tried, when that ends, and what the exit status says: 0 it fits, 1 it is refused, 2 it cannot be told.
//! Who gets what is the engine's; nothing is changed on the node.

mod flags;
mod pod;
mod quantity;
mod show;

use std::collections::BTreeMap;
use std::io::Read;
use std::process::ExitCode;

use anyhow::bail;
use engine::{Denied, Node, Rehearsal, Rehearsed};

use crate::cli::PlanArgs;

/// Pods, or a container without one, that are to be planned one after the other.
pub struct Wanted {
    /// In the order in which they are written.
    pub pods: Vec<Pod>,
    /// What is to be said beforehand.
    pub warnings: Vec<String>,
}

/// A pod, or a single container without one.
pub struct Pod {
    /// `namespace/name`; `None` without a pod.
    pub name: Option<String>,
    /// In the order in which they are started.
    pub containers: Vec<Container>,
}

/// A container that is to be planned.
pub struct Container {
    /// Its name in the pod; empty without one.
    pub name: String,
    /// Its part in the pod.
    pub kind: Kind,
    /// What admission would read of it, in a pod of this number.
    pub supposed: Box<dyn Fn(u32) -> engine::Supposed>,
}

/// A container's part in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no pod.
    Alone,
    /// It ends before the others start.
    Init,
    /// An init container that stays (`restartPolicy: Always`).
    Sidecar,
    /// One of those that the pod is there for.
    App,
}

/// What became of a container.
pub enum Fate {
    /// It would be admitted.
    Admitted(Box<Rehearsed>),
    /// It would be refused, in these words.
    Refused(Box<engine::Refusal>),
    /// It would not be tried: an init container before it is refused.
    NotReached,
}

/// A container that was tried.
pub struct Tried {
    /// The annotations by which it asks; none where they cannot be read.
    pub requested: BTreeMap<String, String>,
    /// What became of it.
    pub fate: Fate,
}

/// One pod's turn.
pub struct Turn<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The fates of its containers.
    pub fates: Vec<Tried>,
}

/// All that was found out.
pub struct Plan<'a> {
    /// How often everything was to be tried.
    pub asked: u32,
    /// How often it fits.
    pub fitting: u32,
    /// The first time, and that in which something was refused.
    pub turns: Vec<Vec<Turn<'a>>>,
    /// What is to be said beforehand.
    pub warnings: &'a [String],
}

impl Tried {
    fn is_admitted(&self) -> bool {
        matches!(self.fate, Fate::Admitted(_))
    }
}

impl Turn<'_> {
    fn fits(&self) -> bool {
        self.fates.iter().all(Tried::is_admitted)
    }
}

/// Plans what `args` describe, and prints it.
pub fn run(node: &Node, args: &PlanArgs, json: bool) -> anyhow::Result<ExitCode> {
    let wanted = match &args.file {
        Some(file) => pod::read(&text(file)?, &file.display().to_string(), args)?,
        None => flags::read(args)?,
    };
    let mut rehearsal = node.rehearsal()?;
    let mut plan =
        Plan { asked: args.count, fitting: 0, turns: Vec::new(), warnings: &wanted.warnings };
    for nth in 0..args.count {
        let turns = one_after_the_other(&mut rehearsal, &wanted.pods, nth)?;
        let fits = turns.iter().all(Turn::fits);
        plan.fitting += u32::from(fits);
        if nth == 0 || !fits {
            plan.turns.push(turns);
        }
        if !fits {
            break;
        }
    }
    show::print(&plan, json)?;
    Ok(ExitCode::from(u8::from(plan.fitting < plan.asked)))
}

/// Every pod in turn: what one got is not there for the next.
fn one_after_the_other<'a>(
    rehearsal: &mut Rehearsal<'_>,
    pods: &'a [Pod],
    nth: u32,
) -> anyhow::Result<Vec<Turn<'a>>> {
    let mut turns = Vec::new();
    for pod in pods {
        let mut turn = Turn { pod, fates: Vec::new() };
        let mut is_stuck = false;
        for container in &pod.containers {
            let fate = match is_stuck {
                true => Tried { requested: BTreeMap::new(), fate: Fate::NotReached },
                false => tried(rehearsal, &(container.supposed)(nth))?,
            };
            // The kubelet goes on to the next only when this has run; the others are started whether or not one of them fails.
            is_stuck |= !fate.is_admitted() && matches!(container.kind, Kind::Init | Kind::Sidecar);
            turn.fates.push(fate);
        }
        turns.push(turn);
    }
    Ok(turns)
}

fn tried(rehearsal: &mut Rehearsal<'_>, supposed: &engine::Supposed) -> anyhow::Result<Tried> {
    let mut requested = BTreeMap::new();
    let admitted = match supposed.ask() {
        Ok(None) => Ok(Rehearsed::default()),
        Ok(Some(ask)) => {
            requested = ask.requested();
            rehearsal.admit(&ask)
        }
        Err(refusal) => Err(refusal.into()),
    };
    let fate = match admitted {
        Ok(rehearsed) => Fate::Admitted(Box::new(rehearsed)),
        Err(Denied::Refused(refusal)) => Fate::Refused(Box::new(refusal)),
        Err(Denied::Broken(fault)) => return Err(fault.into()),
    };
    Ok(Tried { requested, fate })
}

/// The largest manifest that is read, in bytes; the API server takes no object of more than half of it.
const MOST: u64 = 3 << 20;

fn text(file: &std::path::Path) -> anyhow::Result<String> {
    let name = file.display();
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().take(MOST + 1).read_to_string(&mut text),
        false => std::fs::File::open(file)
            .and_then(|opened| opened.take(MOST + 1).read_to_string(&mut text)),
    };
    // The command prints one line, which is to have the cause in it.
    read.map_err(|error| anyhow::anyhow!("cannot read {name}: {error}"))?;
    if text.len() as u64 > MOST {
        bail!("{name} has more than {MOST} bytes; no manifest is that long");
    }
    Ok(text)
}
