//! JSON that is changed in places: an object or a list as its members, each as the text it stood in.
//!
//! Decides that nothing is rewritten but what is edited: every other value keeps its very bytes, so
//! numbers of any size, unknown fields and the order of everything survive. Must not know what OCI is.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::edit_error::EditError;

/// A JSON object, its members in order.
#[derive(Default)]
pub(crate) struct Object<'a> {
    members: Vec<(String, Cow<'a, RawValue>)>,
    changed: bool,
}

/// A JSON list.
#[derive(Default)]
pub(crate) struct List<'a> {
    field: String,
    items: Vec<Cow<'a, RawValue>>,
    changed: bool,
}

/// Parses text; `null` is nothing.
fn parse<'a, T: Default + Deserialize<'a>>(
    text: &'a RawValue,
    field: &str,
) -> Result<T, EditError> {
    let value: Option<T> = serde_json::from_str(text.get())
        .map_err(|source| EditError::Malformed { field: field.into(), source })?;
    Ok(value.unwrap_or_default())
}

fn text_of<T: Serialize + ?Sized>(value: &T, field: &str) -> Result<Box<RawValue>, EditError> {
    to_raw_value(value).map_err(|source| EditError::Malformed { field: field.into(), source })
}

impl<'a> Object<'a> {
    /// Parses a whole document, which must be an object.
    pub(crate) fn document(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Whether anything was edited.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Edits the object under `key`, which is made when absent and then not left empty.
    pub(crate) fn object(
        &mut self,
        key: &str,
        field: &str,
        edit: impl FnOnce(&mut Object<'_>) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let at = self.position(key, field)?;
        let text = at.map_or(RawValue::NULL, |at| &*self.members[at].1);
        let mut object: Object<'_> = parse(text, field)?;
        edit(&mut object)?;
        if object.changed {
            let text = text_of(&object, field)?;
            self.put(at, key, text);
        }
        Ok(())
    }

    /// Edits the list under `key`, which is made when absent and something is added.
    pub(crate) fn list(
        &mut self,
        key: &str,
        field: &str,
        edit: impl FnOnce(&mut List<'_>) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let at = self.position(key, field)?;
        let text = at.map_or(RawValue::NULL, |at| &*self.members[at].1);
        let items = parse::<Vec<&RawValue>>(text, field)?;
        let items = items.into_iter().map(Cow::Borrowed).collect();
        let mut list = List { field: field.into(), items, changed: false };
        edit(&mut list)?;
        if list.changed {
            let text = text_of(&list.items, field)?;
            self.put(at, key, text);
        }
        Ok(())
    }

    /// Sets a string, unless it is that already.
    pub(crate) fn string(&mut self, key: &str, field: &str, value: &str) -> Result<(), EditError> {
        let at = self.position(key, field)?;
        let text = at.map_or(RawValue::NULL, |at| &*self.members[at].1);
        let present: Option<String> = parse(text, field)?;
        if present.as_deref() != Some(value) {
            self.put(at, key, text_of(value, field)?);
        }
        Ok(())
    }

    fn put(&mut self, at: Option<usize>, key: &str, text: Box<RawValue>) {
        let text = Cow::Owned(text);
        match at {
            Some(at) => self.members[at].1 = text,
            None => self.members.push((key.into(), text)),
        }
        self.changed = true;
    }

    /// Where a key stands. One that stands twice is not edited: readers differ in which they take.
    fn position(&self, key: &str, field: &str) -> Result<Option<usize>, EditError> {
        let mut places = self.members.iter().enumerate().filter(|(_, (name, _))| name == key);
        let first = places.next().map(|(at, _)| at);
        match places.next() {
            None => Ok(first),
            Some(_) => Err(EditError::Twice { field: field.into() }),
        }
    }
}

impl List<'_> {
    /// The items as a type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<Vec<T>, EditError> {
        let read = |(at, text): (usize, &Cow<'_, RawValue>)| {
            serde_json::from_str(text.get()).map_err(|source| EditError::Malformed {
                field: format!("{}[{at}]", self.field),
                source,
            })
        };
        self.items.iter().enumerate().map(read).collect()
    }

    /// Adds an item before the one at `at`, which may be the end.
    pub(crate) fn insert<T: Serialize>(&mut self, at: usize, item: &T) -> Result<(), EditError> {
        self.items.insert(at, Cow::Owned(text_of(item, &self.field)?));
        self.changed = true;
        Ok(())
    }

    /// Puts an item in the place of the one at `at`.
    pub(crate) fn replace<T: Serialize>(&mut self, at: usize, item: &T) -> Result<(), EditError> {
        self.items[at] = Cow::Owned(text_of(item, &self.field)?);
        self.changed = true;
        Ok(())
    }

    /// Adds an item at the end.
    pub(crate) fn push<T: Serialize>(&mut self, item: &T) -> Result<(), EditError> {
        self.insert(self.items.len(), item)
    }

    /// Takes out the item at `at`.
    pub(crate) fn remove(&mut self, at: usize) {
        self.items.remove(at);
        self.changed = true;
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, Cow<'de, RawValue>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    members.push((key, Cow::Borrowed(map.next_value::<&RawValue>()?)));
                }
                Ok(members)
            }
        }
        let members = deserializer.deserialize_map(Members)?;
        Ok(Self { members, changed: false })
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.members.len()))?;
        for (key, value) in &self.members {
            map.serialize_entry(key, &**value)?;
        }
        map.end()
    }
}
