//! Plays a shim's part with the engine, for the tests: `berth-actor play ID BUNDLE SANDBOX-PID|- STEP…`, or is a container's first
//! process: `berth-actor init`; or does the works that the `berth` program does for a shim: `berth-actor tool ARGUMENT…`.
//!
//! Decides nothing: takes the steps that it is told, in a process that can be killed. One line on stdout for each.

use std::collections::VecDeque;
use std::io::BufRead;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use engine::config::Config;
use engine::{Admission, Denied, Node, Owner, Rootfs};
use integration_tests::actors::{Prepared, owner, stand_in};

/// Exit code for a refusal.
const REFUSED: u8 = 3;

fn main() -> Result<ExitCode> {
    let mut arguments: VecDeque<String> = std::env::args().skip(1).collect();
    match arguments.pop_front().as_deref() {
        Some("init") => stand_in().map(|()| ExitCode::SUCCESS),
        Some("play") => play(arguments),
        Some("tool") => work(&arguments.into_iter().collect::<Vec<_>>()),
        other => bail!("what is {other:?} to do?"),
    }
}

fn play(mut arguments: VecDeque<String>) -> Result<ExitCode> {
    let mut next = |what: &'static str| arguments.pop_front().context(what);
    let (id, bundle) = (next("no id")?, next("no bundle")?.into());
    let sandbox = next("no sandbox")?.parse().ok();
    let container = Prepared { id, bundle };
    let node = Node::new(&Config::load()?);
    let mut admission = Admission::default();
    while let Ok(step) = next("the end") {
        match step.as_str() {
            "admit" => {
                let (bundle, ask) = container.read()?;
                match node.admit(&ask, &bundle, &Rootfs::default(), sandbox) {
                    Ok(admitted) => admission = admitted,
                    Err(Denied::Refused(refusal)) => {
                        println!("refused {refusal}");
                        return Ok(ExitCode::from(REFUSED));
                    }
                    Err(broken) => return Err(broken.into()),
                }
                let grant = admission.grant().map(ToString::to_string);
                println!("admitted {}", grant.unwrap_or_default());
            }
            "dress" => {
                node.dress(&mut admission, &container.rootfs())?;
                println!("dressed");
            }
            "arm" => {
                node.arm(&mut admission, next("no PID")?.parse()?, None)?;
                println!("armed");
            }
            "undo" => {
                node.undo(std::mem::take(&mut admission))?;
                println!("undone");
            }
            "release" => {
                let id = next("no container")?;
                let owner: Owner<'_> = owner(&id);
                node.release(owner)?;
                println!("released");
            }
            "reconcile" => println!("reconciled {}", node.reconcile(false)?.released.len()),
            "wait" => {
                println!("waiting");
                std::io::stdin().lock().read_line(&mut String::new())?;
            }
            other => bail!("what is {other:?}?"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `berth` does, in a process that has crash points.
fn work(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let node = Node::new(&Config::load()?);
    match words[..] {
        ["observe"] => node.observe()?,
        ["prepare-driver", "--capabilities", which] => node.prepare_driver(&which.parse()?)?,
        ["make-instances", "--grant", grant, "--gpu", gpu] => {
            node.make_instances(&grant.parse()?, &gpu.parse()?)?;
        }
        ["give-back", "--grant", grant] => {
            let mark = std::io::stdin().as_fd().try_clone_to_owned().ok();
            node.give_back(&grant.parse()?, mark)?;
        }
        _ => bail!("what is {words:?}?"),
    }
    Ok(ExitCode::SUCCESS)
}
