//! The document's form: what many grants repeat stands once, and they refer to it by its place.
//!
//! ```json
//! {"format":1,"generation":7,"gpus":[…],"candidates":[…],"grants":[{…,"gpus":[0,1],"candidates":[0,1,2],…}]}
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

use plan::{Candidate, Capabilities, GpuUuid, GrantId, Verdict};
use serde::de::Error;
use serde::{Deserialize, Serialize};

use crate::record::{GivenGpu, Grant, Member, Origin, Owner, ProcessId, State};

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
struct Record<'a> {
    id: Cow<'a, GrantId>,
    owner: Cow<'a, Owner>,
    label: Cow<'a, str>,
    kubernetes_namespace: Cow<'a, Option<String>>,
    origin: Cow<'a, Origin>,
    state: State,
    requested: Cow<'a, BTreeMap<String, String>>,
    gpus: Vec<usize>,
    capabilities: Cow<'a, Capabilities>,
    unconfined: bool,
    candidates: Vec<usize>,
    closeness: Cow<'a, str>,
    sandbox_init: Option<ProcessId>,
    members: Cow<'a, [Member]>,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    notes: Cow<'a, [String]>,
    created: u64,
}

impl<'a> Document<'a> {
    pub(crate) fn pack(format: u64, generation: u64, grants: &'a [Grant]) -> Self {
        let mut gpus = Places::default();
        let mut candidates = Places::default();
        let mut records = Vec::with_capacity(grants.len());
        for grant in grants {
            records.push(Record {
                id: Cow::Borrowed(&grant.id),
                owner: Cow::Borrowed(&grant.owner),
                label: Cow::Borrowed(&grant.label),
                kubernetes_namespace: Cow::Borrowed(&grant.kubernetes_namespace),
                origin: Cow::Borrowed(&grant.origin),
                state: grant.state,
                requested: Cow::Borrowed(&grant.requested),
                gpus: gpus.of_all(&grant.gpus, |gpu| gpu),
                capabilities: Cow::Borrowed(&grant.capabilities),
                unconfined: grant.unconfined,
                candidates: candidates.of_all(&grant.candidates, key),
                closeness: Cow::Borrowed(&grant.closeness),
                sandbox_init: grant.sandbox_init,
                members: Cow::Borrowed(&grant.members),
                notes: Cow::Borrowed(&grant.notes),
                created: grant.created,
            });
        }
        let (gpus, candidates) = (gpus.values, candidates.values);
        Self { format, generation, gpus, candidates, grants: records }
    }

    /// # Errors
    /// When a grant refers to what is not there.
    pub(crate) fn unpack(self) -> Result<Vec<Grant>, serde_json::Error> {
        let Self { gpus, candidates, grants, .. } = self;
        let (mut gpus, mut candidates) =
            (Table::new("gpus", gpus), Table::new("candidates", candidates));
        let unpack = |record: Record<'a>| {
            Ok(Grant {
                gpus: gpus.at(record.gpus, &record.id)?,
                candidates: candidates.at(record.candidates, &record.id)?,
                id: record.id.into_owned(),
                owner: record.owner.into_owned(),
                label: record.label.into_owned(),
                kubernetes_namespace: record.kubernetes_namespace.into_owned(),
                origin: record.origin.into_owned(),
                state: record.state,
                requested: record.requested.into_owned(),
                capabilities: record.capabilities.into_owned(),
                unconfined: record.unconfined,
                closeness: record.closeness.into_owned(),
                sandbox_init: record.sandbox_init,
                members: record.members.into_owned(),
                notes: record.notes.into_owned(),
                created: record.created,
            })
        };
        grants.into_iter().map(unpack).collect()
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
