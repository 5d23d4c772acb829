//! What is read is what was written, and what was not written so is an error.

use std::os::unix::fs::{PermissionsExt, chown, symlink};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record::Grant;
use crate::record::tests::{any_grant, grant};

fn two() -> Vec<u8> {
    let grants = vec![grant(1, &[0, 1]), grant(2, &[2])];
    encoded(&Snapshot { generation: 7, grants: shared(grants) })
}

fn encoded(snapshot: &Snapshot) -> Vec<u8> {
    let texts = encode(Path::new("ledger.json"), snapshot, &Texts::default());
    bytes_of(&texts.expect("encodes"))
}

fn bytes_of(texts: &Texts) -> Vec<u8> {
    texts.parts().flatten().copied().collect()
}

fn shared(grants: Vec<Grant>) -> Vec<Arc<Grant>> {
    grants.into_iter().map(Arc::new).collect()
}

fn edited(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(two()).expect("JSON is text");
    assert!(text.contains(from), "{from} in {text}");
    text.replacen(from, to, 1).into_bytes()
}

/// What the message says is wrong.
fn wrong(bytes: &[u8]) -> String {
    decode(bytes.to_vec()).expect_err(&String::from_utf8_lossy(bytes)).to_string()
}

/// What reading `path` says; it must be an error that names it and the way out.
fn refused(path: &Path) -> String {
    let words = read(path).expect_err("not a ledger").to_string();
    assert!(words.contains(&path.display().to_string()), "{words}");
    let way_out = "no GPU is granted until it is repaired: `berth ledger repair --dry-run` says what can be saved, `berth ledger repair` does it";
    assert!(words.ends_with(way_out), "{words}");
    words
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_again(
        generation in any::<u64>(),
        grants in vec(any_grant(), 0..6),
    ) {
        let snapshot = Snapshot { generation, grants: shared(grants) };
        let bytes = encoded(&snapshot);
        prop_assert_eq!(decode(bytes.to_vec()).expect("decodes").0, snapshot.clone());
        // However its lines are broken: it is one document.
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let reshaped = serde_json::to_vec_pretty(&value).expect("encodes");
        prop_assert_eq!(decode(reshaped.to_vec()).expect("decodes").0, snapshot);
    }

    /// What has changed is written as it is now, what has not as it was, and neither is mistaken for the other.
    #[test]
    fn changes_upon_changes_are_all_read_again(
        grants in vec(any_grant(), 0..6),
        changes in vec((any::<prop::sample::Index>(), any_grant(), 0..4_u8), 0..12),
    ) {
        let path = Path::new("ledger.json");
        let mut snapshot = Snapshot { generation: 0, grants: shared(grants) };
        let mut texts = encode(path, &snapshot, &Texts::default()).expect("encodes");
        for (place, other, kind) in changes {
            snapshot.generation += 1;
            let all = &mut snapshot.grants;
            match kind {
                _ if all.is_empty() => all.push(Arc::new(other)),
                0 => all.push(Arc::new(other)),
                1 => drop(all.remove(place.index(all.len()))),
                2 => Arc::make_mut(place.get_mut(all)).gpus = other.gpus,
                _ => Arc::make_mut(place.get_mut(all)).members = other.members,
            }
            texts = encode(path, &snapshot, &texts).expect("encodes");
            let (read, read_texts) = decode(bytes_of(&texts)).expect("decodes");
            prop_assert_eq!(&read, &snapshot);
            if read.generation % 3 == 0 {
                // As a process that has read it goes on.
                (snapshot, texts) = (read, read_texts);
            }
        }
    }

    #[test]
    fn a_flipped_byte_is_an_error_or_leaves_every_grant(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = two();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok((snapshot, _)) = decode(bytes.to_vec()) {
            prop_assert_eq!(snapshot.grants.len(), 2);
        }
    }
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let bytes = two();
    for end in 0..bytes.len() {
        assert!(decode(bytes[..end].to_vec()).is_err(), "the first {end} bytes of {}", bytes.len());
    }
    assert_eq!(decode(bytes.to_vec()).expect("the whole").0.grants.len(), 2);
}

#[test]
fn an_empty_file_is_not_an_empty_ledger() {
    assert_eq!(wrong(b""), "is empty");
    assert!(wrong(b"\0\0\0\0").contains("cannot be read"));
    assert!(wrong(b"{}").contains("cannot be read"));
    assert!(wrong(b"null").contains("cannot be read"));
}

#[test]
fn another_format_is_named_even_if_it_looks_different() {
    let newer = "has format 2, and this version of Berth knows 1";
    assert_eq!(wrong(&edited("\"format\":1", "\"format\":2")), newer);
    assert_eq!(wrong(br#"{"format":2,"everything":"else"}"#), newer);
}

#[test]
fn what_is_not_known_missing_or_added_is_an_error() {
    let unknown = |at: &str| wrong(&edited(at, &format!("\"new\":1,{at}")));
    for at in ["\"format\"", "\"id\"", "\"namespace\"", "\"uuid\"", "\"container\":\"", "\"model\""]
    {
        assert!(unknown(at).contains("unknown field `new`"), "{at}: {}", unknown(at));
    }
    assert!(wrong(&edited("\"state\":\"applied\"", "\"state\":\"borrowed\"")).contains("borrowed"));
    assert!(wrong(&edited("\"generation\":7,", "")).contains("missing field `generation`"));
    assert!(
        wrong(&edited("\"created\"", "\"id\":\"g-0000000000000001\",\"created\""))
            .contains("duplicate")
    );
    let mut two_documents = two();
    two_documents.extend(two());
    assert!(wrong(&two_documents).contains("trailing"));
}

#[test]
fn a_grant_that_refers_to_nothing_is_an_error() {
    let words = wrong(&edited("\"gpus\":[2]", "\"gpus\":[3]"));
    assert!(words.contains("grant g-0000000000000002 refers to number 3 of 3 gpus"), "{words}");
    let words = wrong(&edited("\"candidates\":[0,1]", "\"candidates\":[0,2]"));
    assert!(words.contains("refers to number 2 of 2 candidates"), "{words}");
}

#[test]
fn what_many_grants_say_stands_once() {
    let text = String::from_utf8(two()).expect("text");
    assert_eq!(text.matches("farther").count(), 1, "{text}");
}

#[test]
fn a_missing_file_is_the_beginning() {
    let folder = tempfile::tempdir().expect("a folder");
    let (snapshot, seen) = read(&folder.path().join("ledger.json")).expect("nothing yet");
    assert_eq!(snapshot, Snapshot::default());
    assert!(seen.is_none());
}

#[test]
fn only_a_file_is_a_ledger() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("folder")).expect("a folder");
    assert!(refused(&path("folder")).contains("is a folder, not a file"));
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRUSR).expect("a fifo");
    assert!(refused(&path("fifo")).contains("is a fifo, not a file"));
    drop(std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket"));
    assert!(refused(&path("socket")).contains("is a socket, not a file"));
    replace(&path("ledger.json"), &Snapshot::default(), None).expect("a sound one");
    symlink(path("ledger.json"), path("link")).expect("a link");
    assert!(refused(&path("link")).contains("is a symbolic link, not a file"));
    symlink(path("nowhere"), path("dangling")).expect("a link");
    assert!(refused(&path("dangling")).contains("is a symbolic link"), "it is not missing");
}

#[test]
fn a_file_that_others_can_reach_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.json");
    replace(&path, &Snapshot::default(), None).expect("written");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(refused(&path).contains("has mode 0644, which lets others in"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    if chown(&path, Some(12_345), None).is_err() {
        println!("SKIPPED the owner's part: only root can give files away");
        return;
    }
    assert!(refused(&path).contains("belongs to user 12345, not to 0"));
}

#[test]
fn more_than_a_node_can_have_is_neither_written_nor_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.json");
    let grants = vec![grant(1, &[]); MOST_GRANTS + 1];
    let words = replace(&path, &Snapshot { generation: 1, grants: shared(grants) }, None)
        .expect_err("too many");
    assert!(words.to_string().contains("would have 10001 grants, more than 10000"), "{words}");
    let mut huge = grant(1, &[]);
    huge.label = "x".repeat(MOST_BYTES);
    let snapshot = Snapshot { generation: 1, grants: vec![Arc::new(huge)] };
    let words = replace(&path, &snapshot, None).expect_err("too long");
    assert!(words.to_string().contains("bytes, more than 16777216"), "{words}");
    assert!(fs::read_dir(folder.path()).expect("a folder").next().is_none(), "nothing is left");

    let file = trusted::make_anew(&path).expect("a file");
    file.set_len(MOST_BYTES as u64 + 1).expect("sparse");
    assert!(refused(&path).contains("has 16777217 bytes, more than are ever written"));
}

#[test]
fn a_file_that_was_replaced_or_written_to_is_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.json");
    assert!(is_same(&path, None).expect("looks"));
    let seen = replace(&path, &Snapshot::default(), None).expect("written");
    assert!(is_same(&path, Some(&seen)).expect("looks"));
    assert!(!is_same(&path, None).expect("looks"), "it was missing, and is there");
    fs::OpenOptions::new().append(true).open(&path).expect("open").write_all(b" ").expect("write");
    assert!(!is_same(&path, Some(&seen)).expect("looks"), "written to");
    fs::remove_file(&path).expect("removed");
    assert!(!is_same(&path, Some(&seen)).expect("looks"), "removed");
}
