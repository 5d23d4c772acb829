//! Exec: containerd builds an exec's process spec from its own copy of the container's, so what an
//! admission gave to the first process is merged into each later one here.
//!
//! Decides what an exec gets. Must not know how execs are started.

use std::borrow::Cow;

use crate::{Admission, Fault};

/// Merges the admission into an exec's process spec (JSON of the runtime spec's `process`).
/// Without a grant, the very bytes that came in.
///
/// # Errors
/// [`Fault::Bundle`] when the process spec is not what the runtime specification describes.
pub fn merge_exec<'a>(admission: &Admission, process: &'a [u8]) -> Result<Cow<'a, [u8]>, Fault> {
    match admission.given() {
        Some(given) => Ok(oci_specs::edit_process(process, &given.env)?),
        None => Ok(Cow::Borrowed(process)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_grant_the_bytes_are_the_same() {
        let process = b"{ \"args\" : [\"sh\"] }\n";
        let merged = merge_exec(&Admission::default(), process).expect("nothing to do");
        assert!(matches!(merged, Cow::Borrowed(p) if p == process));
    }
}
