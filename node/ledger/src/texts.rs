//! Grants as text: a line of the document for each, so that what has not changed is not written anew.
//!
//! An admission changes one grant among perhaps hundreds. Whether one has changed is told by its identity: grants are shared pointers, and
//! whoever changes one makes another of it. Decides which text stands for which grant. Must not know the file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::packed::{Document, Packing, Record, Shared};
use crate::record::{Grant, Snapshot};

/// What stands between two grants.
const BETWEEN: &str = ",\n";
/// What stands after the last one.
const END: &str = "\n]}";
/// So much more than it has grants may a document have of what grants share; then it is packed anew, without what nobody refers to.
const SLACK: usize = 256;

/// The text of a document, and which of it stands for which grant.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    document: Vec<Piece>,
    /// By the grants' addresses, which are theirs for as long as they are held here.
    lines: HashMap<usize, Piece>,
    held: Vec<Arc<Grant>>,
    shared: Shared,
}

/// A part of a text that several may share: most of a document stands in the one before it, too, and is not copied.
#[derive(Debug, Clone)]
struct Piece {
    text: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        self.text.get(self.range.clone()).unwrap_or_default()
    }
}

impl Texts {
    /// The document, in parts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.document.iter().map(Piece::bytes)
    }

    /// Bytes of the document.
    pub(crate) fn size(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }
}

fn address(grant: &Arc<Grant>) -> usize {
    Arc::as_ptr(grant) as usize
}

/// Reads a document that has a line for each grant. `None` for any other, and for one with a mistake: the whole is then to be read as one,
/// which tells the place.
pub(crate) fn read(document: &Arc<Vec<u8>>, format: u64) -> Option<(Snapshot, Texts)> {
    let text = std::str::from_utf8(document).ok()?.strip_suffix(END)?;
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
        let start = line.as_ptr() as usize - document.as_ptr() as usize;
        let line = Piece { text: Arc::clone(document), range: start..start + line.len() };
        texts.lines.insert(address(&grant), line);
        texts.held.push(grant);
    }
    texts.document.push(Piece { text: Arc::clone(document), range: 0..document.len() });
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
        parts.push(match old.lines.get(&address(grant)) {
            Some(line) => Part::Old(line),
            None => Part::New(Box::new(packing.record(grant))),
        });
    }
    let mut fresh = serde_json::to_vec(&packing.document(format, snapshot.generation))?;
    // Up to where the grants begin.
    fresh.truncate(fresh.len().saturating_sub("]}".len()));
    let mut weaving = Weaving { fresh, woven: 0, pieces: Vec::new() };
    let mut lines = Vec::with_capacity(parts.len());
    for (nth, part) in parts.into_iter().enumerate() {
        let before = if nth == 0 { "\n" } else { BETWEEN };
        lines.push(match part {
            Part::Old(line) => {
                weaving.keep(line, before);
                Strand::Old(line.clone())
            }
            Part::New(record) => Strand::Fresh(weaving.add(&record, before)?),
        });
    }
    let (document, fresh) = weaving.end();
    let held = snapshot.grants.clone();
    let lines = lines.into_iter().map(|line| line.piece(&fresh));
    let lines = held.iter().map(address).zip(lines).collect();
    Ok(Texts { document, lines, held, shared: packing.shared() })
}

enum Part<'a> {
    Old(&'a Piece),
    New(Box<Record<'a>>),
}

/// A piece, of which the text is perhaps still being written.
enum Strand {
    Old(Piece),
    Fresh(Range<usize>),
}

impl Strand {
    fn piece(self, fresh: &Arc<Vec<u8>>) -> Piece {
        match self {
            Self::Old(piece) => piece,
            Self::Fresh(range) => Piece { text: Arc::clone(fresh), range },
        }
    }
}

/// A document in the making, out of old lines and fresh text.
struct Weaving {
    fresh: Vec<u8>,
    /// So much of the fresh text has its place among the pieces.
    woven: usize,
    pieces: Vec<Strand>,
}

impl Weaving {
    /// The next line, which stands in an older text. Those that follow each other there stay together.
    fn keep(&mut self, line: &Piece, before: &str) {
        if self.woven == self.fresh.len()
            && let Some(Strand::Old(last)) = self.pieces.last_mut()
            && Arc::ptr_eq(&last.text, &line.text)
            && last.range.end + BETWEEN.len() == line.range.start
        {
            last.range.end = line.range.end;
            return;
        }
        self.fresh.extend_from_slice(before.as_bytes());
        self.weave();
        self.pieces.push(Strand::Old(line.clone()));
    }

    fn add(
        &mut self,
        record: &Record<'_>,
        before: &str,
    ) -> Result<Range<usize>, serde_json::Error> {
        self.fresh.extend_from_slice(before.as_bytes());
        let start = self.fresh.len();
        serde_json::to_writer(&mut self.fresh, record)?;
        Ok(start..self.fresh.len())
    }

    fn weave(&mut self) {
        if self.woven < self.fresh.len() {
            self.pieces.push(Strand::Fresh(self.woven..self.fresh.len()));
            self.woven = self.fresh.len();
        }
    }

    fn end(mut self) -> (Vec<Piece>, Arc<Vec<u8>>) {
        self.fresh.extend_from_slice(END.as_bytes());
        self.weave();
        let fresh = Arc::new(self.fresh);
        (self.pieces.into_iter().map(|strand| strand.piece(&fresh)).collect(), fresh)
    }
}
