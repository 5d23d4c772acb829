//! Each contradiction is found, and what is allowed is not one.

use super::*;
use crate::record::tests::grant;

fn shared(grants: &[Grant]) -> Vec<Arc<Grant>> {
    grants.iter().cloned().map(Arc::new).collect()
}

fn words(grants: &[Grant]) -> Vec<String> {
    findings(&shared(grants), &[]).iter().map(ToString::to_string).collect()
}

#[test]
fn sound_records_have_no_findings() {
    assert_eq!(words(&[]), [""; 0]);
    assert_eq!(words(&[grant(1, &[0, 1]), grant(2, &[2])]), [""; 0]);
}

#[test]
fn one_id_for_two() {
    let mut two = [grant(1, &[0]), grant(2, &[1])];
    two[1].id = two[0].id.clone();
    assert_eq!(words(&two), ["two grants have the id g-0000000000000001: ns/pod-1 and ns/pod-2"]);
}

#[test]
fn one_owner_of_two_unless_one_is_being_given_back() {
    let mut two = [grant(1, &[0]), grant(2, &[1])];
    two[1].owner = two[0].owner.clone();
    let found = words(&two);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("ns/pod-1 (g-0000000000000001) and ns/pod-2"), "{found:?}");
    two[0].state = State::Releasing;
    assert_eq!(words(&two), [""; 0]);
}

#[test]
fn one_gpu_for_two_unless_others_share_it_out() {
    let mut two = [grant(1, &[0, 1]), grant(2, &[1])];
    let found = words(&two);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("is held twice: by ns/pod-1") && found[0].starts_with("GPU-00000001")
    );
    two[1].origin = Origin::External { by: "cdi edits".to_owned() };
    assert_eq!(words(&two), [""; 0], "what the node's audit finds is not looked for here");
}

#[test]
fn one_gpu_twice_in_one() {
    let found = words(&[grant(1, &[4, 4])]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("stands twice in ns/pod-1"), "{found:?}");
}

#[test]
fn cpus_of_two_that_should_be_of_one() {
    let mut two = [grant(1, &[0]), grant(2, &[1])];
    for (grant, cpus) in two.iter_mut().zip(["0-3", "4-7"]) {
        grant.exclusive.insert(String::new(), cpus.parse().expect("a list"));
    }
    assert_eq!(words(&two), [""; 0]);
    two[1].exclusive.insert("c".to_owned(), "3,9".parse().expect("a list"));
    let found = words(&two);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("CPUs 3 are held twice: by ns/pod-1"), "{found:?}");
}
