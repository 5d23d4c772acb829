//! The fields of a request and how annotation keys name them.
//!
//! Decides which keys are Berth's and whom they address. Must not know what values mean.

/// Berth's domain: `berth.dev/<field>`, `<container>.berth.dev/<field>`.
pub(super) const DOMAIN: &str = "berth.dev";

/// A field. Those that make a claim come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Gpus,
    Devices,
    Mig,
    Memory,
    Compute,
    DriverCapabilities,
    Cpus,
    Numa,
    Isolation,
    Extras,
}

impl Field {
    pub(super) const ALL: [Self; 10] = [
        Self::Gpus,
        Self::Devices,
        Self::Mig,
        Self::Memory,
        Self::Compute,
        Self::DriverCapabilities,
        Self::Cpus,
        Self::Numa,
        Self::Isolation,
        Self::Extras,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gpus => "gpus",
            Self::Devices => "devices",
            Self::Mig => "mig",
            Self::Memory => "memory",
            Self::Compute => "compute",
            Self::DriverCapabilities => "driver-capabilities",
            Self::Cpus => "cpus",
            Self::Numa => "numa",
            Self::Isolation => "isolation",
            Self::Extras => "extras",
        }
    }

    /// Whether it says what is claimed, so that it belongs to exactly one claim.
    pub(super) fn claims(self) -> bool {
        self <= Self::Compute
    }

    /// A valid value.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Gpus => "1",
            Self::Devices => "GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d",
            Self::Mig => "1g.10gb",
            Self::Memory => "8Gi",
            Self::Compute => "25%",
            Self::DriverCapabilities => "compute,utility",
            Self::Cpus => "auto",
            Self::Numa => "prefer",
            Self::Isolation => "any",
            Self::Extras => "gds",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// The field whose name is most like `name`, where any is like it.
    pub(super) fn nearest(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let (away, field) =
            Self::ALL.into_iter().map(|field| (distance(&name, field.name()), field)).min()?;
        (away <= 2.max(name.chars().count() / 2).min(4)).then_some(field)
    }
}

/// Whom a key addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// Every container of the pod.
    Pod,
    /// This container.
    Own,
}

/// Splits a key into address and field name. `None` where it is not Berth's, or is addressed to another container.
pub(super) fn address<'a>(key: &'a str, container: Option<&str>) -> Option<(Address, &'a str)> {
    let (domain, field) = key.split_once('/')?;
    if domain == DOMAIN {
        return Some((Address::Pod, field));
    }
    let named = domain.strip_suffix(DOMAIN)?.strip_suffix('.')?;
    (container == Some(named)).then_some((Address::Own, field))
}

/// Levenshtein's distance; texts far longer than any field's name are simply far.
fn distance(left: &str, right: &str) -> usize {
    if left.len() > 64 {
        return usize::MAX;
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, one) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in right.iter().enumerate() {
            let swapped = diagonal + usize::from(one != *other);
            diagonal = row[column + 1];
            row[column + 1] = swapped.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        for (left, right, away) in
            [("", "mig", 3), ("gpu", "gpus", 1), ("kitten", "sitting", 3), ("mig", "mig", 0)]
        {
            assert_eq!(distance(left, right), away, "{left} {right}");
        }
    }

    #[test]
    fn typos_find_their_field_and_nonsense_finds_none() {
        assert_eq!(Field::nearest("gpu"), Some(Field::Gpus));
        assert_eq!(Field::nearest("GPUS"), Some(Field::Gpus));
        assert_eq!(Field::nearest("driver-capability"), Some(Field::DriverCapabilities));
        assert_eq!(Field::nearest("xylophone"), None);
        assert_eq!(Field::nearest(&"g".repeat(10_000)), None);
    }

    #[test]
    fn keys_address_the_pod_one_container_or_nobody_here() {
        assert_eq!(address("berth.dev/gpus", Some("a")), Some((Address::Pod, "gpus")));
        assert_eq!(address("a.berth.dev/gpus", Some("a")), Some((Address::Own, "gpus")));
        assert_eq!(address("b.berth.dev/gpus", Some("a")), None);
        assert_eq!(address("a.berth.dev/gpus", None), None);
        assert_eq!(address("notberth.dev/gpus", Some("not")), None);
        assert_eq!(address(".berth.dev/gpus", Some("a")), None);
        assert_eq!(address("berth.dev", None), None);
        assert_eq!(address("berth.dev/a/b", None), Some((Address::Pod, "a/b")));
    }
}
