//! `berth ledger`: the record itself, for when it is in doubt.

use std::process::ExitCode;

use engine::{Node, Repair};
use serde_json::json;

use crate::view;

/// Prints every record as JSON, whole.
pub fn show(node: &Node, json: bool) -> anyhow::Result<()> {
    let ledger = node.ledger_record()?;
    if json {
        let grants = view::grants(&ledger.grants);
        return view::print_json(&json!({ "generation": ledger.generation, "grants": grants }));
    }
    println!("# generation {}, {} grants", ledger.generation, ledger.grants.len());
    for grant in &ledger.grants {
        println!("{}", view::as_seen(&serde_json::to_string(grant.as_ref())?));
    }
    Ok(())
}

/// Checks the ledger; exits with 1 when something is wrong.
pub fn verify(node: &Node, json: bool) -> anyhow::Result<ExitCode> {
    // That it cannot be read at all is what this command is there to say, in JSON as in words.
    let findings = node.verify().unwrap_or_else(|fault| vec![fault.to_string()]);
    if json {
        view::print_json(&json!({ "sound": findings.is_empty(), "findings": findings }))?;
    } else if findings.is_empty() {
        println!("The ledger is sound.");
    } else {
        view::print_lines(&findings)?;
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Repairs the ledger, or only says what would be done.
pub fn repair(node: &Node, dry_run: bool, force: bool, json: bool) -> anyhow::Result<()> {
    let repair = node.repair(dry_run, force)?;
    if json {
        let unreadable = repair.unreadable.iter();
        let dropped = repair.dropped.iter();
        let unclaimed = repair.unclaimed.iter();
        return view::print_json(&json!({
            "dry_run": dry_run,
            "ledger": repair.path,
            "damage": repair.damage,
            "unreadable": unreadable.map(|lost| json!({ "line": lost.line, "why": lost.why })).collect::<Vec<_>>(),
            "kept": view::grants(&repair.kept),
            "rebuilt": view::grants(&repair.rebuilt),
            "dropped": dropped.map(|(grant, why)| json!({ "grant": view::grant(grant), "why": why })).collect::<Vec<_>>(),
            "unrecorded": repair.unrecorded,
            "unclaimed": unclaimed.map(|one| json!({
                "gpu": one.gpu, "profile": one.profile, "start": one.start, "mig_uuids": one.mig_uuids,
            })).collect::<Vec<_>>(),
            "saved": repair.saved,
            "repaired": repair.is_done,
        }));
    }
    view::print_lines(&words(&repair, dry_run))
}

fn words(repair: &Repair, dry_run: bool) -> Vec<String> {
    let path = repair.path.display();
    let Some(damage) = &repair.damage else {
        return vec![format!("{path} can be read: nothing to repair.")];
    };
    let mut lines = vec![format!("{path} {damage}")];
    let unreadable = repair.unreadable.iter();
    lines
        .extend(unreadable.map(|lost| format!("cannot be read: line {}: {}", lost.line, lost.why)));
    let kept = if dry_run { "would keep" } else { "kept" };
    let rebuilt = if dry_run { "would make anew" } else { "made anew" };
    let dropped = if dry_run { "would drop" } else { "dropped" };
    lines.extend(repair.kept.iter().map(|grant| format!("{kept} {}", view::named(grant))));
    lines.extend(repair.rebuilt.iter().map(|grant| format!("{rebuilt} {}", view::named(grant))));
    let gone = repair.dropped.iter();
    lines.extend(gone.map(|(grant, why)| format!("{dropped} {}: {why}", view::named(grant))));
    let without = repair.unrecorded.iter();
    lines.extend(without.map(|what| format!("has no record: {what}")));
    let unclaimed = repair.unclaimed.iter();
    lines.extend(unclaimed.map(|one| {
        format!("no record has the MIG instance {one}: may be one that Berth made; it is yours to destroy")
    }));
    let last = match &repair.saved {
        Some(saved) => format!("repaired; the damaged one is {}", saved.display()),
        None if dry_run && repair.unrecorded.is_empty() => "nothing was changed".to_owned(),
        None if dry_run => "nothing was changed; what has no record takes --force".to_owned(),
        None => "repaired".to_owned(),
    };
    lines.push(last);
    lines
}
