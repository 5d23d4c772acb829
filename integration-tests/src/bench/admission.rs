//! Admissions by the engine alone, in this process: how long one holds up all others of its node, and what of that is the decision.
//!
//! Decides from which of the engine's points to which is measured. Between `admit.prepared` and `admit.taken` are the node's lock, the ledger's
//! file, the decision, the grant's mark and the commit; between `admit.locked` and `admit.decided` is the decision with everything that it
//! is made from.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use engine::Rootfs;

use super::figures::{Figures, Unit};
use super::interrupt;
use super::occupied::{ONE_GPU, Occupied};
use super::stats::Samples;
use crate::actors::Container;

/// Admissions that do not count.
const WARM_UP: usize = 50;

/// When the admission under way passed by each point.
static PASSED: Mutex<BTreeMap<&'static str, Instant>> = Mutex::new(BTreeMap::new());

/// Measures `runs` admissions, each given back before the next.
///
/// # Errors
/// When one is refused.
pub fn measure(node: &Occupied, runs: usize, figures: &mut Figures) -> Result<()> {
    eprintln!("admission: {runs}");
    engine::crash::watch(|point| {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        passed.insert(point, Instant::now());
    });
    let (mut admission, mut decision) = (Samples::default(), Samples::default());
    for run in 0..WARM_UP + runs {
        ensure!(!interrupt::asked(), "interrupted");
        one_admission(node)?;
        if run >= WARM_UP {
            admission.push(between("admit.prepared", "admit.taken")?);
            decision.push(between("admit.locked", "admit.decided")?);
        }
    }
    for (name, samples) in [("admission", &admission), ("decision", &decision)] {
        figures.note(format!("{name}_p50_us"), samples.median().context("no runs")?, Unit::Us);
        figures.note(format!("{name}_p99_us"), samples.p99().context("few runs")?, Unit::Us);
    }
    Ok(())
}

fn one_admission(node: &Occupied) -> Result<()> {
    let place = &node.place;
    let mut container = Container::alone("admission", 1);
    container.annotations = vec![(ONE_GPU.0.to_owned(), ONE_GPU.1.to_owned())];
    let container = place.prepare(&container)?;
    let (bundle, ask) = container.read()?;
    let admission = place.node.admit(&ask, &bundle, &Rootfs::default(), None)?;
    Ok(place.node.undo(admission)?)
}

/// Microseconds from one point to another.
fn between(from: &str, to: &str) -> Result<f64> {
    let passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = |point| passed.get(point).with_context(|| format!("{point} was not passed"));
    Ok(at(to)?.duration_since(*at(from)?).as_secs_f64() * 1e6)
}
