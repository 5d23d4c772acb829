//! Driver capabilities: which parts of the driver a container gets.
//!
//! Decides their names and what narrows what. Source of the names: `NVIDIA_DRIVER_CAPABILITIES`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::BadName;

/// What a list should have been.
const LIST: &str =
    "a driver capability (compute, utility, video, graphics, display, ngx, compat32, all)";

/// One part of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// CUDA and OpenCL.
    Compute,
    /// NVML and nvidia-smi.
    Utility,
    /// Video codecs.
    Video,
    /// OpenGL and Vulkan.
    Graphics,
    /// X11.
    Display,
    /// NGX.
    Ngx,
    /// The 32-bit libraries of the others.
    Compat32,
}

/// A set of them, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub BTreeSet<Capability>);

impl Default for Capabilities {
    /// `compute,utility`.
    fn default() -> Self {
        Self(BTreeSet::from([Capability::Compute, Capability::Utility]))
    }
}

impl Capability {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Compute,
        Self::Utility,
        Self::Video,
        Self::Graphics,
        Self::Display,
        Self::Ngx,
        Self::Compat32,
    ];

    /// The one with this name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The name as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Utility => "utility",
            Self::Video => "video",
            Self::Graphics => "graphics",
            Self::Display => "display",
            Self::Ngx => "ngx",
            Self::Compat32 => "compat32",
        }
    }
}

impl Capabilities {
    /// Whether it is among them.
    pub fn has(&self, one: Capability) -> bool {
        self.0.contains(&one)
    }

    /// Whether they are all that there are: `all` means what the node has of each, while one that is named has to be there.
    pub fn is_all(&self) -> bool {
        self.0.len() == Capability::ALL.len()
    }

    /// Whether `compat32` stands alone, so that there is nothing whose 32-bit libraries it could bring.
    pub fn is_compat32_alone(&self) -> bool {
        self.0.iter().eq([&Capability::Compat32])
    }

    /// Whether what draws is among them: it comes with the GPUs' nodes in `/dev/dri`.
    pub fn draws(&self) -> bool {
        self.has(Capability::Graphics) || self.has(Capability::Display)
    }
}

/// What a container gets: its annotation's capabilities, else what `NVIDIA_DRIVER_CAPABILITIES` (`env`) leaves of the default.
///
/// The variable comes from the image, so it narrows and never widens or refuses: names that nobody knows are passed over, and whoever
/// wants more than the default writes the annotation. Where nothing is left (or it is unset, or empty) the default applies, as in
/// NVIDIA's toolkit: no image means "a GPU without a driver".
pub fn effective(annotation: Option<&Capabilities>, env: Option<&str>) -> Capabilities {
    if let Some(asked) = annotation {
        return asked.clone();
    }
    let names: Vec<&str> = env.unwrap_or_default().split(',').map(str::trim).collect();
    let named = |one: &Capability| names.contains(&"all") || names.contains(&one.name());
    let Capabilities(default) = Capabilities::default();
    let narrowed: BTreeSet<Capability> = default.into_iter().filter(named).collect();
    if narrowed.is_empty() { Capabilities::default() } else { Capabilities(narrowed) }
}

impl FromStr for Capabilities {
    type Err = BadName;

    /// Names between commas, spaces around them tolerated; `all` for every one. Empty is refused.
    fn from_str(text: &str) -> Result<Self, BadName> {
        let mut found = BTreeSet::new();
        for name in text.split(',').map(str::trim) {
            let bad = || BadName { text: name.to_owned(), what: LIST, example: "compute,utility" };
            if name == "all" {
                found.extend(Capability::ALL);
            } else {
                found.insert(Capability::named(name).ok_or_else(bad)?);
            }
        }
        Ok(Self(found))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|one| one.name()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        text.parse::<Capabilities>().map(|set| set.to_string()).map_err(|bad| bad.to_string())
    }

    #[test]
    fn lists_are_read_in_any_order_with_spaces() {
        assert_eq!(parsed(" utility ,compute").as_deref(), Ok("compute,utility"));
        assert_eq!(parsed("video,video").as_deref(), Ok("video"));
        assert_eq!(
            parsed("all").as_deref(),
            Ok("compute,utility,video,graphics,display,ngx,compat32")
        );
    }

    #[test]
    fn unknown_and_empty_names_are_refused_and_the_valid_ones_listed() {
        assert_eq!(
            parsed("compute,vidoe").expect_err("a typo"),
            "\"vidoe\" is not a driver capability (compute, utility, video, graphics, display, ngx, compat32, all), for example compute,utility"
        );
        for empty in ["", " ", ",", "compute,"] {
            assert!(parsed(empty).is_err(), "{empty:?}");
        }
        assert!(parsed("Compute").is_err(), "names are lower case");
    }

    #[test]
    fn compat32_alone_is_told_from_compat32_beside_others() {
        let of = |text: &str| text.parse::<Capabilities>().expect("names").is_compat32_alone();
        assert!(of("compat32") && of("compat32,compat32"));
        assert!(!of("compute,compat32") && !of("compute") && !of("all"));
    }

    #[test]
    fn the_annotation_beats_the_image() {
        let asked: Capabilities = "compute".parse().expect("a name");
        assert_eq!(effective(Some(&asked), Some("all")), asked);
    }

    #[test]
    fn the_image_narrows_and_never_widens() {
        let of = |env| effective(None, env).to_string();
        assert_eq!(of(Some("compute")), "compute");
        assert_eq!(of(Some("utility, video")), "utility");
        assert_eq!(of(Some("all")), "compute,utility");
        assert_eq!(of(Some("compute,all")), "compute,utility");
        assert_eq!(of(Some("compute,future-thing")), "compute");
    }

    #[test]
    fn an_image_that_names_nothing_of_the_default_gets_it() {
        for env in [None, Some(""), Some("video"), Some("nonsense"), Some(",")] {
            assert_eq!(effective(None, env), Capabilities::default(), "{env:?}");
        }
    }
}
