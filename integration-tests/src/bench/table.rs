//! The figures as a table for a terminal. Decides columns and digits, nothing else.

use super::figures::{Comparison, Figures, Side, Unit};
use super::stats::Samples;

const COLUMNS: usize = 9;
const HEADINGS: [&str; COLUMNS] =
    ["", "unit", "berth", "reference", "ratio", "of p10", "berth p99", "ref. p99", "aim"];

/// The table, its lines ended by newlines. Medians unless a heading says otherwise (`of p10` is the ratio
/// of the 10th percentiles); `–` where there are too few runs to say.
pub fn render(figures: &Figures) -> String {
    let mut rows: Vec<[String; COLUMNS]> = vec![HEADINGS.map(String::from)];
    rows.extend(figures.comparisons.iter().map(row));
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });

    let mut table = String::new();
    for (index, row) in rows.iter().enumerate() {
        table.push_str(&line(row, &widths));
        if index == 0 {
            let total = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
            table.push_str(&"-".repeat(total));
            table.push('\n');
        }
    }
    for fact in &figures.facts {
        let value = digits(fact.value, fact.unit);
        let aim = match (fact.aim, fact.misses_aim()) {
            (None, _) => String::new(),
            (Some(aim), false) => format!(" (aim: at most {aim})"),
            (Some(aim), true) => format!(" (aim: at most {aim}, MISSED)"),
        };
        table.push_str(&format!("{}: {value} {}{aim}\n", fact.name, fact.unit.name()));
    }
    table
}

fn row(comparison: &Comparison) -> [String; COLUMNS] {
    let number =
        |value: Option<f64>| value.map_or("–".to_string(), |v| digits(v, comparison.unit));
    let ratio = |ratio: Option<f64>| ratio.map_or("–".to_string(), |r| format!("{r:.3}"));
    let samples = |side: Side| -> &Samples {
        match side {
            Side::Berth => &comparison.berth,
            Side::Reference => &comparison.reference,
        }
    };
    let aim = match (comparison.aim, comparison.misses_aim()) {
        (None, _) => String::new(),
        (Some(aim), false) => format!("<= {aim:.2}"),
        (Some(aim), true) => format!("<= {aim:.2} MISSED"),
    };
    [
        comparison.title.clone(),
        comparison.unit.name().to_string(),
        number(samples(Side::Berth).median()),
        number(samples(Side::Reference).median()),
        ratio(comparison.ratio()),
        ratio(comparison.p10_ratio()),
        number(samples(Side::Berth).p99()),
        number(samples(Side::Reference).p99()),
        aim,
    ]
}

/// As many digits as the measurement is good for.
fn digits(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ms => format!("{value:.2}"),
        Unit::Us => format!("{value:.1}"),
        Unit::KiB | Unit::Bytes | Unit::Count => format!("{value:.0}"),
        Unit::Ratio => format!("{value:.3}"),
    }
}

/// Words to the left, numbers to the right.
fn line(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, &width))| match column {
        0 | 1 | 8 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    let joined = cells.collect::<Vec<_>>().join("  ");
    format!("{}\n", joined.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_a_missed_aim_is_said() {
        let mut kill = Comparison::new("kill", "kill", Unit::Ms);
        kill.push(Side::Berth, 3.0);
        kill.push(Side::Reference, 6.0);
        let mut start = Comparison::new("start", "start a container", Unit::Ms);
        start.push(Side::Berth, 3.25);
        start.push(Side::Reference, 6.5);
        let table = render(&Figures { comparisons: vec![kill, start], facts: vec![] });
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[2].ends_with("<= 0.20 MISSED"), "{table}");
        assert!(lines[2].contains("0.500") && lines[3].contains("0.500"), "{table}");
        assert_eq!(lines[2].find("0.500"), lines[3].find("0.500"), "{table}");
        assert!(lines[3].contains("3.25"), "{table}");
    }

    #[test]
    fn a_side_without_measurements_shows_as_a_dash() {
        let nothing = Comparison::new("x", "x", Unit::Ms);
        assert!(render(&Figures { comparisons: vec![nothing], facts: vec![] }).contains('–'));
    }
}
