//! One sign for who holds a cell, so that a map can be read without colours.
//!
//! Decides the signs and which of the colours is whose. Must not know how wide anything is, nor what a colour looks like.

use super::seating::{Cell, Ground, Part, Seating};

/// Grants' letters, in their order: none looks like another, and each has a small form.
const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZΓΔΘΛΞΠΣΦΨΩБДЖЗИЙЛЦЧШЩЪЫЬЭЮЯЂЉЊЋЏ";

/// How many colours there are. Letters tell apart what has the same.
pub const COLOURS: usize = 12;

/// A cell's sign, and what colours it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The sign.
    pub sign: char,
    /// What it says.
    pub tone: Tone,
}

/// What a sign says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// The grant of this number holds it alone.
    Own(usize),
    /// The grant of this number alone runs on it, and others may come.
    Near(usize),
    /// So many grants hold it.
    Several(usize),
    /// Nobody holds it.
    Free,
    /// Nobody holds it, and it is for whoever asks for CPUs of its own.
    Pool,
    /// The operator keeps it.
    Reserved,
    /// The kernel was told to leave it alone.
    Isolated,
    /// Others made it.
    Foreign,
}

/// The letter of a grant; `*` for those that come after the last letter.
pub fn letter(nth: usize) -> char {
    LETTERS.chars().nth(nth).unwrap_or('*')
}

/// The sign of CPUs.
pub fn of_cell(cell: &Cell) -> Mark {
    let tone = match (cell.who.as_slice(), cell.ground) {
        ([one], _) if cell.alone => Tone::Own(*one),
        ([one], _) => Tone::Near(*one),
        ([], Ground::Shared) => Tone::Free,
        ([], Ground::Pool) => Tone::Pool,
        ([], Ground::Isolated) => Tone::Isolated,
        ([], Ground::Reserved) => Tone::Reserved,
        (several, _) => Tone::Several(several.len()),
    };
    mark(tone)
}

/// The sign of slices of a GPU.
pub fn of_part(part: &Part) -> Mark {
    mark(match part.who.as_slice() {
        [one] => Tone::Own(*one),
        [] if part.is_foreign() => Tone::Foreign,
        [] => Tone::Free,
        several => Tone::Several(several.len()),
    })
}

fn mark(tone: Tone) -> Mark {
    let sign = match tone {
        Tone::Free => '.',
        Tone::Pool => '+',
        Tone::Reserved => '-',
        Tone::Isolated => '~',
        Tone::Foreign => '#',
        Tone::Own(nth) => letter(nth),
        Tone::Near(nth) => small(nth),
        Tone::Several(number) => u32::try_from(number)
            .ok()
            .and_then(|number| char::from_digit(number, 10))
            .unwrap_or('&'),
    };
    Mark { sign, tone }
}

/// The small letter of a grant.
pub fn small(nth: usize) -> char {
    letter(nth).to_lowercase().next().unwrap_or('*')
}

/// What each kind of sign on the map means, in words: only those that are there.
pub fn key(seating: &Seating) -> Vec<(Mark, &'static str)> {
    let cells = seating.rooms.iter().flat_map(|room| &room.cells).map(of_cell);
    let parts = seating.strips().flat_map(|strip| &strip.parts).map(of_part);
    // Of letters and numbers, one stands for all.
    let kind = |tone: Tone| match tone {
        Tone::Own(_) => Tone::Own(0),
        Tone::Near(_) => Tone::Near(0),
        Tone::Several(_) => Tone::Several(2),
        other => other,
    };
    let mut there: Vec<Tone> = cells.chain(parts).map(|mark| kind(mark.tone)).collect();
    there.sort_unstable();
    there.dedup();
    there.into_iter().map(|tone| (mark(tone), words(tone))).collect()
}

fn words(tone: Tone) -> &'static str {
    match tone {
        Tone::Free => "free",
        Tone::Pool => "free, in the exclusive pool",
        Tone::Reserved => "reserved",
        Tone::Isolated => "isolated",
        Tone::Foreign => "not made by Berth",
        Tone::Own(_) => "its own",
        Tone::Near(_) => "used by it, and others may come",
        Tone::Several(_) => "used by so many",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use unicode_width::UnicodeWidthChar;

    use super::*;

    #[test]
    fn no_letter_is_twice_and_each_fills_one_column_large_and_small() {
        let all: Vec<char> = LETTERS.chars().collect();
        let signs: BTreeSet<char> =
            (0..all.len()).flat_map(|nth| [letter(nth), small(nth)]).collect();
        assert_eq!(signs.len(), 2 * all.len());
        assert!(signs.iter().all(|sign| sign.width() == Some(1)));
        // Eight GPUs of seven instances each.
        assert!(all.len() >= 56, "{}", all.len());
        assert_eq!((letter(all.len()), small(usize::MAX)), ('*', '*'));
    }

    #[test]
    fn a_number_says_how_many_share_until_there_are_too_many() {
        let sign = |number| mark(Tone::Several(number)).sign;
        assert_eq!([sign(2), sign(9), sign(10), sign(usize::MAX)], ['2', '9', '&', '&']);
    }
}
