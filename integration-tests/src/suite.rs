//! Registers trials with libtest-mimic, each in its own world and audited for leftovers at its end.
//! Decides what is skipped, and says why: by what this machine lacks, or by a committed difference of the
//! reference shim or of the OCI runtime that stands in for runc. Must not know what trials do.

use std::process::ExitCode;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde::Deserialize;

use crate::lab::Lab;
use crate::runtime::{put_in_place, substitute};
use crate::under_test::{in_path, reference, under_test};

/// What a trial returns that finds out on the way that this machine cannot show what it proves: it is
/// skipped with these words, and counted.
#[derive(Debug)]
pub struct Lacking(pub String);

impl std::fmt::Display for Lacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lacking {}

/// Whether user namespaces can be made here: not in a chroot, nor in most containers.
///
/// # Errors
/// [`Lacking`], with what the kernel said.
pub fn needs_user_namespaces() -> Result<()> {
    let probe = std::process::Command::new("unshare").args(["--user", "true"]).output()?;
    if probe.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
    Err(Lacking(format!("no user namespace can be made here: {words}")).into())
}

/// criu, where it can work on this kernel.
///
/// # Errors
/// [`Lacking`], with what criu said of it.
pub fn needs_criu() -> Result<std::path::PathBuf> {
    let lacking = |why: String| Lacking(format!("no checkpoint can be made here: {why}"));
    let criu = in_path("criu").ok_or_else(|| lacking("criu is not installed".into()))?;
    let probe = std::process::Command::new(&criu).arg("check").output()?;
    if probe.status.success() {
        return Ok(criu);
    }
    let words = String::from_utf8_lossy(&probe.stderr).into_owned();
    let why = words.lines().find(|line| line.contains("Error")).unwrap_or("criu check fails");
    Err(lacking(why.trim().into()).into())
}

/// None to run; else why not here.
pub type Skip = Option<String>;

/// One way in which containerd's own shim answers otherwise, or another OCI runtime, as the committed lists have it.
#[derive(Debug, Deserialize)]
struct Difference {
    #[serde(default)]
    runtime: Option<String>,
    suite: String,
    name: String,
    reason: String,
}

impl Difference {
    /// Whether it counts in this run.
    fn is_tested(&self) -> bool {
        match &self.runtime {
            Some(runtime) => substitute().as_ref() == Some(runtime),
            None => reference(),
        }
    }

    fn words(&self) -> String {
        let who = self.runtime.as_deref().unwrap_or("the reference");
        format!("{who} differs: {}", self.reason)
    }
}

#[derive(Debug, Default, Deserialize)]
struct Differences {
    #[serde(default)]
    difference: Vec<Difference>,
}

/// Names a function as a trial: its name and itself.
#[macro_export]
macro_rules! trial {
    ($group:ident::$body:ident) => {
        (concat!(stringify!($group), "::", stringify!($body)), $group::$body)
    };
}

/// The trials of one test executable.
pub struct Suite {
    name: &'static str,
    trials: Vec<Trial>,
    differences: Vec<Difference>,
}

impl Suite {
    /// An empty suite. `name` is what the lists of differences call it.
    pub fn new(name: &'static str) -> Suite {
        let read =
            |text: &str| toml::from_str::<Differences>(text).expect("a valid list").difference;
        let mut differences = read(include_str!("../reference-differences.toml"));
        differences.extend(read(include_str!("../runtime-differences.toml")));
        differences.retain(|difference| difference.suite == name);
        Suite { name, trials: Vec::new(), differences }
    }

    /// Adds a trial that gets a world of its own. When it succeeds, nothing of it may be left.
    pub fn trial<F>(&mut self, name: &str, skip: Skip, body: F)
    where
        F: AsyncFnOnce(&Lab) -> Result<()> + Send + 'static,
    {
        self.plain(name, skip, move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            let lab = runtime.block_on(Lab::new())?;
            let outcome = runtime.block_on(async {
                body(&lab).await?;
                lab.assert_nothing_left().await
            });
            let outcome = outcome.map_err(|err| with_evidence(err, &lab));
            let Lab { events, scratch, .. } = lab;
            runtime.block_on(async move { drop(events) });
            drop(scratch);
            runtime.shutdown_background();
            outcome
        });
    }

    /// Adds a trial that makes its own world.
    pub fn plain<F>(&mut self, name: &str, skip: Skip, body: F)
    where
        F: FnOnce() -> Result<()> + Send + 'static,
    {
        let here = |difference: &&Difference| difference.name == name && difference.is_tested();
        let skip = self.differences.iter().find(here).map(Difference::words).or(skip);
        self.trials.push(Trial::ignorable_test(name, move || match skip {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => match body() {
                Ok(()) => Ok(Completion::Completed),
                Err(err) => match err.downcast_ref::<Lacking>() {
                    Some(lacking) => Ok(Completion::ignored_with(lacking.to_string())),
                    None => Err(Failed::from(told(&err))),
                },
            },
        }));
    }

    /// Runs what the command line selects.
    pub fn run(self) -> ExitCode {
        let found = put_in_place().and_then(|()| under_test().map(drop));
        if let Err(err) = found.context("what is to be tested") {
            eprintln!("{err:?}");
            return ExitCode::FAILURE;
        }
        self.run_as_it_is()
    }

    /// The same where there may be neither a shim nor an OCI runtime, and trials say themselves what they lack.
    pub fn run_as_it_is(self) -> ExitCode {
        for difference in &self.differences {
            if !self.trials.iter().any(|trial| trial.name() == difference.name) {
                eprintln!(
                    "a list of differences has {} {}, which is no trial",
                    self.name, difference.name
                );
                return ExitCode::FAILURE;
            }
        }
        libtest_mimic::run(&Arguments::from_args(), self.trials).exit_code()
    }
}

/// A failed trial shows the order of events, since its world is about to go.
fn with_evidence(err: anyhow::Error, lab: &Lab) -> anyhow::Error {
    let events: Vec<String> = lab
        .events
        .so_far()
        .iter()
        .map(|event| format!("{}: {}", event.container, event.label()))
        .collect();
    err.context(format!("(events: {})", events.join(", ")))
}

/// The error's chain, and the lines of the trial that its backtrace (RUST_BACKTRACE=1) goes through.
fn told(err: &anyhow::Error) -> String {
    let backtrace = err.backtrace().to_string();
    let lines = backtrace.lines().map(str::trim).filter(|line| line.starts_with("at ./tests/"));
    lines.fold(format!("{err:#}"), |text, line| format!("{text}\n    {line}"))
}

/// Adds trials named after their functions: `trials!(suite, "group", [first, second])`.
#[macro_export]
macro_rules! trials {
    ($suite:expr, $group:literal, [$($body:ident),* $(,)?]) => {
        $($suite.trial(concat!($group, "::", stringify!($body)), None, async |lab: &$crate::lab::Lab| $body(lab).await);)*
    };
}
