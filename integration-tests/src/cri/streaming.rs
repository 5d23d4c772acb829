//! The streams of Exec and Attach, as kubectl has them: over WebSocket, at the URL that containerd's
//! streaming server gives, in the protocol `v4.channel.k8s.io` (the first byte of a message says which
//! stream it belongs to).
//!
//! Decides how the streams are told apart and how long they may be silent. Must not know what runs at their
//! other end.

#![allow(missing_docs, reason = "api.proto says what each field means")]

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use serde_json::Value;
use tungstenite::client::ClientRequestBuilder;
use tungstenite::{Error, HandshakeError, WebSocket};

use crate::deadline::STUCK;
use crate::suite::Lacking;

const PROTOCOL: &str = "v4.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// After this much silence a question is asked again: see [`Streams::ask`].
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Clone, PartialEq, Message)]
pub struct ExecRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, repeated, tag = "2")]
    pub cmd: Vec<String>,
    #[prost(bool, tag = "3")]
    pub tty: bool,
    #[prost(bool, tag = "4")]
    pub stdin: bool,
    #[prost(bool, tag = "5")]
    pub stdout: bool,
    #[prost(bool, tag = "6")]
    pub stderr: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct AttachRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(bool, tag = "2")]
    pub stdin: bool,
    #[prost(bool, tag = "3")]
    pub tty: bool,
    #[prost(bool, tag = "4")]
    pub stdout: bool,
    #[prost(bool, tag = "5")]
    pub stderr: bool,
}

/// The answer to Exec and Attach: where to stream.
#[derive(Clone, PartialEq, Message)]
pub struct Url {
    #[prost(string, tag = "1")]
    pub url: String,
}

/// A connection to the streaming server, and what came over it so far.
pub struct Streams {
    socket: WebSocket<TcpStream>,
    /// What came from standard output, or from the terminal.
    pub stdout: Vec<u8>,
    /// What came from standard error.
    pub stderr: Vec<u8>,
    status: Vec<u8>,
}

impl Streams {
    /// Connects to the URL that Exec or Attach gave.
    ///
    /// # Errors
    /// [`Lacking`] when this containerd's streaming server does not speak WebSocket.
    pub fn open(url: &str) -> Result<Self> {
        let place = url.strip_prefix("http://").with_context(|| format!("not for http: {url}"))?;
        let (authority, _) = place.split_once('/').with_context(|| format!("no path: {url}"))?;
        let stream = TcpStream::connect(authority).with_context(|| format!("connect to {url}"))?;
        stream.set_read_timeout(Some(STUCK))?;
        let request =
            ClientRequestBuilder::new(format!("ws://{place}").parse()?).with_sub_protocol(PROTOCOL);
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => {
                socket.get_ref().set_read_timeout(Some(SILENCE))?;
                let (stdout, stderr, status) = Default::default();
                Ok(Self { socket, stdout, stderr, status })
            }
            // 404 says that the URL is nobody's, anything else that the upgrade was refused.
            Err(HandshakeError::Failure(Error::Http(answer))) if answer.status() != 404 => {
                let status = answer.status();
                Err(Lacking(format!("the streaming server refuses WebSocket: {status}")).into())
            }
            Err(error) => bail!("no WebSocket at {url}: {error}"),
        }
    }

    /// Writes to standard input, or to the terminal.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let message = [&[STDIN], text.as_bytes()].concat();
        Ok(self.socket.send(tungstenite::Message::binary(message))?)
    }

    /// Writes `question` until standard output shows `answer`. containerd connects an attached standard
    /// input a moment before the output, so that the first answer may go past.
    ///
    /// # Errors
    /// When it never does, or the connection is gone.
    pub fn ask(&mut self, question: &str, answer: &str) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < STUCK {
            self.write(question)?;
            while let Some(open) = self.receive()? {
                if String::from_utf8_lossy(&self.stdout).contains(answer) {
                    return Ok(());
                }
                ensure!(open, "the streams ended without {answer:?}: {self:?}");
            }
        }
        bail!("stuck: no {answer:?} to {question:?} after {STUCK:?}: {self:?}")
    }

    /// Reads to the streams' end, and gives the exit code that the server then tells.
    ///
    /// # Errors
    /// When there is no end, or the server tells of another failure than an exit code.
    pub fn exit_code(&mut self) -> Result<i64> {
        let start = Instant::now();
        while self.receive()? != Some(false) {
            ensure!(start.elapsed() < STUCK, "stuck: no end of the streams: {self:?}");
        }
        let status: Value = serde_json::from_slice(&self.status)
            .with_context(|| format!("the server's last words: {self:?}"))?;
        if status["status"] == "Success" {
            return Ok(0);
        }
        ensure!(status["reason"] == "NonZeroExitCode", "{status}");
        let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
        let code = causes.iter().find(|cause| cause["reason"] == "ExitCode");
        let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
        code.with_context(|| format!("no exit code: {status}"))
    }

    /// Hangs up, as a client that detaches does.
    ///
    /// # Errors
    /// When the server does not let go.
    pub fn hang_up(mut self) -> Result<()> {
        self.socket.close(None)?;
        let start = Instant::now();
        while self.receive()? != Some(false) {
            ensure!(start.elapsed() < STUCK, "stuck: the server holds on: {self:?}");
        }
        Ok(())
    }

    /// Takes in the next message: whether there will be more, or `None` when there was silence.
    fn receive(&mut self) -> Result<Option<bool>> {
        match self.socket.read() {
            Ok(message) if message.is_binary() => {
                let bytes = message.into_data();
                let (channel, text) = bytes.split_first().context("a message of no stream")?;
                let stream = match *channel {
                    STDOUT => &mut self.stdout,
                    STDERR => &mut self.stderr,
                    STATUS => &mut self.status,
                    other => bail!("a message of stream {other}: {self:?}"),
                };
                stream.extend_from_slice(text);
                Ok(Some(true))
            }
            Ok(_) => Ok(Some(true)),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(Some(false)),
            // Go's server closes the connection without a word when its handler returns.
            Err(Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => Ok(Some(false)),
            Err(Error::Io(error)) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(None),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(Some(false)),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        f.debug_struct("Streams")
            .field("stdout", &text(&self.stdout))
            .field("stderr", &text(&self.stderr))
            .field("status", &text(&self.status))
            .finish()
    }
}
