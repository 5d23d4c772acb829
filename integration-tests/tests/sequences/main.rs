//! Sequences of what a node's shims do with the engine, and deaths between any two steps: real processes, locks and mount namespaces, no
//! containerd.

mod boots;
mod compare;
mod crash;
mod crowd;
mod instances;
mod joins;
mod model;
mod play;
mod random;

use std::path::Path;
use std::process::ExitCode;

use integration_tests::suite::Suite;

/// The actor program.
fn actor() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_berth-actor"))
}

fn main() -> ExitCode {
    let mut suite = Suite::new("sequences");
    crash::trials(&mut suite);
    instances::trials(&mut suite);
    random::trials(&mut suite);
    crowd::trials(&mut suite);
    boots::trials(&mut suite);
    joins::trials(&mut suite);
    suite.run()
}
