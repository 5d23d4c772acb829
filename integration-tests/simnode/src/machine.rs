//! CPUs and memory of a simulated machine: which CPU is on which NUMA node, and how far nodes are from each other.

use serde::{Deserialize, Serialize};

/// Sockets of equal cores; CPUs are numbered first thread of every core, then second thread of every core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors.
    pub sockets: u32,
    /// Cores of each.
    pub cores: u32,
    /// Threads of each core.
    pub threads: u32,
    /// Cores that share one L3 cache.
    pub l3_cores: u32,
    /// NUMA nodes of each socket (SNC, NPS).
    pub nodes_per_socket: u32,
    /// Memory of each node with CPUs, MiB.
    pub node_memory: u64,
    /// Nodes without CPUs that come after them: their memory, MiB (0: an empty node), and the socket that they hang on.
    pub memory_nodes: Vec<(u64, u32)>,
    /// How far another socket's node is: 10 is near.
    pub remote_distance: u32,
}

impl Machine {
    /// CPUs altogether.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    /// NUMA nodes that have CPUs; they come first.
    #[must_use]
    pub fn cpu_nodes(&self) -> u32 {
        self.sockets * self.nodes_per_socket
    }

    /// NUMA nodes altogether.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.cpu_nodes() + u32::try_from(self.memory_nodes.len()).unwrap_or(0)
    }

    /// Counts over all sockets.
    #[must_use]
    pub fn core_of(&self, cpu: u32) -> u32 {
        cpu % (self.sockets * self.cores)
    }

    /// The socket of a CPU.
    #[must_use]
    pub fn socket_of(&self, cpu: u32) -> u32 {
        self.core_of(cpu) / self.cores
    }

    /// The NUMA node of a CPU.
    #[must_use]
    pub fn node_of(&self, cpu: u32) -> u32 {
        self.core_of(cpu) / (self.cores / self.nodes_per_socket)
    }

    /// CPUs for which `keep` holds, ascending.
    pub fn cpus_where(&self, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        (0..self.cpus()).filter(|cpu| keep(*cpu)).collect()
    }

    /// CPUs of a NUMA node; none for one of memory only.
    #[must_use]
    pub fn node_cpus(&self, node: u32) -> Vec<u32> {
        self.cpus_where(|cpu| self.node_of(cpu) == node)
    }

    /// Memory of a NUMA node, MiB.
    #[must_use]
    pub fn memory_of(&self, node: u32) -> u64 {
        match node.checked_sub(self.cpu_nodes()) {
            None => self.node_memory,
            Some(extra) => self.memory_nodes.get(extra as usize).map_or(0, |(memory, _)| *memory),
        }
    }

    fn socket_of_node(&self, node: u32) -> u32 {
        match node.checked_sub(self.cpu_nodes()) {
            None => node / self.nodes_per_socket,
            Some(extra) => self.memory_nodes.get(extra as usize).map_or(0, |(_, socket)| *socket),
        }
    }

    /// As the firmware's table has it.
    #[must_use]
    pub fn distance(&self, from: u32, to: u32) -> u32 {
        let memory_only = |node| node >= self.cpu_nodes();
        let same_socket = self.socket_of_node(from) == self.socket_of_node(to);
        match (memory_only(from), memory_only(to)) {
            _ if from == to => 10,
            (false, false) if same_socket => 12,
            (false, false) => self.remote_distance,
            (true, true) => 254,
            _ if same_socket => 80,
            _ => 120,
        }
    }
}

/// `0-3,8` for ascending numbers.
#[must_use]
pub fn list(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let write = |(first, last): (u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.into_iter().map(write).collect::<Vec<_>>().join(",")
}

/// The kernel's hexadecimal mask of `total` bits, 32 bits a group.
#[must_use]
pub fn mask(numbers: &[u32], total: u32) -> String {
    let groups = total.div_ceil(32).max(1);
    let word = |group: u32| {
        let bits = numbers.iter().filter(|number| *number / 32 == group);
        bits.fold(0_u32, |word, number| word | 1 << (number % 32))
    };
    (0..groups).rev().map(|group| format!("{:08x}", word(group))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_the_kernel_writes_them() {
        assert_eq!(list(&[]), "");
        assert_eq!(list(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!(mask(&[0, 33], 64), "00000002,00000001");
        assert_eq!(mask(&[], 8), "00000000");
    }

    #[test]
    fn cpus_are_numbered_by_thread_and_nodes_follow_their_socket() {
        let machine = Machine {
            sockets: 2,
            cores: 4,
            threads: 2,
            l3_cores: 2,
            nodes_per_socket: 2,
            node_memory: 1024,
            memory_nodes: vec![(0, 0), (512, 1)],
            remote_distance: 21,
        };
        assert_eq!((machine.cpus(), machine.nodes()), (16, 6));
        assert_eq!(machine.node_cpus(0), [0, 1, 8, 9]);
        assert_eq!(machine.node_cpus(3), [6, 7, 14, 15]);
        assert!(machine.node_cpus(5).is_empty());
        assert_eq!(
            (machine.memory_of(3), machine.memory_of(4), machine.memory_of(5)),
            (1024, 0, 512)
        );
        assert_eq!((machine.distance(0, 1), machine.distance(1, 2)), (12, 21));
        assert_eq!((machine.distance(5, 3), machine.distance(5, 0)), (80, 120));
    }
}
