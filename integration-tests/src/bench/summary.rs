//! The figures as `summary.json`: a list of `{"name", "value", "unit"}` that other tools, and the
//! benches of other parts of Berth, read and add to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::figures::{Comparison, Figures, Unit};
use super::stats::Samples;

/// One line of the summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Unique within the file.
    pub name: String,
    /// The number.
    pub value: f64,
    /// `ratio`, `ms`, `us`, `KiB`, `bytes` or `count`.
    pub unit: String,
}

/// What becomes of the entries that the file already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They belong to an older run: drop them.
    Drop,
    /// Only a part was measured anew: keep those that it does not name.
    Keep,
}

/// The entries of a run: of each comparison the ratios, then both sides' medians and 99th percentiles.
pub fn entries(figures: &Figures) -> Vec<Entry> {
    let facts = figures.facts.iter().map(|fact| entry(&fact.name, fact.value, fact.unit));
    figures.comparisons.iter().flat_map(of_comparison).chain(facts).collect()
}

fn of_comparison(comparison: &Comparison) -> Vec<Entry> {
    let Comparison { name, unit, berth, reference, .. } = comparison;
    let ratio = |of: &str, ratio: Option<f64>| {
        ratio.map(|ratio| entry(&format!("{name}{of}_ratio"), ratio, Unit::Ratio))
    };
    let of_side = |side: &str, samples: &Samples| {
        let median = samples.median().map(|v| entry(&format!("{name}_{side}_median"), v, *unit));
        let p99 = samples.p99().map(|v| entry(&format!("{name}_{side}_p99"), v, *unit));
        median.into_iter().chain(p99)
    };
    ratio("", comparison.ratio())
        .into_iter()
        .chain(ratio("_p10", comparison.p10_ratio()))
        .chain(of_side("berth", berth))
        .chain(of_side("reference", reference))
        .collect()
}

/// Four decimals: more would only be noise in the file.
fn entry(name: &str, value: f64, unit: Unit) -> Entry {
    Entry {
        name: name.to_string(),
        value: (value * 1e4).round() / 1e4,
        unit: unit.name().to_string(),
    }
}

/// Writes the file, by way of a temporary one beside it.
pub fn write(path: &Path, figures: &Figures, others: Others) -> Result<()> {
    let mut all = match others {
        Others::Drop => Vec::new(),
        Others::Keep => read(path)?,
    };
    let fresh = entries(figures);
    let named: BTreeSet<&str> = fresh.iter().map(|entry| entry.name.as_str()).collect();
    all.retain(|entry| !named.contains(entry.name.as_str()));
    all.extend(fresh.iter().cloned());

    let lines: Vec<String> =
        all.iter().map(serde_json::to_string).collect::<serde_json::Result<_>>()?;
    let temporary = path.with_extension("json.tmp");
    fs::write(&temporary, format!("[\n  {}\n]\n", lines.join(",\n  ")))
        .with_context(|| format!("write {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("rename to {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<Entry>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no summary of a bench", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Side;
    use super::*;

    fn figures(name: &str, berth: f64, reference: f64) -> Figures {
        let mut comparison = Comparison::new(name, name, Unit::Ms);
        comparison.push(Side::Berth, berth);
        comparison.push(Side::Reference, reference);
        Figures { comparisons: vec![comparison], facts: vec![] }
    }

    #[test]
    fn a_comparison_becomes_a_ratio_and_the_medians_of_both_sides() {
        let entries = entries(&figures("kill", 1.0, 3.0));
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["kill_ratio", "kill_berth_median", "kill_reference_median"]);
        assert_eq!((entries[0].value, entries[0].unit.as_str()), (0.3333, "ratio"));
        assert_eq!(entries[1].unit, "ms");
    }

    #[test]
    fn a_partial_run_replaces_its_own_entries_and_keeps_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        write(&path, &figures("kill", 1.0, 2.0), Others::Drop).unwrap();
        write(&path, &figures("exec", 1.0, 4.0), Others::Keep).unwrap();
        write(&path, &figures("kill", 1.0, 1.0), Others::Keep).unwrap();
        let value = |name: &str| -> Vec<f64> {
            let all = read(&path).unwrap();
            all.iter().filter(|entry| entry.name == name).map(|entry| entry.value).collect()
        };
        assert_eq!(value("kill_ratio"), [1.0]);
        assert_eq!(value("exec_ratio"), [0.25]);
        write(&path, &figures("exec", 1.0, 2.0), Others::Drop).unwrap();
        assert!(value("kill_ratio").is_empty());
    }

    #[test]
    fn a_file_that_is_no_summary_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        fs::write(&path, "something else").unwrap();
        assert!(write(&path, &figures("kill", 1.0, 2.0), Others::Keep).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"something else");
    }
}
