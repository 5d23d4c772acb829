//! The client's end of a process's fifos. Decides how a trial reads and writes them without a thread
//! that can hang. Must not know shims.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use nix::sys::stat::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::deadline::{STUCK, within};

/// Makes a fifo, as containerd's client does before Create.
pub fn make_fifo(path: &Path) -> Result<()> {
    nix::unistd::mkfifo(path, Mode::S_IRWXU).with_context(|| format!("mkfifo {}", path.display()))
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

/// A reader that collects everything which comes out of a fifo, until its last writer closes.
pub struct Capture {
    heard: Arc<Mutex<Heard>>,
    grown: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Capture {
    /// Opens the fifo without waiting for a writer. The end is seen once a writer came and went.
    pub fn open(path: &Path) -> Result<Capture> {
        let pipe = OpenOptions::new().open_receiver(path);
        Ok(Capture::of(pipe.with_context(|| format!("reading {}", path.display()))?))
    }

    /// Opens the fifo for both, so that it never ends: writers may come and go.
    pub fn open_held(path: &Path) -> Result<Capture> {
        let pipe = OpenOptions::new().read_write(true).open_receiver(path);
        Ok(Capture::of(pipe.with_context(|| format!("reading {}", path.display()))?))
    }

    fn of(mut pipe: Receiver) -> Capture {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let grown = Arc::new(Notify::new());
        let (sink, bell) = (heard.clone(), grown.clone());
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = pipe.read(&mut buffer).await;
                let mut heard = sink.lock().expect("no panic while held");
                match read {
                    Ok(0) | Err(_) => heard.ended = true,
                    Ok(n) => heard.bytes.extend_from_slice(&buffer[..n]),
                }
                let ended = heard.ended;
                drop(heard);
                bell.notify_waiters();
                if ended {
                    return;
                }
            }
        });
        Capture { heard, grown, task }
    }

    /// What was heard so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().expect("no panic while held").bytes).into_owned()
    }

    /// How many bytes were heard so far.
    pub fn length(&self) -> usize {
        self.heard.lock().expect("no panic while held").bytes.len()
    }

    /// Awaits the end and gives everything.
    pub async fn to_end(&self) -> Result<Vec<u8>> {
        self.until("the end of output", |heard| heard.ended).await?;
        Ok(std::mem::take(&mut self.heard.lock().expect("no panic while held").bytes))
    }

    /// Awaits the end and gives everything as text.
    pub async fn text_to_end(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.to_end().await?).into_owned())
    }

    /// Awaits `text` somewhere in the output.
    pub async fn shows(&self, text: &str) -> Result<()> {
        self.until(text, |heard| String::from_utf8_lossy(&heard.bytes).contains(text)).await
    }

    async fn until(&self, what: &str, reached: impl Fn(&Heard) -> bool) -> Result<()> {
        let search = async {
            loop {
                let grown = self.grown.notified();
                tokio::pin!(grown);
                grown.as_mut().enable();
                {
                    let heard = self.heard.lock().expect("no panic while held");
                    if reached(&heard) {
                        return Ok(());
                    }
                    if heard.ended {
                        bail!(
                            "output ended without {what:?}: {:?}",
                            String::from_utf8_lossy(&heard.bytes)
                        );
                    }
                }
                grown.await;
            }
        };
        match tokio::time::timeout(STUCK, search).await {
            Ok(found) => found,
            Err(_) => bail!("output never showed {what:?}: {:?}", self.text()),
        }
    }

    /// Closes the reading end, as a client that detaches, and gives what was heard.
    pub async fn detach(mut self) -> Vec<u8> {
        self.task.abort();
        (&mut self.task).await.ok();
        std::mem::take(&mut self.heard.lock().expect("no panic while held").bytes)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The writing end of a stdin fifo.
pub struct Input(Sender);

impl Input {
    /// Opens the fifo without waiting for a reader.
    pub fn open(path: &Path) -> Result<Input> {
        let pipe = OpenOptions::new().read_write(true).open_sender(path);
        Ok(Input(pipe.with_context(|| format!("writing {}", path.display()))?))
    }

    /// Writes all of `text`.
    pub async fn write(&mut self, text: &str) -> Result<()> {
        within("writing stdin", self.0.write_all(text.as_bytes())).await??;
        Ok(())
    }
}

/// A process's three streams: where they are, and the client's ends of those that are open.
#[derive(Default)]
pub struct Stdio {
    /// Value for the request's `stdin`: a fifo's path, or empty.
    pub stdin_path: String,
    /// Value for the request's `stdout`: a fifo's path, a URI, or empty.
    pub stdout_path: String,
    /// Value for the request's `stderr`.
    pub stderr_path: String,
    /// Open writing end of stdin.
    pub stdin: Option<Input>,
    /// Open reading end of stdout.
    pub stdout: Option<Capture>,
    /// Open reading end of stderr.
    pub stderr: Option<Capture>,
}

/// Which streams a process gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// None: stdio is /dev/null.
    Null,
    /// stdout and stderr through fifos, no stdin.
    #[default]
    Output,
    /// All three through fifos.
    All,
    /// stdin and stdout through fifos, as for a terminal.
    Terminal,
    /// stdout and stderr to a URI (`file://`, `binary://`).
    Uri(String),
    /// A terminal's output to a URI, and no input.
    TerminalUri(String),
}

impl Streams {
    /// Whether the process gets a terminal.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Streams::Terminal | Streams::TerminalUri(_))
    }
}

impl Stdio {
    /// Makes the fifos in `folder`, their names beginning with `name`, and opens the client's ends.
    pub fn prepare(folder: &Path, name: &str, streams: &Streams) -> Result<Stdio> {
        let mut stdio = Stdio::default();
        let fifo = |stream: &str| -> Result<PathBuf> {
            let path = folder.join(format!("{name}-{stream}"));
            if path.symlink_metadata().is_err() {
                make_fifo(&path)?;
            }
            Ok(path)
        };
        let (input, output, errors) = match streams {
            Streams::Null => (false, false, false),
            Streams::Output => (false, true, true),
            Streams::All => (true, true, true),
            Streams::Terminal => (true, true, false),
            Streams::Uri(uri) => {
                (stdio.stdout_path, stdio.stderr_path) = (uri.clone(), uri.clone());
                return Ok(stdio);
            }
            Streams::TerminalUri(uri) => {
                stdio.stdout_path = uri.clone();
                return Ok(stdio);
            }
        };
        if input {
            let path = fifo("stdin")?;
            stdio.stdin = Some(Input::open(&path)?);
            stdio.stdin_path = path.display().to_string();
        }
        if output {
            let path = fifo("stdout")?;
            stdio.stdout = Some(Capture::open(&path)?);
            stdio.stdout_path = path.display().to_string();
        }
        if errors {
            let path = fifo("stderr")?;
            stdio.stderr = Some(Capture::open(&path)?);
            stdio.stderr_path = path.display().to_string();
        }
        Ok(stdio)
    }

    /// Everything that came out of stdout, once it ended.
    pub async fn stdout_text(&self) -> Result<String> {
        self.stdout.as_ref().context("stdout is not captured")?.text_to_end().await
    }

    /// Everything that came out of stderr, once it ended.
    pub async fn stderr_text(&self) -> Result<String> {
        self.stderr.as_ref().context("stderr is not captured")?.text_to_end().await
    }
}
