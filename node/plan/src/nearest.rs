//! The nearest request that would fit, where one is refused for want of room.
//!
//! Decides what counts as nearer: fewer of the same, then the next smaller kind. Whether a request fits is told by whoever decides it whole,
//! since a namespace's ceiling or an image's needs may bar what there is room for.

use std::cmp::Reverse;

use crate::inventory::Inventory;
use crate::mig::{Profile, ProfileName};
use crate::refusal::Refusal;
use crate::request::Want;

/// The nearest request that would fit now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nearest {
    /// This one.
    Fit(Box<Want>),
    /// None: what there is to say instead.
    Nothing(&'static str),
}

impl Nearest {
    /// That request, or these words where there is none.
    pub(crate) fn new(fit: Option<Want>, otherwise: &'static str) -> Self {
        fit.map_or(Self::Nothing(otherwise), |want| Self::Fit(Box::new(want)))
    }
}

impl std::fmt::Display for Nearest {
    /// `nearest fit: gpus 1`, `nearest fit: 2x1g.10gb`, `nothing is free`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fit(want) => {
                let words = want.to_string();
                write!(f, "nearest fit: {}", words.strip_prefix("mig ").unwrap_or(&words))
            }
            Self::Nothing(words) => f.write_str(words),
        }
    }
}

impl Refusal {
    /// The request that would fit instead, where there is one.
    pub fn nearest(&self) -> Option<&Want> {
        match self {
            Self::NoRoom { nearest: Nearest::Fit(want), .. }
            | Self::Ceiling { nearest: Nearest::Fit(want), .. } => Some(want),
            _ => None,
        }
    }

    /// The same refusal of `want` with a nearest fit for which `fits` holds: that which it names, else the next smaller one.
    #[must_use]
    pub fn with_true_nearest(
        mut self,
        want: &Want,
        inventory: &Inventory,
        fits: impl Fn(&Want) -> bool,
    ) -> Self {
        let (nearest, otherwise) = match &mut self {
            // Nothing is free, whoever asks.
            Self::NoRoom { nearest: Nearest::Nothing(_), .. } => return self,
            Self::NoRoom { nearest, .. } => (nearest, "nothing smaller fits"),
            Self::Ceiling { nearest, .. } => (nearest, "release something first"),
            _ => return self,
        };
        if !matches!(nearest, Nearest::Fit(named) if fits(named)) {
            let smaller = smaller(want, inventory).into_iter().find(fits);
            *nearest = Nearest::new(smaller, otherwise);
        }
        self
    }
}

/// Smaller requests, nearest first. What names GPUs has none of its own kind.
fn smaller(want: &Want, inventory: &Inventory) -> Vec<Want> {
    let fewer = |number: u32| (1..number).rev();
    match want {
        Want::Whole(number) => fewer(number.get()).filter_map(whole).collect(),
        Want::Exactly(gpus) => (1..=gpus.len() as u32).rev().filter_map(whole).collect(),
        Want::Instances(devices) => {
            let fewer = (1..devices.len()).rev().map(|number| devices[..number].to_vec());
            let single = devices.iter().skip(1).map(|device| vec![device.clone()]);
            fewer.chain(single).map(Want::Instances).collect()
        }
        Want::Mig { profile, count } => {
            let own = fewer(count.get()).filter_map(|number| mig(profile, number));
            let all = || inventory.gpus.iter().filter(|gpu| gpu.mig).flat_map(|gpu| &gpu.profiles);
            let wanted = all().find(|one| one.name == *profile);
            let others = wanted.map(|wanted| lesser(wanted, all())).unwrap_or_default();
            let each = others.iter().flat_map(|profile| {
                (1..=count.get()).rev().filter_map(|number| mig(&profile.name, number))
            });
            own.chain(each).collect()
        }
    }
}

/// Of these profiles those that have no more of anything than this one, largest first; of two equals the plain one, since the other takes what
/// somebody may need.
pub(crate) fn lesser<'a>(
    wanted: &Profile,
    offered: impl Iterator<Item = &'a Profile>,
) -> Vec<&'a Profile> {
    let is_less = |profile: &&Profile| {
        profile.name != wanted.name
            && profile.compute <= wanted.compute
            && profile.memory <= wanted.memory
    };
    let mut found: Vec<&Profile> = offered.filter(is_less).collect();
    let size = |profile: &Profile| {
        (profile.compute, profile.memory, !profile.media, Reverse(profile.name.clone()))
    };
    found.sort_by_key(|profile| Reverse(size(profile)));
    found.dedup_by(|a, b| a.name == b.name);
    found
}

/// So many whole GPUs; `None` for none.
pub(crate) fn whole(number: u32) -> Option<Want> {
    Some(Want::Whole(number.try_into().ok()?))
}

/// So many instances; `None` for none.
pub(crate) fn mig(profile: &ProfileName, number: u32) -> Option<Want> {
    Some(Want::Mig { profile: profile.clone(), count: number.try_into().ok()? })
}
