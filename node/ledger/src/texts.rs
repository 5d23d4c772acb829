//! Grants as text: a line of the document for each, so that what has not changed is not written anew.
//!
//! An admission changes one grant among perhaps hundreds. Whether one has changed is told by its identity: grants are shared pointers, and
//! whoever changes one makes another of it. Decides which text stands for which grant. Must not know the file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::packed::{Document, Packing, Record, Shared};
use crate::record::{Grant, Snapshot};

/// What stands after the last grant.
const END: &str = "\n]}";
/// So much more than it has grants may a document have of what grants share; then it is packed anew, without what nobody refers to.
const SLACK: usize = 256;

/// The text of a document, and which of it stands for which grant.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    document: Vec<u8>,
    /// By the grants' addresses, which are theirs for as long as they are held here.
    lines: HashMap<usize, Range<usize>>,
    held: Vec<Arc<Grant>>,
    shared: Shared,
}

impl Texts {
    /// The same, of this document.
    pub(crate) fn of_document(self, document: Vec<u8>) -> Self {
        Self { document, ..self }
    }

    fn of(&self, grant: &Arc<Grant>) -> Option<&[u8]> {
        let line = self.lines.get(&address(grant))?;
        self.document.get(line.clone())
    }
}

fn address(grant: &Arc<Grant>) -> usize {
    Arc::as_ptr(grant) as usize
}

/// Reads a document that has a line for each grant. `None` for any other, and for one with a mistake: the whole is then to be read as one,
/// which tells the place. The text itself is still to be given to [`Texts::of_document`].
pub(crate) fn read(bytes: &[u8], format: u64) -> Option<(Snapshot, Texts)> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix(END)?;
    let mut lines = text.split('\n');
    let head = format!("{}]}}", lines.next()?);
    let head: Document<'_> = serde_json::from_str(&head).ok()?;
    if head.format != format {
        return None;
    }
    let generation = head.generation;
    let mut unpacking = head.begin();
    let mut texts = Texts::default();
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let line = if lines.peek().is_some() { line.strip_suffix(',')? } else { line };
        let record: Record<'_> = serde_json::from_str(line).ok()?;
        let grant = Arc::new(unpacking.grant(record).ok()?);
        let start = line.as_ptr() as usize - bytes.as_ptr() as usize;
        texts.lines.insert(address(&grant), start..start + line.len());
        texts.held.push(grant);
    }
    texts.shared = unpacking.shared();
    Some((Snapshot { generation, grants: texts.held.clone() }, texts))
}

/// Writes a document, taking the text of grants that have not changed from `old`.
pub(crate) fn write(
    snapshot: &Snapshot,
    format: u64,
    old: &Texts,
) -> Result<Texts, serde_json::Error> {
    let nothing = Texts::default();
    let old = if old.shared.len() > 8 * snapshot.grants.len() + SLACK { &nothing } else { old };
    let mut packing = Packing::new(&old.shared);
    let mut parts = Vec::with_capacity(snapshot.grants.len());
    for grant in &snapshot.grants {
        parts.push(match old.of(grant) {
            Some(text) => Part::Old(text),
            None => Part::New(Box::new(packing.record(grant))),
        });
    }
    let mut document = serde_json::to_vec(&packing.document(format, snapshot.generation))?;
    // Up to where the grants begin.
    document.truncate(document.len().saturating_sub("]}".len()));
    let room: usize = parts.iter().map(Part::room).sum();
    document.reserve(room + END.len());
    let mut lines = HashMap::with_capacity(parts.len());
    let last = parts.len().saturating_sub(1);
    for (nth, (part, grant)) in parts.iter().zip(&snapshot.grants).enumerate() {
        document.push(b'\n');
        let start = document.len();
        match part {
            Part::Old(text) => document.extend_from_slice(text),
            Part::New(record) => serde_json::to_writer(&mut document, record)?,
        }
        lines.insert(address(grant), start..document.len());
        if nth != last {
            document.push(b',');
        }
    }
    document.extend_from_slice(END.as_bytes());
    let shared = packing.shared();
    Ok(Texts { document, lines, held: snapshot.grants.clone(), shared })
}

enum Part<'a> {
    Old(&'a [u8]),
    New(Box<Record<'a>>),
}

impl Part<'_> {
    /// What it takes, about.
    fn room(&self) -> usize {
        match self {
            Self::Old(text) => text.len() + 2,
            Self::New(_) => 1024,
        }
    }
}

impl Texts {
    /// The document.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.document
    }
}
