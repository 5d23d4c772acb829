//! What a container asks for in its annotations.
//!
//! Decides what is well formed, whose claim it is, and which combinations make sense. Must not know policy: whether the asker may is `trust`'s.

mod field;
mod value;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use self::field::{Address, DOMAIN, Field};
use crate::capability::Capabilities;
use crate::extra::Extras;
use crate::ids::{GpuUuid, MigUuid};
use crate::inventory::Inventory;
use crate::mig::{Devices, ProfileName};
use crate::refusal::Refusal;
use crate::words::{quoted, shown};

/// Whose claim a request makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One claim of the pod, shared by its containers (`berth.dev/<field>`).
    Pod,
    /// The container's own (`<container>.berth.dev/<field>`), or of a container without a pod.
    Container,
}

/// What is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// `gpus`: so many whole GPUs, close to each other.
    Whole(NonZeroU32),
    /// `devices`: exactly these, in the order written, without repetition.
    Exactly(Vec<GpuUuid>),
    /// `devices`: exactly these MIG devices, which others made; without repetition.
    Instances(Vec<MigUuid>),
    /// `mig`: so many MIG instances of one profile.
    Mig {
        /// The profile.
        profile: ProfileName,
        /// How many of it.
        count: NonZeroU32,
    },
}

impl std::fmt::Display for Want {
    /// As refusals say it: `gpus 2`, `devices GPU-…,GPU-…`, `mig 2x3g.40gb`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "gpus {number}"),
            Self::Exactly(gpus) => {
                let names: Vec<&str> = gpus.iter().map(GpuUuid::as_str).collect();
                write!(f, "devices {}", names.join(","))
            }
            Self::Instances(devices) => {
                let names: Vec<&str> = devices.iter().map(MigUuid::as_str).collect();
                write!(f, "devices {}", names.join(","))
            }
            Self::Mig { profile, count } if count.get() == 1 => write!(f, "mig {profile}"),
            Self::Mig { profile, count } => write!(f, "mig {count}x{profile}"),
        }
    }
}

impl Want {
    /// The field of the annotation that asks for it, and its value.
    pub fn as_annotation(&self) -> (&'static str, String) {
        let field = match self {
            Self::Whole(_) => Field::Gpus,
            Self::Exactly(_) | Self::Instances(_) => Field::Devices,
            Self::Mig { .. } => Field::Mig,
        };
        let words = self.to_string();
        (field.name(), words.split_once(' ').map(|(_, value)| value.to_owned()).unwrap_or(words))
    }
}

/// `cpus`: what is done about a container's CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cpus {
    /// Those near its GPUs, shared with others.
    #[default]
    Auto,
    /// So many for itself, from the pool that the operator set aside.
    Exclusively(NonZeroU32),
    /// Nothing.
    Off,
}

/// `numa`: what is done about a container's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Numa {
    /// That near its GPUs is preferred.
    #[default]
    Prefer,
    /// No other may be used.
    Strict,
    /// Nothing.
    Off,
}

/// A container's request, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The claim; `None` when only other fields are set (they then need a prior allocation).
    pub want: Option<Want>,
    /// Whose claim it is.
    pub scope: Scope,
    /// `<container>.berth.dev/gpus: none`: this container wants nothing of the pod's claim.
    pub opted_out: bool,
    /// `driver-capabilities`; `None` where the annotation is absent.
    pub capabilities: Option<Capabilities>,
    /// `cpus`.
    pub cpus: Cpus,
    /// Whether `cpus` is addressed to this container alone, rather than to all of its pod.
    pub own_cpus: bool,
    /// `numa`.
    pub numa: Numa,
    /// `extras`.
    pub extras: Extras,
    /// Annotations that the request was read from, as written: for the ledger and for refusals.
    pub written: BTreeMap<String, String>,
}

/// One annotation as it was written.
#[derive(Debug, Clone, Copy)]
struct Written<'a> {
    key: &'a str,
    value: &'a str,
}

/// The longest value: as written it stays in the ledger, which every admission of the node reads. 64 UUIDs have less than 3 KiB.
const LONGEST: usize = 4096;

/// The annotations of one address, by field.
type Fields<'a> = BTreeMap<Field, Written<'a>>;

impl Request {
    /// Reads the request of container `name` out of its annotations. `None` when there is none.
    ///
    /// `name` is the container's name in its pod (`io.kubernetes.cri.container-name`), `None` outside pods, where only
    /// `berth.dev/<field>` counts and is the container's own. What is addressed to other containers is theirs to be refused.
    ///
    /// # Errors
    /// [`Refusal`] naming annotation, value and a valid example: an unknown field, a malformed value, a contradiction, a field of a later version.
    pub fn parse(
        annotations: &BTreeMap<String, String>,
        name: Option<&str>,
    ) -> Result<Option<Self>, Refusal> {
        if name.is_none() {
            nobody_is_addressed(annotations)?;
        }
        let (pod, own) = by_address(annotations, name)?;
        if opts_out(&own)? {
            let fields = own.into_iter().filter(|(field, _)| !field.claims());
            let mut request = Self::of(fields.collect(), Scope::Container)?;
            request.opted_out = true;
            request.written = annotations_of(annotations, name);
            return Ok(Some(request));
        }
        let own_claim = own.keys().any(|field| field.claims());
        let scope = if own_claim || name.is_none() { Scope::Container } else { Scope::Pod };
        let inherited = pod.into_iter().filter(|(field, _)| !(own_claim && field.claims()));
        let mut fields: Fields<'_> = inherited.collect();
        fields.extend(own);
        if fields.is_empty() {
            return Ok(None);
        }
        Self::of(fields, scope).map(Some)
    }

    /// The annotation that asks, for messages about the request as a whole: the claim's where there is one.
    pub fn asking(&self) -> (&str, &str) {
        let field = |key: &str| key.split_once('/').and_then(|(_, field)| Field::named(field));
        let asking = self.written.iter().min_by_key(|(key, _)| field(key));
        asking.map_or((DOMAIN, ""), |(key, value)| (key.as_str(), value.as_str()))
    }

    /// The annotation `cpus` as it was written, or as it could have been.
    pub fn cpus_key(&self) -> String {
        self.key_of(Field::Cpus)
    }

    /// The annotation `numa`, likewise.
    pub fn numa_key(&self) -> String {
        self.key_of(Field::Numa)
    }

    /// The annotation `extras`, likewise.
    pub fn extras_key(&self) -> String {
        self.key_of(Field::Extras)
    }

    fn key_of(&self, field: Field) -> String {
        let is_it = |key: &&String| key.split_once('/').is_some_and(|(_, one)| one == field.name());
        let plain = || format!("{DOMAIN}/{}", field.name());
        self.written.keys().find(is_it).cloned().unwrap_or_else(plain)
    }

    /// The refusal of a request that says how, where nothing says what: no claim, no prior allocation.
    pub fn needs_a_claim(&self) -> Refusal {
        let (key, value) = self.asking();
        Refusal::ClaimNeeded {
            key: key.to_owned(),
            value: value.to_owned(),
            claim_key: format!("{DOMAIN}/{}", Field::Gpus.name()),
        }
    }

    /// Whether the claim agrees with what another allocator has given. No claim agrees with everything. MIG devices are what `inventory` says.
    ///
    /// # Errors
    /// [`Refusal::Disagrees`] naming both; `by` is who allocated.
    pub fn agrees_with(
        &self,
        given: &Devices,
        by: &str,
        inventory: &Inventory,
    ) -> Result<(), Refusal> {
        let Devices { gpus, slots } = given;
        let agrees = match &self.want {
            None => true,
            Some(Want::Whole(number)) => slots.is_empty() && number.get() as usize == gpus.len(),
            Some(Want::Exactly(wanted)) => {
                let all = wanted.len() == gpus.len() && wanted.iter().all(|gpu| gpus.contains(gpu));
                slots.is_empty() && all
            }
            Some(Want::Instances(wanted)) => {
                let slots = wanted.iter().filter_map(|uuid| inventory.mig_device(uuid)).collect();
                let named = Devices { gpus: Vec::new(), slots };
                named.slots.len() == wanted.len() && named.is_same(given)
            }
            Some(Want::Mig { profile, count }) => {
                let all = slots.iter().all(|slot| slot.name == *profile);
                gpus.is_empty() && count.get() as usize == slots.len() && all
            }
        };
        if agrees {
            return Ok(());
        }
        let (key, value) = self.asking();
        Err(Refusal::Disagrees {
            asked: format!("annotation {}={}", shown(key), quoted(value)),
            by: by.to_owned(),
            allocated: given.to_string(),
        })
    }

    fn of(fields: Fields<'_>, scope: Scope) -> Result<Self, Refusal> {
        one_claim(&fields)?;
        let (mut want, mut capabilities) = (None, None);
        let (mut cpus, mut numa) = (Cpus::default(), Numa::default());
        let mut extras = Extras::default();
        for (field, written) in &fields {
            match field {
                Field::Gpus => want = Some(Want::Whole(value::gpus(written)?)),
                Field::Devices => want = Some(value::devices(written)?),
                Field::Mig => want = Some(value::mig(written)?),
                Field::DriverCapabilities => capabilities = Some(value::capabilities(written)?),
                Field::Cpus => cpus = value::cpus(written)?,
                Field::Numa => numa = value::numa(written)?,
                Field::Extras => extras = value::extras(written)?,
                field => value::settled(written, *field)?,
            }
        }
        let own_cpus = fields.get(&Field::Cpus).is_some_and(|one| !one.key.starts_with(DOMAIN));
        let text = |one: Written<'_>| (one.key.to_owned(), one.value.to_owned());
        let written = fields.into_values().map(text).collect();
        let opted_out = false;
        Ok(Self { want, scope, opted_out, capabilities, cpus, own_cpus, numa, extras, written })
    }
}

/// Outside pods a container has no name that an annotation could address: one that tries would be lost without a word.
fn nobody_is_addressed(annotations: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let addresses = |key: &str| {
        let (address, field) = key.split_once('/')?;
        address.strip_suffix(DOMAIN)?.strip_suffix('.')?;
        Some(field.to_owned())
    };
    match annotations.iter().find_map(|(key, value)| Some((key, value, addresses(key)?))) {
        None => Ok(()),
        Some((key, value, field)) => Err(Refusal::NoPod {
            key: key.clone(),
            value: value.clone(),
            plain: format!("{DOMAIN}/{field}"),
        }),
    }
}

/// Sorts what concerns this container into the pod's fields and its own.
fn by_address<'a>(
    annotations: &'a BTreeMap<String, String>,
    name: Option<&str>,
) -> Result<(Fields<'a>, Fields<'a>), Refusal> {
    let (mut pod, mut own) = (Fields::new(), Fields::new());
    for (key, value) in annotations {
        let Some((address, field)) = field::address(key, name) else { continue };
        let written = Written { key, value };
        let field = Field::named(field).ok_or_else(|| written.unknown(field))?;
        if value.len() > LONGEST {
            let problem = format!("it is longer than {LONGEST} bytes");
            return Err(written.malformed(&problem, field.example()));
        }
        match address {
            Address::Pod => pod.insert(field, written),
            Address::Own => own.insert(field, written),
        };
    }
    Ok((pod, own))
}

/// The container's own annotations, as written.
fn annotations_of(
    annotations: &BTreeMap<String, String>,
    name: Option<&str>,
) -> BTreeMap<String, String> {
    let own = |key: &str| matches!(field::address(key, name), Some((Address::Own, _)));
    annotations.iter().filter(|(key, _)| own(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Whether the container's own `gpus` is `none`, which then is its only claim.
fn opts_out(own: &Fields<'_>) -> Result<bool, Refusal> {
    let Some(none) = own.get(&Field::Gpus).filter(|gpus| gpus.value == value::NONE) else {
        return Ok(false);
    };
    match own.iter().find(|(field, _)| field.claims() && **field != Field::Gpus) {
        Some((_, other)) => Err(none.contradicts(other)),
        None => Ok(true),
    }
}

/// Exactly one of `gpus`, `devices`, `mig`, `memory` and/or `compute`, or none of them.
fn one_claim(fields: &Fields<'_>) -> Result<(), Refusal> {
    let claims: Vec<_> = fields.iter().filter(|(field, _)| field.claims()).collect();
    match claims[..] {
        [] | [_] | [(Field::Memory, _), (Field::Compute, _)] => Ok(()),
        [(_, first), (_, second), ..] => Err(first.contradicts(second)),
    }
}

impl Written<'_> {
    fn malformed(&self, problem: &str, example: &str) -> Refusal {
        Refusal::Malformed {
            key: self.key.to_owned(),
            value: self.value.to_owned(),
            problem: problem.to_owned(),
            example: example.to_owned(),
        }
    }

    fn not_in_this_version(&self, field: &str, hint: &str) -> Refusal {
        Refusal::NotInThisVersion {
            key: self.key.to_owned(),
            value: self.value.to_owned(),
            field: field.to_owned(),
            hint: hint.to_owned(),
        }
    }

    fn contradicts(&self, other: &Self) -> Refusal {
        Refusal::Contradiction {
            key: self.key.to_owned(),
            value: self.value.to_owned(),
            other_key: other.key.to_owned(),
            other_value: other.value.to_owned(),
        }
    }

    fn unknown(&self, field: &str) -> Refusal {
        let domain = self.key.strip_suffix(field).unwrap_or_default();
        let near = Field::nearest(field);
        Refusal::UnknownField {
            key: self.key.to_owned(),
            value: self.value.to_owned(),
            nearest: near
                .map(|near| format!(" (did you mean {domain}{}?)", near.name()))
                .unwrap_or_default(),
            fields: Field::ALL.map(Field::name).join(", "),
        }
    }
}
