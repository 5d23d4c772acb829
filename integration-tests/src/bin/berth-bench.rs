//! The bench's door: arguments in, a table out, and the chart and the summary beside each other in
//! `target/bench/`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use integration_tests::actors::stand_in;
use integration_tests::bench::contenders::Contenders;
use integration_tests::bench::figures::Figures;
use integration_tests::bench::options::{Command, Options, USAGE, parse};
use integration_tests::bench::summary::{self, Others};
use integration_tests::bench::{chart, interrupt, measure, table};

fn main() -> ExitCode {
    // As a container's first process: see `bench::occupied`.
    if std::env::args().nth(1).as_deref() == Some("init") {
        return stand_in().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let options = match parse(std::env::args().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(complaint) => {
            eprint!("berth-bench: {complaint}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "containers, mounts and cgroups need root");
    let contenders = Contenders::find(options)?;
    eprintln!("berth:     {}", contenders.berth.display());
    eprintln!("reference: {}", contenders.reference.display());
    warn_if_busy();
    interrupt::watch()?;

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(measure(options, &contenders))?;

    let mut compared = contenders.describe();
    if options.quick {
        compared.push_str("; a quick run");
    }
    println!("{compared}\n\n{}", table::render(&figures));
    write_files(options, &figures, &compared)
}

/// Alternating spreads what else the machine does over both sides, but it still blurs the figures.
fn warn_if_busy() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|minute| minute.parse::<f64>().ok());
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    if let Some(load) = load.filter(|load| *load > cpus as f64 / 2.0) {
        eprintln!("the machine is busy (load {load:.1} on {cpus} CPUs): expect noise");
    }
}

fn write_files(options: &Options, figures: &Figures, compared: &str) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let others = if options.only.is_some() { Others::Keep } else { Others::Drop };
    let (summary, chart) = (folder.join("summary.json"), folder.join("chart.svg"));
    summary::write(&summary, figures, others)?;
    println!("{}", summary.display());
    if options.only.is_none() {
        std::fs::write(&chart, chart::render(figures, compared))
            .with_context(|| format!("write {}", chart.display()))?;
        println!("{}", chart.display());
    }
    Ok(())
}
