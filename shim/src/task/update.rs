//! Pause, Resume and Update: changes to a living container.
//!
//! Decides what of an Update goes on. containerd resends the whole stored resources each time, devices
//! included, and has never seen what was changed in the bundle: devices are therefore taken out, or a
//! device that was granted later would be lost; and CPUs and memory of a container with a GPU are merged with
//! what it was given (the engine's decision), or they would be, too.

use std::sync::Arc;
use std::time::Instant;

use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};
use serde_json::{Map, Value};
use tracing::warn;

use super::error::TaskError;
use super::lifecycle::Verb;
use super::shim::Shim;

impl Shim {
    /// Freezes a container.
    ///
    /// # Errors
    /// [`TaskError`]; it runs on then.
    pub async fn pause(
        self: Arc<Self>,
        id: &str,
        patience: Option<Instant>,
    ) -> Result<(), TaskError> {
        let container = self.container(id)?;
        let turn = container.init.turn(Verb::Pause).await?;
        let paused = container.runtime.pause(id, patience).await;
        paused.map_err(|source| TaskError::Runtime { what: "OCI runtime pause failed", source })?;
        if !container.init.lifecycle().is_alive() {
            // It ended meanwhile, and its end found nothing to thaw: the runtime deletes nothing that is frozen.
            if let Err(error) = container.runtime.resume(id, None).await {
                warn!(id, %error, "cannot thaw a container whose init has ended");
            }
            return Err(TaskError::Finished { name: container.init.name.clone() });
        }
        turn.succeed();
        self.events.publish(&TaskPaused { container_id: id.to_owned(), ..TaskPaused::default() });
        Ok(())
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// [`TaskError`]; it stays frozen then.
    pub async fn resume(
        self: Arc<Self>,
        id: &str,
        patience: Option<Instant>,
    ) -> Result<(), TaskError> {
        let container = self.container(id)?;
        let turn = container.init.turn(Verb::Resume).await?;
        let resumed = container.runtime.resume(id, patience).await;
        resumed
            .map_err(|source| TaskError::Runtime { what: "OCI runtime resume failed", source })?;
        turn.succeed();
        self.events.publish(&TaskResumed { container_id: id.to_owned(), ..TaskResumed::default() });
        Ok(())
    }

    /// Changes a container's resources: the runtime spec's `linux.resources` as JSON.
    ///
    /// # Errors
    /// [`TaskError`]; the resources stay as they were, as far as the runtime keeps that promise.
    pub async fn update(
        self: Arc<Self>,
        id: &str,
        resources: &[u8],
        patience: Option<Instant>,
    ) -> Result<(), TaskError> {
        let container = self.container(id)?;
        let turn = container.init.turn(Verb::Update).await?;
        let resources = without_devices(resources).map_err(|source| TaskError::Malformed {
            what: "resources",
            name: container.init.name.clone(),
            source,
        })?;
        let holds = container.admission.grant().is_some();
        let merged = match holds {
            true => Some(self.merge_update(&container, resources.clone()).await?),
            false => None,
        };
        let passed = merged.as_ref().map_or(&resources, |update| &update.resources);
        let updated = container.runtime.update(id, passed, patience).await;
        updated
            .map_err(|source| TaskError::Runtime { what: "OCI runtime update failed", source })?;
        if let Some(update) = merged
            && let Err(error) = self.updated(id, update).await
        {
            warn!(id, %error, "what this update asked for is not in the ledger");
        }
        turn.succeed();
        Ok(())
    }
}

fn without_devices(resources: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut fields: Map<String, Value> = serde_json::from_slice(resources)?;
    fields.remove("devices");
    serde_json::to_vec(&fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_taken_out_and_the_rest_passes_through() {
        let sent = br#"{"devices":[{"allow":false}],"cpu":{"shares":18446744073709551615},"x":1}"#;
        let passed: Value =
            serde_json::from_slice(&without_devices(sent).expect("valid")).expect("valid");
        let wanted = serde_json::json!({"cpu": {"shares": u64::MAX}, "x": 1});
        assert_eq!(passed, wanted);
        assert!(without_devices(b"[]").is_err());
    }
}
