//! The document's form: what many grants repeat stands once, and they refer to it by its place.
//!
//! ```json
//! {"format":1,"generation":7,"gpus":[…],"candidates":[…],"grants":[
//! {…,"gpus":[0,1],"candidates":[0,1,2],…},
//! {…}
//! ]}
//! ```
//!
//! A node has a few GPUs and perhaps hundreds of grants, each of which describes those it was given and says something about every one. Written
//! out, reading and writing 200 of them took four milliseconds of every admission; like this, about one.
//!
//! Decides that form and nothing about what is in it. Must not touch files.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use plan::{Candidate, Capabilities, CpuSet, GpuUuid, GrantId, Verdict};
use serde::de::Error;
use serde::{Deserialize, Serialize};

use crate::record::{GivenGpu, GivenSlot, Grant, Member, Origin, Owner, ProcessId, State};

/// The whole document.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document<'a> {
    pub(crate) format: u64,
    pub(crate) generation: u64,
    gpus: Vec<Cow<'a, GivenGpu>>,
    candidates: Vec<Cow<'a, Candidate>>,
    grants: Vec<Record<'a>>,
}

/// A [`Grant`] with places in the document instead of what stands there.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record<'a> {
    id: Cow<'a, GrantId>,
    owner: Cow<'a, Owner>,
    label: Cow<'a, str>,
    kubernetes_namespace: Cow<'a, Option<String>>,
    origin: Cow<'a, Origin>,
    state: State,
    requested: Cow<'a, BTreeMap<String, String>>,
    gpus: Vec<usize>,
    #[serde(default, skip_serializing_if = "<[GivenSlot]>::is_empty")]
    slots: Cow<'a, [GivenSlot]>,
    capabilities: Cow<'a, Capabilities>,
    unconfined: bool,
    candidates: Vec<usize>,
    closeness: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    exclusive: Cow<'a, BTreeMap<String, CpuSet>>,
    sandbox_init: Option<ProcessId>,
    members: Cow<'a, [Member]>,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    notes: Cow<'a, [String]>,
    created: u64,
}

impl<'a> Document<'a> {
    /// # Errors
    /// When a grant refers to what is not there.
    pub(crate) fn unpack(self) -> Result<Vec<Grant>, serde_json::Error> {
        let Self { gpus, candidates, grants, .. } = self;
        let mut unpacking = Unpacking::new(gpus, candidates);
        grants.into_iter().map(|record| unpacking.grant(record)).collect()
    }

    /// As far as everything but the grants.
    pub(crate) fn begin(self) -> Unpacking<'a> {
        Unpacking::new(self.gpus, self.candidates)
    }
}

/// What grants refer to, in the document's order.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    gpus: Vec<GivenGpu>,
    candidates: Vec<Candidate>,
}

impl Shared {
    /// How many things there are.
    pub(crate) fn len(&self) -> usize {
        self.gpus.len() + self.candidates.len()
    }
}

/// Grants on their way into a document, which may have some already.
pub(crate) struct Packing<'a> {
    gpus: Places<'a, &'a GivenGpu, GivenGpu>,
    candidates: Places<'a, (&'a GpuUuid, u8, &'a str), Candidate>,
}

impl<'a> Packing<'a> {
    /// What is `shared` keeps its place.
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let (mut gpus, mut candidates) = (Places::default(), Places::default());
        shared.gpus.iter().for_each(|gpu| gpus.keep(gpu, gpu));
        shared.candidates.iter().for_each(|one| candidates.keep(key(one), one));
        Self { gpus, candidates }
    }

    pub(crate) fn record(&mut self, grant: &'a Grant) -> Record<'a> {
        Record {
            id: Cow::Borrowed(&grant.id),
            owner: Cow::Borrowed(&grant.owner),
            label: Cow::Borrowed(&grant.label),
            kubernetes_namespace: Cow::Borrowed(&grant.kubernetes_namespace),
            origin: Cow::Borrowed(&grant.origin),
            state: grant.state,
            requested: Cow::Borrowed(&grant.requested),
            gpus: self.gpus.of_all(&grant.gpus, |gpu| gpu),
            slots: Cow::Borrowed(&grant.slots),
            capabilities: Cow::Borrowed(&grant.capabilities),
            unconfined: grant.unconfined,
            candidates: self.candidates.of_all(&grant.candidates, key),
            closeness: Cow::Borrowed(&grant.closeness),
            exclusive: Cow::Borrowed(&grant.exclusive),
            sandbox_init: grant.sandbox_init,
            members: Cow::Borrowed(&grant.members),
            notes: Cow::Borrowed(&grant.notes),
            created: grant.created,
        }
    }

    /// Everything but the grants.
    pub(crate) fn document(&self, format: u64, generation: u64) -> Document<'a> {
        let (gpus, candidates) = (self.gpus.values.clone(), self.candidates.values.clone());
        Document { format, generation, gpus, candidates, grants: Vec::new() }
    }

    /// What the grants refer to by now.
    pub(crate) fn shared(&self) -> Shared {
        let gpus = self.gpus.values.iter().map(|gpu| gpu.as_ref().clone());
        let candidates = self.candidates.values.iter().map(|one| one.as_ref().clone());
        Shared { gpus: gpus.collect(), candidates: candidates.collect() }
    }
}

/// Grants on their way out of a document.
pub(crate) struct Unpacking<'a> {
    gpus: Table<'a, GivenGpu>,
    candidates: Table<'a, Candidate>,
}

impl<'a> Unpacking<'a> {
    fn new(gpus: Vec<Cow<'a, GivenGpu>>, candidates: Vec<Cow<'a, Candidate>>) -> Self {
        Self { gpus: Table::new("gpus", gpus), candidates: Table::new("candidates", candidates) }
    }

    pub(crate) fn grant(&mut self, record: Record<'_>) -> Result<Grant, serde_json::Error> {
        Ok(Grant {
            gpus: self.gpus.at(record.gpus, &record.id)?,
            candidates: self.candidates.at(record.candidates, &record.id)?,
            id: record.id.into_owned(),
            owner: record.owner.into_owned(),
            label: record.label.into_owned(),
            kubernetes_namespace: record.kubernetes_namespace.into_owned(),
            origin: record.origin.into_owned(),
            state: record.state,
            requested: record.requested.into_owned(),
            slots: record.slots.into_owned(),
            capabilities: record.capabilities.into_owned(),
            unconfined: record.unconfined,
            closeness: record.closeness.into_owned(),
            exclusive: record.exclusive.into_owned(),
            sandbox_init: record.sandbox_init,
            members: record.members.into_owned(),
            notes: record.notes.into_owned(),
            created: record.created,
        })
    }

    pub(crate) fn shared(self) -> Shared {
        let own = |one: Cow<'_, GivenGpu>| one.into_owned();
        let candidates = self.candidates.values.into_iter().map(Cow::into_owned);
        Shared {
            gpus: self.gpus.values.into_iter().map(own).collect(),
            candidates: candidates.collect(),
        }
    }
}

/// Values in the order in which they were first met, and where each stands.
struct Places<'a, K, T: Clone> {
    values: Vec<Cow<'a, T>>,
    places: HashMap<K, usize>,
    /// Where the values of a list stand that several grants share, by its address.
    lists: HashMap<*const [T], Vec<usize>>,
    /// Where the value after the last one is likely to be: grants list GPUs in one order. Comparing is much cheaper than hashing.
    next: usize,
}

impl<K, T: Clone> Default for Places<'_, K, T> {
    fn default() -> Self {
        Self { values: Vec::new(), places: HashMap::new(), lists: HashMap::new(), next: 0 }
    }
}

impl<'a, K: Eq + Hash, T: Clone + PartialEq> Places<'a, K, T> {
    /// What has this place already.
    fn keep(&mut self, key: K, value: &'a T) {
        self.places.insert(key, self.values.len());
        self.values.push(Cow::Borrowed(value));
    }

    fn of_all(&mut self, list: &'a Arc<[T]>, key: impl Fn(&'a T) -> K) -> Vec<usize> {
        let address = Arc::as_ptr(list);
        if let Some(places) = self.lists.get(&address) {
            return places.clone();
        }
        let places: Vec<usize> = list.iter().map(|value| self.of(key(value), value)).collect();
        self.lists.insert(address, places.clone());
        places
    }

    fn of(&mut self, key: K, value: &'a T) -> usize {
        let likely = [self.next, 0];
        let guessed = likely
            .into_iter()
            .find(|place| self.values.get(*place).is_some_and(|there| there.as_ref() == value));
        let place = guessed.unwrap_or_else(|| {
            *self.places.entry(key).or_insert_with(|| {
                self.values.push(Cow::Borrowed(value));
                self.values.len() - 1
            })
        });
        self.next = place + 1;
        place
    }
}

fn key(candidate: &Candidate) -> (&GpuUuid, u8, &str) {
    match &candidate.verdict {
        Verdict::Chosen => (&candidate.gpu, 0, ""),
        Verdict::Passed(why) => (&candidate.gpu, 1, why),
        Verdict::Unavailable(why) => (&candidate.gpu, 2, why),
    }
}

/// Values by their places. Grants that name the same ones share them.
struct Table<'a, T: Clone> {
    name: &'static str,
    values: Vec<Cow<'a, T>>,
    lists: HashMap<Vec<usize>, Arc<[T]>>,
}

impl<'a, T: Clone> Table<'a, T> {
    fn new(name: &'static str, values: Vec<Cow<'a, T>>) -> Self {
        Self { name, values, lists: HashMap::new() }
    }

    fn at(&mut self, places: Vec<usize>, id: &GrantId) -> Result<Arc<[T]>, serde_json::Error> {
        if let Some(list) = self.lists.get(&places) {
            return Ok(Arc::clone(list));
        }
        let value = |place: &usize| {
            self.values.get(*place).map(|value| value.as_ref().clone()).ok_or_else(|| {
                let (name, there) = (self.name, self.values.len());
                Error::custom(format!("grant {id} refers to number {place} of {there} {name}"))
            })
        };
        let list: Arc<[T]> = places.iter().map(value).collect::<Result<_, _>>()?;
        self.lists.insert(places, Arc::clone(&list));
        Ok(list)
    }
}
