//! A set of CPUs, or of NUMA nodes, as the kernel writes it: `0-3,8`.
//!
//! Decides what is such a list (cpuset(7), "List format"). Must not know what the numbers stand for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// More than any kernel can be built for (`CONFIG_NR_CPUS` is 8192 at most), so that no text can ask for gigabytes.
const MOST: u32 = 1 << 16;

/// CPUs by the kernel's numbers: a bit for each, and no word of zeros at the end, so that equal sets are equal. Pinning compares sets of hundreds under the
/// node's lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet(Vec<u64>);

/// NUMA nodes by the kernel's numbers; it writes both alike.
pub type NodeSet = CpuSet;

/// A text that is no list of numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no list of numbers such as \"0-3,8\"")]
pub struct BadList {
    /// The text, or the part of it that is wrong.
    pub text: String,
}

impl CpuSet {
    /// None.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the number is among them.
    pub fn has(&self, number: u32) -> bool {
        let (word, bit) = place(number);
        self.word(word) & bit != 0
    }

    /// The lowest.
    pub fn first(&self) -> Option<u32> {
        self.iter().next()
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let of = |(first, word): (u32, &u64)| {
            let word = *word;
            (first..first + u64::BITS).filter(move |number| word & place(*number).1 != 0)
        };
        (0..).step_by(u64::BITS as usize).zip(&self.0).flat_map(of)
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.with(other, |ours, theirs| ours & theirs)
    }

    /// Those that are in either.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.with(other, |ours, theirs| ours | theirs)
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.with(other, |ours, theirs| ours & !theirs)
    }

    /// Whether all of them are in the other.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.iter().enumerate().all(|(at, word)| word & !other.word(at) == 0)
    }

    /// Whether any of them is in the other.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(ours, theirs)| ours & theirs != 0)
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn with(&self, other: &Self, both: impl Fn(u64, u64) -> u64) -> Self {
        let words = 0..self.0.len().max(other.0.len());
        let mut words: Vec<u64> = words.map(|at| both(self.word(at), other.word(at))).collect();
        while words.last() == Some(&0) {
            words.pop();
        }
        Self(words)
    }
}

/// Where a number is: its word, and its bit there.
fn place(number: u32) -> (usize, u64) {
    ((number / u64::BITS) as usize, 1 << (number % u64::BITS))
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut set = Self::none();
        set.extend(numbers);
        set
    }
}

impl Extend<u32> for CpuSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, numbers: I) {
        for number in numbers {
            let (word, bit) = place(number);
            if self.0.len() <= word {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= bit;
        }
    }
}

impl FromStr for CpuSet {
    type Err = BadList;

    /// Empty text is no numbers; white space around the whole is the kernel's newline.
    fn from_str(text: &str) -> Result<Self, BadList> {
        let text = text.trim();
        let mut set = Self::none();
        if text.is_empty() {
            return Ok(set);
        }
        for part in text.split(',') {
            let bad = || BadList { text: part.chars().take(80).collect() };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = number(first).zip(number(last)).ok_or_else(bad)?;
            if first > last {
                return Err(bad());
            }
            set.extend(first..=last);
        }
        Ok(set)
    }
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number < MOST)
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl TryFrom<String> for CpuSet {
    type Error = BadList;

    fn try_from(text: String) -> Result<Self, BadList> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}
