//! `berth cdi`: the devices that others can ask for by the Container Device Interface.
//!
//! Decides how they are shown. Must not judge or make a specification: the engine does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use engine::{DeviceName, Examined, Listed, Node, Problem, write_spec};
use serde_json::{Value, json};

use crate::cli::{Format, Generate, Naming};
use crate::{table, view};

/// Prints every device, its file, and what stands against it.
pub fn list(node: &Node, more: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let all = node.cdi_devices(more)?;
    if json {
        let device = |one: &Listed| {
            json!({
                "device": one.name.to_string(), "file": one.path,
                "conflicts": one.conflicts, "overridden": one.overridden,
            })
        };
        let error = |(file, error): &(PathBuf, String)| json!({ "file": file, "error": error });
        return view::print_json(&json!({
            "directories": all.directories,
            "devices": all.devices.iter().map(device).collect::<Vec<_>>(),
            "errors": all.broken.iter().map(error).collect::<Vec<_>>(),
        }));
    }
    let mut lines = match all.devices.is_empty() {
        true => vec![format!("No CDI device; looked into {}.", paths(&all.directories))],
        false => table::lines(
            &["DEVICE", "FILE", "NOTE"],
            &all.devices.iter().map(row).collect::<Vec<_>>(),
        ),
    };
    let error = |(file, error): &(PathBuf, String)| format!("error: {}: {error}", file.display());
    lines.extend(all.broken.iter().map(error));
    view::print_lines(&lines)
}

fn row(one: &Listed) -> Vec<String> {
    let mut notes = Vec::new();
    if !one.conflicts.is_empty() {
        notes.push(format!("given to nobody: it is in {}, too", paths(&one.conflicts)));
    }
    if !one.overridden.is_empty() {
        notes.push(format!("beats {}", paths(&one.overridden)));
    }
    vec![one.name.to_string(), one.path.display().to_string(), notes.join("; ")]
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Prints everything that is wrong; exits with 1 when there are errors.
pub fn validate(node: &Node, files: &[PathBuf], json: bool) -> anyhow::Result<ExitCode> {
    let examined = node.examine_cdi(files)?;
    let valid = examined.iter().all(|one| one.errors.is_empty());
    if json {
        let files: Vec<Value> = examined
            .iter()
            .map(|one| {
                json!({ "file": one.path, "errors": views(&one.errors), "warnings": views(&one.warnings) })
            })
            .collect();
        view::print_json(&json!({ "valid": valid, "files": files }))?;
    } else {
        let mut lines: Vec<String> = examined.iter().flat_map(told).collect();
        let count = |of: fn(&Examined) -> usize| examined.iter().map(of).sum::<usize>();
        lines.push(format!(
            "{}, {}, {}",
            counted(examined.len(), "file"),
            counted(count(|one| one.errors.len()), "error"),
            counted(count(|one| one.warnings.len()), "warning"),
        ));
        view::print_lines(&lines)?;
    }
    Ok(if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn views(problems: &[Problem]) -> Vec<Value> {
    let one = |it: &Problem| json!({ "device": it.device, "field": it.field, "problem": it.what });
    problems.iter().map(one).collect()
}

fn told(one: &Examined) -> Vec<String> {
    let file = one.path.display();
    let errors = one.errors.iter().map(|problem| format!("{file}: error: {problem}"));
    let warnings = one.warnings.iter().map(|problem| format!("{file}: warning: {problem}"));
    let lines: Vec<String> = errors.chain(warnings).collect();
    if lines.is_empty() { vec![format!("{file}: ok")] } else { lines }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Writes or prints a specification of the node.
pub fn generate(node: &Node, what: &Generate, json: bool) -> anyhow::Result<()> {
    let named = what.output.as_ref().and_then(|path| match path.extension()?.to_str()? {
        "json" => Some(Format::Json),
        "yaml" | "yml" => Some(Format::Yaml),
        _ => None,
    });
    let usual = if json && what.output.is_none() { Format::Json } else { Format::Yaml };
    let format = what.format.or(named).unwrap_or(usual);
    if let Some(path) = &what.output {
        ensure!(
            named == Some(format),
            "readers of CDI specifications go by the file's name: end {} in {}",
            path.display(),
            if format == Format::Json { ".json" } else { ".yaml" }
        );
    }
    let naming = |naming: &Naming| match naming {
        Naming::Index => DeviceName::Index,
        Naming::Uuid => DeviceName::Uuid,
    };
    let names: Vec<DeviceName> = what.device_name.iter().map(naming).collect();
    let spec = node.cdi_spec(&format!("{}/{}", what.vendor, what.class), &names)?;
    let text = match format {
        Format::Yaml => spec.to_yaml(),
        Format::Json => spec.to_json(),
    };
    let text = text.map_err(|why| anyhow::anyhow!("this would be no CDI specification: {why}"))?;
    let Some(path) = &what.output else {
        print!("{text}");
        return Ok(());
    };
    write_spec(path, &text)?;
    let devices: Vec<String> =
        spec.devices.iter().map(|(name, _)| format!("{}={name}", spec.kind)).collect();
    match json {
        true => view::print_json(&json!({ "file": path, "devices": devices })),
        false => view::print_lines(&[format!("wrote {}: {}", path.display(), devices.join(", "))]),
    }
}
