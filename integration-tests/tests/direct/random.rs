//! Several clients at once send random calls to one pod. Whatever they send, every call is answered before
//! its deadline, and what the shim tells stays consistent. The seed is printed; BERTH_TEST_SEED repeats it.
//! Must not know which call is legal when.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest, Status};
use integration_tests::deadline::{eventually, within};
use integration_tests::lab::Lab;
use integration_tests::machine;
use integration_tests::shim::Start;
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::task::{Answer, Task};
use integration_tests::trials;
use serde_json::json;
use tokio::sync::watch;
use ttrpc::Code;

use crate::dice::{Dice, seed};

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "random",
        [
            calls_of_four_clients_with_containerds_manners_are_all_answered,
            calls_of_four_clients_without_manners_are_all_answered,
            every_exit_is_told_exactly_once_when_kills_race,
        ]
    );
}

const CONTAINERS: [&str; 3] = ["birch", "beech", "alder"];
const EXECS: [&str; 3] = ["leaf", "twig", "bud"];
const CLIENTS: u64 = 4;

/// How many calls each client makes: ten for each turn of a soak.
fn calls() -> usize {
    let soak = std::env::var("BERTH_SOAK").ok().and_then(|turns| turns.parse::<usize>().ok());
    soak.map_or(400, |turns| turns.saturating_mul(10))
}

/// What clients do not do to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    /// One call that makes, starts or deletes something of a container at a time; no Wait for an exec that
    /// may never start, and no Delete of a container that others may wait for and that never started.
    Containerds,
    /// Anything.
    None,
}

/// One client's part: its connection, its dice, and the requests that need preparing.
struct Client {
    task: Task,
    dice: Dice,
    manners: Manners,
    locks: Arc<BTreeMap<String, tokio::sync::Mutex<()>>>,
    creates: Arc<BTreeMap<String, CreateTaskRequest>>,
    execs: Arc<BTreeMap<(String, String), ExecProcessRequest>>,
    waits: tokio::task::JoinSet<Answer<()>>,
}

impl Client {
    /// One random call. An error says which call broke a promise.
    async fn call(&mut self) -> Result<()> {
        let id = self.dice.pick(&CONTAINERS);
        let exec = if self.dice.below(2) == 0 { "" } else { self.dice.pick(&EXECS) };
        let task = self.task.clone();
        let choice = self.dice.below(19);
        let polite = self.manners == Manners::Containerds;
        let alone = polite && choice < 8;
        let locks = self.locks.clone();
        let _alone = if alone { Some(locks[id].lock().await) } else { None };
        if alone
            && choice >= 6
            && exec.is_empty()
            && matches!(task.status(id, "").await, Ok(Status::CREATED))
        {
            return Ok(());
        }
        let (name, answer) = match choice {
            0 | 1 => ("Create", task.create(&self.creates[id]).await.map(drop)),
            2 | 3 => ("Start", task.start(id, exec).await.map(drop)),
            4 | 5 => {
                let named = if exec.is_empty() { self.dice.pick(&EXECS) } else { exec };
                ("Exec", task.exec(&self.execs[&(id.to_string(), named.to_string())]).await)
            }
            6 | 7 => ("Delete", task.delete(id, exec).await.map(drop)),
            8 => {
                let signal = self.dice.pick(&[9, 9, 15, 10, 34]);
                ("Kill", task.kill(id, exec, signal, self.dice.below(4) == 0).await)
            }
            9 => ("Pids", task.pids(id).await.map(drop)),
            10 => ("Stats", task.stats(id).await.map(drop)),
            11 => ("Update", task.update(id, &json!({"memory": {"limit": 200 << 20}})).await),
            12 => ("CloseIO", task.close_stdin(id, exec).await),
            13 => ("ResizePty", task.resize(id, exec, 80, 24).await),
            14 => ("Connect", task.connect_to(id).await.map(drop)),
            15 => {
                // A Wait may rightly last: it is answered at the latest when everything is killed in the end.
                let exec = if polite { "" } else { exec };
                let (id, exec) = (id.to_string(), exec.to_string());
                self.waits.spawn(async move { task.wait(&id, &exec).await.map(drop) });
                return Ok(());
            }
            // Whoever freezes thaws: a start in a frozen container would last until somebody did.
            16 => {
                let paused = task.pause(id).await;
                self.judge("Pause", id, "", paused)?;
                ("Resume", task.resume(id).await)
            }
            17 => ("Resume", task.resume(id).await),
            _ => return self.state(id, exec).await,
        };
        self.judge(name, id, exec, answer)
    }

    /// State must be consistent in itself.
    async fn state(&mut self, id: &str, exec: &str) -> Result<()> {
        let answer = self.task.state(id, exec).await;
        if let Ok(state) = &answer {
            let status = state.status.enum_value_or_default();
            ensure!(status != Status::UNKNOWN, "State of {id}/{exec}: {state:?}");
            let running = status == Status::RUNNING;
            ensure!(
                !running || (state.pid > 0 && state.exit_status == 0),
                "State of {id}/{exec}: {state:?}"
            );
        }
        self.judge("State", id, exec, answer.map(drop))
    }

    fn judge(&self, name: &str, id: &str, exec: &str, answer: Answer<()>) -> Result<()> {
        match answer {
            Ok(()) => Ok(()),
            Err(err) => match err.code {
                None => bail!("{name} of {id}/{exec} was not answered: {err}"),
                Some(
                    Code::DEADLINE_EXCEEDED
                    | Code::INTERNAL
                    | Code::UNAVAILABLE
                    | Code::UNIMPLEMENTED,
                ) => {
                    bail!("{name} of {id}/{exec}: {err}")
                }
                Some(_) => Ok(()),
            },
        }
    }
}

async fn calls_of_four_clients_with_containerds_manners_are_all_answered(lab: &Lab) -> Result<()> {
    run(lab, Manners::Containerds).await
}

async fn calls_of_four_clients_without_manners_are_all_answered(lab: &Lab) -> Result<()> {
    run(lab, Manners::None).await
}

async fn run(lab: &Lab, manners: Manners) -> Result<()> {
    let seed = seed();
    eprintln!("BERTH_TEST_SEED={seed}");
    play(lab, seed, manners).await.with_context(|| format!("BERTH_TEST_SEED={seed}"))
}

async fn play(lab: &Lab, seed: u64, manners: Manners) -> Result<()> {
    let locks = CONTAINERS.map(|id| (id.to_string(), tokio::sync::Mutex::new(())));
    let locks = Arc::new(BTreeMap::from(locks));
    let mut keeper = lab.sleeper("grove");
    keeper.spec = keeper.spec.in_pod("grove");
    let keeper = lab.run(keeper).await?;
    let mut creates = BTreeMap::new();
    let mut execs = BTreeMap::new();
    let mut bundles = Vec::new();
    for id in CONTAINERS {
        let mut launch = lab.sleeper(id);
        launch.spec = launch.spec.in_pod("grove");
        let bundle = lab.bundle(id, Some(&launch.spec))?;
        lab.start_shim(&bundle, &Start::default()).await?;
        creates.insert(id.to_string(), lab.create_request(&launch, &bundle, &Stdio::default()));
        for (n, exec) in EXECS.into_iter().enumerate() {
            let args: &[&str] = if n == 0 { &["true"] } else { &["sleep", "100000"] };
            let mut request = keeper.exec_request(exec, args, &Streams::Null, &Stdio::default());
            request.id = id.into();
            execs.insert((id.to_string(), exec.to_string()), request);
        }
        bundles.push(bundle);
    }
    let (creates, execs) = (Arc::new(creates), Arc::new(execs));
    let calls = calls();
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..CLIENTS {
        let mut client = Client {
            task: Task::connect(&keeper.shim.reply.address, keeper.shim.reply.service()).await?,
            dice: Dice((seed ^ (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1),
            manners,
            locks: locks.clone(),
            creates: creates.clone(),
            execs: execs.clone(),
            waits: tokio::task::JoinSet::new(),
        };
        clients.spawn(async move {
            for _ in 0..calls {
                client.call().await?;
            }
            Ok::<_, anyhow::Error>(client.waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(done) = clients.join_next().await {
        waits.push(done??);
    }
    put_an_end_to(lab, &keeper).await?;
    for mut waits in waits {
        while let Some(answer) = within("a Wait after everything ended", waits.join_next()).await? {
            if let Err(err) = answer? {
                ensure!(err.code.is_some(), "a Wait was never answered: {err}");
            }
        }
    }
    for bundle in &bundles {
        lab.bury_unborn(bundle).await?;
    }
    told_once(lab)?;
    lab.retire(keeper).await
}

/// Kills and deletes whatever the clients left.
async fn put_an_end_to(lab: &Lab, keeper: &integration_tests::lab::Container) -> Result<()> {
    let task = keeper.task();
    for id in CONTAINERS {
        let Ok(status) = within("State", task.status(id, "")).await? else { continue };
        if status != Status::STOPPED {
            within("Kill", task.kill(id, "", 9, true)).await?.ok();
            within("Wait", task.wait(id, "")).await??;
        }
        let deleted = within("Delete", task.delete(id, "")).await?;
        ensure!(deleted.is_ok(), "Delete of {id}: {deleted:?}");
    }
    settled(keeper.shim.pid, keeper.pid).await?;
    ensure!(task.pids("grove").await? == [keeper.pid]);
    // Deletes are the last events of their containers: once one of the keeper's comes, all have come.
    task.pause("grove").await?;
    task.resume("grove").await?;
    lab.events.of("grove", "resumed", "").await?;
    Ok(())
}

/// The shim's children come down to the keeper's init, or are named.
async fn settled(shim: u32, init: u32) -> Result<()> {
    let strangers = || {
        let children = machine::children(shim);
        children.into_iter().filter(|row| row.pid != init).collect::<Vec<_>>()
    };
    let gone =
        eventually("children of the shim", || Ok(strangers().is_empty().then_some(()))).await;
    gone.with_context(|| format!("left below the shim: {:?}", strangers()))
}

/// Each process that started exits once, and no exit comes without a start or a create.
fn told_once(lab: &Lab) -> Result<()> {
    let mut exits: BTreeMap<(String, u32), usize> = BTreeMap::new();
    for event in lab.events.so_far() {
        if event.topic == "/tasks/exit" {
            *exits.entry((event.container.clone(), event.pid)).or_default() += 1;
        }
    }
    let twice: Vec<_> = exits.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "exits told more than once: {twice:?}");
    for event in lab.events.so_far() {
        if event.topic == "/tasks/start" && event.container != "grove" {
            let told = exits.contains_key(&(event.container.clone(), event.pid));
            ensure!(told, "no exit was told of {event:?}");
        }
    }
    Ok(())
}

async fn every_exit_is_told_exactly_once_when_kills_race(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for n in 0..5 {
        lab.exec(&c, &format!("leaf{n}"), &["sleep", "100000"], Streams::Null).await?;
    }
    let (go, ready) = watch::channel(false);
    let mut killers = tokio::task::JoinSet::new();
    for n in 0..10 {
        let task = c.task().clone();
        let mut ready = ready.clone();
        killers.spawn(async move {
            ready.wait_for(|go| *go).await.ok();
            let exec = format!("leaf{n}");
            task.kill("birch", if n < 5 { &exec } else { "" }, 9, n == 9).await.ok();
        });
    }
    go.send(true)?;
    while within("killers", killers.join_next()).await?.is_some() {}
    ensure!(within("Wait", c.wait()).await?? == 137);
    lab.events.exit("birch").await?;
    let labels = lab.events.labels("birch");
    let exits: Vec<&String> = labels.iter().filter(|label| label.starts_with("exit")).collect();
    ensure!(exits.len() == 6 && exits[5] == "exit birch", "{exits:?}");
    lab.retire(c).await
}
