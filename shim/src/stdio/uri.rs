//! What the name of an output stream means.
//!
//! Decides between a plain path and the schemes that containerd's logging drivers use. Must not open.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The meaning of a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A path, or nothing at all.
    Name,
    /// `file:///path`: append to it.
    File(PathBuf),
    /// `binary:///path?arg=value`: a logger.
    Binary(Program),
    /// Something else.
    Unknown,
}

/// A logger's command line. Each query key is an argument, and so is its value where it has one.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Scheme {
    /// Reads a name.
    pub fn of(name: &str) -> Self {
        let Some((scheme, rest)) = name.split_once("://") else { return Self::Name };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(decode(path, false));
        match scheme {
            "fifo" => Self::Name,
            "file" => Self::File(path),
            "binary" => {
                let pieces = query.split('&').filter(|piece| !piece.is_empty());
                let args = pieces.flat_map(|piece| {
                    let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
                    [decode(key, true), decode(value, true)]
                });
                Self::Binary(Program { path, args: args.filter(|arg| !arg.is_empty()).collect() })
            }
            _ => Self::Unknown,
        }
    }

    /// The path that a plain name or a `fifo://` URI stands for.
    pub fn plain(name: &str) -> &str {
        name.strip_prefix("fifo://").unwrap_or(name)
    }
}

/// Percent-decoding (RFC 3986); in a query, `+` is a space.
fn decode(text: &str, query: bool) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                bytes.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
            }
            (b'+', _) if query => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_schemes() {
        assert_eq!(Scheme::of(""), Scheme::Name);
        assert_eq!(Scheme::of("/run/fifo/a"), Scheme::Name);
        assert_eq!(Scheme::of("file:///var/log/a%20b"), Scheme::File("/var/log/a b".into()));
        assert_eq!(Scheme::of("gopher:///x"), Scheme::Unknown);
        assert_eq!(Scheme::plain("fifo:///a"), "/a");
    }

    #[test]
    fn a_loggers_arguments_come_in_order() {
        let program = Program {
            path: "/bin/log".into(),
            args: vec!["-tag".into(), "a b".into(), "-x".into(), "%zz".into()],
        };
        assert_eq!(Scheme::of("binary:///bin/log?-tag=a+b&-x=%zz"), Scheme::Binary(program));
    }
}
