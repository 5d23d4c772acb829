//! Colours on a terminal.
//!
//! Decides when there are any (`NO_COLOR`, see no-color.org; `--color`; whether somebody looks) and which. The background is the colour, so
//! that it reads on light and dark terminals alike.

use std::io::IsTerminal;

use clap::ColorChoice;

use super::mark::{COLOURS, Tone};

/// A line of pieces that are coloured each by itself.
pub type Line = Vec<Span>;

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it says. Nothing in it moves the cursor.
    pub text: String,
    /// How it looks.
    pub look: Look,
}

/// How a piece looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As all text.
    Plain,
    /// A heading.
    Bold,
    /// Beside the point.
    Dim,
    /// A cell.
    Cell(Tone),
}

/// Backgrounds for grants, of the 256 colours of xterm; black reads on each.
const BACKGROUNDS: [u8; COLOURS] = [75, 215, 78, 211, 141, 221, 80, 173, 149, 105, 176, 109];

impl Span {
    /// As all text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), look: Look::Plain }
    }

    /// A piece that looks so.
    pub fn new(text: impl Into<String>, look: Look) -> Self {
        Self { text: text.into(), look }
    }
}

/// Whether to colour what goes to standard output.
pub fn is_wanted(choice: ColorChoice) -> bool {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let allows =
        variable("NO_COLOR").is_none() && variable("TERM").is_some_and(|term| term != "dumb");
    decides(choice, allows, std::io::stdout().is_terminal())
}

fn decides(choice: ColorChoice, allows: bool, is_terminal: bool) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => allows && is_terminal,
    }
}

/// The line as text.
pub fn painted(line: &[Span], coloured: bool) -> String {
    let mut text = String::new();
    for span in line {
        match code(span.look).filter(|_| coloured) {
            Some(code) => text.push_str(&format!("\u{1b}[{code}m{}\u{1b}[0m", span.text)),
            None => text.push_str(&span.text),
        }
    }
    text.trim_end().to_owned()
}

/// Parameters of SGR (ECMA-48, 8.3.117).
fn code(look: Look) -> Option<String> {
    let background = |nth: usize| BACKGROUNDS[nth % COLOURS];
    Some(match look {
        Look::Plain => return None,
        Look::Bold => "1".to_owned(),
        Look::Dim | Look::Cell(Tone::Free | Tone::Reserved | Tone::Isolated) => "2".to_owned(),
        Look::Cell(Tone::Pool) => "36".to_owned(),
        Look::Cell(Tone::Foreign) => "30;48;5;245".to_owned(),
        Look::Cell(Tone::Several(_)) => "30;48;5;252".to_owned(),
        Look::Cell(Tone::Own(nth)) => format!("1;30;48;5;{}", background(nth)),
        Look::Cell(Tone::Near(nth)) => format!("30;48;5;{}", background(nth)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_unless_said_otherwise() {
        use ColorChoice::{Always, Auto, Never};
        let cases = [
            (Auto, true, true, true),
            (Auto, true, false, false),
            (Auto, false, true, false),
            (Always, false, false, true),
            (Never, true, true, false),
        ];
        for (choice, allows, is_terminal, wanted) in cases {
            assert_eq!(
                decides(choice, allows, is_terminal),
                wanted,
                "{choice:?} {allows} {is_terminal}"
            );
        }
    }

    #[test]
    fn every_colour_ends_where_its_piece_ends() {
        let looks = [Look::Plain, Look::Bold, Look::Dim].into_iter();
        let tones =
            [Tone::Free, Tone::Pool, Tone::Foreign, Tone::Own(13), Tone::Near(1), Tone::Several(3)];
        let line: Line =
            looks.chain(tones.map(Look::Cell)).map(|look| Span::new("x", look)).collect();
        let text = painted(&line, true);
        assert_eq!(text.matches("\u{1b}[0m").count() * 2, text.matches('\u{1b}').count());
        assert_eq!(text.matches("x\u{1b}[0m").count(), line.len() - 1);
        assert_eq!(painted(&line, false), "xxxxxxxxx");
    }
}
