//! Salvage: what can still be read of a ledger that cannot be believed as a whole.
//!
//! Decides which records of a damaged document are still what was written. A record stands on a line of its own and refers to what the first
//! line has: without that line no record says which GPUs it holds, and none is salvaged. Must not decide what becomes of the rest.

use std::sync::Arc;

use crate::packed::{Document, Record};
use crate::record::Grant;

/// How the lines of a document end that has not been cut off.
const END: &str = "]}";

/// What is left of a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Salvage {
    /// Counts the changes, where that is still known.
    pub generation: u64,
    /// Records that read as they were written.
    pub grants: Vec<Arc<Grant>>,
    /// Lines that do not: where, and why.
    pub lost: Vec<Lost>,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Its number in the file, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// The format that the document says it has, as far as that can still be told.
pub(crate) fn format(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.strip_prefix(b"{\"format\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Reads the lines one by one.
pub(crate) fn salvage(bytes: &[u8]) -> Salvage {
    let mut lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let mut found = Salvage::default();
    let Some((_, head)) = lines.next() else { return found };
    let text = |line| std::str::from_utf8(line).map_err(|error| error.to_string());
    let head = text(head).map(|head| format!("{head}]}}"));
    let head: Result<Document<'_>, String> = head
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|head| serde_json::from_str(head).map_err(|error| error.to_string()));
    let mut tables = match head {
        Ok(head) => {
            found.generation = head.generation;
            Some(head.begin())
        }
        Err(why) => {
            found.lost.push(Lost { line: 1, why });
            None
        }
    };
    for (at, line) in lines.filter(|(_, line)| *line != END.as_bytes()) {
        let read = match &mut tables {
            None => Err("it refers to the first line, which cannot be read".to_owned()),
            Some(tables) => text(line).and_then(|line| {
                let line = line.strip_suffix(',').unwrap_or(line);
                let record: Record<'_> =
                    serde_json::from_str(line).map_err(|error| error.to_string())?;
                tables.grant(record).map_err(|error| error.to_string())
            }),
        };
        match read {
            Ok(grant) => found.grants.push(Arc::new(grant)),
            Err(why) => found.lost.push(Lost { line: at + 1, why }),
        }
    }
    found
}
