//! `berth completions`: a script for a shell that completes what can be typed here.
//!
//! Decides that what is hidden from the help is hidden from completion. Must not know the commands: the command line itself says them.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_complete::Shell as Generator;

use crate::cli::{Cli, Shell};

/// Prints the script.
pub fn print(shell: Shell) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(&script(shell))?)
}

fn script(shell: Shell) -> Vec<u8> {
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let (mut script, mut command) = (Vec::new(), visible());
    let name = command.get_name().to_owned();
    clap_complete::generate(generator, &mut command, name, &mut script);
    script
}

/// The command line without what only the shim calls. Generators know no hidden commands, and none can be taken out of a [`Command`]: so it
/// is another one.
fn visible() -> Command {
    let whole = Cli::command();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("berth")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(whole.get_arguments())
        .subcommands(shown)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::{Command as Process, Output, Stdio};

    use super::*;

    const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

    fn text(shell: Shell) -> String {
        String::from_utf8(script(shell)).expect("UTF-8")
    }

    /// Names of all commands and the commands in them, hidden or not.
    fn names(command: &Command, hidden: bool) -> BTreeSet<String> {
        let below = command.get_subcommands().filter(|one| one.is_hide_set() == hidden);
        below
            .flat_map(|one| names(one, false).into_iter().chain([one.get_name().to_owned()]))
            .collect()
    }

    fn words(text: &str) -> BTreeSet<&str> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).collect()
    }

    /// What Bash offers for the last of these words.
    fn offered(line: &[&str]) -> BTreeSet<String> {
        let script = format!(
            "{}\nCOMP_WORDS=(\"$@\")\nCOMP_CWORD=$(($# - 1))\n_berth \"$1\" \"${{@: -1}}\" \"${{@: -2:1}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            text(Shell::Bash)
        );
        let Output { status, stdout, stderr } = bash(&["-c", &script, "bash"], line);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    fn bash(flags: &[&str], more: &[&str]) -> Output {
        let mut command = Process::new("bash");
        command.arg("--norc").args(flags).args(more).stdin(Stdio::null());
        command.output().expect("bash is there")
    }

    #[test]
    fn every_script_names_what_the_help_shows_and_nothing_else() {
        let (shown, hidden) = (names(&Cli::command(), false), names(&Cli::command(), true));
        assert!(shown.contains("ps") && shown.contains("verify"), "{shown:?}");
        assert!(hidden.contains("make-instances"), "{hidden:?}");
        for shell in SHELLS {
            let text = text(shell);
            let words = words(&text);
            for name in &shown {
                assert!(words.contains(name.as_str()), "{shell:?}: {name}");
            }
            for name in &hidden {
                assert!(!words.contains(name.as_str()), "{shell:?}: {name}");
            }
        }
    }

    #[test]
    fn bash_can_read_its_script() {
        let text = text(Shell::Bash);
        let checked = bash(&["-n", "-c", &text], &[]);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }

    #[test]
    fn bash_offers_commands_and_flags_where_they_are_possible() {
        let top = offered(&["berth", ""]);
        for name in Cli::command().get_subcommands() {
            assert_eq!(top.contains(name.get_name()), !name.is_hide_set(), "{name}: {top:?}");
        }
        assert!(
            offered(&["berth", "ledger", ""])
                .is_superset(&["show", "verify"].map(String::from).into())
        );
        assert_eq!(offered(&["berth", "rec"]), ["reconcile".to_owned()].into());
        assert!(offered(&["berth", "reconcile", "--"]).contains("--dry-run"));
        assert!(
            offered(&["berth", "completions", ""])
                .is_superset(&["bash", "zsh", "fish"].map(String::from).into())
        );
    }
}
