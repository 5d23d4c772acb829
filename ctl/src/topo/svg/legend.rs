//! Who is who, below the panels.
//!
//! Decides how much is said of each: less where there are many.

use super::page::{Frame, Page, fitting};
use super::{EDGE, WIDTH};
use crate::topo::mark::{self, Tone};
use crate::topo::seating::{Holder, Seating};
use crate::topo::text;

/// Of a grant's square.
const SQUARE: f64 = 22.0;
/// Of a line of small text.
const LINE: f64 = 16.0;
/// More grants than this are told of in a line each.
const IN_FULL: usize = 16;
/// Columns of small text that fit.
const COLUMNS: usize = 62;

/// Draws it at `y`; where it ends.
pub fn legend(page: &mut Page, y: f64, seating: &Seating) -> f64 {
    let is_long = seating.holders.len() > IN_FULL;
    let half = (WIDTH - 2.0 * EDGE) / 2.0;
    let mut y = y + 4.0;
    for (nth, pair) in seating.holders.chunks(2).enumerate() {
        let ends = pair.iter().enumerate().map(|(column, one)| {
            holder(page, (EDGE + half * column as f64, y), nth * 2 + column, one, is_long)
        });
        y = ends.fold(y, f64::max) + 10.0;
    }
    key(page, y + 4.0, seating)
}

fn holder(page: &mut Page, (x, y): (f64, f64), nth: usize, holder: &Holder, is_long: bool) -> f64 {
    let width = (WIDTH - 2.0 * EDGE) / 2.0 - SQUARE - 20.0;
    page.begin(&holder.label);
    page.cell(Frame { x, y, w: SQUARE, h: SQUARE }, Tone::Own(nth), &[nth]);
    page.text(
        "sign bold on",
        x + SQUARE / 2.0,
        y + SQUARE / 2.0 + 4.0,
        &mark::letter(nth).to_string(),
    );
    let left = x + SQUARE + 10.0;
    page.text("head", left, y + 12.0, &fitting(&holder.label, 13.5, width));
    page.end();
    let asked = holder.requested.join(", ");
    let arrow = if asked.is_empty() { "" } else { " → " };
    let mut lines = Vec::new();
    if !holder.state.is_empty() {
        lines.push(holder.state.clone());
    }
    lines.push(format!("{}{arrow}{}", text::cut(&asked, COLUMNS), holder.holds.join(", ")));
    if is_long {
        lines = vec![fitting(&holder.holds.join(", "), 12.0, width)];
    } else {
        for (names, words) in &holder.pinned {
            let whose =
                if names.is_empty() { String::new() } else { format!("{}: ", names.join(", ")) };
            lines.push(format!("{whose}{words}"));
        }
    }
    let mut at = y + 12.0;
    for line in lines.iter().flat_map(|line| text::wrap(line, COLUMNS)) {
        at += LINE;
        page.text("small", left, at, &line);
    }
    at.max(y + SQUARE)
}

/// What the signs mean.
fn key(page: &mut Page, y: f64, seating: &Seating) -> f64 {
    let (mut x, mut y) = (EDGE, y);
    for (mark, words) in mark::key(seating) {
        let wide = 22.0 + text::width(words) as f64 * 6.4 + 18.0;
        if x + wide > WIDTH - EDGE && x > EDGE {
            (x, y) = (EDGE, y + 22.0);
        }
        let who: &[usize] = if let Tone::Several(_) = mark.tone { &[0, 1] } else { &[] };
        page.cell(Frame { x, y, w: 15.0, h: 15.0 }, mark.tone, who);
        let class = match mark.tone {
            Tone::Own(_) => Some("sign bold on"),
            Tone::Near(_) | Tone::Several(_) => Some("sign"),
            _ => None,
        };
        if let Some(class) = class {
            page.text(class, x + 7.5, y + 11.5, &mark.sign.to_string());
        }
        page.text("small", x + 22.0, y + 11.5, words);
        x += wide;
    }
    y + 22.0
}
