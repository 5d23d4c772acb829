//! What only a node lab can show: containers next to their GPUs on a kernel with several NUMA nodes, device rules of cgroup v2, systemd.
//!
//! Decides which trials there are and on which shape of node. `make lab` boots such a node and runs this in it; elsewhere everything is
//! skipped, with the reason. The GPUs are simulated; CPUs, memory, cgroups and systemd are the node's own.

mod exclusive;
mod ground;
mod installed;
mod memory;
mod near;
mod reset;
mod rules;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use ground::Ground;
use integration_tests::suite::Suite;
use integration_tests::trial;

/// A trial: its name and what it does.
type Trial = (&'static str, fn(&Ground) -> Result<()>);

const TRIALS: &[Trial] = &[
    trial!(installed::an_administrator_installs_uses_and_removes_it),
    trial!(near::a_gpu_s_node_is_its_container_s_and_its_execs),
    trial!(memory::strict_memory_comes_from_the_gpu_s_node_alone),
    trial!(memory::preferred_memory_comes_from_the_gpu_s_node_while_it_has_room),
    trial!(memory::strict_is_refused_where_the_cgroup_cannot_give_it),
    trial!(exclusive::no_two_of_twenty_containers_have_the_same_cpu),
    trial!(rules::cgroupfs_and_runc),
    trial!(rules::systemd_and_runc),
    trial!(rules::cgroupfs_and_crun),
    trial!(rules::systemd_and_crun),
    trial!(reset::the_node_is_reset_amid_admissions),
    trial!(reset::after_a_reset_nothing_of_the_old_boot_is_believed),
];

fn main() -> ExitCode {
    let ground = Ground::look();
    let (ground, skip) = match ground {
        Ok(ground) => (Some(Arc::new(ground)), None),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            (None, Some(reason))
        }
    };
    let mut suite = Suite::new("lab");
    for (name, body) in TRIALS {
        let held = ground.clone();
        suite.plain(name, skip.clone(), move || held.map_or(Ok(()), |ground| body(&ground)));
    }
    suite.run_as_it_is()
}
