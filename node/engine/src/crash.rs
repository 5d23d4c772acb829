//! Crash points: places where a process can be told to die, so that tests can kill it between any two steps, and can be watched passing by,
//! so that the benchmark can tell what takes how long.
//!
//! Without the feature `crash-points`, which no release has, a point is nothing at all.

/// Who is told of each point.
#[cfg(feature = "crash-points")]
static WATCHER: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// Lets `watcher` be told of every point that this process passes from now on. The first one stays.
#[cfg(feature = "crash-points")]
pub fn watch(watcher: fn(&'static str)) {
    let _ = WATCHER.set(watcher);
}

/// Dies here if `BERTH_CRASH_AT` names this point.
#[cfg(feature = "crash-points")]
pub(crate) fn point(name: &'static str) {
    if let Some(watcher) = WATCHER.get() {
        watcher(name);
    }
    if std::env::var("BERTH_CRASH_AT").is_ok_and(|wanted| wanted == name) {
        // As SIGKILL would: no destructor runs, no file is closed in order.
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(feature = "crash-points"))]
pub(crate) fn point(_name: &'static str) {}

/// Every crash point, in the order in which admissions and what follows them pass by.
pub const POINTS: [&str; 28] = [
    // From what is asked to what is taken: nothing is held before `admit.reserved`.
    "admit.start",
    "admit.observed",
    "admit.prepared",
    "admit.locked",
    "admit.joined",
    "admit.decided",
    "admit.in-progress",
    "admit.reserved",
    "admit.taken",
    // What is taken is being made true.
    "admit.links",
    "admit.trees",
    "admit.stored",
    "undo.start",
    "dress.start",
    "dress.cache",
    "dress.kept",
    "arm.start",
    "arm.locked",
    "arm.applied",
    "arm.placed",
    "arm.unmarked",
    // And given back, by its owner or for the dead.
    "release.start",
    "release.locked",
    "release.committed",
    "reconcile.start",
    "reconcile.looked",
    "reconcile.locked",
    "reconcile.committed",
];

/// Those of the slow works on MIG instances: what a shim waits for, and what the `berth` program does for it.
pub const WORKS: [&str; 13] = [
    "switch.held",
    "switch.done",
    "make.start",
    "make.looked",
    "make.begun",
    "make.placed",
    "make.made",
    "make.written",
    "make.done",
    "give-back.marked",
    "give-back.begun",
    "give-back.destroyed",
    "give-back.struck-out",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_list_names_the_points_in_the_code_and_no_others() {
        let all = || POINTS.iter().chain(&WORKS);
        let listed: BTreeSet<String> = all().map(|&name| name.to_owned()).collect();
        assert_eq!(listed.len(), all().count(), "a point is listed twice");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(sources).expect("the crate's own sources") {
            let path = entry.expect("an entry").path();
            assert!(path.is_file(), "{}: look for points in there, too", path.display());
            if path.ends_with("crash.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source");
            for call in text.split("point(\"").skip(1) {
                let name = call.split('"').next().expect("split yields at least one").to_owned();
                assert!(
                    found.insert(name),
                    "{}: a point of this name is elsewhere, too",
                    path.display()
                );
            }
        }
        assert_eq!(found, listed);
    }
}
