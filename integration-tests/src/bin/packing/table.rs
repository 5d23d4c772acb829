//! The table, and who was best in how many of its cells.
//!
//! Decides the words only.

use crate::Cell;
use crate::policy::{self, Policy};

/// The newest cell as a line; before the first, the heads of the columns.
pub fn line(cells: &[Cell]) -> String {
    let Some(cell) = cells.last() else { return String::new() };
    let heads = policy::ALL.iter().map(|policy| format!("{:>10}", policy.name()));
    let heads = format!("{:<14}{:>4}{}{:>8}", "mix", "load", heads.collect::<String>(), "bound");
    let shares = cell.shares.iter().map(|share| format!("{:>10.2}", share * 100.0));
    let shares: String = shares.collect();
    let line = format!(
        "{:<14}{:>4}{shares}{:>8.2}  {}",
        cell.mix,
        cell.load,
        cell.bound * 100.0,
        lead(cell)
    );
    if cells.len() == 1 { format!("{heads}\n{line}") } else { line }
}

/// Berth's place among the policies, and that of the best other one. What moves everything is none.
pub fn berth_and_best_other(shares: &[f64]) -> (usize, usize) {
    let is = |policy: Policy| policy::ALL.iter().position(|one| *one == policy).unwrap_or_default();
    let (berth, repack) = (is(Policy::Berth), is(Policy::Repack));
    let others = (0..shares.len()).filter(|place| ![berth, repack].contains(place));
    let best = others.max_by(|a, b| shares[*a].total_cmp(&shares[*b]));
    (berth, best.unwrap_or_default())
}

fn lead(cell: &Cell) -> String {
    let (berth, other) = berth_and_best_other(&cell.shares);
    let lead = (cell.shares[berth] - cell.shares[other]) * 100.0;
    format!(
        "berth {lead:+.2} +- {:.2} against {}",
        cell.lead_error * 100.0,
        policy::ALL[other].name()
    )
}

/// In how many cells Berth was best, and which not.
pub fn verdict(cells: &[Cell]) -> String {
    let behind = |cell: &&Cell| {
        let (berth, other) = berth_and_best_other(&cell.shares);
        cell.shares[berth] < cell.shares[other]
    };
    let behind: Vec<String> =
        cells.iter().filter(behind).map(|cell| format!("{} {}", cell.mix, cell.load)).collect();
    match behind.is_empty() {
        true => format!("Berth gives most in all {} cells", cells.len()),
        false => format!("Berth does not give most in: {}", behind.join(", ")),
    }
}
