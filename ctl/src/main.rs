//! `berth`: the operator's door. It asks the engine and prints.
//!
//! Decides how commands are named and how answers look. Must not decide anything about a GPU itself.

#![forbid(unsafe_code)]

mod cdi;
mod cli;
mod completions;
mod config;
mod doctor;
mod explain;
mod handler;
mod ledger;
mod observe;
mod plan;
mod ps;
mod reconcile;
mod table;
mod topo;
mod view;

use std::process::ExitCode;

use clap::Parser;
use cli::{CdiCommand, Cli, Command, ConfigCommand, LedgerCommand};
use engine::Node;
use engine::config::Config;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            // Its words have those of its causes in them.
            let words = error.to_string();
            let words = words.trim_start_matches("berth: ").trim_end();
            let lines: Vec<String> = words.lines().map(view::visible).collect();
            eprintln!("berth: {}", lines.join("\n"));
            // There, 1 is an answer.
            ExitCode::from(if matches!(cli.command, Command::Plan(_)) { 2 } else { 1 })
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        // The one command that is there for a node on which nothing works.
        Command::Doctor => return doctor::run(cli.json),
        // Of no node.
        Command::Completions { shell } => {
            completions::print(shell)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let config = Config::load()?;
    let node = Node::new(&config);
    match &cli.command {
        Command::Ps => ps::run(&node, cli.json)?,
        Command::Explain { container } => explain::run(&node, container, cli.json)?,
        Command::Plan(args) => return plan::run(&node, args, cli.json),
        Command::Topo(how) => topo::run(&node, how, cli.json)?,
        Command::Reconcile { dry_run } => reconcile::run(&node, *dry_run, cli.json)?,
        Command::Config { command: ConfigCommand::Show } => config::show(&config, cli.json)?,
        Command::Cdi { command: CdiCommand::List { spec_dir } } => {
            cdi::list(&node, spec_dir, cli.json)?;
        }
        Command::Cdi { command: CdiCommand::Generate(what) } => {
            cdi::generate(&node, what, cli.json)?;
        }
        Command::Cdi { command: CdiCommand::Validate { files } } => {
            return cdi::validate(&node, files, cli.json);
        }
        Command::Ledger { command: LedgerCommand::Show } => ledger::show(&node, cli.json)?,
        Command::Ledger { command: LedgerCommand::Repair { dry_run, force } } => {
            ledger::repair(&node, *dry_run, *force, cli.json)?;
        }
        Command::Ledger { command: LedgerCommand::Verify } => {
            return ledger::verify(&node, cli.json);
        }
        Command::Observe => observe::observe(&node)?,
        Command::PrepareDriver { capabilities } => observe::prepare_driver(&node, capabilities)?,
        Command::MakeInstances { grant, gpu } => node.make_instances(grant, gpu)?,
        Command::SwitchMode { gpu } => node.switch_mode(gpu)?,
        Command::GiveBack { grant } => observe::give_back(&node, grant)?,
        Command::Doctor | Command::Completions { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
