//! The command line that containerd speaks: Go-style flags, then one word.
//!
//! Decides what was asked for. Must not do any of it.

use std::ffi::OsString;
use std::path::PathBuf;

/// Flags that take a value.
const VALUE_FLAGS: [&str; 7] =
    ["namespace", "id", "address", "bundle", "socket", "publish-binary", "debug-socket"];

/// What `-h` prints.
pub const USAGE: &str = "\
containerd-shim-berth-v2 is run by containerd, for runtime handlers of type io.containerd.berth.v2.

  -namespace NS -id ID -address SOCKET [-debug] start     start or find the shim of a pod; in a bundle
  -namespace NS -id ID [-bundle DIR] delete               clean up after a shim that is gone
  -namespace NS -id ID [-socket PATH]                     serve in the foreground
  -info                                                   what the OCI runtime can do (protobuf)
  -v, -h                                                  version, this text

It is configured by /etc/berth/config.toml, or the file that BERTH_CONFIG names.
";

/// What the binary was asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `start`: launch or find the shim of a group and print its address.
    Start,
    /// `delete`: clean up after a shim that is gone.
    Delete,
    /// `-info`: print the runtime's features.
    Info,
    /// `-v`: print the version.
    Version,
    /// `-h`: print the usage.
    Help,
    /// No word at all: serve in the foreground.
    Serve,
}

/// The parsed command line.
#[derive(Debug, Clone)]
pub struct Cli {
    /// What to do.
    pub action: Action,
    /// `-namespace`: containerd namespace.
    pub namespace: String,
    /// `-id`: container (task) id.
    pub id: String,
    /// `-address`: containerd's GRPC socket.
    pub address: String,
    /// `-bundle`: the bundle where it is not the working directory (`delete` only).
    pub bundle: Option<PathBuf>,
    /// `-socket`: where to listen when serving in the foreground.
    pub socket: Option<PathBuf>,
    /// `-debug`: log more.
    pub debug: bool,
}

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CliError {
    /// A flag that no containerd sends.
    #[error("unknown flag {0}; -h lists the flags")]
    UnknownFlag(String),
    /// The flag's value is missing.
    #[error("flag {0} needs a value")]
    MissingValue(String),
    /// The word is none of `start` and `delete`.
    #[error("unknown command {0:?}; expected start or delete")]
    UnknownCommand(String),
    /// The command cannot work without this flag.
    #[error("shim {0} cannot be empty; pass -{0} (-h shows how; containerd passes it by itself)")]
    Missing(&'static str),
    /// An id or a namespace that would be a path.
    #[error("{flag} {value:?} is not a valid identifier: it must not be a path")]
    NotAnIdentifier {
        /// The flag.
        flag: &'static str,
        /// What it held.
        value: String,
    },
}

impl Cli {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// [`CliError`], each naming the flag or word.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, CliError> {
        let mut cli = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            socket: None,
            debug: false,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let arg = arg.to_string_lossy().into_owned();
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                cli.action = match arg.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => return Err(CliError::UnknownCommand(arg)),
                };
                break;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (flag, None),
            };
            if matches!(name, "debug" | "v" | "version" | "info" | "h" | "help") {
                let on = inline.is_none_or(|value| value != "false" && value != "0");
                match name {
                    "debug" => cli.debug = on,
                    "info" if on => cli.action = Action::Info,
                    "h" | "help" if on => cli.action = Action::Help,
                    _ if on => cli.action = Action::Version,
                    _ => {}
                }
                continue;
            }
            if !VALUE_FLAGS.contains(&name) {
                return Err(CliError::UnknownFlag(arg));
            }
            let value = inline
                .or_else(|| args.next())
                .ok_or_else(|| CliError::MissingValue(arg.clone()))?;
            let text = || value.to_string_lossy().into_owned();
            match name {
                "namespace" => cli.namespace = text(),
                "id" => cli.id = text(),
                "address" => cli.address = text(),
                "bundle" => cli.bundle = Some(PathBuf::from(&value)),
                "socket" => cli.socket = Some(PathBuf::from(&value)),
                // Accepted and unused: events go to TTRPC_ADDRESS, and nothing is profiled.
                _ => {}
            }
        }
        cli.check()
    }

    fn check(self) -> Result<Self, CliError> {
        if matches!(self.action, Action::Info | Action::Version | Action::Help) {
            return Ok(self);
        }
        for (flag, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() {
                return Err(CliError::Missing(flag));
            }
            if !is_identifier(value) {
                return Err(CliError::NotAnIdentifier { flag, value: value.clone() });
            }
        }
        Ok(self)
    }
}

/// Whether `value` may be a container, exec or namespace id: one path component and no more.
/// containerd itself is stricter (`identifiers.Validate`).
pub fn is_identifier(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 255
        && value != "."
        && value != ".."
        && !value.starts_with('-')
        && !value.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, CliError> {
        Cli::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn containerd_16_start_line() {
        let cli =
            parse("-namespace k8s.io -id c1 -address /run/c.sock -publish-binary /bin/c start")
                .expect("what containerd 1.6 sends");
        assert_eq!(cli.action, Action::Start);
        assert_eq!((cli.namespace.as_str(), cli.id.as_str()), ("k8s.io", "c1"));
        assert!(!cli.debug);
    }

    #[test]
    fn flags_take_both_forms() {
        let cli = parse("--debug -namespace=n --id=i -bundle /b delete").expect("go's flag forms");
        assert_eq!((cli.action, cli.debug), (Action::Delete, true));
        assert_eq!(cli.bundle, Some(PathBuf::from("/b")));
    }

    #[test]
    fn info_and_version_need_nothing_else() {
        assert_eq!(parse("-info").map(|c| c.action), Ok(Action::Info));
        assert_eq!(parse("-v").map(|c| c.action), Ok(Action::Version));
    }

    #[test]
    fn bad_lines_name_what_is_wrong() {
        assert_eq!(parse("-id i start").unwrap_err(), CliError::Missing("namespace"));
        assert_eq!(parse("-id").unwrap_err(), CliError::MissingValue("-id".into()));
        assert_eq!(parse("-wat").unwrap_err(), CliError::UnknownFlag("-wat".into()));
        assert_eq!(parse("--help").map(|c| c.action), Ok(Action::Help));
        assert!(matches!(
            parse("-namespace n -id ../x start"),
            Err(CliError::NotAnIdentifier { .. })
        ));
        assert_eq!(parse("stop").unwrap_err(), CliError::UnknownCommand("stop".into()));
    }
}
