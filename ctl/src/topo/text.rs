//! Words of others, made to fit: names of pods and annotations may be long, wide, or hold what moves a cursor.
//!
//! Decides what is cut and where a line breaks, by columns of a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::view;

/// What it takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text as it can be shown, in at most `most` columns.
pub fn cut(text: &str, most: usize) -> String {
    let text = view::visible(text);
    if width(&text) <= most {
        return text;
    }
    let mut rest = most.saturating_sub(1);
    let fits = |one: &char| {
        let columns = one.width().unwrap_or_default();
        let there_is = columns <= rest;
        rest = if there_is { rest - columns } else { 0 };
        there_is
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The text in lines of at most `most` columns, broken at spaces, or where there are none.
pub fn wrap(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in view::visible(text).split(' ').filter(|word| !word.is_empty()) {
        let room = |line: &str, more: usize| width(line) + more <= most;
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() || !room(line, 1 + width(word)) {
            if !line.is_empty() {
                lines.push(String::new());
            }
        } else {
            line.push(' ');
        }
        for one in word.chars() {
            let line = lines.last_mut().expect("there is one");
            match room(line, one.width().unwrap_or_default()) || line.is_empty() {
                true => line.push(one),
                false => lines.push(one.to_string()),
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_by_columns_not_by_letters() {
        assert_eq!(cut("default/train", 20), "default/train");
        assert_eq!(cut("default/train", 8), "default…");
        assert_eq!(cut("名前の長い容器", 7), "名前の…");
        assert_eq!(cut("名前の長い容器", 6), "名前…");
        assert_eq!(cut("a\u{1b}[31mb\nc", 40), "a\\u{1b}[31mb\\nc");
        assert_eq!(cut("abc", 0), "…");
    }

    #[test]
    fn lines_break_at_spaces_and_in_words_that_are_longer_than_a_line() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), [""]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("名前の長い", 5), ["名前", "の長", "い"]);
    }
}
