//! A process dies at each crash point of the works on MIG instances: the shim that waits for them, or the child that does them. What is left is given
//! back by reconciling, by the next admission alone, or by containerd's clean-up.

use anyhow::{Context, Result, ensure};
use engine::crash::WORKS;
use integration_tests::actors::{Container, Init, Place, Prepared, owner};
use integration_tests::suite::Suite;
use integration_tests::wait;

use crate::actor;

pub fn trials(suite: &mut Suite) {
    for point in WORKS.into_iter().filter(|point| !point.starts_with("switch.")) {
        for repair in [Repair::Reconcile, Repair::NextAdmission, Repair::CleanUp] {
            let name = format!("works_die_at::{point}::{repair:?}");
            suite.plain(&name, None, move || at(point, repair));
        }
    }
}

/// How what is left is cleared away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    Reconcile,
    NextAdmission,
    CleanUp,
}

struct Member {
    container: Prepared,
    init: Init,
}

impl Member {
    fn new(place: &Place, id: &str, what: &str) -> Result<Self> {
        let mut container = Container::alone(id, 1);
        container.annotations = vec![("berth.dev/mig".to_owned(), what.to_owned())];
        Ok(Self { container: place.prepare(&container)?, init: place.init()? })
    }

    /// Makes it; whether that went well.
    fn make(&self, place: &Place, crash_at: Option<&str>) -> Result<bool> {
        let arm = format!("arm {}", self.init.pid());
        let steps = ["admit", "dress", &arm];
        Ok(place.actor(&self.container, None, &steps, crash_at)?.end()?.status.success())
    }

    fn end(&mut self, place: &Place) -> Result<()> {
        self.init.kill();
        let release = format!("release {}", self.container.id);
        let ended = place.actor(&self.container, None, &[&release], None)?.end()?;
        ensure!(ended.status.success(), "{ended:?}");
        Ok(())
    }
}

fn at(point: &str, repair: Repair) -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    for gpu in ["0", "1"] {
        place.gpus.sim.set_mig_mode(gpu, true)?;
    }
    let foreign = place.gpus.sim.create_instance("0", "1g.10gb", Some(6), true)?;
    let mut member = Member::new(&place, "dies", "3x3g.40gb")?;
    let is_made_by_shim = ["make.start", "make.done"].contains(&point);
    place.works_die_at((!is_made_by_shim).then_some(point))?;
    if point.starts_with("make.") {
        let made = member.make(&place, is_made_by_shim.then_some(point))?;
        ensure!(!made, "somebody died");
        member.init.kill();
    } else {
        ensure!(member.make(&place, None)?, "nobody is to die yet");
        member.end(&place)?;
        is_dead(&place)?;
    }
    place.works_die_at(None)?;
    clear(&place, repair)?;
    let settled =
        || (place.grants().ok()?.is_empty() && left(&place).ok()? == [foreign.id]).then_some(());
    wait::until("all but the foreign instance is gone", settled)
        .with_context(|| format!("{:?} {:?}", place.grants(), left(&place)))?;
    // What killed processes left behind is swept by whoever reconciles.
    place.node.reconcile(false)?;
    place.audit()
}

/// Waits until the child that gives back has died.
fn is_dead(place: &Place) -> Result<()> {
    let ledger = place.node.ledger()?;
    let dead = || {
        let grants = place.grants().ok()?;
        let worked_on = grants.iter().any(|grant| ledger.is_in_progress(&grant.id).unwrap_or(true));
        (!worked_on).then_some(())
    };
    wait::until("the child has died", dead)
}

fn clear(place: &Place, repair: Repair) -> Result<()> {
    match repair {
        Repair::Reconcile => place.node.reconcile(false).map(drop)?,
        Repair::CleanUp => place.node.clean_up(owner("dies"))?,
        Repair::NextAdmission => {
            // The foreign instance is in the way on one of the two.
            let mut next = Member::new(place, "next", "7g.80gb")?;
            ensure!(next.make(place, None)?, "it clears away what is in its way");
            next.end(place)?;
        }
    }
    Ok(())
}

/// Ids of the instances on the node.
fn left(place: &Place) -> Result<Vec<u32>> {
    let state = place.gpus.sim.state()?;
    Ok(state.gpus.iter().flat_map(|gpu| &gpu.instances).map(|one| one.id).collect())
}
