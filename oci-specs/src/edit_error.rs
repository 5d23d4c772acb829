//! Why edits cannot be applied: the words, each naming the field. Decides nothing else.

/// Why edits cannot be applied. Every variant names the field.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The field is not of the type that the runtime specification gives it.
    #[error("{field}: {source}; the OCI runtime would refuse it too")]
    Malformed {
        /// The field, such as `mounts[3]`.
        field: String,
        /// What was found.
        source: serde_json::Error,
    },
    /// The field stands there twice.
    #[error("{field} is there twice: which one counts depends on the reader; remove one")]
    Twice {
        /// The field.
        field: String,
    },
    /// Two devices want one path.
    #[error(
        "linux.devices: {path} is {present} already, and {wanted} is wanted there; \
         remove one of the two requests for it"
    )]
    DeviceConflict {
        /// The path in the container.
        path: String,
        /// What is there: type, major, minor.
        present: String,
        /// What was to be added.
        wanted: String,
    },
    /// A variable that cannot be one.
    #[error(
        "process.env: {name:?} cannot be set: a name is not empty and has no '=', \
         and neither it nor its value has a NUL byte"
    )]
    BadVariable {
        /// The name.
        name: String,
    },
}
