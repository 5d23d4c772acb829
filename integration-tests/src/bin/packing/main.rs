//! `make bench-packing`: how much of what is asked for fits, by policy.
//!
//! Containers come at random to a node of eight A100s, stay for random times and go; what does not fit when it comes is lost. Policies are compared
//! on the same containers by the share of the slices asked for that was given. Beside them stand two lines that no policy reaches: everything
//! moved at will, and the linear relaxation. Figures go to `target/bench/packing.json`, a chart beside them.
//!
//! Decides the runs. Asserts nothing about who wins: that is to be read.

mod bound;
mod chart;
mod node;
mod policy;
mod stream;
mod table;

#[path = "../../../../node/plan/tests/nodes/geometry.rs"]
mod geometry;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration_tests::bench::figures::{Figures, Unit};
use integration_tests::bench::summary::{self, Others};
use plan::{CudaVersion, Driver, Gpu, Mib, PciAddress};

use self::node::{GPUS, Held, Node};
use self::policy::Policy;
use self::stream::{Arrival, Mix};

/// Seeds of the runs that are averaged.
const SEEDS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// Containers of a run, and how many of them only fill the node.
const ARRIVALS: usize = 10_000;
const WARM_UP: usize = 500;

/// What came of one mix at one load, averaged over the seeds: shares of the slices asked for.
#[derive(Debug)]
pub struct Cell {
    /// The mix's name.
    pub mix: &'static str,
    /// Offered slices over the node's.
    pub load: f64,
    /// In the order of [`policy::ALL`].
    pub shares: Vec<f64>,
    /// The standard error of Berth's lead over the best other policy, which is paired by seed.
    pub lead_error: f64,
    /// What no policy can exceed.
    pub bound: f64,
}

fn main() -> Result<()> {
    println!(
        "slices given of those asked for, in percent; eight A100s of 80 GB, {} containers, seeds {SEEDS:?}\n",
        ARRIVALS - WARM_UP
    );
    let (mut cells, mut decisions) = (Vec::new(), Vec::new());
    for mix in &stream::MIXES {
        for load in stream::LOADS {
            cells.push(cell(mix, load, &mut decisions));
            println!("{}", table::line(&cells));
        }
    }
    let decision = median(decisions);
    println!(
        "\n{}\na decision of Berth's: {:.1} us (median)",
        table::verdict(&cells),
        decision.as_secs_f64() * 1e6
    );
    write(&cells, decision)
}

fn cell(mix: &Mix, load: f64, decisions: &mut Vec<Duration>) -> Cell {
    let mut of_seeds: Vec<Vec<f64>> = Vec::new();
    let mut bounds = Vec::new();
    for seed in SEEDS {
        let arrivals = stream::arrivals(mix, load, GPUS, seed, ARRIVALS);
        let share = |policy: &Policy| share(*policy, mix, &arrivals, decisions);
        of_seeds.push(policy::ALL.iter().map(share).collect());
        let counted = &arrivals[WARM_UP..];
        bounds.push(bound::most(counted, mix.whole) as f64 / offered(counted) as f64);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let shares: Vec<f64> = (0..policy::ALL.len())
        .map(|policy| mean(&of_seeds.iter().map(|shares| shares[policy]).collect::<Vec<_>>()))
        .collect();
    let (berth, other) = table::berth_and_best_other(&shares);
    let leads: Vec<f64> = of_seeds.iter().map(|shares| shares[berth] - shares[other]).collect();
    let lead = mean(&leads);
    let variance =
        leads.iter().map(|one| (one - lead).powi(2)).sum::<f64>() / (leads.len() - 1) as f64;
    let lead_error = (variance / leads.len() as f64).sqrt();
    Cell { mix: mix.name, load, shares, lead_error, bound: mean(&bounds) }
}

/// One policy on one stream. Berth's decisions are timed, with what it takes to tell them who holds what.
fn share(policy: Policy, mix: &Mix, arrivals: &[Arrival], decisions: &mut Vec<Duration>) -> f64 {
    let mut node = Node::new(mix.whole);
    // Who goes when. Times are not negative, so their bits are in their order.
    let mut leaving: BTreeMap<(u64, usize), Held> = BTreeMap::new();
    let mut given = 0;
    for (number, arrival) in arrivals.iter().enumerate() {
        while let Some(first) =
            leaving.first_entry().filter(|first| first.key().0 <= arrival.at.to_bits())
        {
            policy.leave(&mut node, &first.remove());
        }
        let begun = Instant::now();
        let held = policy.admit(&mut node, arrival.ask);
        if policy == Policy::Berth && number % 16 == 0 && mix.whole == 0 {
            decisions.push(begun.elapsed());
        }
        if let Some(held) = held {
            given += if number < WARM_UP { 0 } else { u64::from(arrival.slices) };
            leaving.insert((arrival.until.to_bits(), number), held);
        }
    }
    given as f64 / offered(&arrivals[WARM_UP..]) as f64
}

fn offered(arrivals: &[Arrival]) -> u64 {
    arrivals.iter().map(|arrival| u64::from(arrival.slices)).sum()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn write(cells: &[Cell], decision: Duration) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let mut figures = Figures::default();
    for cell in cells {
        let name = |what: &str| format!("packing_{}_{:.1}_{what}", cell.mix, cell.load);
        for (policy, share) in policy::ALL.iter().zip(&cell.shares) {
            figures.note(name(policy.name()), *share, Unit::Ratio);
        }
        figures.note(name("bound"), cell.bound, Unit::Ratio);
    }
    figures.note("packing_decision_us", decision.as_secs_f64() * 1e6, Unit::Us);
    let (json, svg) = (folder.join("packing.json"), folder.join("packing.svg"));
    summary::write(&json, &figures, Others::Keep)?;
    std::fs::write(&svg, chart::render(cells))
        .with_context(|| format!("write {}", svg.display()))?;
    println!("{}\n{}", json.display(), svg.display());
    Ok(())
}

/// A GPU of the node before it is made one of a model.
fn gpu(index: usize) -> Gpu {
    let number = u8::try_from(index).unwrap_or_default();
    Gpu {
        index: number.into(),
        uuid: format!("GPU-{index:08x}-0000-4000-8000-000000000000").parse().expect("a UUID"),
        pci: PciAddress { domain: 0, bus: 0x10 + number, device: 0, function: 0 },
        minor: number.into(),
        model: geometry::A100_80.name.to_owned(),
        brand: "nvidia".to_owned(),
        compute_capability: CudaVersion { major: 8, minor: 0 },
        memory: Mib(geometry::A100_80.memory),
        numa_node: Some(u32::from(number) / 4),
        mig: false,
        mig_capable: true,
        profiles: Vec::new(),
        instances: Vec::new(),
        peers: BTreeMap::new(),
    }
}

fn driver() -> Driver {
    Driver { version: "550.163.01".to_owned(), cuda: CudaVersion { major: 12, minor: 4 } }
}
