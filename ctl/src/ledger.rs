//! `berth ledger`: the record itself, for when it is in doubt.

use std::process::ExitCode;

use engine::Node;
use serde_json::json;

use crate::view::{self, GrantView};

/// Prints every record as JSON, whole.
pub fn show(node: &Node, json: bool) -> anyhow::Result<()> {
    let ledger = node.ledger_record()?;
    if json {
        let grants: Vec<GrantView> = ledger.grants.iter().map(|grant| view::grant(grant)).collect();
        return view::print_json(&json!({ "generation": ledger.generation, "grants": grants }));
    }
    println!("# generation {}, {} grants", ledger.generation, ledger.grants.len());
    for grant in &ledger.grants {
        println!("{}", serde_json::to_string(grant.as_ref())?);
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
