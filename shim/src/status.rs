//! Errors as containerd hears of them: the one place where they become status codes.
//!
//! The codes are those of containerd's own shim, which has no code for most of what its runtime or its
//! state machine refuses (UNKNOWN); clients depend on NOT_FOUND, ALREADY_EXISTS and
//! FAILED_PRECONDITION meaning what they mean there. The words are the error's own, with its sources.

use std::error::Error;

use ttrpc::Code;

use crate::runtime::RuntimeError;
use crate::task::TaskError;

/// The status that an error becomes.
pub fn status_of(error: &TaskError) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code_of(error), error.to_string()))
}

fn code_of(error: &TaskError) -> Code {
    match error {
        TaskError::NoSuchContainer { .. }
        | TaskError::NoSuchProcess { .. }
        | TaskError::NoSuchBundle { .. }
        | TaskError::NoSuchImage { .. }
        | TaskError::Finished { .. } => Code::NOT_FOUND,
        TaskError::ContainerExists { .. } | TaskError::ExecExists { .. } => Code::ALREADY_EXISTS,
        TaskError::InitNotRunning { .. }
        | TaskError::NotStarted { .. }
        | TaskError::GpuNotSaved { .. }
        | TaskError::GpuNotRestored { .. }
        | TaskError::NoCriu { .. }
        | TaskError::Refused(_) => Code::FAILED_PRECONDITION,
        TaskError::Stopping { .. } => Code::UNAVAILABLE,
        TaskError::BadIdentifier { .. } | TaskError::BadImage { .. } => Code::INVALID_ARGUMENT,
        TaskError::Runtime { source: RuntimeError::Deadline { .. }, .. } => Code::DEADLINE_EXCEEDED,
        TaskError::Fault(_) | TaskError::Lost(_) => Code::INTERNAL,
        TaskError::Illegal { .. }
        | TaskError::Paused { .. }
        | TaskError::Signal { .. }
        | TaskError::Bundle(_)
        | TaskError::Options(_)
        | TaskError::Mount(_)
        | TaskError::Stdio(_)
        | TaskError::Runtime { .. }
        | TaskError::File { .. }
        | TaskError::Watch { .. }
        | TaskError::Malformed { .. }
        | TaskError::Cgroup { .. }
        | TaskError::Resize { .. } => Code::UNKNOWN,
    }
}

/// An error of the command line with everything behind it, on one line.
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Most of our errors already say what their source said.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
