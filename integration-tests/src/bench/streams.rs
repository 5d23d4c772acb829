//! How long a line takes through stdin, `cat` in the container, and back through stdout.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::duel::Duel;
use super::figures::{Comparison, Figures, Side, Unit};
use super::world::{Container, StreamPaths, World};
use crate::stdio::make_fifo;

const LINE: &[u8; 64] = b"a line of sixty-four bytes that goes there and comes back again\n";
const STUCK_MS: u16 = 30_000;

/// A container that runs `cat`, and our ends of its streams.
struct Echo {
    container: Container,
    stdin: File,
    stdout: File,
    _stderr: File,
}

/// Measures `runs` round trips of each side, after `warm_up` that do not count.
pub async fn measure(
    duel: &mut Duel,
    runs: usize,
    warm_up: usize,
    figures: &mut Figures,
) -> Result<()> {
    let mut trip = Comparison::new("stdio_roundtrip", "stdio round trip", Unit::Us);
    let mut berth = Echo::run(duel.world(Side::Berth)).await?;
    let mut reference = Echo::run(duel.world(Side::Reference)).await?;
    for run in 0..warm_up + runs {
        for side in duel.order()? {
            let echo = match side {
                Side::Berth => &mut berth,
                Side::Reference => &mut reference,
            };
            let time = tokio::task::block_in_place(|| echo.round_trip())?;
            if run >= warm_up {
                trip.push(side, time);
            }
        }
    }
    duel.world(Side::Berth).end(berth.container).await?;
    duel.world(Side::Reference).end(reference.container).await?;
    figures.comparisons.push(trip);
    Ok(())
}

impl Echo {
    async fn run(world: &World) -> Result<Echo> {
        let folder = world.folder("streams")?;
        let fifo = |name: &str| -> Result<(PathBuf, File)> {
            let path = folder.join(name);
            make_fifo(&path)?;
            // Both ways, so that neither opening nor a peer that is not there yet blocks or ends it.
            let file = File::options().read(true).write(true).open(&path);
            Ok((path, file.with_context(|| format!("open fifo {name}"))?))
        };
        let ((stdin_path, stdin), (stdout_path, stdout)) = (fifo("stdin")?, fifo("stdout")?);
        let (stderr_path, _stderr) = fifo("stderr")?;
        let paths = StreamPaths {
            stdin: stdin_path.display().to_string(),
            stdout: stdout_path.display().to_string(),
            stderr: stderr_path.display().to_string(),
        };
        let prepared = world.prepare_with("echo", None, &["cat"], &paths)?;
        let container = world.run_prepared(prepared).await?;
        Ok(Echo { container, stdin, stdout, _stderr })
    }

    /// Microseconds.
    fn round_trip(&mut self) -> Result<f64> {
        let begin = Instant::now();
        self.stdin.write_all(LINE)?;
        let mut back = Vec::with_capacity(LINE.len());
        while back.len() < LINE.len() {
            let mut wanted = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut wanted, PollTimeout::from(STUCK_MS))?;
            ensure!(ready > 0, "a line did not come back within {STUCK_MS} ms");
            let mut buffer = [0; LINE.len()];
            let read = self.stdout.read(&mut buffer)?;
            back.extend_from_slice(&buffer[..read]);
        }
        let time = begin.elapsed().as_secs_f64() * 1e6;
        ensure!(back == LINE, "another line came back: {:?}", String::from_utf8_lossy(&back));
        Ok(time)
    }
}
