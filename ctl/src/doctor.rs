//! `berth doctor`: everything that Berth needs on this node, each with a line on what to do.
//!
//! Decides how checks are shown and what the exit status says: 0 all well, 1 warnings, 2 failures. The node itself is examined by the
//! engine; here are the programs around it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use engine::config::Config;
use engine::{Check, Node, Outcome};
use serde_json::json;

use crate::handler::{self, Dump, Handler, SHIM};
use crate::view;

/// How containerd learns of Berth. Not by a drop-in where that would replace the rest of the CRI plugin's section.
const ADD_HANDLER: &str = "containerd 2: put packaging/containerd/berth-v3.toml where config.toml imports it; \
     containerd 1.6 and 1.7: append berth-v2.toml's table to config.toml; then restart containerd";

/// Looks at everything and prints it.
pub fn run(json: bool) -> anyhow::Result<ExitCode> {
    let mut checks = Vec::new();
    let dump = handler::dump();
    match Config::load() {
        Err(error) => checks.push(Check::failure(
            "configuration",
            error.to_string(),
            "correct the file; `berth config show` prints what is in force",
        )),
        Ok(config) => {
            checks.push(Check::well("configuration", Config::path().display().to_string()));
            checks.extend(Node::new(&config).examine());
            let (binary, systemd) = (config.runtime.binary, config.runtime.systemd_cgroup);
            checks.extend(runtimes(&dump, &binary, systemd));
        }
    }
    checks.push(shim());
    checks.push(handler(&dump));
    show(&checks, json)?;
    let failed = checks.iter().any(|check| matches!(check.outcome, Outcome::Failure { .. }));
    let warned = checks.iter().any(|check| matches!(check.outcome, Outcome::Warning { .. }));
    Ok(ExitCode::from(if failed { 2 } else { u8::from(warned) }))
}

fn show(checks: &[Check], json: bool) -> anyhow::Result<()> {
    if json {
        let views: Vec<_> = checks.iter().map(as_json).collect();
        return view::print_json(&json!({ "checks": views }));
    }
    let mut lines = Vec::new();
    for Check { name, outcome } in checks {
        let (head, words, fix) = match outcome {
            Outcome::Well(words) => ("ok", words, None),
            Outcome::Skipped(reason) => ("skip", reason, None),
            Outcome::Warning { problem, fix } => ("warn", problem, Some(fix)),
            Outcome::Failure { problem, fix } => ("FAIL", problem, Some(fix)),
        };
        // A file with a mistake is shown with its line.
        let mut words = words.trim_end().lines();
        lines.push(format!("{head:<4}  {name}: {}", words.next().unwrap_or_default()));
        lines.extend(words.map(|line| format!("      {line}")));
        lines.extend(fix.map(|fix| format!("      fix: {fix}")));
    }
    view::print_lines(&lines)
}

fn as_json(check: &Check) -> serde_json::Value {
    let (status, words, fix) = match &check.outcome {
        Outcome::Well(words) => ("ok", words, None),
        Outcome::Skipped(reason) => ("skipped", reason, None),
        Outcome::Warning { problem, fix } => ("warning", problem, Some(fix)),
        Outcome::Failure { problem, fix } => ("failure", problem, Some(fix)),
    };
    json!({ "check": check.name, "status": status, "detail": words, "fix": fix })
}

/// The OCI runtimes that containers may get: that of the configuration, and those of handlers that say otherwise.
fn runtimes(dump: &Dump, binary: &str, systemd: bool) -> Vec<Check> {
    let handlers = if let Dump::Handlers(handlers) = dump { &handlers[..] } else { &[] };
    let own = |handler: &Handler| {
        let binary = handler.binary.clone().unwrap_or_else(|| binary.to_owned());
        (binary, systemd || handler.systemd_cgroup)
    };
    let mut all: BTreeSet<(String, bool)> = handlers.iter().map(own).collect();
    if all.is_empty() {
        all.insert((binary.to_owned(), systemd));
    }
    all.iter().map(|(binary, systemd)| runtime(binary, *systemd)).collect()
}

/// runc 1.1.3 to 1.1.6 drop the rule of a device that has no link in /dev/char when systemd makes the cgroups.
fn runtime(binary: &str, systemd: bool) -> Check {
    let name = "OCI runtime";
    let fix = "install runc, or set runtime.binary";
    let Some(words) = first_line(binary, &["--version"]) else {
        return Check::failure(name, format!("{binary} cannot be run"), fix);
    };
    let version = version(&words);
    if version.is_some_and(drops_rules) {
        let problem = format!(
            "{words} drops device rules without a link in /dev/char when systemd makes the cgroups"
        );
        let fix = "install runc 1.1.7 or newer; Berth makes the links for what it grants";
        if systemd {
            return Check::warning(name, problem, fix);
        }
    }
    let mut better = Vec::new();
    if version.is_some_and(drops_rules) {
        better.push("with systemd cgroups, take 1.1.7 or newer");
    }
    if version.is_some_and(|version| version < BY_DESCRIPTOR) {
        better.push("containers that share a volume can make it create empty files on the node, CVE-2024-45310, unless your distribution has mended that: take 1.1.14 or newer");
    }
    let better = better.join("; ");
    Check::well(name, if better.is_empty() { words } else { format!("{words} ({better})") })
}

/// The first runc that makes mount points by descriptor.
const BY_DESCRIPTOR: [u32; 3] = [1, 1, 14];

fn drops_rules(version: [u32; 3]) -> bool {
    matches!(version, [1, 1, 3..=6])
}

/// runc's, from the first line that `--version` prints; `None` for another runtime's.
fn version(words: &str) -> Option<[u32; 3]> {
    let number = words.strip_prefix("runc version ")?;
    let mut parts = number.split(['.', '+', '-', '~', ' ']).map(|part| part.parse().ok());
    let mut next = || parts.next().flatten();
    Some([next()?, next()?, next()?])
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
}

fn shim() -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).map(|dir| dir.join(SHIM)).collect();
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Check::well("shim", place.display().to_string()),
        None => Check::warning(
            "shim",
            format!("{SHIM} is not in PATH"),
            "install it to /usr/local/bin or /usr/bin, where containerd looks for it",
        ),
    }
}

/// Whether containerd knows the handler, and what it lets through to it.
fn handler(dump: &Dump) -> Check {
    let name = "containerd handler";
    let handlers = match dump {
        Dump::NoFile => {
            let problem = format!("there is no {}", handler::CONFIG);
            return Check::warning(name, problem, ADD_HANDLER);
        }
        Dump::NoProgram => {
            let reason = "containerd is not in PATH".to_owned();
            return Check { name, outcome: Outcome::Skipped(reason) };
        }
        Dump::Handlers(handlers) => handlers,
    };
    if handlers.is_empty() {
        let problem = "containerd's configuration has no handler for Berth";
        return Check::warning(name, problem, ADD_HANDLER);
    }
    if handlers.iter().any(|handler| !handler.hears()) {
        let fix = "add pod_annotations = [\"berth.dev/*\", \"*.berth.dev/*\"] to the handler";
        return Check::failure(name, "pods' annotations do not reach Berth", fix);
    }
    if let Some(wide) = handlers.iter().find_map(Handler::lets_pods_allocate) {
        let problem = format!(
            "pod_annotations has {wide:?}, so a pod's author can write cdi.k8s.io/* and take any GPU"
        );
        let fix = "let pod_annotations be [\"berth.dev/*\", \"*.berth.dev/*\"] alone";
        return Check::failure(name, problem, fix);
    }
    Check::well(name, "known to containerd, with its annotations")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runc_versions_that_drop_rules_are_known() {
        for bad in ["runc version 1.1.3", "runc version 1.1.5+ds1", "runc version 1.1.6-0ubuntu1"] {
            assert!(version(bad).is_some_and(drops_rules), "{bad}");
        }
        for good in
            ["runc version 1.1.2", "runc version 1.1.12", "runc version 1.3.0", "crun 1.1.5"]
        {
            assert!(!version(good).is_some_and(drops_rules), "{good}");
        }
    }

    #[test]
    fn the_runc_versions_that_can_be_raced_are_known() {
        for bad in ["runc version 1.1.5+ds1", "runc version 1.1.13", "runc version 1.0.0-rc93"] {
            assert!(version(bad).is_some_and(|version| version < BY_DESCRIPTOR), "{bad}");
        }
        for good in ["runc version 1.1.14", "runc version 1.2.0-rc.3", "crun version 1.8"] {
            assert!(version(good).is_none_or(|version| version >= BY_DESCRIPTOR), "{good}");
        }
    }
}
