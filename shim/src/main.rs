//! containerd-shim-berth-v2: containerd's door to Berth.
//!
//! Decides which of its commands runs, and what an error of one looks like: its words on standard error,
//! and exit status 1. No GPU logic here or below: that is behind the engine's four functions.

mod bootstrap;
mod cgroup;
mod cleanup;
mod cli;
mod criu;
mod daemon;
mod events;
mod info;
mod layers;
mod logging;
mod mount;
mod off_loop;
mod options;
mod overlay;
mod process;
mod ready;
mod remains;
mod runtime;
mod service;
mod status;
mod stdio;
mod task;
mod time;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use containerd_shim_protos::protobuf::Message;

use bootstrap::Started;
use cli::{Action, Cli};
use process::Reaper;

/// The source revision, if the build was told.
const REVISION: &str = match option_env!("BERTH_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = status::with_sources(error.as_ref());
            // containerd shows what is on standard error to whoever asked for the container.
            let _ = writeln!(std::io::stderr(), "containerd-shim-berth-v2: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    bootstrap::keep_descriptors();
    let cli = Cli::parse(std::env::args_os().skip(1))?;
    match cli.action {
        Action::Version => print(
            format!(
                "containerd-shim-berth-v2:\n  Version:  {}\n  Revision: {REVISION}\n",
                env!("CARGO_PKG_VERSION")
            )
            .as_bytes(),
        ),
        Action::Help => print(cli::USAGE.as_bytes()),
        Action::Info => print(&info::info()?),
        Action::Start => match bootstrap::start(&cli)? {
            Started::Reply(reply) => print(&reply),
            Started::Serve(inheritance) => {
                daemon::detach(&inheritance.bundle)?;
                Ok(daemon::serve(&cli, *inheritance)?)
            }
        },
        Action::Serve => Ok(daemon::serve(&cli, bootstrap::by_hand(&cli)?)?),
        Action::Delete => {
            let deleted = daemon::event_loop()?.block_on(async {
                let reaper = Reaper::default();
                daemon::collect_children(&reaper)?;
                Ok::<_, Box<dyn Error>>(cleanup::delete(&cli, &reaper).await?)
            })?;
            print(&service::delete_response(deleted).write_to_bytes()?)
        }
    }
}

fn print(bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}
