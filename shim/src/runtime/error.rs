//! What can go wrong when an OCI runtime is called, and what its own words mean.
//!
//! Decides which of its messages means "no such container" and "not running any more", since the
//! command line has no codes for them. Must not decide what a caller makes of it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// A call of the OCI runtime that did not succeed. Every variant names the verb and the binary or
/// the runtime's own words.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The binary could not be executed.
    #[error("cannot run OCI runtime {binary:?} to {verb} container {id:?}: {source}")]
    Spawn {
        /// The container.
        id: String,
        /// The configured binary.
        binary: String,
        /// `create`, `start`, …
        verb: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something around the call failed: a log file, a pipe, a working directory.
    #[error("cannot prepare {what} for the OCI runtime to {verb} container {id:?}: {source}")]
    Prepare {
        /// The container.
        id: String,
        /// `create`, `start`, …
        verb: &'static str,
        /// What could not be prepared.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error(
        "OCI runtime {binary:?} did not {verb} container {id:?} within {after:?} and was killed"
    )]
    Deadline {
        /// The container.
        id: String,
        /// The configured binary.
        binary: String,
        /// `create`, `start`, …
        verb: &'static str,
        /// The deadline it missed.
        after: Duration,
    },
    /// It said no.
    #[error("{}", words(.message, .binary, .status, .id))]
    Failed {
        /// The container.
        id: String,
        /// The configured binary.
        binary: String,
        /// Its exit status, 128 + signal if it was killed.
        status: u32,
        /// Its own last words; empty if it had none.
        message: String,
    },
}

fn words(message: &str, binary: &str, status: &u32, id: &str) -> String {
    match (message, status) {
        ("", 129..) => format!("{binary} was killed by signal {} (container {id:?})", status - 128),
        ("", _) => {
            format!("{binary} exited with status {status} and said nothing (container {id:?})")
        }
        (message, _) => message.to_owned(),
    }
}

impl RuntimeError {
    fn message(&self) -> &str {
        match self {
            Self::Failed { message, .. } => message,
            _ => "",
        }
    }

    /// Fills in what the runtime said elsewhere, if it said nothing in its log.
    pub fn or_words(mut self, words: impl FnOnce() -> String) -> Self {
        if let Self::Failed { message, .. } = &mut self
            && message.is_empty()
        {
            *message = words();
        }
        self
    }

    /// Says what criu said below the runtime, and where its log is, in place of the line in which runc names that log where it was.
    pub fn because(mut self, criu: Option<(String, PathBuf)>) -> Self {
        if let (Self::Failed { message, .. }, Some((words, log))) = (&mut self, criu) {
            let first = message.lines().next().unwrap_or_default();
            let why = if words.is_empty() { words } else { format!(": {words}") };
            *message = format!("{first}{why}; criu's log is {}", log.display());
        }
        self
    }

    /// The runtime does not know the container.
    pub fn is_no_such_container(&self) -> bool {
        self.message().contains("does not exist")
    }

    /// The container's process has ended already. The words are those of runc (`ErrNotRunning`), of
    /// Go's os package and of the kernel.
    pub fn is_not_running(&self) -> bool {
        let message = self.message().to_lowercase();
        ["container not running", "process already finished", "no such process"]
            .iter()
            .any(|words| message.contains(words))
    }
}

#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The last error in a runtime's log (one JSON object per line, runc and crun alike), else the last
/// line that is not JSON, else nothing.
pub fn last_words(log: &str) -> String {
    let mut plain = "";
    for line in log.lines().rev() {
        match serde_json::from_str::<LogLine>(line) {
            Ok(entry) if entry.level == "error" || entry.level == "fatal" => {
                return entry.msg.trim().to_owned();
            }
            Ok(_) => {}
            Err(_) if plain.is_empty() => plain = line.trim(),
            Err(_) => {}
        }
    }
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_wins_over_later_noise() {
        let log = r#"{"level":"error","msg":"first"}
{"level":"error","msg":"container not running\n"}
{"level":"warning","msg":"noise"}
plain noise
"#;
        assert_eq!(last_words(log), "container not running");
        assert_eq!(last_words("runc: boom\n"), "runc: boom");
        assert_eq!(last_words("{\"level\":\"info\",\"msg\":\"x\"}\n"), "");
    }

    #[test]
    fn criu_is_heard_through_the_runtime() {
        let failed = RuntimeError::Failed {
            id: "c1".into(),
            binary: "runc".into(),
            status: 1,
            message: "criu failed: type NOTIFY errno 0\nlog file: /gone/dump.log".into(),
        };
        let said = failed.because(Some(("no such mount".into(), "/b/criu-dump.log".into())));
        assert_eq!(
            said.to_string(),
            "criu failed: type NOTIFY errno 0: no such mount; criu's log is /b/criu-dump.log"
        );
        let words = said.to_string();
        assert_eq!(said.because(None).to_string(), words);
    }

    #[test]
    fn silence_is_described() {
        let failed = |status, message: &str| RuntimeError::Failed {
            id: "c1".into(),
            binary: "runc".into(),
            status,
            message: message.into(),
        };
        assert_eq!(failed(137, "").to_string(), "runc was killed by signal 9 (container \"c1\")");
        assert_eq!(
            failed(1, "").to_string(),
            "runc exited with status 1 and said nothing (container \"c1\")"
        );
        assert_eq!(failed(1, "why").to_string(), "why");
        assert!(failed(1, "container not running").is_not_running());
        assert!(failed(1, "container \"x\" does not exist").is_no_such_container());
    }
}
