//! `simnode`: make, show and break simulated GPU nodes.
//!
//! Decides the command line only; everything it does is a call of the library.
#![forbid(unsafe_code)]

mod cli;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use simnode::{Layout, Node, Options, Profile};

/// A GPU node without a GPU.
#[derive(Debug, Parser)]
#[command(name = "simnode", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a node, and print what to put into Berth's configuration file.
    Up {
        /// An empty folder, or one to be made.
        dir: PathBuf,
        /// The machine: see `simnode profiles`.
        #[arg(long)]
        profile: String,
        /// Where the driver's files lie: debian, debian-alternatives, redhat or driver-container.
        #[arg(long, default_value_t = Layout::Debian)]
        layout: Layout,
        /// Whether calls take the time that they take on a real machine.
        #[arg(long, value_enum, default_value_t = cli::Latency::None)]
        latency: cli::Latency,
        /// Make a device node for each MIG instance.
        #[arg(long)]
        capability_nodes: bool,
    },
    /// Remove a node.
    Down {
        /// Its folder.
        dir: PathBuf,
    },
    /// Print what a node has.
    Show {
        /// Its folder.
        dir: PathBuf,
        /// The whole state, for programs.
        #[arg(long)]
        json: bool,
    },
    /// List the machines that can be simulated.
    Profiles,
    /// Let the driver library fail, wait or die at some call.
    Inject(cli::Inject),
    /// Switch MIG mode, make and end MIG instances.
    Mig(cli::mig::Mig),
    /// Change a node.
    Set {
        /// Its folder.
        dir: PathBuf,
        #[command(subcommand)]
        change: cli::Set,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up { dir, profile, layout, latency, capability_nodes } => {
            let options = Options { layout, latency: latency.into(), capability_nodes };
            let node = Node::up(&dir, &Profile::named(&profile)?, options)?;
            print!("{}", node.configuration()?);
            Ok(())
        }
        Command::Down { dir } => Ok(Node::open(&dir)?.down()?),
        Command::Show { dir, json } => cli::show(&Node::open(&dir)?.state()?, json),
        Command::Profiles => {
            Profile::all().for_each(|profile| println!("{:6} {}", profile.name, profile.about));
            Ok(())
        }
        Command::Inject(inject) => inject.run(),
        Command::Mig(mig) => mig.run(),
        Command::Set { dir, change } => change.run(&dir),
    }
}
