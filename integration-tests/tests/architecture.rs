//! Keeps ARCHITECTURE.md true, and the house in the order that it describes.
//!
//! Decides what "true" can mean to a machine: places exist, arrows point where they may, every file says
//! what it is for, and unsafe code stands where the page says. Must not judge taste.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The longest that a source file may get before its walls should move.
const LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn page() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md")
}

/// Every Rust source file of the workspace, relative to its root.
fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    assert!(found.len() > 30, "the walk must find the sources, and found {}", found.len());
    found.into_iter().map(|path| path.strip_prefix(root()).expect("below").to_owned()).collect()
}

fn text(source: &Path) -> String {
    fs::read_to_string(root().join(source)).expect("a source file")
}

/// Members of the workspace, each with the members that it depends on (tests and builds included).
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    let inner = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        dependencies.iter().map(name).filter(|found| members.contains(found)).collect()
    };
    packages.iter().map(|package| (name(package), inner(package))).collect()
}

#[test]
fn arrows_point_where_the_page_says() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("berth-shim", &["berth-engine", "berth-oci-specs"][..]),
        ("berth-ctl", &["berth-engine"]),
        ("berth-engine", &["berth-ledger", "berth-device", "berth-plan", "berth-oci-specs"]),
        ("berth-ledger", &["berth-plan"]),
        ("berth-device", &["berth-plan"]),
        ("berth-plan", &[]),
        ("berth-oci-specs", &[]),
        // The harness drives binaries as containerd does; the crash tests play whole admissions in processes of their own.
        // Placement is compared with other policies by deciding the same requests.
        (
            "berth-integration-tests",
            &["berth-simnode", "berth-engine", "berth-oci-specs", "berth-plan"],
        ),
        ("berth-simnode", &[]),
        ("berth-simnode-nvml", &["berth-simnode"]),
    ]);
    for (from, targets) in arrows() {
        let may = allowed.get(from.as_str());
        let may = may.unwrap_or_else(|| panic!("{from} is in no room of ARCHITECTURE.md's house"));
        for to in targets {
            assert!(may.contains(&to.as_str()), "{from} must not depend on {to}");
        }
    }
}

#[test]
fn every_place_that_the_page_names_is_there() {
    let page = page();
    let named = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|words| words.contains('/') && !words.contains(' ') && !words.starts_with('/'));
    let mut seen = 0;
    for place in named {
        assert!(root().join(place).exists(), "ARCHITECTURE.md names {place}");
        seen += 1;
    }
    assert!(seen > 10, "the page names places, and only {seen} were found");
}

#[test]
fn every_member_is_on_the_page() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let manifest: toml::Table = manifest.parse().expect("toml");
    let members = manifest["workspace"]["members"].as_array().expect("members");
    for member in members {
        let place = format!("`{}/`", member.as_str().expect("a path"));
        assert!(page().contains(&place), "{place} is missing from ARCHITECTURE.md");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for source in sources() {
        assert!(text(&source).starts_with("//! "), "{} has no //! header", source.display());
    }
}

#[test]
fn no_file_outgrows_its_thought() {
    for source in sources() {
        let lines = text(&source).lines().count();
        assert!(lines <= LINES, "{} has {lines} lines: move a wall", source.display());
    }
}

/// The page's list of files with unsafe code is exact for what ships; test code is not on it.
#[test]
fn unsafe_code_stands_where_the_page_says() {
    let word = ["unsafe", " {"].concat();
    let page = page();
    for source in sources().into_iter().filter(|source| !source.starts_with("integration-tests")) {
        let listed = page
            .split_once("`unsafe` stands only")
            .expect("the invariant about unsafe code")
            .1
            .split_once("## ")
            .expect("an end to it")
            .0
            .contains(&format!("`{}`", source.display()));
        let has = text(&source)
            .lines()
            .any(|line| !line.trim().starts_with("//") && line.contains(&word));
        assert_eq!(has, listed, "{}: unsafe code against the page's list", source.display());
    }
}

#[test]
fn crates_without_foreign_calls_forbid_unsafe_code() {
    for place in [
        "node/engine/src/lib.rs",
        "node/ledger/src/lib.rs",
        "node/plan/src/lib.rs",
        "oci-specs/src/lib.rs",
        "ctl/src/main.rs",
    ] {
        assert!(text(Path::new(place)).contains("#![forbid(unsafe_code)]"), "{place}");
    }
}
