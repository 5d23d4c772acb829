//! Changes are counted, made under the lock, and to what was read under it.

use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::record::tests::uuid;

/// As the ledger has it.
fn grant(number: u64, gpus: &[u64]) -> Arc<Grant> {
    Arc::new(crate::record::tests::grant(number, gpus))
}

const BOOT: &str = "5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d";
const OTHER: &str = "00000000-0d4f-4d8a-9b2e-1f6c7a8b9c0d";
const PATIENT: Duration = Duration::from_secs(60);

fn ledger() -> (TempDir, Ledger) {
    let run = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(&run.path().join("berth"), BOOT).expect("a ledger");
    (run, ledger)
}

#[test]
fn a_new_ledger_is_generation_0_and_each_commit_counts_one() {
    let (_run, ledger) = ledger();
    assert_eq!(ledger.snapshot().expect("empty"), Snapshot::default());
    let mut locked = ledger.lock(PATIENT).expect("locked");
    assert_eq!((locked.generation(), locked.grants().len()), (0, 0));
    locked.commit(vec![grant(1, &[0])]).expect("committed");
    locked.commit(vec![grant(1, &[0]), grant(2, &[1])]).expect("committed again");
    assert_eq!((locked.generation(), locked.grants().len()), (2, 2));
    drop(locked);
    let snapshot = ledger.snapshot().expect("sound");
    assert_eq!(snapshot, Snapshot { generation: 2, grants: vec![grant(1, &[0]), grant(2, &[1])] });
    assert_eq!(ledger.lock(PATIENT).expect("locked").generation(), 2);
}

#[test]
fn only_a_boot_id_names_a_folder() {
    let run = tempfile::tempdir().expect("a folder");
    for bad in ["", ".", "..", "../../etc", "5C1A9E3B-0D4F-4D8A-9B2E-1F6C7A8B9C0D", "x\n"] {
        let words = Ledger::open(run.path(), bad).expect_err(bad).to_string();
        assert!(words.contains("is not a boot id"), "{words}");
    }
    assert!(fs::read_dir(run.path()).expect("a folder").next().is_none(), "nothing was made");
}

#[test]
fn the_folder_must_be_ours_alone() {
    let (_run, ledger) = ledger();
    let reopened = || Ledger::open(&ledger.run, BOOT).map(drop).map_err(|error| error.to_string());
    assert_eq!(reopened(), Ok(()));
    fs::set_permissions(&ledger.folder, fs::Permissions::from_mode(0o755)).expect("chmod");
    let words = reopened().expect_err("others can read");
    assert!(words.contains("has mode 0755, which lets others in"), "{words}");
    fs::remove_dir(&ledger.folder).expect("removed");
    symlink("/tmp", &ledger.folder).expect("a link");
    assert!(reopened().expect_err("a link").contains("is a symbolic link, not a folder"));
}

#[test]
fn other_boots_are_named_and_never_read() {
    let (_run, ledger) = ledger();
    let other = Ledger::open(&ledger.run, OTHER).expect("another boot");
    other.lock(PATIENT).expect("locked").commit(vec![grant(9, &[9])]).expect("committed");
    fs::create_dir(ledger.run.join("something-else")).expect("a folder");
    fs::write(ledger.run.join("10000000-0d4f-4d8a-9b2e-1f6c7a8b9c0d"), "").expect("a file");
    assert_eq!(ledger.void_boots(), [ledger.run.join(OTHER)]);
    assert_eq!(ledger.snapshot().expect("empty"), Snapshot::default());
    assert_eq!(ledger.sweep_boots().expect("swept"), 1);
    let left = |name: &str| ledger.run.join(name).exists();
    assert!(!left(OTHER) && left(BOOT) && left("something-else"), "only other boots go");
}

#[test]
fn one_at_a_time_and_the_next_one_is_told_which_lock_it_waited_for() {
    let (_run, ledger) = ledger();
    let locked = ledger.lock(PATIENT).expect("locked");
    let words = ledger.lock(Duration::ZERO).expect_err("held").to_string();
    assert!(words.contains("node.lock was still held by another process after 0ns"), "{words}");
    ledger.snapshot().expect("reading waits for nobody");
    drop(locked);
    ledger.lock(Duration::ZERO).expect("free again");
}

#[test]
fn gpus_are_locked_one_by_one() {
    let (_run, ledger) = ledger();
    let first = ledger.gpu_lock(&uuid(1), PATIENT).expect("locked");
    assert!(ledger.gpu_lock(&uuid(1), Duration::ZERO).is_err());
    ledger.gpu_lock(&uuid(2), Duration::ZERO).expect("another GPU's");
    ledger.lock(Duration::ZERO).expect("the node's, inside the GPU's");
    drop(first);
    ledger.gpu_lock(&uuid(1), PATIENT).expect("free again");
}

#[test]
fn a_commit_to_a_file_that_was_swapped_writes_nothing() {
    let (_run, ledger) = ledger();
    let mut locked = ledger.lock(PATIENT).expect("locked");
    locked.commit(vec![grant(1, &[0])]).expect("committed");
    let intruder = Snapshot { generation: 1, grants: vec![grant(3, &[0])] };
    let _seen = file::replace(&ledger.path(), &intruder, None).expect("written without the lock");
    let words = locked.commit(vec![]).expect_err("swapped").to_string();
    assert!(words.contains("ledger.json was changed by another"), "{words}");
    assert_eq!(locked.generation(), 1);
    assert_eq!(ledger.snapshot().expect("sound"), intruder);
}

#[test]
fn a_commit_under_a_lock_whose_file_is_gone_writes_nothing() {
    let (_run, ledger) = ledger();
    let mut one = ledger.lock(PATIENT).expect("locked");
    fs::remove_file(ledger.folder.join(NODE_LOCK)).expect("removed");
    let mut other = ledger.lock(Duration::ZERO).expect("a lock of the same name");
    assert!(matches!(one.commit(vec![]), Err(LedgerError::Swapped { .. })));
    other.commit(vec![grant(1, &[0])]).expect("the lock that has the name");
}

#[test]
fn a_ledger_that_cannot_be_read_cannot_be_locked_and_stays_as_it_is() {
    let (_run, ledger) = ledger();
    ledger.lock(PATIENT).expect("locked").commit(vec![grant(1, &[0])]).expect("committed");
    let file = fs::OpenOptions::new().write(true).open(ledger.path()).expect("open");
    file.set_len(0).expect("emptied");
    for words in
        [ledger.lock(PATIENT).map(drop), ledger.snapshot().map(drop), ledger.verify().map(drop)]
    {
        let words = words.expect_err("empty").to_string();
        assert!(words.contains("ledger.json is empty; no GPU is granted"), "{words}");
    }
    assert_eq!(fs::metadata(ledger.path()).expect("there").len(), 0);
    ledger.lock(Duration::ZERO).expect_err("still unreadable, and not Busy").to_string();
}

#[test]
fn what_a_killed_writer_left_is_no_hindrance() {
    let (_run, ledger) = ledger();
    fs::create_dir_all(&ledger.folder).expect("there");
    fs::write(ledger.folder.join(".ledger.json.new"), "{\"format\":1,").expect("half a file");
    ledger.lock(PATIENT).expect("locked").commit(vec![grant(1, &[0])]).expect("committed");
    assert_eq!(ledger.snapshot().expect("sound").grants.len(), 1);
}

#[test]
fn a_lock_that_is_a_link_or_anothers_is_not_used() {
    let (run, ledger) = ledger();
    let target = run.path().join("target");
    symlink(&target, ledger.folder.join(NODE_LOCK)).expect("a link");
    let words = ledger.lock(PATIENT).expect_err("a link").to_string();
    assert!(words.contains("node.lock is a symbolic link, not a file"), "{words}");
    assert!(!target.exists(), "the link was not followed");

    let mark = ledger.mark(&grant(1, &[]).id);
    fs::write(&mark, "").expect("a file");
    fs::set_permissions(&mark, fs::Permissions::from_mode(0o666)).expect("chmod");
    let words = ledger.is_in_progress(&grant(1, &[]).id).expect_err("others'").to_string();
    assert!(words.contains("has mode 0666, which lets others in"), "{words}");
}

#[test]
fn a_mark_lasts_as_long_as_its_value_and_asking_does_not_disturb_it() {
    let (_run, ledger) = ledger();
    let id = grant(1, &[]).id.clone();
    let asked = || ledger.is_in_progress(&id).expect("asked");
    assert!(!asked());
    let mark = ledger.begin(&id).expect("begun");
    assert!(asked() && asked());
    assert_eq!(ledger.sweep().expect("swept"), 0, "what is held is not swept");
    drop(mark);
    assert!(!asked());
    assert!(!ledger.mark(&id).exists(), "and its file is gone");
    drop(ledger.begin(&id).expect("begun again"));
}

#[test]
fn marks_that_nobody_holds_are_swept_and_nothing_else_is() {
    let (_run, ledger) = ledger();
    ledger.lock(PATIENT).expect("locked").commit(vec![]).expect("committed");
    drop(ledger.begin(&grant(1, &[]).id).expect("begun"));
    // As a killed process leaves it.
    drop(trusted::make_anew(&ledger.mark(&grant(2, &[]).id)).expect("a file"));
    fs::write(ledger.folder.join("notes.admitting"), "").expect("a file");
    let _held = ledger.begin(&grant(3, &[]).id).expect("begun");
    assert_eq!(ledger.sweep().expect("swept"), 1);
    assert!(!ledger.mark(&grant(2, &[]).id).exists());
    assert!(ledger.mark(&grant(3, &[]).id).exists());
    assert!(ledger.folder.join("notes.admitting").exists() && ledger.path().exists());
}

#[test]
fn verify_finds_reserved_grants_that_nobody_works_on() {
    let (_run, ledger) = ledger();
    let mut reserved = [grant(1, &[0]), grant(2, &[1])];
    for one in &mut reserved {
        Arc::make_mut(one).state = crate::State::Reserved;
    }
    ledger.lock(PATIENT).expect("locked").commit(reserved.to_vec()).expect("committed");
    let _held = ledger.begin(&reserved[0].id).expect("begun");
    let words: Vec<_> = ledger.verify().expect("read").iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "ns/pod-2 (g-0000000000000002) is reserved, and nobody is making its container; run `berth reconcile`"
        ]
    );
}

#[test]
fn what_is_known_is_good_until_somebody_else_changes_it() {
    let (_run, ledger) = ledger();
    let mut locked = ledger.lock(PATIENT).expect("locked");
    locked.commit(vec![grant(1, &[0])]).expect("committed");
    let known = locked.leave();
    let mut locked = ledger.lock_knowing(PATIENT, Some(known)).expect("free again");
    assert_eq!(locked.grants(), [grant(1, &[0])]);
    locked.commit(vec![grant(2, &[1])]).expect("committed upon it");
    let known = locked.leave();
    ledger.lock(PATIENT).expect("locked").commit(vec![grant(3, &[2])]).expect("another's");
    let mut locked = ledger.lock_knowing(PATIENT, Some(known)).expect("locked");
    assert_eq!((locked.generation(), locked.grants()), (3, &[grant(3, &[2])][..]));
    locked.commit(Vec::new()).expect("committed");
    assert_eq!(ledger.snapshot().expect("read").generation, 4);
}
