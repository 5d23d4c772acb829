//! Whatever was done to a ledger, what can be read of it stands again, nothing else does, and the damaged one is kept.

use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::record::tests::grant;

const BOOT: &str = "6f0c1c3e-93c5-4b3a-8a52-0a3b1f3c5d7e";
const WAIT: Duration = Duration::from_secs(5);

struct Place {
    folder: tempfile::TempDir,
    ledger: Ledger,
    grants: Vec<Arc<Grant>>,
    whole: Vec<u8>,
}

impl Place {
    /// A ledger of four grants.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::open(folder.path(), BOOT).expect("opens");
        let grants: Vec<_> = [(1, &[0, 1][..]), (2, &[2]), (3, &[3]), (4, &[4, 5])]
            .map(|(id, gpus)| Arc::new(grant(id, gpus)))
            .into();
        ledger.lock(WAIT).expect("locks").commit(grants.clone()).expect("writes");
        let whole = fs::read(ledger.path()).expect("there");
        Self { folder, ledger, grants, whole }
    }

    fn damage(&self, bytes: &[u8]) {
        fs::write(self.ledger.path(), bytes).expect("written");
    }

    /// What is salvaged is put in place; that, and what was damaged.
    fn repaired(&self) -> (Vec<Arc<Grant>>, Vec<u8>) {
        let mending = self.ledger.mend(WAIT).expect("looks");
        let Condition::Damaged { salvage, .. } = &mending.condition else {
            panic!("it is not damaged: {:?}", mending.condition);
        };
        let grants = salvage.grants.clone();
        let aside = mending.replace(grants.clone()).expect("replaces").expect("put aside");
        assert_eq!(self.ledger.snapshot().expect("it reads").grants, grants);
        let damaged = fs::read(&aside).expect("kept");
        fs::remove_file(aside).expect("removed");
        (grants, damaged)
    }
}

/// On which line, from 0, a place of the document is.
fn line_of(bytes: &[u8], place: usize) -> usize {
    bytes[..place].iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn cut_off_anywhere_the_whole_lines_before_stay() {
    let place = Place::new();
    for end in 0..place.whole.len() - 1 {
        let bytes = &place.whole[..end];
        place.damage(bytes);
        let (grants, damaged) = place.repaired();
        assert_eq!(damaged, bytes, "the first {end} bytes are kept as they were");
        // The head, then a line for each grant; one that lacks only its comma is whole.
        let lines = bytes.split(|byte| *byte == b'\n').skip(1);
        let is_whole = |(at, line): (usize, &[u8])| {
            let wanted = place.whole.split(|byte| *byte == b'\n').nth(at + 1).expect("a line");
            line == wanted || (line.len() + 1 == wanted.len() && wanted.ends_with(b","))
        };
        let whole = lines.enumerate().take(4).filter(|line| is_whole(*line)).count();
        assert_eq!(grants, place.grants[..whole], "the first {end} bytes");
        assert!(contradictions(&grants).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A damaged byte costs no record but that on its line; in the first, which all refer to, it costs all.
    #[test]
    fn a_flipped_bit_costs_one_record_at_most(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let place = Place::new();
        let mut bytes = place.whole.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        place.damage(&bytes);
        let mending = place.ledger.mend(WAIT).expect("looks");
        match &mending.condition {
            // Not every change can be told: within a text or a number it may be another good one.
            Condition::Sound(snapshot) => prop_assert_eq!(snapshot.grants.len(), 4),
            Condition::Missing => prop_assert!(false, "it is there"),
            Condition::Foreign { .. } => prop_assert!(at < 12, "{}", at),
            Condition::Damaged { .. } => {
                drop(mending);
                let (grants, damaged) = place.repaired();
                prop_assert_eq!(&damaged, &bytes);
                let line = line_of(&place.whole, at);
                // What a line break was, or has become one, is a matter of two lines.
                let hit = |n: usize| line == 0 || n + 1 == line || (place.whole[at] == b'\n' && n == line);
                for (n, grant) in place.grants.iter().enumerate().filter(|(n, _)| !hit(*n)) {
                    prop_assert!(grants.contains(grant), "grant {} after byte {}", n, at);
                }
                prop_assert!(grants.iter().all(|one| place.grants.contains(one)), "none is made up");
            }
        }
    }
}

#[test]
fn another_versions_is_not_touched() {
    let place = Place::new();
    let newer = String::from_utf8(place.whole.clone())
        .expect("text")
        .replace("\"format\":1", "\"format\":12");
    // Cut off, it is no less another's.
    for bytes in [newer.as_bytes(), &newer.as_bytes()[..40], br#"{"format":12,"else":1}"#] {
        place.damage(bytes);
        let mending = place.ledger.mend(WAIT).expect("looks");
        assert!(
            matches!(mending.condition, Condition::Foreign { format: 12, known: 1 }),
            "{mending:?}"
        );
    }
}

#[test]
fn what_others_could_write_is_not_believed_and_what_they_could_read_is() {
    let place = Place::new();
    let path = place.ledger.path();
    let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    set(0o644);
    assert_eq!(place.repaired().0, place.grants);
    set(0o666);
    assert_eq!(place.repaired().0, []);
    fs::remove_file(&path).expect("removed");
    fs::write(place.folder.path().join("elsewhere"), &place.whole).expect("written");
    symlink(place.folder.path().join("elsewhere"), &path).expect("a link");
    assert_eq!(place.repaired().0, []);
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder");
    let mending = place.ledger.mend(WAIT).expect("looks");
    let aside = mending.replace(Vec::new()).expect("replaces").expect("put aside");
    assert!(aside.is_dir() && aside.ends_with("ledger.damaged-1.json"), "{}", aside.display());
    assert_eq!(place.ledger.snapshot().expect("reads").grants, []);
}

#[test]
fn what_is_missing_is_not_damaged_and_nothing_is_put_aside() {
    let place = Place::new();
    fs::remove_file(place.ledger.path()).expect("removed");
    let mending = place.ledger.mend(WAIT).expect("looks");
    assert!(matches!(mending.condition, Condition::Missing));
    assert_eq!(mending.replace(place.grants.clone()).expect("writes"), None);
    assert_eq!(place.ledger.snapshot().expect("reads").grants, place.grants);
}

#[test]
fn nobody_else_has_the_lock_meanwhile() {
    let place = Place::new();
    place.damage(b"{");
    let mending = place.ledger.mend(WAIT).expect("looks");
    let words = place.ledger.lock(Duration::from_millis(1)).expect_err("held").to_string();
    assert!(words.contains("still held"), "{words}");
    mending.replace(Vec::new()).expect("replaces");
    place.ledger.lock(WAIT).expect("free, and it reads");
}

#[test]
fn marks_that_are_held_are_known_without_the_ledger() {
    let place = Place::new();
    let id = place.grants[0].id.clone();
    let mark = place.ledger.begin(&id).expect("marks");
    place.damage(b"");
    assert_eq!(place.ledger.in_progress().expect("looks"), [id]);
    drop(mark);
    assert_eq!(place.ledger.in_progress().expect("looks"), []);
}
