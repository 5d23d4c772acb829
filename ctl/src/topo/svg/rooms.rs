//! A NUMA node's panel: its cores to the left, its GPUs to the right.
//!
//! Decides sizes, so that what is on one node is seen at once.

use super::page::{Frame, Page, fits, fitting};
use super::{EDGE, WIDTH};
use crate::topo::map::{in_order, room_in_words};
use crate::topo::mark::{self, Mark, Tone};
use crate::topo::seating::{Branch, Cell, Ground, Part, Room, Seating, Slices, Strip};

/// From a panel's edge to what is in it.
const PAD: f64 = 16.0;
/// Of a panel's heading.
const HEAD: f64 = 42.0;
const GAP: f64 = 14.0;
/// From one GPU to the next, and how high it is.
const ROW: f64 = 44.0;
const STRIP: f64 = 36.0;
/// Where GPUs' names and slices begin.
const NAMES: f64 = 436.0;
const SLICES: f64 = 540.0;

/// Draws a panel at `y`; where the next begins.
pub fn room(page: &mut Page, y: f64, room: &Room, seating: &Seating) -> f64 {
    let order: Vec<usize> = in_order(&room.branches).collect();
    let (wide, high, columns) = sizes(room.cells.len());
    let rows = room.cells.len().div_ceil(columns) as f64;
    let right = order.len() as f64 * ROW - (ROW - STRIP);
    let height = HEAD + (rows * (high + 3.0) - 3.0).max(right).max(0.0) + PAD;
    page.rect("room", Frame { x: EDGE, y, w: WIDTH - 2.0 * EDGE, h: height }, 6.0);
    let unit = if room.by_core { "" } else { "; a cell is a CPU" };
    let words = fitting(&format!("{}{unit}", room_in_words(room)), 12.0, WIDTH - 200.0);
    let name = format!("NUMA node {}", room.id);
    page.texts(EDGE + PAD, y + 25.0, [("head", &name), ("small", &words)]);
    for (nth, one) in room.cells.iter().enumerate() {
        let at = |nth: usize, size: f64| nth as f64 * (size + 3.0);
        let frame = Frame {
            x: EDGE + PAD + at(nth % columns, wide),
            y: y + HEAD + at(nth / columns, high),
            w: wide,
            h: high,
        };
        core(page, frame, one, seating);
    }
    for (nth, at) in order.iter().enumerate() {
        strip(page, y + HEAD + nth as f64 * ROW, &room.strips[*at], seating);
    }
    brackets(page, y + HEAD, &room.branches, 0, 0);
    y + height + GAP
}

/// How wide and high so many cells are, and how many are in a row.
fn sizes(cells: usize) -> (f64, f64, usize) {
    match cells {
        0..=40 => (43.0, 28.0, 8),
        41..=112 => (20.0, 20.0, 16),
        _ => (12.0, 12.0, 24),
    }
}

/// The panel of GPUs that no node is known of.
pub fn strays(page: &mut Page, y: f64, seating: &Seating) -> f64 {
    let height = HEAD + seating.strays.len() as f64 * ROW - (ROW - STRIP) + PAD;
    page.rect("room", Frame { x: EDGE, y, w: WIDTH - 2.0 * EDGE, h: height }, 6.0);
    page.text("head", EDGE + PAD, y + 25.0, "On no NUMA node that the machine tells");
    for (nth, one) in seating.strays.iter().enumerate() {
        strip(page, y + HEAD + nth as f64 * ROW, one, seating);
    }
    y + height + GAP
}

fn core(page: &mut Page, frame: Frame, cell: &Cell, seating: &Seating) {
    let Mark { sign, tone } = mark::of_cell(cell);
    let aside = match cell.ground {
        Ground::Shared => "",
        Ground::Pool => " (exclusive pool)",
        Ground::Isolated => " (isolated)",
        Ground::Reserved => " (reserved)",
    };
    page.begin(&format!("CPUs {}{aside}: {}", cell.cpus, names(&cell.who, seating)));
    page.cell(frame, tone, &cell.who);
    if !matches!(tone, Tone::Free | Tone::Pool | Tone::Reserved | Tone::Isolated) && frame.w > 15.0
    {
        let class = if matches!(tone, Tone::Own(_)) { "sign bold on" } else { "sign" };
        page.text(class, frame.x + frame.w / 2.0, frame.y + frame.h / 2.0 + 4.0, &sign.to_string());
    }
    page.end();
}

fn names(who: &[usize], seating: &Seating) -> String {
    let names: Vec<&str> = who.iter().map(|nth| seating.holders[*nth].label.as_str()).collect();
    if names.is_empty() { "free".to_owned() } else { names.join(", ") }
}

/// A GPU: its name, what is to be known of it, and its slices.
fn strip(page: &mut Page, y: f64, strip: &Strip, seating: &Seating) {
    let name = format!("GPU {}", strip.index);
    page.texts(NAMES, y + 15.0, [("bold", &name), ("tiny", if strip.mig { "MIG" } else { "" })]);
    let words = match strip.memory_node {
        Some(node) => format!("memory: node {node}"),
        None if seating.model().is_none() => strip.model.clone(),
        None => String::new(),
    };
    page.text("tiny", NAMES, y + 30.0, &fitting(&words, 10.0, SLICES - NAMES - 4.0));
    let wide = (WIDTH - EDGE - PAD - SLICES) / f64::from(strip.slices.max(1));
    for one in &strip.parts {
        let start = one.start.min(strip.slices);
        let size = one.size.min(strip.slices - start);
        let frame = |at: u32, number: u32| Frame {
            x: SLICES + f64::from(at) * wide + 1.0,
            y,
            w: f64::from(number) * wide - 2.0,
            h: STRIP,
        };
        match one.what {
            Slices::Uncut => (start..start + size)
                .for_each(|at| part(page, frame(at, 1), strip, one, &one.who, seating)),
            _ if size > 0 => shares(page, frame(start, size), strip, one, seating),
            _ => {}
        }
    }
}

/// What several hold, side by side where there is room for their names.
fn shares(page: &mut Page, frame: Frame, strip: &Strip, one: &Part, seating: &Seating) {
    const LEAST: f64 = 50.0;
    let wide = frame.w / one.who.len().max(1) as f64;
    if one.who.len() < 2 || wide < LEAST {
        return part(page, frame, strip, one, &one.who, seating);
    }
    for (at, nth) in one.who.iter().enumerate() {
        let share = Frame { x: frame.x + wide * at as f64, w: wide - 1.0, ..frame };
        part(page, share, strip, one, &[*nth], seating);
    }
}

/// Slices, or a share of them, that `who` hold.
fn part(
    page: &mut Page,
    frame: Frame,
    strip: &Strip,
    part: &Part,
    who: &[usize],
    seating: &Seating,
) {
    let Mark { sign, tone } = mark::of_part(&Part { who: who.to_vec(), ..part.clone() });
    let name = part.name().unwrap_or_else(|| match part.what {
        Slices::Whole => "the whole GPU".to_owned(),
        _ => format!("slices {}", part.range()),
    });
    let holders = match who.is_empty() && part.is_foreign() {
        true => "not made by Berth".to_owned(),
        false => names(who, seating),
    };
    page.begin(&format!("GPU {} {}, {name}: {holders}", strip.index, strip.uuid));
    page.cell(frame, tone, who);
    let middle = frame.y + frame.h / 2.0;
    let on = if matches!(tone, Tone::Own(_)) { " on" } else { "" };
    let (left, first) = match tone {
        Tone::Free if part.what == Slices::Whole => {
            page.text("small", frame.x + 8.0, middle + 4.0, "free");
            return page.end();
        }
        Tone::Free => return page.end(),
        Tone::Foreign => (6.0, "not Berth's".to_owned()),
        _ => (22.0, holders),
    };
    if tone != Tone::Foreign {
        page.text(&format!("bold{on}"), frame.x + 6.0, middle - 3.0, &sign.to_string());
    }
    let cut = fitting(&first, 12.0, frame.w - left - 4.0);
    // Of a name, a letter or two say nothing.
    if cut == first || cut.chars().count() > 6 {
        page.text(on.trim(), frame.x + left, middle - 3.0, &cut);
    }
    let second = match &part.what {
        Slices::Instance { profile, .. } => profile.as_str(),
        _ if part.who.len() > 1 => "shared",
        _ => "whole",
    };
    if fits(second, 10.0, frame.w - 4.0) {
        page.text(&format!("tiny{on}"), frame.x + 6.0, middle + 12.0, second);
    }
    page.end();
}

/// A bracket along those that hang together, further out for what is further away. How many GPUs it went past.
fn brackets(page: &mut Page, top: f64, branches: &[Branch], depth: u32, first: usize) -> usize {
    let mut at = first;
    for branch in branches {
        let Branch::Group { by, below } = branch else {
            at += 1;
            continue;
        };
        let from = at;
        at = brackets(page, top, below, depth + 1, at);
        let x = NAMES - 22.0 + 6.0 * f64::from(depth.min(2));
        let y = |nth: usize| top + nth as f64 * ROW + STRIP / 2.0;
        page.begin(by);
        page.line(&[(x + 4.0, y(from)), (x, y(from)), (x, y(at - 1)), (x + 4.0, y(at - 1))]);
        page.end();
    }
    at
}
