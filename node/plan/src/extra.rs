//! Extras: device families beside the GPUs.
//!
//! Decides their names. Must not know which nodes they are, or who may have them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::BadName;

/// What a list should have been.
const LIST: &str = "an extra (gds, rdma, gdrcopy, imex, nvswitch; or none, alone)";

/// The list of nothing, by which a container takes nothing of what its pod asks for.
const NONE: &str = "none";

/// One family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extra {
    /// GPUDirect Storage.
    Gds,
    /// Network adapters with RDMA.
    Rdma,
    /// GDRCopy.
    Gdrcopy,
    /// Channels of IMEX, by which GPUs of several nodes share memory.
    Imex,
    /// NVSwitches.
    Nvswitch,
}

/// A set of them, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Extras(pub BTreeSet<Extra>);

impl Extra {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Gds, Self::Rdma, Self::Gdrcopy, Self::Imex, Self::Nvswitch];

    /// The name as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gds => "gds",
            Self::Rdma => "rdma",
            Self::Gdrcopy => "gdrcopy",
            Self::Imex => "imex",
            Self::Nvswitch => "nvswitch",
        }
    }
}

impl Extras {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = Extra> + '_ {
        self.0.iter().copied()
    }
}

impl FromStr for Extras {
    type Err = BadName;

    /// Names between commas, spaces around them tolerated, or `none`. Empty is refused.
    fn from_str(text: &str) -> Result<Self, BadName> {
        if text.trim() == NONE {
            return Ok(Self::default());
        }
        let extra = |name: &str| {
            let found = Extra::ALL.into_iter().find(|one| one.name() == name);
            found.ok_or_else(|| BadName { text: name.to_owned(), what: LIST, example: "gds,rdma" })
        };
        text.split(',').map(str::trim).map(extra).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Extra::name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        text.parse::<Extras>().map(|set| set.to_string()).map_err(|bad| bad.to_string())
    }

    #[test]
    fn lists_are_read_in_any_order_with_spaces_and_none_is_the_empty_one() {
        assert_eq!(parsed(" rdma ,gds,rdma").as_deref(), Ok("gds,rdma"));
        assert_eq!(
            parsed("nvswitch,imex,gdrcopy,rdma,gds").as_deref(),
            Ok("gds,rdma,gdrcopy,imex,nvswitch")
        );
        assert_eq!(parsed("none").as_deref(), Ok(""));
    }

    #[test]
    fn unknown_and_empty_names_are_refused_and_the_valid_ones_listed() {
        assert_eq!(
            parsed("rdma,gsd").expect_err("a typo"),
            "\"gsd\" is not an extra (gds, rdma, gdrcopy, imex, nvswitch; or none, alone), for example gds,rdma"
        );
        for bad in ["", " ", ",", "gds,", "none,gds", "RDMA", "all"] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }
}
