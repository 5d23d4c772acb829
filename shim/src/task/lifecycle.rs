//! What a process may be asked to do, and when. Pure: no clock, no process, no lock.
//!
//! ```text
//!             Start              Pause
//!   Created ────────► Running ◄────────► Paused
//!      │                 │      Resume      │
//!      │ exit            │ exit             │ exit
//!      └────────────► Stopped ◄─────────────┘
//!      │ Delete          │ Delete
//!      └────────────► Deleted
//! ```
//!
//! Update and Checkpoint leave the phase as it is.
//!
//! One verb at a time: while one is under way, another that would be legal waits its turn, and one that
//! would not is refused at once. Reading, waiting and killing take no turn. An exit may come at any
//! moment, also in the middle of a verb: it is `reaped` first, and `exited` once everything that has to
//! be told before it has been told.

use std::fmt;

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, but none of its code has run.
    Created,
    /// Its code runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended, and its end has been told.
    Stopped,
    /// Gone.
    Deleted,
}

/// What takes a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Let it run.
    Start,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
    /// Change its resources.
    Update,
    /// Save it; whether it goes on is the asker's choice, and an exit tells if it did not.
    Checkpoint,
    /// Remove it.
    Delete,
}

/// What containerd is told about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not started yet.
    Created,
    /// Started.
    Running,
    /// Being frozen.
    Pausing,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

/// Whether a verb may go ahead now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It may, and must be finished.
    Granted,
    /// Something else has to end first.
    Wait,
}

/// A verb that makes no sense in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} a {phase} process")]
pub struct Illegal {
    /// What was asked.
    pub verb: Verb,
    /// In which phase.
    pub phase: Phase,
}

/// The state of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    phase: Phase,
    busy: Option<Verb>,
    reaped: bool,
}

impl Lifecycle {
    /// A process that has just been made.
    pub fn new() -> Self {
        Self { phase: Phase::Created, busy: None, reaped: false }
    }

    /// Asks for a turn.
    ///
    /// # Errors
    /// [`Illegal`] when no amount of waiting would make the verb right.
    pub fn begin(&mut self, verb: Verb) -> Result<Turn, Illegal> {
        // An end that has not been told yet counts for everything but the delete that follows it.
        let phase = match (self.reaped, self.phase, verb) {
            (true, Phase::Created | Phase::Running | Phase::Paused, Verb::Delete) => {
                return Ok(Turn::Wait);
            }
            (true, Phase::Created | Phase::Running | Phase::Paused, _) => Phase::Stopped,
            (_, phase, _) => phase,
        };
        let legal = match verb {
            Verb::Start => phase == Phase::Created,
            Verb::Pause => phase == Phase::Running,
            Verb::Resume => phase == Phase::Paused,
            Verb::Update => matches!(phase, Phase::Created | Phase::Running | Phase::Paused),
            Verb::Checkpoint => matches!(phase, Phase::Running | Phase::Paused),
            Verb::Delete => matches!(phase, Phase::Created | Phase::Stopped),
        };
        match (self.busy, legal) {
            // A verb under way may make it legal: a pause that waits for a start.
            (Some(under_way), _) if legal || leads_to(under_way, verb) => Ok(Turn::Wait),
            (_, false) => Err(Illegal { verb, phase }),
            (_, true) => {
                self.busy = Some(verb);
                Ok(Turn::Granted)
            }
        }
    }

    /// Ends a turn.
    pub fn finish(&mut self, succeeded: bool) {
        let Some(verb) = self.busy.take() else { return };
        self.phase = match (verb, self.phase, succeeded) {
            (Verb::Start, Phase::Created, true) | (Verb::Resume, Phase::Paused, true) => {
                Phase::Running
            }
            (Verb::Pause, Phase::Running, true) => Phase::Paused,
            (Verb::Delete, _, true) => Phase::Deleted,
            // An exit that was told meanwhile stands, and so does everything that failed.
            (_, phase, _) => phase,
        };
    }

    /// The process has ended; its end is not told yet.
    pub fn reap(&mut self) {
        self.reaped = true;
    }

    /// The end of the process has been told.
    pub fn exit(&mut self) {
        self.reaped = true;
        if self.phase != Phase::Deleted {
            self.phase = Phase::Stopped;
        }
    }

    /// Whether its end may be told: never before the start that is under way has been.
    pub fn may_tell_exit(&self) -> bool {
        self.busy != Some(Verb::Start)
    }

    /// Whether the process is there to be joined by others.
    pub fn is_alive(&self) -> bool {
        !self.reaped && !matches!(self.phase, Phase::Stopped | Phase::Deleted)
    }

    /// The phase as told so far.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What to tell containerd.
    pub fn status(&self) -> Status {
        match (self.phase, self.busy) {
            (Phase::Running, Some(Verb::Pause)) => Status::Pausing,
            (Phase::Created, _) => Status::Created,
            (Phase::Running, _) => Status::Running,
            (Phase::Paused, _) => Status::Paused,
            (Phase::Stopped | Phase::Deleted, _) => Status::Stopped,
        }
    }
}

/// Whether `verb` may become legal once `under_way` has succeeded.
fn leads_to(under_way: Verb, verb: Verb) -> bool {
    matches!(
        (under_way, verb),
        (Verb::Start | Verb::Resume, Verb::Pause)
            | (Verb::Pause, Verb::Resume)
            | (Verb::Start, Verb::Checkpoint)
    )
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Checkpoint => "checkpoint",
            Self::Delete => "delete",
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VERBS: [Verb; 6] =
        [Verb::Start, Verb::Pause, Verb::Resume, Verb::Update, Verb::Checkpoint, Verb::Delete];

    /// Everything that can happen to a process, in any order.
    #[derive(Debug, Clone, Copy)]
    enum Happening {
        Ask(Verb),
        Finish(bool),
        Reap,
        Tell,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            5 => (0..VERBS.len()).prop_map(|n| Happening::Ask(VERBS[n])),
            4 => any::<bool>().prop_map(Happening::Finish),
            1 => Just(Happening::Reap),
            1 => Just(Happening::Tell),
        ]
    }

    /// The legal steps of an undisturbed process, written as a table: the oracle.
    fn oracle(phase: Phase, verb: Verb) -> Option<Phase> {
        use Phase::{Created, Deleted, Paused, Running, Stopped};
        use Verb::{Checkpoint, Delete, Pause, Resume, Start, Update};
        let table = [
            (Created, Start, Running),
            (Created, Update, Created),
            (Created, Delete, Deleted),
            (Running, Pause, Paused),
            (Running, Update, Running),
            (Running, Checkpoint, Running),
            (Paused, Resume, Running),
            (Paused, Update, Paused),
            (Paused, Checkpoint, Paused),
            (Stopped, Delete, Deleted),
        ];
        table.into_iter().find(|(from, v, _)| (*from, *v) == (phase, verb)).map(|(.., to)| to)
    }

    proptest! {
        #[test]
        fn undisturbed_verbs_follow_the_table(verbs in prop::collection::vec(0..VERBS.len(), 0..12)) {
            let mut life = Lifecycle::new();
            for verb in verbs.into_iter().map(|n| VERBS[n]) {
                let before = life.phase();
                match (life.begin(verb), oracle(before, verb)) {
                    (Ok(Turn::Granted), Some(after)) => {
                        life.finish(true);
                        prop_assert_eq!(life.phase(), after);
                    }
                    (Err(illegal), None) => {
                        prop_assert_eq!(illegal, Illegal { verb, phase: before });
                        prop_assert_eq!(life.phase(), before);
                    }
                    (got, wanted) => prop_assert!(false, "{verb} in {before}: {got:?} against {wanted:?}"),
                }
            }
        }

        #[test]
        fn nothing_breaks_the_invariants(story in prop::collection::vec(happening(), 0..60)) {
            let mut life = Lifecycle::new();
            let mut under_way = None;
            let mut told = false;
            for happening in story {
                let before = life.phase();
                match happening {
                    Happening::Ask(verb) => match life.begin(verb) {
                        Ok(Turn::Granted) => {
                            prop_assert_eq!(under_way, None, "two verbs at once");
                            prop_assert!(verb != Verb::Delete || before != Phase::Running);
                            under_way = Some(verb);
                        }
                        Ok(Turn::Wait) => prop_assert!(under_way.is_some() || !life.is_alive()),
                        Err(_) => prop_assert_eq!(life.phase(), before),
                    },
                    Happening::Finish(succeeded) => {
                        life.finish(succeeded);
                        under_way = None;
                    }
                    Happening::Reap => life.reap(),
                    Happening::Tell if life.may_tell_exit() && !life.is_alive() => {
                        life.exit();
                        told = true;
                    }
                    Happening::Tell => {}
                }
                // Once its end is told a process never runs again, and a deleted one stays deleted.
                prop_assert!(!told || matches!(life.phase(), Phase::Stopped | Phase::Deleted));
                prop_assert!(before != Phase::Deleted || life.phase() == Phase::Deleted);
            }
            // Whoever waits is let in or refused once nothing is under way and the end is told.
            life.finish(false);
            life.reap();
            life.exit();
            for verb in VERBS {
                let mut life = life;
                prop_assert_ne!(life.begin(verb), Ok(Turn::Wait), "{} would wait for ever", verb);
            }
        }
    }

    #[test]
    fn a_start_is_told_before_its_exit() {
        let mut life = Lifecycle::new();
        assert_eq!(life.begin(Verb::Start), Ok(Turn::Granted));
        life.reap();
        assert!(!life.may_tell_exit());
        assert_eq!(life.begin(Verb::Delete), Ok(Turn::Wait));
        life.finish(true);
        assert!(life.may_tell_exit());
        life.exit();
        assert_eq!((life.phase(), life.begin(Verb::Delete)), (Phase::Stopped, Ok(Turn::Granted)));
    }

    #[test]
    fn the_words_are_those_of_containerds_own_shim() {
        let mut life = Lifecycle::new();
        assert_eq!(life.begin(Verb::Start), Ok(Turn::Granted));
        life.finish(true);
        let words = life.begin(Verb::Delete).expect_err("it runs").to_string();
        assert_eq!(words, "cannot delete a running process");
    }
}
