//! Usage on cgroup v1 (kernel: Documentation/admin-guide/cgroup-v1).
//!
//! Decides which file feeds which field of `io.containerd.cgroups.v1.Metrics`. CPU times are in
//! nanoseconds. Must not know containers.

use std::path::{Path, PathBuf};

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use containerd_shim_protos::protobuf::MessageField;

use super::files::{huge_page_sizes, number, pairs, parse, rdma_devices, text};

/// One directory per controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directories(Vec<(Box<str>, Box<Path>)>);

impl Directories {
    /// Notes where `controller` has the container.
    pub fn insert(&mut self, controller: &str, dir: PathBuf) {
        self.0.push((controller.into(), dir.into()));
    }

    /// The directory of `controller`.
    pub fn get(&self, controller: &str) -> Option<&Path> {
        self.0.iter().find(|(name, _)| **name == *controller).map(|(_, dir)| &**dir)
    }

    /// A directory whose membership stands for all: every controller of a container has the same.
    pub fn any(&self) -> Option<&Path> {
        ["pids", "devices", "memory", "cpu"]
            .iter()
            .find_map(|name| self.get(name))
            .or_else(|| self.0.first().map(|(_, dir)| &**dir))
    }

    /// Whether no controller was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Everything that the mounted controllers tell.
pub fn metrics(dirs: &Directories) -> Metrics {
    let mut metrics = Metrics::default();
    if let Some(dir) = dirs.get("pids") {
        metrics.pids = MessageField::some(pids(dir));
    }
    metrics.cpu = cpu(dirs.get("cpu"), dirs.get("cpuacct"));
    if let Some(dir) = dirs.get("memory") {
        metrics.memory = MessageField::some(memory(dir));
        metrics.memory_oom_control = MessageField::some(oom_control(dir));
    }
    if let Some(dir) = dirs.get("blkio") {
        metrics.blkio = MessageField::some(block_io(dir));
    }
    if let Some(dir) = dirs.get("hugetlb") {
        metrics.hugetlb = huge_pages(dir);
    }
    if let Some(dir) = dirs.get("rdma") {
        metrics.rdma = MessageField::some(rdma(dir));
    }
    metrics
}

fn pids(dir: &Path) -> PidsStat {
    // "max" means no limit, which this message writes as zero.
    let limit = match number(dir, "pids.max") {
        u64::MAX => 0,
        limit => limit,
    };
    PidsStat { current: number(dir, "pids.current"), limit, ..PidsStat::default() }
}

fn cpu(cpu: Option<&Path>, cpuacct: Option<&Path>) -> MessageField<CPUStat> {
    if cpu.is_none() && cpuacct.is_none() {
        return MessageField::none();
    }
    let mut stat = CPUStat::default();
    if let Some(dir) = cpuacct {
        let mut usage = CPUUsage { total: number(dir, "cpuacct.usage"), ..CPUUsage::default() };
        let ticks = text(dir, "cpuacct.usage_percpu");
        usage.per_cpu = ticks.split_whitespace().map(parse).collect();
        pairs(dir, "cpuacct.stat", |key, ticks| match key {
            "user" => usage.user = nanoseconds(ticks),
            "system" => usage.kernel = nanoseconds(ticks),
            _ => {}
        });
        stat.usage = MessageField::some(usage);
    }
    if let Some(dir) = cpu {
        let mut throttle = Throttle::default();
        pairs(dir, "cpu.stat", |key, value| match key {
            "nr_periods" => throttle.periods = value,
            "nr_throttled" => throttle.throttled_periods = value,
            "throttled_time" => throttle.throttled_time = value,
            _ => {}
        });
        stat.throttling = MessageField::some(throttle);
    }
    MessageField::some(stat)
}

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every architecture that Linux runs CUDA on.
fn nanoseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(10_000_000)
}

fn memory(dir: &Path) -> MemoryStat {
    let mut m = MemoryStat::default();
    pairs(dir, "memory.stat", |key, value| {
        let field = match key {
            "cache" => &mut m.cache,
            "rss" => &mut m.rss,
            "rss_huge" => &mut m.rss_huge,
            "mapped_file" => &mut m.mapped_file,
            "dirty" => &mut m.dirty,
            "writeback" => &mut m.writeback,
            "pgpgin" => &mut m.pg_pg_in,
            "pgpgout" => &mut m.pg_pg_out,
            "pgfault" => &mut m.pg_fault,
            "pgmajfault" => &mut m.pg_maj_fault,
            "inactive_anon" => &mut m.inactive_anon,
            "active_anon" => &mut m.active_anon,
            "inactive_file" => &mut m.inactive_file,
            "active_file" => &mut m.active_file,
            "unevictable" => &mut m.unevictable,
            "hierarchical_memory_limit" => &mut m.hierarchical_memory_limit,
            "hierarchical_memsw_limit" => &mut m.hierarchical_swap_limit,
            "total_cache" => &mut m.total_cache,
            "total_rss" => &mut m.total_rss,
            "total_rss_huge" => &mut m.total_rss_huge,
            "total_mapped_file" => &mut m.total_mapped_file,
            "total_dirty" => &mut m.total_dirty,
            "total_writeback" => &mut m.total_writeback,
            "total_pgpgin" => &mut m.total_pg_pg_in,
            "total_pgpgout" => &mut m.total_pg_pg_out,
            "total_pgfault" => &mut m.total_pg_fault,
            "total_pgmajfault" => &mut m.total_pg_maj_fault,
            "total_inactive_anon" => &mut m.total_inactive_anon,
            "total_active_anon" => &mut m.total_active_anon,
            "total_inactive_file" => &mut m.total_inactive_file,
            "total_active_file" => &mut m.total_active_file,
            "total_unevictable" => &mut m.total_unevictable,
            _ => return,
        };
        *field = value;
    });
    m.usage = memory_entry(dir, "memory");
    m.swap = memory_entry(dir, "memory.memsw");
    m.kernel = memory_entry(dir, "memory.kmem");
    m.kernel_tcp = memory_entry(dir, "memory.kmem.tcp");
    m
}

fn memory_entry(dir: &Path, prefix: &str) -> MessageField<MemoryEntry> {
    let read = |suffix| number(dir, &format!("{prefix}.{suffix}"));
    MessageField::some(MemoryEntry {
        limit: read("limit_in_bytes"),
        usage: read("usage_in_bytes"),
        max: read("max_usage_in_bytes"),
        failcnt: read("failcnt"),
        ..MemoryEntry::default()
    })
}

fn oom_control(dir: &Path) -> MemoryOomControl {
    let mut control = MemoryOomControl::default();
    pairs(dir, "memory.oom_control", |key, value| match key {
        "oom_kill_disable" => control.oom_kill_disable = value,
        "under_oom" => control.under_oom = value,
        "oom_kill" => control.oom_kill = value,
        _ => {}
    });
    control
}

fn block_io(dir: &Path) -> BlkIOStat {
    // The CFQ-era files are gone from current kernels; the throttle files count the same there.
    let entries = |names: [&str; 2]| {
        names
            .iter()
            .map(|name| block_entries(dir, name))
            .find(|list| !list.is_empty())
            .unwrap_or_default()
    };
    BlkIOStat {
        io_service_bytes_recursive: entries([
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ]),
        io_serviced_recursive: entries([
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ]),
        ..BlkIOStat::default()
    }
}

/// Lines of `major:minor operation value`; the closing `Total value` has no device and is left out.
fn block_entries(dir: &Path, name: &str) -> Vec<BlkIOEntry> {
    text(dir, name)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (op, value) = (words.next()?, words.next()?);
            Some(BlkIOEntry {
                op: op.into(),
                device: device_name(major, minor),
                major: parse(major),
                minor: parse(minor),
                value: parse(value),
                ..BlkIOEntry::default()
            })
        })
        .collect()
}

/// The device's node as sysfs names it; empty where sysfs does not know it.
fn device_name(major: &str, minor: &str) -> String {
    let mut name = String::new();
    let uevent = text(Path::new("/sys/dev/block"), &format!("{major}:{minor}/uevent"));
    if let Some(dev) = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")) {
        name = format!("/dev/{dev}");
    }
    name
}

fn huge_pages(dir: &Path) -> Vec<HugetlbStat> {
    let stat = |pagesize: String| {
        let read = |suffix| number(dir, &format!("hugetlb.{pagesize}.{suffix}"));
        HugetlbStat {
            usage: read("usage_in_bytes"),
            max: read("max_usage_in_bytes"),
            failcnt: read("failcnt"),
            pagesize,
            ..HugetlbStat::default()
        }
    };
    huge_page_sizes(dir, ".usage_in_bytes").into_iter().map(stat).collect()
}

fn rdma(dir: &Path) -> RdmaStat {
    RdmaStat {
        current: rdma_entries(dir, "rdma.current"),
        limit: rdma_entries(dir, "rdma.max"),
        ..RdmaStat::default()
    }
}

fn rdma_entries(dir: &Path, name: &str) -> Vec<RdmaEntry> {
    let entry = |(device, hca_handles, hca_objects)| RdmaEntry {
        device,
        hca_handles,
        hca_objects,
        ..RdmaEntry::default()
    };
    rdma_devices(dir, name).into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_fake_tree_is_read_field_by_field() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dir = root.path();
        for (name, text) in [
            ("pids.current", "5\n"),
            ("pids.max", "max\n"),
            ("cpuacct.usage", "123456789\n"),
            ("cpuacct.usage_percpu", "100 23 \n"),
            ("cpuacct.stat", "user 7\nsystem 3\n"),
            ("cpu.stat", "nr_periods 4\nnr_throttled 2\nthrottled_time 99\n"),
            ("memory.stat", "cache 1\nrss 2\ntotal_rss 3\nnew_in_linux_9 8\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n"),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "999:1 Read 10\n999:1 Write 20\nTotal 30\n",
            ),
        ] {
            fs::write(dir.join(name), text).expect("writable");
        }
        let mut dirs = Directories::default();
        for controller in ["pids", "cpu", "cpuacct", "memory", "blkio"] {
            dirs.insert(controller, dir.to_owned());
        }
        let m = metrics(&dirs);
        assert_eq!((m.pids.current, m.pids.limit), (5, 0));
        assert_eq!((m.cpu.usage.total, m.cpu.usage.user), (123_456_789, 70_000_000));
        assert_eq!(m.cpu.usage.per_cpu, [100, 23]);
        assert_eq!(m.cpu.throttling.throttled_time, 99);
        assert_eq!((m.memory.cache, m.memory.rss, m.memory.total_rss), (1, 2, 3));
        assert_eq!(m.memory.usage.usage, 4096);
        assert_eq!(m.memory_oom_control.oom_kill, 6);
        let bytes = &m.blkio.io_service_bytes_recursive;
        assert_eq!(bytes.len(), 2);
        assert_eq!((bytes[1].op.as_str(), bytes[1].major, bytes[1].value), ("Write", 999, 20));
    }
}
