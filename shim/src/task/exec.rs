//! Exec: one more process is announced; it runs when it is started.
//!
//! Decides what is accepted. Must not launch.

use std::sync::Arc;

use containerd_shim_protos::events::task::TaskExecAdded;
use oci_specs::ProcessView;

use super::container::Exec;
use super::error::TaskError;
use super::lifecycle::{Illegal, Phase, Verb};
use super::process::Process;
use super::shim::Shim;
use crate::cli::is_identifier;
use crate::stdio::StdioSpec;

/// What containerd asks for.
#[derive(Debug)]
pub struct ExecRequest {
    /// Container id.
    pub id: String,
    /// Exec id.
    pub exec: String,
    /// Names of its stdio.
    pub stdio: StdioSpec,
    /// The runtime spec's `process` as JSON.
    pub spec: Vec<u8>,
}

impl Shim {
    /// Adds an exec to a container.
    ///
    /// # Errors
    /// [`TaskError`]; nothing is added then.
    pub fn exec(&self, request: ExecRequest) -> Result<(), TaskError> {
        let container = self.container(&request.id)?;
        if !is_identifier(&request.exec) {
            return Err(TaskError::BadIdentifier { id: request.exec });
        }
        if container.is_unrestored() {
            return Err(TaskError::InitNotRunning { id: request.id });
        }
        let name = format!("exec {:?} of container {:?}", request.exec, request.id);
        let spec = with_terminal(request.spec, request.stdio.terminal).map_err(|source| {
            TaskError::Malformed { what: "process spec", name: name.clone(), source }
        })?;
        let mut execs = container.execs();
        if execs.contains_key(&request.exec) {
            return Err(TaskError::ExecExists { id: request.id, exec: request.exec });
        }
        match container.init.lifecycle().phase() {
            Phase::Paused => return Err(TaskError::Paused { id: request.id }),
            phase @ (Phase::Stopped | Phase::Deleted) => {
                let illegal = Illegal { verb: Verb::Start, phase };
                return Err(TaskError::Illegal {
                    name: format!("an exec in {}", container.init.name),
                    illegal,
                });
            }
            Phase::Created | Phase::Running => {}
        }
        let process = Process::new(name, request.stdio);
        let exec = Exec::new(request.exec.clone(), process, spec);
        execs.insert(request.exec.clone(), Arc::new(exec));
        drop(execs);
        self.events.publish(&TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec,
            ..TaskExecAdded::default()
        });
        Ok(())
    }
}

/// The process spec, with `terminal` as the request says: the request decides what stdio is made, and
/// the runtime must make the same. The very bytes that came in where both agree, as they mostly do.
fn with_terminal(spec: Vec<u8>, terminal: bool) -> Result<Vec<u8>, serde_json::Error> {
    let view: ProcessView = serde_json::from_slice(&spec)?;
    if view.terminal == terminal {
        return Ok(spec);
    }
    let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&spec)?;
    value.insert("terminal".into(), terminal.into());
    serde_json::to_vec(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_decides_about_the_terminal() {
        let spec = br#"{ "args": ["sh"],  "unknown": 1 }"#.to_vec();
        assert_eq!(with_terminal(spec.clone(), false).expect("valid"), spec);
        let with = with_terminal(spec, true).expect("valid");
        let with: serde_json::Value = serde_json::from_slice(&with).expect("valid");
        assert_eq!((&with["terminal"], &with["unknown"]), (&true.into(), &1.into()));
        assert!(with_terminal(b"[]x".to_vec(), true).is_err());
    }
}
