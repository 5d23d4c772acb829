//! A spec that does not read as one, field by field: everything that is wrong with it, where a reader stops at the first.
//!
//! Decides which fields there are, as `spec` has them. What is no field, or not of its type, is told and left out, so that the rules can be
//! asked of the rest. Must not be used to resolve anything.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use super::rules::Problem;
use super::spec::{Spec, SpecDevice, SpecEdits, SpecHook, SpecMount, SpecNode};

/// What can be read of the spec, and what cannot.
pub(super) fn read(value: Value) -> (Spec, Vec<Problem>) {
    let mut reading = Reading { device: None, problems: Vec::new() };
    let spec = reading.spec(value);
    (spec, reading.problems)
}

struct Reading {
    device: Option<String>,
    problems: Vec<Problem>,
}

/// A map that is being read, and where it is: `containerEdits.mounts[0].`.
struct Fields {
    map: Map<String, Value>,
    at: String,
}

impl Reading {
    fn add(&mut self, field: &str, what: impl Into<String>) {
        let (device, field) = (self.device.clone(), field.trim_end_matches('.').to_owned());
        self.problems.push(Problem { device, field, what: what.into() });
    }

    /// `null` is as good as nothing.
    fn fields(&mut self, value: Value, at: String) -> Fields {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => {
                self.add(&at, format!("is {}, not a map", kind(&other)));
                Map::new()
            }
        };
        Fields { map, at }
    }

    fn list(&mut self, fields: &mut Fields, name: &str) -> Vec<Value> {
        match fields.map.remove(name) {
            Some(Value::Array(list)) => list,
            None | Some(Value::Null) => Vec::new(),
            Some(other) => {
                self.add(
                    &format!("{}{name}", fields.at),
                    format!("is {}, not a list", kind(&other)),
                );
                Vec::new()
            }
        }
    }

    fn one<T: DeserializeOwned + Default>(&mut self, fields: &mut Fields, name: &str) -> T {
        let value = fields.map.remove(name).unwrap_or_default();
        self.value(value, &format!("{}{name}", fields.at))
    }

    fn value<T: DeserializeOwned + Default>(&mut self, value: Value, at: &str) -> T {
        if value.is_null() {
            return T::default();
        }
        serde_json::from_value(value).unwrap_or_else(|error| {
            self.add(at, format!("cannot be read: {error}"));
            T::default()
        })
    }

    fn values<T: DeserializeOwned + Default>(&mut self, fields: &mut Fields, name: &str) -> Vec<T> {
        let list = self.list(fields, name);
        let at = |nth| format!("{}{name}[{nth}]", fields.at);
        list.into_iter().enumerate().map(|(nth, value)| self.value(value, &at(nth))).collect()
    }

    fn maps<T>(
        &mut self,
        fields: &mut Fields,
        name: &str,
        read: impl Fn(&mut Self, &mut Fields) -> T,
    ) -> Vec<T> {
        let list = self.list(fields, name);
        let mut all = Vec::new();
        for (nth, value) in list.into_iter().enumerate() {
            let mut inner = self.fields(value, format!("{}{name}[{nth}].", fields.at));
            all.push(read(self, &mut inner));
            self.end(inner);
        }
        all
    }

    /// What is left over is no field.
    fn end(&mut self, fields: Fields) {
        for name in fields.map.keys() {
            self.add(&format!("{}{name}", fields.at), "is no field that is known here");
        }
    }

    fn spec(&mut self, value: Value) -> Spec {
        let mut fields = self.fields(value, String::new());
        let spec = Spec {
            cdi_version: self.one(&mut fields, "cdiVersion"),
            kind: self.one(&mut fields, "kind"),
            annotations: self.one(&mut fields, "annotations"),
            devices: self.devices(&mut fields),
            container_edits: self.edits(&mut fields),
        };
        self.end(fields);
        spec
    }

    fn devices(&mut self, fields: &mut Fields) -> Vec<SpecDevice> {
        let mut devices = Vec::new();
        for (nth, value) in self.list(fields, "devices").into_iter().enumerate() {
            // Its name says better than its place where something is wrong.
            let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
            let at = if name.is_some() { String::new() } else { format!("devices[{nth}].") };
            self.device = name;
            let mut fields = self.fields(value, at);
            devices.push(SpecDevice {
                name: self.one(&mut fields, "name"),
                annotations: self.one(&mut fields, "annotations"),
                container_edits: self.edits(&mut fields),
            });
            self.end(fields);
            self.device = None;
        }
        devices
    }

    fn edits(&mut self, fields: &mut Fields) -> SpecEdits {
        let value = fields.map.remove("containerEdits").unwrap_or_default();
        let mut fields = self.fields(value, format!("{}containerEdits.", fields.at));
        let all = &mut fields;
        let edits = SpecEdits {
            env: self.values(all, "env"),
            device_nodes: self.maps(all, "deviceNodes", Self::node),
            net_devices: self.list(all, "netDevices").iter().map(|_| IgnoredAny).collect(),
            hooks: self.maps(all, "hooks", Self::hook),
            mounts: self.maps(all, "mounts", Self::mount),
            intel_rdt: self.one(all, "intelRdt"),
            additional_gids: self.values(all, "additionalGids"),
        };
        self.end(fields);
        edits
    }

    fn node(&mut self, fields: &mut Fields) -> SpecNode {
        SpecNode {
            path: self.one(fields, "path"),
            host_path: self.one(fields, "hostPath"),
            kind: self.one(fields, "type"),
            major: self.one(fields, "major"),
            minor: self.one(fields, "minor"),
            file_mode: self.one(fields, "fileMode"),
            permissions: self.one(fields, "permissions"),
            uid: self.one(fields, "uid"),
            gid: self.one(fields, "gid"),
        }
    }

    fn hook(&mut self, fields: &mut Fields) -> SpecHook {
        SpecHook {
            hook_name: self.one(fields, "hookName"),
            path: self.one(fields, "path"),
            args: self.values(fields, "args"),
            env: self.values(fields, "env"),
            timeout: self.one(fields, "timeout"),
        }
    }

    fn mount(&mut self, fields: &mut Fields) -> SpecMount {
        SpecMount {
            host_path: self.one(fields, "hostPath"),
            container_path: self.one(fields, "containerPath"),
            options: self.values(fields, "options"),
            kind: self.one(fields, "type"),
        }
    }
}

/// What a value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
