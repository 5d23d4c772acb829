//! Names of MIG profiles.
//!
//! Decides their written form: `<compute slices>g.<memory>gb`, and attributes behind it. Must not know which profiles a GPU has: what a
//! name means is the driver's to say, and two boards may mean different sizes by one name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::BadName;

/// `1g.10gb`, `1g.10gb+me`, `4g.96gb+gfx`, `1g.24gb-me`: in lower case, attributes in alphabetical order, additions first.
///
/// NVML writes `MIG ` before it (`nvmlGpuInstanceProfileInfo_v2_t.name`); that is read, too. A compute instance's own name (`1c.3g.40gb`) is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(String);

impl ProfileName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compute slices and gigabytes, as the name has them: rounded, and no more than a hint.
    pub fn size(&self) -> (u32, u32) {
        let number = |digits: &str| digits.parse().unwrap_or_default();
        let (compute, rest) = self.0.split_once("g.").unwrap_or_default();
        (number(compute), number(rest.split("gb").next().unwrap_or_default()))
    }

    /// Whether it brings the media engines that a GPU has only once (`+me`, `+me.all`).
    pub fn brings_media(&self) -> bool {
        let attributes = self.0.split('+').skip(1);
        attributes.map(|one| one.split('-').next().unwrap_or(one)).any(|one| one.starts_with("me"))
    }
}

impl FromStr for ProfileName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let normal = text.to_ascii_lowercase();
        let normal = normal.strip_prefix("mig ").unwrap_or(&normal);
        parse(normal).map(Self).ok_or_else(|| BadName {
            text: text.to_owned(),
            what: "a MIG profile's name",
            example: "1g.10gb",
        })
    }
}

fn parse(text: &str) -> Option<String> {
    let base = text.find(['+', '-']).unwrap_or(text.len());
    let (base, attributes) = text.split_at(base);
    let (compute, memory) = base.split_once("g.")?;
    let memory = memory.strip_suffix("gb")?;
    (is_number(compute, 2) && is_number(memory, 4)).then_some(())?;
    let mut found: Vec<(char, &str)> = Vec::new();
    let mut rest = attributes;
    while let Some(sign) = rest.chars().next() {
        rest = &rest[1..];
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        found.push((sign, &rest[..end]));
        rest = &rest[end..];
    }
    let plain = |word: &str| {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        !word.is_empty() && word.len() <= 8 && word.bytes().all(good)
    };
    let good = found.len() <= 4 && found.iter().all(|(_, word)| word.split('.').all(plain));
    good.then_some(())?;
    found.sort_unstable();
    found.dedup();
    let attributes: String = found.iter().map(|(sign, word)| format!("{sign}{word}")).collect();
    Some(format!("{base}{attributes}"))
}

fn is_number(digits: &str, most: usize) -> bool {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain && (1..=most).contains(&digits.len()) && !digits.starts_with('0')
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_driver_and_as_people_write_them() {
        for (text, name) in [
            ("1g.10gb", "1g.10gb"),
            ("MIG 1g.10gb+me", "1g.10gb+me"),
            ("7G.180GB", "7g.180gb"),
            ("4g.96gb+gfx", "4g.96gb+gfx"),
            ("1g.24gb-me", "1g.24gb-me"),
            ("2g.48gb+me.all", "2g.48gb+me.all"),
            ("1g.24gb+me+gfx", "1g.24gb+gfx+me"),
        ] {
            let read = text.parse::<ProfileName>().expect(text);
            assert_eq!(read.as_str(), name);
            assert_eq!(read.to_string().parse(), Ok(read), "what is written is read again");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "1g",
            "1g.gb",
            "g.10gb",
            "1g.10",
            "01g.10gb",
            "1g.05gb",
            "1c.3g.40gb",
            "1g.10gb+",
            "1g.10gb+-me",
            "1g.10gb me",
            "-1g.10gb",
            "100g.10gb",
            "1g.10000gb",
            "1g.10gb+a..b",
            "MIG-1g.10gb",
            "1g.10gb+\u{fc}",
            "2x1g.10gb",
            "1g.10gb+a+b+c+d+e",
        ] {
            assert!(text.parse::<ProfileName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn media_is_told_by_the_attribute() {
        let media = |text: &str| text.parse::<ProfileName>().expect(text).brings_media();
        assert!(media("1g.10gb+me") && media("2g.48gb+me.all") && media("1g.24gb+gfx+me"));
        assert!(!media("1g.10gb") && !media("1g.24gb-me") && !media("4g.96gb+gfx"));
    }
}
