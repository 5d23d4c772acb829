//! The direct suite: every Task RPC and what no client of containerd triggers easily, spoken to the shim
//! itself. Decides which trials there are; each file below says what its trials prove.

use std::process::ExitCode;

use integration_tests::suite::Suite;

#[path = "direct/boundaries.rs"]
mod boundaries;
#[path = "direct/bundles.rs"]
mod bundles;
#[path = "direct/by_hand.rs"]
mod by_hand;
#[path = "direct/checkpoints.rs"]
mod checkpoints;
#[path = "direct/churn.rs"]
mod churn;
#[path = "direct/configured.rs"]
mod configured;
#[path = "direct/deadlines.rs"]
mod deadlines;
#[path = "direct/deaths.rs"]
mod deaths;
#[path = "direct/dice.rs"]
mod dice;
#[path = "direct/execs.rs"]
mod execs;
#[path = "direct/faults.rs"]
mod faults;
#[path = "direct/full_disks.rs"]
mod full_disks;
#[path = "direct/layers.rs"]
mod layers;
#[path = "direct/lifecycle.rs"]
mod lifecycle;
#[path = "direct/loggers.rs"]
mod loggers;
#[path = "direct/logs.rs"]
mod logs;
#[path = "direct/moments.rs"]
mod moments;
#[path = "direct/options.rs"]
mod options;
#[path = "direct/order.rs"]
mod order;
#[path = "direct/pods.rs"]
mod pods;
#[path = "direct/processes.rs"]
mod processes;
#[path = "direct/random.rs"]
mod random;
#[path = "direct/refusals.rs"]
mod refusals;
#[path = "direct/resources.rs"]
mod resources;
#[path = "direct/restores.rs"]
mod restores;
#[path = "direct/scarcity.rs"]
mod scarcity;
#[path = "direct/signals.rs"]
mod signals;
#[path = "direct/starts.rs"]
mod starts;
#[path = "direct/streams.rs"]
mod streams;

fn main() -> ExitCode {
    let mut suite = Suite::new("direct");
    lifecycle::register(&mut suite);
    execs::register(&mut suite);
    signals::register(&mut suite);
    streams::register(&mut suite);
    loggers::register(&mut suite);
    order::register(&mut suite);
    pods::register(&mut suite);
    processes::register(&mut suite);
    resources::register(&mut suite);
    bundles::register(&mut suite);
    layers::register(&mut suite);
    refusals::register(&mut suite);
    boundaries::register(&mut suite);
    starts::register(&mut suite);
    configured::register(&mut suite);
    by_hand::register(&mut suite);
    options::register(&mut suite);
    faults::register(&mut suite);
    deadlines::register(&mut suite);
    checkpoints::register(&mut suite);
    restores::register(&mut suite);
    full_disks::register(&mut suite);
    scarcity::register(&mut suite);
    deaths::register(&mut suite);
    moments::register(&mut suite);
    logs::register(&mut suite);
    churn::register(&mut suite);
    random::register(&mut suite);
    suite.run()
}
