//! The figures of a run: each thing measured on both sides, with its name, unit and aim, and plain
//! facts measured on Berth alone. Decides names and units; knows nothing of how they are shown.

use super::stats::{Samples, ratio};

/// One of the two shims that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The shim of this project.
    Berth,
    /// containerd-shim-runc-v2.
    Reference,
}

impl Side {
    /// Both, in the order of the table's columns.
    pub const BOTH: [Side; 2] = [Side::Berth, Side::Reference];
}

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Kibibytes, as the kernel counts memory.
    KiB,
    /// Bytes.
    Bytes,
    /// One number divided by another.
    Ratio,
    /// A count of something.
    Count,
}

impl Unit {
    /// The unit as written in the table and in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Ms => "ms",
            Unit::Us => "us",
            Unit::KiB => "KiB",
            Unit::Bytes => "bytes",
            Unit::Ratio => "ratio",
            Unit::Count => "count",
        }
    }
}

/// One thing measured on both sides.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The stem of its names in the summary: `kill` becomes `kill_ratio`, `kill_berth_median`, ….
    pub name: String,
    /// What the reader of table and chart sees.
    pub title: String,
    /// The unit of every sample.
    pub unit: Unit,
    /// Berth's measurements.
    pub berth: Samples,
    /// The reference's.
    pub reference: Samples,
    /// The ratio that the project set out to reach, if it set one.
    pub aim: Option<f64>,
}

impl Comparison {
    /// An empty one, to be filled by [`Comparison::push`].
    pub fn new(name: impl Into<String>, title: impl Into<String>, unit: Unit) -> Self {
        let name = name.into();
        let aim = aim_of(&name);
        let (berth, reference) = (Samples::default(), Samples::default());
        Comparison { name, title: title.into(), unit, berth, reference, aim }
    }

    /// Adds a measurement of one side.
    pub fn push(&mut self, side: Side, value: f64) {
        match side {
            Side::Berth => self.berth.push(value),
            Side::Reference => self.reference.push(value),
        }
    }

    /// Berth's median divided by the reference's.
    pub fn ratio(&self) -> Option<f64> {
        ratio(self.berth.median(), self.reference.median())
    }

    /// The same of the 10th percentiles: the median's ratio with less of a busy machine in it.
    pub fn p10_ratio(&self) -> Option<f64> {
        ratio(self.berth.p10(), self.reference.p10())
    }

    /// Whether there is an aim and the ratio is above it.
    pub fn misses_aim(&self) -> bool {
        matches!((self.ratio(), self.aim), (Some(ratio), Some(aim)) if ratio > aim)
    }
}

/// The ratios that were set out to be reached when the shim was begun.
fn aim_of(name: &str) -> Option<f64> {
    match name {
        "lifecycle" => Some(0.75),
        "shim_start" => Some(0.35),
        "kill" => Some(0.2),
        "exec" => Some(0.9),
        "private_dirty" => Some(0.28),
        "pss" => Some(0.40),
        "gpu_vs_plain_reference" => Some(1.0),
        _ => None,
    }
}

/// What single numbers set out to stay below.
fn aim_of_fact(name: &str) -> Option<f64> {
    match name {
        "gpu_added_p50_ms" => Some(4.0),
        "gpu_added_p99_ms" => Some(15.0),
        "mig_existing_added_p50_ms" => Some(5.0),
        "mig_create_overhead_ms" => Some(10.0),
        "admission_p99_us" => Some(1000.0),
        "decision_p99_us" => Some(100.0),
        "shim_stripped_bytes" => Some(6.0 * 1024.0 * 1024.0),
        _ => None,
    }
}

/// A single number that is no comparison: a file size, a count of runs.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Its name in the summary.
    pub name: String,
    /// What it comes to.
    pub value: f64,
    /// In which unit.
    pub unit: Unit,
    /// What it is not to exceed, if that was ever said.
    pub aim: Option<f64>,
}

impl Fact {
    /// Whether there is an aim and the number is above it.
    pub fn misses_aim(&self) -> bool {
        self.aim.is_some_and(|aim| self.value > aim)
    }
}

/// Everything that a run found, in the order in which it is shown.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Things measured on both sides.
    pub comparisons: Vec<Comparison>,
    /// Single numbers.
    pub facts: Vec<Fact>,
}

impl Figures {
    /// Notes a single number.
    pub fn note(&mut self, name: impl Into<String>, value: f64, unit: Unit) {
        let name = name.into();
        let aim = aim_of_fact(&name);
        self.facts.push(Fact { name, value, unit, aim });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_medians_not_of_means() {
        let mut create = Comparison::new("create", "create", Unit::Ms);
        [1.0, 2.0, 300.0].into_iter().for_each(|value| create.push(Side::Berth, value));
        [4.0, 4.0, 4.0].into_iter().for_each(|value| create.push(Side::Reference, value));
        assert_eq!(create.ratio(), Some(0.5));
    }

    #[test]
    fn a_ratio_above_its_aim_is_a_miss_and_one_at_it_is_not() {
        let mut kill = Comparison::new("kill", "kill", Unit::Ms);
        kill.push(Side::Reference, 10.0);
        kill.push(Side::Berth, 2.0);
        assert!(!kill.misses_aim());
        kill.push(Side::Berth, 4.0);
        assert!(kill.misses_aim());
    }

    #[test]
    fn a_number_above_its_aim_is_a_miss_too() {
        let mut figures = Figures::default();
        figures.note("decision_p99_us", 100.0, Unit::Us);
        figures.note("decision_p99_us", 100.1, Unit::Us);
        figures.note("shim_stripped_bytes", 6_291_457.0, Unit::Bytes);
        figures.note("gpu_runs", 1e9, Unit::Count);
        let missed: Vec<bool> = figures.facts.iter().map(Fact::misses_aim).collect();
        assert_eq!(missed, [false, true, true, false]);
    }

    #[test]
    fn what_has_no_aim_cannot_miss_it() {
        let mut wait = Comparison::new("wait", "wait", Unit::Ms);
        wait.push(Side::Reference, 1.0);
        wait.push(Side::Berth, 9.0);
        assert_eq!(wait.ratio(), Some(9.0));
        assert!(!wait.misses_aim());
    }
}
