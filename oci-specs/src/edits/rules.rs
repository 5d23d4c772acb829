//! The device cgroup's rules: what one covers, overlaps, takes back.
//!
//! Decides by the text of the rules alone, the last that applies winning. Must not know which devices
//! matter to anybody.

use std::fmt;

use crate::parts::DeviceRule;

/// What a rule is about, with its synonyms and wildcards resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Char,
    Block,
}

impl DeviceRule {
    /// A rule for the one device, as it goes along with a node.
    pub fn allow(kind: &str, major: i64, minor: i64, access: &str) -> Self {
        Self {
            allow: true,
            kind: kind.into(),
            major: Some(major),
            minor: Some(minor),
            access: access.into(),
        }
    }

    fn kind(&self) -> Kind {
        match self.kind.as_str() {
            "" | "a" => Kind::Any,
            "b" => Kind::Block,
            _ => Kind::Char,
        }
    }

    /// Its numbers, wildcards as `None`; a rule of type `a` is for every number (cgroup-v1 devices).
    fn numbers(&self) -> [Option<i64>; 2] {
        if self.kind() == Kind::Any {
            return [None, None];
        }
        [self.major, self.minor].map(|number| number.filter(|number| *number >= 0))
    }

    pub(crate) fn is_for_any_number(&self) -> bool {
        self.numbers() == [None, None]
    }

    /// Whether it is about character devices of this very major, and of one of these minors or of all.
    pub(crate) fn is_for_char(&self, major: i64, minors: &std::ops::RangeInclusive<i64>) -> bool {
        let [own_major, own_minor] = self.numbers();
        self.kind() == Kind::Char
            && own_major == Some(major)
            && own_minor.is_none_or(|minor| minors.contains(&minor))
    }

    /// Whether it is about opening a device, not only about making its node.
    pub(crate) fn lets_open(&self) -> bool {
        self.access.contains(['r', 'w'])
    }

    /// Whether it is about all the devices and all the ways of access that the other is about.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let numbers = self.numbers().into_iter().zip(other.numbers());
        (self.kind() == Kind::Any || self.kind() == other.kind())
            && numbers.into_iter().all(|(own, other)| own.is_none() || own == other)
            && other.access.chars().all(|access| self.access.contains(access))
    }

    /// Whether there is a device and a way of access that both are about.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let numbers = self.numbers().into_iter().zip(other.numbers());
        (self.kind() == Kind::Any || other.kind() == Kind::Any || self.kind() == other.kind())
            && numbers
                .into_iter()
                .all(|(own, other)| own.is_none() || other.is_none() || own == other)
            && self.access.chars().any(|access| other.access.contains(access))
    }

    /// Whether it leaves nothing of what the other lets be opened.
    pub(crate) fn takes_back(&self, other: &Self) -> bool {
        let access = other.access.chars().filter(|access| *access != 'm').collect();
        self.covers(&Self { access, ..other.clone() })
    }

    /// Whether the rule, put at the end of the list, would change nothing: one in the list covers
    /// it, and nothing after that says otherwise but what is about to be said again (`to_come`).
    pub(crate) fn is_in_force(&self, rules: &[Self], to_come: &[Self]) -> bool {
        let covering = rules.iter().rposition(|rule| rule.allow == self.allow && rule.covers(self));
        covering.is_some_and(|at| {
            !rules[at + 1..].iter().any(|later| {
                later.allow != self.allow && later.overlaps(self) && !to_come.contains(later)
            })
        })
    }
}

/// `c *:* rwm`.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] =
            self.numbers().map(|n| n.map_or_else(|| "*".to_owned(), |n| n.to_string()));
        let kind = match self.kind() {
            Kind::Any => "a",
            Kind::Char => "c",
            Kind::Block => "b",
        };
        write!(f, "{kind} {major}:{minor} {}", self.access)
    }
}
