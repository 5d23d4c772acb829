//! Globs of the policy: `*` for any run of characters, `?` for one; everything else stands for itself.
//!
//! Decides what matches. Must not know what the names are.

/// Whether the whole of `text` matches `pattern`. Time grows with the product of the lengths, never worse.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Where the last `*` stands, and how much of the text it has swallowed up to.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(one) if *one == '?' || *one == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((place, swallowed)) = star else { return false };
                star = Some((place, swallowed + 1));
                at = place + 1;
                seen = swallowed + 1;
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// Whether the pattern has a wildcard, so that it is no name.
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match_themselves_and_nothing_else() {
        assert!(matches("team-a", "team-a"));
        assert!(!matches("team-a", "team-a-2"));
        assert!(!matches("team-a", "xteam-a"));
        assert!(!matches("", "a"));
        assert!(matches("", ""));
    }

    #[test]
    fn wildcards_match_runs_and_single_characters() {
        assert!(matches("team-*", "team-"));
        assert!(matches("*-prod", "a-prod-b-prod"));
        assert!(matches("t?am", "team"));
        assert!(!matches("t?am", "tam"));
        assert!(matches("*", ""));
        assert!(!matches("a*b", "a-b-c"));
    }

    /// The textbook definition, by recursion.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => (0..=text.len()).any(|cut| naive(rest, &text[cut..])),
            (Some((one, rest)), Some((first, others))) => {
                (*one == '?' || one == first) && naive(rest, others)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[ab*?]{0,7}", text in "[ab]{0,8}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), naive(&p, &t));
        }
    }
}
