//! What of the machine one container's pinning may be made of.
//!
//! Decides which of the near CPUs remain: not those that the kernel or the operator set aside, and none that the container's cgroup could
//! not give it.

use super::{CpuSet, Near, NodeSet, Topology};

/// The machine as one container finds it.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The machine.
    pub topology: &'a Topology,
    /// What is near the container's GPUs; `None` where nothing says.
    pub near: Option<&'a Near>,
    /// `node.exclusive-cpus`.
    pub pool: &'a CpuSet,
    /// `node.reserved-cpus`.
    pub reserved: &'a CpuSet,
    /// CPUs that the container's cgroup can give, `None` where that is not known.
    pub allowed: Option<&'a CpuSet>,
    /// Memory that it can give, likewise.
    pub allowed_memory: Option<&'a NodeSet>,
}

impl Ground<'_> {
    /// CPUs that every container may share.
    pub fn wide(&self) -> CpuSet {
        let aside = self.topology.set_aside().or(self.pool).or(self.reserved);
        self.within(&self.topology.cpus().without(&aside))
    }

    /// Those of them that are near.
    pub fn shared(&self) -> CpuSet {
        self.near.map_or_else(CpuSet::none, |near| self.wide().and(&near.cpus))
    }

    /// What of the pool may be given at all.
    pub fn exclusive(&self) -> CpuSet {
        let known = self.pool.without(self.reserved);
        self.within(&match self.topology.is_empty() {
            true => known,
            false => known.and(&self.topology.cpus()),
        })
    }

    /// Nodes whose memory is preferred: those of the near CPUs. A GPU's own memory is not for what programs allocate by the way.
    pub fn preferred(&self) -> NodeSet {
        let near = self.near.map_or_else(NodeSet::none, Near::nodes);
        let near = self.topology.with_memory(&near);
        self.allowed_memory.map_or_else(|| near.clone(), |allowed| near.and(allowed))
    }

    /// Why no CPUs are shared and near, in words.
    pub(super) fn why_none_near(&self) -> String {
        let Some(near) = self.near else {
            return "the machine does not say which CPUs are near its GPUs".to_owned();
        };
        match self.allowed.filter(|allowed| !allowed.meets(&near.cpus)) {
            Some(allowed) => format!(
                "CPUs {} are near its GPUs, and its cgroup can give {}",
                near.cpus,
                in_words(allowed)
            ),
            None => format!(
                "CPUs {} are near its GPUs, and all of them are isolated, reserved or exclusive",
                near.cpus
            ),
        }
    }

    fn within(&self, cpus: &CpuSet) -> CpuSet {
        self.allowed.map_or_else(|| cpus.clone(), |allowed| cpus.and(allowed))
    }
}

/// `none`, or the list.
pub(super) fn in_words(set: &CpuSet) -> String {
    if set.is_empty() { "none".to_owned() } else { set.to_string() }
}
