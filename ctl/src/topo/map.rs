//! `berth topo --map`: the node on one screen, cell by cell.
//!
//! Decides how it is laid out in 80 columns. Signs alone carry the meaning; colours come on top.

use super::mark::{self, Mark, Tone};
use super::paint::{Line, Look, Span};
use super::seating::{Branch, Cell, Holder, Part, Room, Seating, Slices, Strip};
use super::text;

const WIDTH: usize = 80;
/// Where strips begin.
const LEFT: usize = 13;
/// Cells in a line, and how many stand together.
const CELLS: usize = 56;
const TOGETHER: usize = 8;
/// More grants than this are told in a line each.
const IN_FULL: usize = 10;

/// The map.
pub fn lines(seating: &Seating) -> Vec<Line> {
    let mut lines = wrapped(&seating.head(), 0, Look::Plain);
    if seating.driver.is_none() {
        return lines;
    }
    for room in &seating.rooms {
        lines.push(Line::new());
        lines.extend(of_room(room, seating));
    }
    if !seating.strays.is_empty() {
        lines.push(Line::new());
        lines.push(vec![Span::new("On no NUMA node that the machine tells", Look::Bold)]);
        lines.extend(seating.strays.iter().flat_map(|strip| of_strip(strip, seating)));
    }
    if !seating.bare.is_empty() {
        let words = format!("NUMA nodes {}: no CPUs, no GPUs", seating.bare);
        lines.push(Line::new());
        lines.extend(wrapped(&words, 0, Look::Dim));
    }
    lines.push(Line::new());
    lines.extend(legend(seating));
    lines
}

fn of_room(room: &Room, seating: &Seating) -> Vec<Line> {
    let mut lines = vec![heading(room)];
    for (nth, row) in rows(&room.cells).into_iter().enumerate() {
        let what = match nth {
            0 if room.by_core => "cores",
            0 => "CPUs",
            _ => "",
        };
        let first = row[0].cpus.first().unwrap_or_default();
        let mut line = vec![Span::new(format!("  {what:<5}{first:>4}  "), Look::Dim)];
        for (nth, cell) in row.iter().enumerate() {
            if nth > 0 && nth % TOGETHER == 0 {
                line.push(Span::plain(" "));
            }
            line.push(sign(mark::of_cell(cell)));
        }
        lines.push(line);
    }
    for (cell, _) in room.together().iter().filter(|(cell, _)| cell.who.len() > 1) {
        let who: Vec<String> = cell.who.iter().map(|nth| mark::small(*nth).to_string()).collect();
        let words = format!("{}: {} share CPUs {}", cell.who.len(), who.join(" "), cell.cpus);
        lines.extend(wrapped(&words, LEFT, Look::Dim));
    }
    lines.extend(in_order(&room.branches).flat_map(|at| of_strip(&room.strips[at], seating)));
    lines
}

/// Cells in rows. Where the CPUs' numbers are a few long runs, as first and second threads are, each begins a row.
fn rows(cells: &[Cell]) -> Vec<&[Cell]> {
    const RUNS: usize = 4;
    let first = |cell: &Cell| cell.cpus.first().unwrap_or_default();
    let runs: Vec<&[Cell]> = cells.chunk_by(|one, other| first(one) + 1 == first(other)).collect();
    let runs = if runs.len() > RUNS { vec![cells] } else { runs };
    runs.into_iter().flat_map(|run| run.chunks(CELLS)).collect()
}

fn heading(room: &Room) -> Line {
    let mut words = room_in_words(room);
    if !words.is_empty() {
        words = format!("  {}", text::cut(&words, WIDTH - 16));
    }
    vec![Span::new(format!("NUMA node {}", room.id), Look::Bold), Span::new(words, Look::Dim)]
}

/// `24 cores, CPUs 0-23,48-71`.
pub(super) fn room_in_words(room: &Room) -> String {
    let cores = match room.cores {
        0 => "no CPUs".to_owned(),
        1 => format!("1 core, CPUs {}", room.cpus),
        number => format!("{number} cores, CPUs {}", room.cpus),
    };
    if room.memory { cores } else { format!("{cores}, no memory") }
}

/// GPUs that hang together stand together.
pub(super) fn in_order(branches: &[Branch]) -> impl Iterator<Item = usize> {
    fn leaves(branches: &[Branch], found: &mut Vec<usize>) {
        for branch in branches {
            match branch {
                Branch::Gpu(at) => found.push(*at),
                Branch::Group { below, .. } => leaves(below, found),
            }
        }
    }
    let mut found = Vec::new();
    leaves(branches, &mut found);
    found.into_iter()
}

fn of_strip(strip: &Strip, seating: &Seating) -> Vec<Line> {
    let label = format!("  GPU {}", strip.index);
    let mut line = vec![Span::plain(format!("{label:<LEFT$}"))];
    line.extend(cells(strip));
    let column = line.iter().map(|span| text::width(&span.text)).sum::<usize>() + 2;
    let words = text::wrap(&strip_in_words(strip, seating), WIDTH - column);
    let mut words = words.into_iter();
    line.push(Span::plain(format!("  {}", words.next().unwrap_or_default())));
    let more = words.map(|line| vec![Span::plain(format!("{:column$}{line}", ""))]);
    std::iter::once(line).chain(more).collect()
}

/// A row of slices; `|` stands between parts. Few slices are wide, so that rows are about as long.
fn cells(strip: &Strip) -> Vec<Span> {
    let wide = (16 / strip.slices.max(1) as usize).max(2) - 1;
    let mut row = vec![Span::plain("[")];
    let mut before: Option<&Part> = None;
    for at in 0..strip.slices {
        let Some(part) = strip.part_at(at) else { continue };
        let Mark { sign: character, tone } = mark::of_part(part);
        match before {
            None => {}
            Some(same) if std::ptr::eq(same, part) => {
                let gap = if part.what == Slices::Uncut { ' ' } else { character };
                row.push(Span::new(gap, Look::Cell(tone)));
            }
            Some(_) => row.push(Span::plain("|")),
        }
        row.push(Span::new(character.to_string().repeat(wide), Look::Cell(tone)));
        before = Some(part);
    }
    row.push(Span::plain("]"));
    row
}

fn strip_in_words(strip: &Strip, seating: &Seating) -> String {
    let mut words = Vec::new();
    if strip.mig {
        words.push("MIG".to_owned());
    }
    for part in &strip.parts {
        let letters: Vec<String> =
            part.who.iter().map(|nth| mark::letter(*nth).to_string()).collect();
        let letters = letters.join(" ");
        match (&part.what, part.name()) {
            (_, Some(name)) if part.who.is_empty() => words.push(format!("# {name}")),
            (Slices::Instance { stage: Some(stage), .. }, Some(name)) => {
                words.push(format!("{letters} {name} {stage}"));
            }
            (_, Some(name)) => words.push(format!("{letters} {name}")),
            (Slices::Whole, None) if part.who.is_empty() => words.push("free".to_owned()),
            (Slices::Whole, None) => words.push(letters),
            _ => {}
        }
    }
    if seating.model().is_none() {
        words.push(strip.model.clone());
    }
    if let Some(node) = strip.memory_node {
        words.push(format!("its memory is NUMA node {node}"));
    }
    words.join(", ")
}

fn legend(seating: &Seating) -> Vec<Line> {
    let mut lines = Vec::new();
    let is_long = seating.holders.len() > IN_FULL;
    for (nth, holder) in seating.holders.iter().enumerate() {
        lines.extend(of_holder(nth, holder, is_long));
    }
    if !seating.holders.is_empty() {
        lines.push(Line::new());
    }
    let mut line = Line::new();
    let mut column = 0;
    for (mark, words) in mark::key(seating) {
        let wide = 4 + text::width(words);
        if column + wide > WIDTH && column > 0 {
            lines.push(std::mem::take(&mut line));
            column = 0;
        }
        column += wide;
        line.extend([sign(mark), Span::plain(format!(" {words}  "))]);
    }
    lines.push(line);
    lines
}

fn of_holder(nth: usize, holder: &Holder, is_long: bool) -> Vec<Line> {
    const INDENT: usize = 3;
    let letter = Span::new(mark::letter(nth), Look::Cell(Tone::Own(nth)));
    let state =
        if holder.state.is_empty() { String::new() } else { format!(" ({})", holder.state) };
    if is_long {
        let words = format!("  {}{state}: {}", holder.label, holder.holds.join(", "));
        return vec![vec![letter, Span::plain(text::cut(&words, WIDTH - 1))]];
    }
    let label = format!("  {}", text::cut(&holder.label, WIDTH - INDENT));
    let mut lines = vec![vec![letter, Span::new(label, Look::Bold)]];
    if !state.is_empty() {
        lines.extend(wrapped(state.trim_start(), INDENT, Look::Plain));
    }
    let asked: Vec<String> = holder.requested.iter().map(|one| text::cut(one, WIDTH)).collect();
    let holds = match asked.as_slice() {
        [] => format!("has {}", holder.holds.join(", ")),
        _ => format!("{} -> {}", asked.join(", "), holder.holds.join(", ")),
    };
    lines.extend(wrapped(&holds, INDENT, Look::Plain));
    for (names, words) in &holder.pinned {
        let whose =
            if names.is_empty() { String::new() } else { format!("{}: ", names.join(", ")) };
        lines.extend(wrapped(&format!("{whose}{words}"), INDENT, Look::Plain));
    }
    lines
}

fn wrapped(words: &str, indent: usize, look: Look) -> Vec<Line> {
    let lines = text::wrap(words, WIDTH - indent).into_iter();
    lines.map(|line| vec![Span::plain(" ".repeat(indent)), Span::new(line, look)]).collect()
}

fn sign(mark: Mark) -> Span {
    Span::new(mark.sign, Look::Cell(mark.tone))
}
