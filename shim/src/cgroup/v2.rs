//! Usage on cgroup v2 (kernel: Documentation/admin-guide/cgroup-v2.rst).
//!
//! Decides which file feeds which field of `io.containerd.cgroups.v2.Metrics`. CPU times are in
//! microseconds. Must not know containers.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats,
    PidsStat, RdmaEntry, RdmaStat,
};
use containerd_shim_protos::protobuf::MessageField;

use super::files::{huge_page_sizes, number, pairs, parse, rdma_devices, text};

/// Everything that the enabled controllers tell.
pub fn metrics(dir: &Path) -> Metrics {
    Metrics {
        pids: MessageField::some(PidsStat {
            current: number(dir, "pids.current"),
            limit: unlimited_is_zero(number(dir, "pids.max")),
            ..PidsStat::default()
        }),
        cpu: MessageField::some(cpu(dir)),
        memory: MessageField::some(memory(dir)),
        memory_events: MessageField::some(memory_events(dir)),
        io: MessageField::some(io(dir)),
        rdma: MessageField::some(RdmaStat {
            current: rdma(dir, "rdma.current"),
            limit: rdma(dir, "rdma.max"),
            ..RdmaStat::default()
        }),
        hugetlb: huge_pages(dir),
        ..Metrics::default()
    }
}

/// This message writes "no limit on pids" as zero.
fn unlimited_is_zero(limit: u64) -> u64 {
    if limit == u64::MAX { 0 } else { limit }
}

fn cpu(dir: &Path) -> CPUStat {
    let mut cpu = CPUStat::default();
    pairs(dir, "cpu.stat", |key, value| {
        let field = match key {
            "usage_usec" => &mut cpu.usage_usec,
            "user_usec" => &mut cpu.user_usec,
            "system_usec" => &mut cpu.system_usec,
            "nr_periods" => &mut cpu.nr_periods,
            "nr_throttled" => &mut cpu.nr_throttled,
            "throttled_usec" => &mut cpu.throttled_usec,
            "nr_bursts" => &mut cpu.nr_bursts,
            "burst_usec" => &mut cpu.burst_usec,
            _ => return,
        };
        *field = value;
    });
    cpu.psi = pressure(dir, "cpu.pressure");
    cpu
}

fn memory(dir: &Path) -> MemoryStat {
    let mut m = MemoryStat::default();
    pairs(dir, "memory.stat", |key, value| {
        let field = match key {
            "anon" => &mut m.anon,
            "file" => &mut m.file,
            "kernel_stack" => &mut m.kernel_stack,
            "slab" => &mut m.slab,
            "sock" => &mut m.sock,
            "shmem" => &mut m.shmem,
            "file_mapped" => &mut m.file_mapped,
            "file_dirty" => &mut m.file_dirty,
            "file_writeback" => &mut m.file_writeback,
            "anon_thp" => &mut m.anon_thp,
            "inactive_anon" => &mut m.inactive_anon,
            "active_anon" => &mut m.active_anon,
            "inactive_file" => &mut m.inactive_file,
            "active_file" => &mut m.active_file,
            "unevictable" => &mut m.unevictable,
            "slab_reclaimable" => &mut m.slab_reclaimable,
            "slab_unreclaimable" => &mut m.slab_unreclaimable,
            "pgfault" => &mut m.pgfault,
            "pgmajfault" => &mut m.pgmajfault,
            // Split into _anon and _file in Linux 5.9; the sum is the old meaning.
            "workingset_refault" | "workingset_refault_anon" | "workingset_refault_file" => {
                m.workingset_refault += value;
                return;
            }
            "workingset_activate" | "workingset_activate_anon" | "workingset_activate_file" => {
                m.workingset_activate += value;
                return;
            }
            "workingset_nodereclaim" => &mut m.workingset_nodereclaim,
            "pgrefill" => &mut m.pgrefill,
            "pgscan" => &mut m.pgscan,
            "pgsteal" => &mut m.pgsteal,
            "pgactivate" => &mut m.pgactivate,
            "pgdeactivate" => &mut m.pgdeactivate,
            "pglazyfree" => &mut m.pglazyfree,
            "pglazyfreed" => &mut m.pglazyfreed,
            "thp_fault_alloc" => &mut m.thp_fault_alloc,
            "thp_collapse_alloc" => &mut m.thp_collapse_alloc,
            _ => return,
        };
        *field = value;
    });
    m.usage = number(dir, "memory.current");
    m.usage_limit = number(dir, "memory.max");
    m.max_usage = number(dir, "memory.peak");
    m.swap_usage = number(dir, "memory.swap.current");
    m.swap_limit = number(dir, "memory.swap.max");
    m.swap_max_usage = number(dir, "memory.swap.peak");
    m.psi = pressure(dir, "memory.pressure");
    m
}

fn memory_events(dir: &Path) -> MemoryEvents {
    let mut events = MemoryEvents::default();
    pairs(dir, "memory.events", |key, value| {
        let field = match key {
            "low" => &mut events.low,
            "high" => &mut events.high,
            "max" => &mut events.max,
            "oom" => &mut events.oom,
            "oom_kill" => &mut events.oom_kill,
            "oom_group_kill" => &mut events.oom_group_kill,
            _ => return,
        };
        *field = value;
    });
    events
}

/// Lines of `major:minor rbytes=n wbytes=n rios=n wios=n …`.
fn io(dir: &Path) -> IOStat {
    let usage = text(dir, "io.stat")
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let mut entry =
                IOEntry { major: parse(major), minor: parse(minor), ..IOEntry::default() };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                match key {
                    "rbytes" => entry.rbytes = parse(value),
                    "wbytes" => entry.wbytes = parse(value),
                    "rios" => entry.rios = parse(value),
                    "wios" => entry.wios = parse(value),
                    _ => {}
                }
            }
            Some(entry)
        })
        .collect();
    IOStat { usage, psi: pressure(dir, "io.pressure"), ..IOStat::default() }
}

/// Pressure stall information: lines of `some|full avg10=f avg60=f avg300=f total=n`.
fn pressure(dir: &Path, name: &str) -> MessageField<PSIStats> {
    let text = text(dir, name);
    if text.is_empty() {
        return MessageField::none();
    }
    let mut stats = PSIStats::default();
    for line in text.lines() {
        let Some((kind, rest)) = line.split_once(' ') else { continue };
        let mut data = PSIData::default();
        for (key, value) in rest.split(' ').filter_map(|word| word.split_once('=')) {
            let average = value.parse().unwrap_or_default();
            match key {
                "avg10" => data.avg10 = average,
                "avg60" => data.avg60 = average,
                "avg300" => data.avg300 = average,
                "total" => data.total = parse(value),
                _ => {}
            }
        }
        match kind {
            "some" => stats.some = MessageField::some(data),
            "full" => stats.full = MessageField::some(data),
            _ => {}
        }
    }
    MessageField::some(stats)
}

fn rdma(dir: &Path, name: &str) -> Vec<RdmaEntry> {
    let entry = |(device, hca_handles, hca_objects)| RdmaEntry {
        device,
        hca_handles,
        hca_objects,
        ..RdmaEntry::default()
    };
    rdma_devices(dir, name).into_iter().map(entry).collect()
}

fn huge_pages(dir: &Path) -> Vec<HugeTlbStat> {
    let stat = |pagesize: String| {
        let read = |suffix| number(dir, &format!("hugetlb.{pagesize}.{suffix}"));
        let mut failcnt = 0;
        pairs(dir, &format!("hugetlb.{pagesize}.events"), |key, value| {
            if key == "max" {
                failcnt = value;
            }
        });
        HugeTlbStat {
            current: read("current"),
            max: read("max"),
            failcnt,
            pagesize,
            ..HugeTlbStat::default()
        }
    };
    huge_page_sizes(dir, ".current").into_iter().map(stat).collect()
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
            ("pids.max", "64\n"),
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnew_key 1\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\n"),
            (
                "memory.stat",
                "anon 1\nfile 2\nworkingset_refault_anon 3\nworkingset_refault_file 4\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
            ("hugetlb.2MB.current", "6\n"),
            ("hugetlb.2MB.rsvd.current", "7\n"),
            ("hugetlb.2MB.events", "max 9\n"),
        ] {
            fs::write(dir.join(name), text).expect("writable");
        }
        let m = metrics(dir);
        assert_eq!((m.pids.current, m.pids.limit), (5, 64));
        assert_eq!((m.cpu.usage_usec, m.cpu.user_usec, m.cpu.system_usec), (30, 20, 10));
        assert!((m.cpu.psi.some.avg10 - 1.5).abs() < f64::EPSILON);
        assert_eq!((m.cpu.psi.some.total, m.cpu.psi.full.is_none()), (77, true));
        assert_eq!((m.memory.anon, m.memory.workingset_refault), (1, 7));
        assert_eq!((m.memory.usage, m.memory.usage_limit), (4096, u64::MAX));
        assert_eq!((m.memory_events.oom, m.memory_events.oom_kill), (3, 4));
        assert_eq!((m.io.usage[0].major, m.io.usage[0].wbytes, m.io.usage[0].wios), (8, 20, 2));
        assert_eq!(m.hugetlb.len(), 1);
        assert_eq!((m.hugetlb[0].pagesize.as_str(), m.hugetlb[0].failcnt), ("2MB", 9));
    }
}
