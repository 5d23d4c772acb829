//! Admission: from a bundle's annotations to a grant or a refusal.
//!
//! Decides who asks and whether this version can answer. Must not mount, signal or spawn.

use oci_specs::Bundle;

/// The domain of every annotation that asks Berth for something.
const DOMAIN: &str = "berth.dev";
/// CRI's mark for what kind of container this is (containerd's CRI annotations).
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";

/// Whose container it is, as the ledger will know it.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// containerd namespace.
    pub namespace: &'a str,
    /// Sandbox id; the container's own where there is no pod.
    pub sandbox: &'a str,
    /// Container id.
    pub container: &'a str,
}

/// What an admitted container was given. Empty for a container that asked for nothing.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Admission {}

/// An expected no: the request cannot be met here, and why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The annotation belongs to a later version.
    #[error(
        "berth: annotation {key}={value:?}: GPU requests are not in this version; \
         remove the annotation to start the container without a GPU"
    )]
    NotInThisVersion {
        /// The annotation's key as written.
        key: String,
        /// Its value as written.
        value: String,
    },
}

/// Decides whether a container may be launched, and with what.
///
/// A container without a request costs a walk over its annotations and nothing else: no file, no
/// lock, no call.
///
/// # Errors
/// [`Refusal`] when the container asks for something that cannot be given.
pub fn admit(_owner: Owner<'_>, bundle: &Bundle) -> Result<Admission, Refusal> {
    let annotations = &bundle.spec().annotations;
    // The pause container never asks, although the pod's annotations reach it too.
    if annotations.get(CONTAINER_TYPE).is_some_and(|kind| kind == "sandbox") {
        return Ok(Admission::default());
    }
    match annotations.iter().find(|(key, _)| is_request(key)) {
        Some((key, value)) => {
            Err(Refusal::NotInThisVersion { key: key.clone(), value: value.clone() })
        }
        None => Ok(Admission::default()),
    }
}

/// `berth.dev/<field>` or `<container>.berth.dev/<field>`.
fn is_request(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| {
        domain == DOMAIN || domain.strip_suffix(DOMAIN).is_some_and(|rest| rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'static> = Owner { namespace: "test", sandbox: "pod", container: "c" };

    fn bundle(annotations: &[(&str, &str)]) -> (tempfile::TempDir, Bundle) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let map: std::collections::BTreeMap<_, _> = annotations.iter().copied().collect();
        let config = serde_json::json!({ "annotations": map });
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("writable");
        let bundle = Bundle::load(dir.path()).expect("a readable bundle");
        (dir, bundle)
    }

    #[test]
    fn a_container_without_a_request_is_admitted() {
        let (_dir, bundle) = bundle(&[
            ("io.kubernetes.cri.container-name", "web"),
            ("notberth.dev/gpus", "1"),
            ("berth.development/gpus", "1"),
            ("berth.dev", "1"),
        ]);
        assert!(admit(OWNER, &bundle).is_ok());
    }

    #[test]
    fn a_request_is_refused_with_its_key_and_value() {
        for key in ["berth.dev/gpus", "web.berth.dev/mig"] {
            let (_dir, bundle) = bundle(&[(key, "2")]);
            let words = admit(OWNER, &bundle).expect_err("not in this version").to_string();
            assert!(words.contains(key) && words.contains("\"2\""), "{words}");
        }
    }

    #[test]
    fn the_pause_container_never_asks() {
        let (_dir, bundle) = bundle(&[(CONTAINER_TYPE, "sandbox"), ("berth.dev/gpus", "1")]);
        assert!(admit(OWNER, &bundle).is_ok());
    }
}
