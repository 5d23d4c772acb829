//! `mig`: what somebody else on the node does with a GPU's MIG mode and instances.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use simnode::Node;
use simnode::mig::profile;
use simnode::state::Gpu;

/// MIG as an operator does it with nvidia-smi.
#[derive(Debug, Args)]
pub struct Mig {
    /// The node's folder.
    dir: PathBuf,
    /// Index, UUID or PCI address.
    gpu: String,
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Switch MIG mode on.
    On,
    /// Switch MIG mode off.
    Off,
    /// Reset the GPU: a mode that was waiting comes into force, instances go.
    Reset,
    /// Make a GPU instance, and a compute instance that is all of it.
    Create {
        /// Name or id of the profile, such as 1g.10gb or 1g.10gb@3 to start at slice 3.
        profile: String,
        /// Leave the GPU instance without one: it is no MIG device then.
        #[arg(long)]
        no_compute_instance: bool,
    },
    /// End a GPU instance and what is in it.
    Destroy {
        /// Its id.
        instance: u32,
    },
}

impl Mig {
    pub fn run(self) -> Result<()> {
        let (node, gpu) = (Node::open(&self.dir)?, self.gpu.as_str());
        match self.deed {
            Deed::On => switch(&node, gpu, true),
            Deed::Off => switch(&node, gpu, false),
            Deed::Reset => Ok(node.reset_gpu(gpu)?),
            Deed::Create { profile, no_compute_instance } => {
                let (name, start) = match profile.split_once('@') {
                    Some((name, start)) => (name, Some(start.parse().context("no start")?)),
                    None => (profile.as_str(), None),
                };
                let made = node.create_instance(gpu, name, start, !no_compute_instance)?;
                let uuid = made.compute.first().map_or("", |compute| &compute.uuid);
                println!("{} {} {uuid}", made.id, made.placement.start);
                Ok(())
            }
            Deed::Destroy { instance } => Ok(node.destroy_instance(gpu, instance)?),
        }
    }
}

fn switch(node: &Node, gpu: &str, on: bool) -> Result<()> {
    if let Some(code) = node.set_mig_mode(gpu, on)? {
        println!("not in force yet: {code}");
    }
    Ok(())
}

/// Lines of `show` for a GPU's instances.
pub fn list(gpu: &Gpu) {
    for instance in &gpu.instances {
        let name = profile::by_id(gpu.gpu_profiles(), instance.profile).map_or("?", |own| own.name);
        let (id, at) = (instance.id, instance.placement);
        println!("  GPU instance {id} {name} at {}:{}", at.start, at.size);
        for compute in &instance.compute {
            println!("    compute instance {} {}", compute.id, compute.uuid);
        }
    }
}
