//! Several processes at one ledger: none loses what another wrote, and what a killed one held is free.
//!
//! The children are this program, told to run one of the ignored tests below.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ledger::{Grant, Ledger, LedgerError, Origin, Owner, State};
use plan::{Capabilities, GrantId};

const BOOT: &str = "5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d";
const RUN: &str = "LEDGER_TEST_RUN";
const FIRST: &str = "LEDGER_TEST_FIRST";
const PATIENT: Duration = Duration::from_secs(60);
const COMMITS: u64 = 25;

fn open(run: &Path) -> Ledger {
    Ledger::open(run, BOOT).expect("a ledger")
}

fn grant(number: u64) -> Grant {
    Grant {
        id: GrantId::from_bits(number),
        owner: Owner { namespace: "k8s.io".into(), sandbox: number.to_string(), container: None },
        label: format!("ns/pod-{number}"),
        kubernetes_namespace: None,
        origin: Origin::Berth,
        state: State::Reserved,
        requested: BTreeMap::new(),
        gpus: [].into(),
        slots: Vec::new(),
        capabilities: Capabilities::default(),
        unconfined: false,
        candidates: [].into(),
        closeness: String::new(),
        exclusive: BTreeMap::new(),
        sandbox_init: None,
        members: Vec::new(),
        notes: Vec::new(),
        created: 0,
    }
}

/// Starts this program as the ignored test `role`.
fn start(role: &str, run: &Path, first: u64) -> Child {
    let program = env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", role, "--ignored", "--nocapture", "--test-threads=1"])
        .env(RUN, run)
        .env(FIRST, first.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

fn told() -> (Ledger, u64) {
    let run = PathBuf::from(env::var_os(RUN).expect("started by another test"));
    let first = env::var(FIRST).expect("started by another test").parse().expect("a number");
    (open(&run), first)
}

/// Adds one grant in each of many commits.
fn hammer(ledger: &Ledger, first: u64) {
    let mut last = 0;
    for number in first..first + COMMITS {
        let mut locked = ledger.lock(PATIENT).expect("locked");
        assert!(locked.generation() >= last, "the generation fell");
        let mut grants = locked.grants().to_vec();
        grants.push(grant(number).into());
        locked.commit(grants).expect("committed");
        last = locked.generation();
    }
}

#[test]
#[ignore = "a role that other tests start"]
fn hammering() {
    let (ledger, first) = told();
    hammer(&ledger, first);
}

#[test]
#[ignore = "a role that other tests start"]
fn holding() {
    let (ledger, number) = told();
    let _mark = ledger.begin(&grant(number).id).expect("begun");
    let mut locked = ledger.lock(PATIENT).expect("locked");
    locked.commit(vec![grant(number).into()]).expect("committed");
    println!("held");
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn processes_and_threads_lose_nothing_of_one_another() {
    let run = tempfile::tempdir().expect("a folder");
    let ledger = open(run.path());
    let first_of = |worker: u64| worker * COMMITS;
    let children: Vec<Child> =
        (0..4).map(|worker| start("hammering", run.path(), first_of(worker))).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = (4..8)
            .map(|worker| {
                let ledger = &ledger;
                scope.spawn(move || hammer(ledger, first_of(worker)))
            })
            .collect();
        let mut last = 0;
        // A reader without the lock sees whole states only, in their order.
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            let seen = ledger.snapshot().expect("sound at every moment");
            assert!(seen.generation >= last, "the generation fell");
            assert_eq!(seen.grants.len() as u64, seen.generation);
            last = seen.generation;
        }
    });
    for child in children {
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it ran");
    }
    let end = ledger.snapshot().expect("sound");
    let ids: BTreeSet<_> = end.grants.iter().map(|grant| grant.id.clone()).collect();
    assert_eq!((end.generation, end.grants.len(), ids.len()), (200, 200, 200));
}

#[test]
fn what_a_killed_process_held_is_free() {
    let run = tempfile::tempdir().expect("a folder");
    let ledger = open(run.path());
    let id = grant(7).id;
    let mut child = start("holding", run.path(), 7);
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let held = output.lines().map_while(Result::ok).any(|line| line.ends_with("held"));
    assert!(held, "the child holds its locks");
    assert!(matches!(ledger.lock(Duration::ZERO), Err(LedgerError::Busy { .. })));
    assert!(ledger.is_in_progress(&id).expect("asked"));
    assert!(matches!(ledger.begin(&id), Err(LedgerError::Busy { .. })));
    assert_eq!(ledger.verify().expect("sound"), []);

    child.kill().expect("SIGKILL");
    child.wait().expect("reaped");
    let locked = ledger.lock(Duration::ZERO).expect("free");
    assert_eq!((locked.generation(), locked.grants().len()), (1, 1), "what it wrote is there");
    assert!(!ledger.is_in_progress(&id).expect("asked"));
    assert_eq!(ledger.verify().expect("sound").len(), 1, "a reserved grant that nobody works on");
    assert_eq!(ledger.sweep().expect("swept"), 1);
}

#[test]
fn a_gpus_lock_outlives_its_holder_in_a_child_that_inherited_it() {
    let run = tempfile::tempdir().expect("a folder");
    let ledger = open(run.path());
    let gpu = "GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d".parse().expect("a UUID");
    let lock = ledger.gpu_lock(&gpu, PATIENT).expect("locked");
    let inherited = std::os::fd::AsFd::as_fd(&lock).try_clone_to_owned().expect("a copy");
    let mut child =
        Command::new("cat").stdin(Stdio::piped()).stdout(inherited).spawn().expect("cat");
    drop(lock);
    assert!(ledger.gpu_lock(&gpu, Duration::ZERO).is_err(), "the child has it");
    drop(child.stdin.take());
    child.wait().expect("ended");
    ledger.gpu_lock(&gpu, PATIENT).expect("free");
}
