//! Log lines in containerd's own format, into the `log` fifo of the bundle.
//!
//! Decides what a line looks like and that logging never waits: the fifo is opened for both
//! directions, so that it opens without a reader, and a full one swallows the line. Must not know
//! what is logged.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::time::Rfc3339;

/// Name of the fifo that containerd makes in the bundle and reads from.
const FIFO: &str = "log";

/// Opens the log fifo in `bundle` so that neither opening nor writing ever waits.
///
/// # Errors
/// ENOENT where no containerd made one.
pub fn open_fifo(bundle: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    Ok(open(&bundle.join(FIFO), flags, Mode::empty())?)
}

/// Sends all events to standard error, each with the shim's namespace and group (pod), so that a line
/// about no container in particular still says whose it is.
pub fn install(debug: bool, namespace: &str, group: &str) {
    let level = if debug { Level::DEBUG } else { Level::INFO };
    let mut whose = String::from(" namespace=");
    quote(&mut whose, namespace);
    whose.push_str(" group=");
    quote(&mut whose, group);
    // Fails only if called twice, and then the first one stands.
    let _ = tracing::subscriber::set_global_default(ToStderr { level, whose });
}

struct ToStderr {
    level: Level,
    whose: String,
}

impl Subscriber for ToStderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.finish(SystemTime::now(), *event.metadata().level(), &self.whose);
        // One write per line, at most PIPE_BUF bytes of it certain to stay whole. An error means a
        // full fifo or none: the line is dropped.
        let _ = nix::unistd::write(io::stderr(), text.as_bytes());
    }

    // There are no spans in the shim; the trait wants answers all the same.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn finish(self, at: SystemTime, level: Level, whose: &str) -> String {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let mut line = format!("time=\"{}\" level={level} msg=", Rfc3339(at));
        quote(&mut line, &self.message);
        line.push_str(&self.fields);
        line.push_str(whose);
        line.push_str(" runtime=io.containerd.berth.v2\n");
        line
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => {
                // Writing to a String cannot fail.
                let _ = write!(self.fields, " {name}=");
                quote(&mut self.fields, &text);
            }
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// logfmt: quoted where anything but a plain word, escaped so that a line stays one line.
fn quote(line: &mut String, text: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        line.push_str(text);
    } else {
        let _ = write!(line, "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;

    #[test]
    fn a_line_is_logfmt_and_stays_one_line() {
        let mut line = Line { message: "two\nlines \"quoted\"".into(), ..Line::default() };
        line.fields.push_str(" id=c1");
        let text = line.finish(SystemTime::UNIX_EPOCH, Level::WARN, " group=g");
        assert_eq!(
            text,
            "time=\"1970-01-01T00:00:00.000000000Z\" level=warning \
             msg=\"two\\nlines \\\"quoted\\\"\" id=c1 group=g runtime=io.containerd.berth.v2\n"
        );
    }

    #[test]
    fn an_unread_fifo_never_blocks() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        nix::unistd::mkfifo(&dir.path().join(FIFO), Mode::S_IRWXU).expect("a fifo");
        let mut log = File::from(open_fifo(dir.path()).expect("opens without a reader"));
        let chunk = [b'x'; 4096];
        let full = (0..1024).find_map(|_| log.write(&chunk).err()).expect("a pipe has an end");
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
