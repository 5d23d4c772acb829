//! Where the containerd suites play: one private containerd per version, started when the first
//! trial wants it, shared by all trials that leave it running, and ended after the last.
//!
//! Decides which trials run on which version. Must not know what they do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};

use super::Containerd;
use crate::runtime;
use crate::suite::Suite;
use crate::under_test::{reference, under_test};
use crate::versions::{self, Installation};

/// A version to run trials on.
pub struct Stage {
    /// The version.
    pub installation: Installation,
    shared: Mutex<Shared>,
}

enum Shared {
    NotYet,
    Running(Arc<Containerd>),
    Failed(String),
}

/// A trial of the containerd suites.
pub struct Scene {
    /// Its name, the same on every version.
    pub name: &'static str,
    /// Whether it belongs to the smoke set that runs on every version.
    pub smoke: bool,
    /// The oldest version it can be played on, and why.
    pub since: Option<((u32, u32), &'static str)>,
    /// The version from which on the reference fails it now and then, and how.
    pub unsteady: Option<((u32, u32), &'static str)>,
    /// What it does.
    pub play: fn(&Stage) -> Result<()>,
}

impl Scene {
    /// The same scene, skipped with `reason` on versions older than `series`.
    #[must_use]
    pub fn since(self, series: (u32, u32), reason: &'static str) -> Self {
        Self { since: Some((series, reason)), ..self }
    }

    /// The same scene, skipped with `reason` for the reference from version `series` on: where the
    /// Go shim itself loses something now and then, it cannot test the test.
    #[must_use]
    pub fn reference_unsteady_since(self, series: (u32, u32), reason: &'static str) -> Self {
        Self { unsteady: Some((series, reason)), ..self }
    }

    fn skip(&self, installation: &Installation) -> Option<String> {
        let too_old = self.since.filter(|(series, _)| installation.series < *series);
        let unsteady =
            self.unsteady.filter(|(series, _)| reference() && installation.series >= *series);
        let (_, reason) = too_old.or(unsteady)?;
        Some(format!("{}: {reason}", installation.version))
    }
}

/// Names a function as a scene: `scene!(module::function)`, or `scene!(smoke module::function)` for
/// the smoke set.
#[macro_export]
macro_rules! scene {
    (smoke $group:ident::$play:ident) => {
        $crate::containerd::stage::Scene { smoke: true, ..$crate::scene!($group::$play) }
    };
    ($group:ident::$play:ident) => {
        $crate::containerd::stage::Scene {
            name: concat!(stringify!($group), "::", stringify!($play)),
            smoke: false,
            since: None,
            unsteady: None,
            play: $group::$play,
        }
    };
}

impl Stage {
    /// The shim under test: Berth's, or, in reference mode, the one that came with this version.
    ///
    /// # Errors
    /// When it is not built.
    pub fn shim(&self) -> Result<PathBuf> {
        if reference() {
            return Ok(self.installation.reference_shim());
        }
        Ok(under_test()?.shim.clone())
    }

    /// The shared containerd. A trial leaves it running.
    ///
    /// # Errors
    /// When it does not start; it is tried once.
    pub fn containerd(&self) -> Result<Arc<Containerd>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Shared::NotYet = *shared {
            *shared = match self.own() {
                Ok(containerd) => Shared::Running(Arc::new(containerd)),
                Err(error) => Shared::Failed(format!("{error:#}")),
            };
        }
        match &*shared {
            Shared::Running(containerd) => Ok(Arc::clone(containerd)),
            Shared::Failed(reason) => bail!("the shared containerd did not start: {reason}"),
            Shared::NotYet => bail!("the shared containerd was not started"),
        }
    }

    /// A containerd of the trial's own, for it to kill.
    ///
    /// # Errors
    /// When it does not start.
    pub fn own(&self) -> Result<Containerd> {
        Containerd::start(&self.installation, &self.shim()?)
    }

    fn end(&self) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Shared::NotYet;
    }
}

/// Plays the scenes: all of them on the first version found, where they have their plain names, and
/// the smoke set on each other one, where the version goes in front. A version that is not here is
/// a skip of its own.
pub fn play(name: &'static str, scenes: &[Scene]) -> ExitCode {
    let found = versions::find();
    let mut suite = Suite::new(name);
    let stages: Vec<Arc<Stage>> = found
        .installations
        .into_iter()
        .map(|installation| Stage { installation, shared: Mutex::new(Shared::NotYet) })
        .map(Arc::new)
        .collect();
    let mut plan: BTreeMap<&str, usize> = BTreeMap::new();
    for (nth, stage) in stages.iter().enumerate() {
        let version = &stage.installation.version;
        let refusal = runtime::refusal(&stage.installation).unwrap_or_else(|error| {
            eprintln!("containerd {version} with this runtime: {error:#}");
            None
        });
        for scene in scenes.iter().filter(|scene| nth == 0 || scene.smoke) {
            let full =
                if nth == 0 { scene.name.to_owned() } else { format!("{version}::{}", scene.name) };
            let refused = refusal.as_ref().map(|reason| format!("{version}: {reason}"));
            let (play, skip) = (scene.play, refused.or_else(|| scene.skip(&stage.installation)));
            if let Some(reason) = &skip {
                eprintln!("skipped: {full}: {reason}");
            }
            let stage = Arc::clone(stage);
            suite.plain(&full, skip, move || play(&stage));
            *plan.entry(version).or_default() += 1;
        }
    }
    for (version, trials) in &plan {
        eprintln!("containerd {version}: {trials} trials");
    }
    for (debian, reason) in found.missing {
        eprintln!("skipped: {reason}");
        suite.plain(&format!("{debian}::smoke"), Some(reason), || Ok(()));
    }
    if stages.is_empty() {
        for scene in scenes {
            suite.plain(scene.name, Some("no containerd on this machine".to_owned()), || Ok(()));
        }
    }
    let outcome = suite.run();
    for stage in stages {
        stage.end();
    }
    outcome
}
