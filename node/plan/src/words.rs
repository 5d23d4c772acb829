//! How foreign text is shown in messages: quoted, escaped and shortened, so that no value can forge or flood one.
//!
//! Decides the form only. Must not know what the text means.

/// The most characters of a value that a message repeats.
const SHOWN: usize = 120;

/// The text in double quotes; control, invisible and quoting characters are escaped, and what exceeds 120 characters is cut with `…`.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// The text as it is where nothing in it can mislead, else [`quoted`]. For names and keys.
pub fn shown(text: &str) -> String {
    let plain = !text.is_empty() && text.len() <= SHOWN;
    if plain && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return text.to_owned();
    }
    quoted(text)
}

/// `a`, `a and b`, `a, b and c`.
pub fn listed<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_invisible_characters_are_escaped() {
        assert_eq!(quoted("a\0b\n\"\u{202e}"), r#""a\0b\n\"\u{202e}""#);
    }

    #[test]
    fn long_values_are_cut_on_a_character_not_in_one() {
        let text = "ü".repeat(500);
        let shown = quoted(&text);
        assert_eq!(shown, format!("\"{}\"…", "ü".repeat(SHOWN)));
    }

    #[test]
    fn only_plain_names_go_unquoted() {
        assert_eq!(shown("berth.dev/gpus"), "berth.dev/gpus");
        assert_eq!(shown("a b"), r#""a b""#);
        assert_eq!(shown(""), r#""""#);
    }

    #[test]
    fn lists_read_like_prose() {
        assert_eq!(listed::<&str>(&[]), "");
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
    }
}
