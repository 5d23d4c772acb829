//! `berth reconcile`: gives back what the dead hold, and says so.

use engine::Node;
use serde_json::json;

use crate::view;

/// Reconciles, or with `dry_run` only says what would be done.
pub fn run(node: &Node, dry_run: bool, json: bool) -> anyhow::Result<()> {
    let report = node.reconcile(dry_run)?;
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if json {
        return view::print_json(&json!({
            "dry_run": dry_run,
            "released": view::grants(&report.released),
            "kept": view::grants(&report.kept),
            "findings": findings,
        }));
    }
    let verb = if dry_run { "would release" } else { "released" };
    let mut lines: Vec<String> =
        report.released.iter().map(|grant| format!("{verb} {}", view::named(grant))).collect();
    lines.extend(findings.into_iter().map(|finding| format!("left alone: {finding}")));
    let gone = report.released.len();
    let verb = if dry_run { "to release" } else { "released" };
    lines.push(format!("{gone} {verb}, {} kept", report.kept.len()));
    view::print_lines(&lines)
}
