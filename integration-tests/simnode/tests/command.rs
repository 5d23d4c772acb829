//! The command line, on a machine without driver, which needs nothing that is built elsewhere.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn simnode(arguments: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simnode"));
    let (first, rest) = arguments.split_first().expect("a command");
    command.arg(first).arg(dir).args(rest).output().expect("it runs")
}

fn done(arguments: &[&str], dir: &Path) -> String {
    let output = simnode(arguments, dir);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(arguments: &[&str], dir: &Path) -> String {
    let output = simnode(arguments, dir);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_node_goes_up_is_shown_and_goes_down() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = dir.path().join("node");
    let lines = done(&["up", "--profile", "none", "--layout", "redhat"], &place);
    let root = place.canonicalize().expect("a node").join("root");
    let expected =
        format!("[node]\nroot = {root:?}\nnvml = {:?}\n", root.join("usr/lib64/libnvidia-ml.so.1"));
    assert_eq!(lines, expected);
    assert!(done(&["show"], &place).contains("driver not loaded, layout redhat"));
    let state: serde_json::Value =
        serde_json::from_str(&done(&["show", "--json"], &place)).expect("json");
    assert_eq!(state["profile"], "none");
    assert!(refused(&["up", "--profile", "none"], &place).contains("is not empty"));
    done(&["down"], &place);
    assert!(!place.exists());
    assert!(refused(&["show"], &place).contains("node"));
}

#[test]
fn faults_are_injected_and_cleared() {
    let dir = tempfile::tempdir().expect("a folder");
    done(&["up", "--profile", "none"], dir.path());
    let third = ["inject", "--function", "nvmlDeviceGetMemoryInfo", "--nth", "3"];
    done(&[&third[..], &["--error", "GPU_IS_LOST"]].concat(), dir.path());
    done(&["inject", "--delay-ms", "250", "--onwards"], dir.path());
    done(&["inject", "--die"], dir.path());
    done(&["inject", "--error", "TIMEOUT", "--after"], dir.path());
    let state: serde_json::Value =
        serde_json::from_str(&done(&["show", "--json"], dir.path())).expect("json");
    let expected = serde_json::json!([
        {"function": "nvmlDeviceGetMemoryInfo", "gpu": null, "nth": 3, "onwards": false,
         "action": {"error": "GPU_IS_LOST"}, "seen": 0},
        {"function": "*", "gpu": null, "nth": 1, "onwards": true, "action": {"delay": 250}, "seen": 0},
        {"function": "*", "gpu": null, "nth": 1, "onwards": false, "action": "die", "seen": 0},
        {"function": "*", "gpu": null, "nth": 1, "onwards": false,
         "action": {"error-after": "TIMEOUT"}, "seen": 0},
    ]);
    assert_eq!(state["faults"], expected);
    done(&["inject", "--clear"], dir.path());
    assert!(!done(&["show"], dir.path()).contains("fault"));
    assert!(refused(&["inject", "--error", "BROKEN"], dir.path()).contains("GPU_IS_LOST"));
    refused(&["inject", "--die", "--clear"], dir.path());
    refused(&["inject"], dir.path());
    done(&["down"], dir.path());
}

#[test]
fn what_cannot_happen_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let words = refused(&["up", "--profile", "dgx"], &dir.path().join("node"));
    assert!(words.contains("no profile \"dgx\"; there are p4d, p5"), "{words}");
    done(&["up", "--profile", "none"], dir.path());
    assert!(refused(&["set", "mig", "0", "on"], dir.path()).contains("no GPU \"0\""));
    assert!(refused(&["mig", "0", "on"], dir.path()).contains("no GPU \"0\""));
    assert!(refused(&["mig", "0", "create", "1g.5gb@x"], dir.path()).contains("no start"));
    assert!(refused(&["set", "driver", "load"], dir.path()).contains("its profile has none"));
    done(&["set", "reboot"], dir.path());
    done(&["down"], dir.path());
}

#[test]
fn a_state_that_is_none_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    done(&["up", "--profile", "none"], dir.path());
    fs::write(dir.path().join(".simnode/state.json"), "{").expect("a file");
    let words = refused(&["show"], dir.path());
    assert!(words.contains("state.json is no state of a simulated node"), "{words}");
}
