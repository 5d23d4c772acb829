//! Variables in a process's environment.
//!
//! Decides where a variable goes and that it stands there once. Must not know whose process it is.

use crate::edit_error::EditError;
use crate::json::Object;

/// Sets variables in the `env` of a `process` object.
pub(super) fn set(process: &mut Object<'_>, env: &[(String, String)]) -> Result<(), EditError> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(EditError::BadVariable { name: name.clone() });
        }
    }
    if env.is_empty() {
        return Ok(());
    }
    process.list("env", "process.env", |list| {
        let mut entries: Vec<String> = list.read()?;
        for (at, (name, value)) in env.iter().enumerate() {
            // Of several values for one name the last is meant, as everywhere.
            if env[at + 1..].iter().any(|(later, _)| later == name) {
                continue;
            }
            let wanted = format!("{name}={value}");
            let is_it = |entry: &String| {
                entry.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('='))
            };
            let Some(first) = entries.iter().position(is_it) else {
                list.push(&wanted)?;
                entries.push(wanted);
                continue;
            };
            while let Some(last) = entries.iter().rposition(is_it).filter(|last| *last > first) {
                list.remove(last);
                entries.remove(last);
            }
            if entries[first] != wanted {
                list.replace(first, &wanted)?;
                entries[first] = wanted;
            }
        }
        Ok(())
    })
}
