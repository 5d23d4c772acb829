//! MIG instances that no record has, for whoever repairs a ledger.
//!
//! Decides which these are, by their places. Must not decide whose they were: that went with the record.

use std::fmt;

use plan::mig::{Instance, Place};
use plan::{Gpu, GpuUuid, Inventory, MigUuid};

/// A MIG instance in whose place no record has one. Berth may have made it, for a grant whose record is lost: it leaves alone what it cannot tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclaimed {
    /// Its GPU.
    pub gpu: GpuUuid,
    /// Its profile.
    pub profile: String,
    /// Its first memory slice.
    pub start: u32,
    /// Its MIG devices, where the driver tells their UUIDs.
    pub mig_uuids: Vec<MigUuid>,
}

impl fmt::Display for Unclaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} of {}", self.profile, self.start, self.gpu)?;
        self.mig_uuids.iter().try_for_each(|uuid| write!(f, ", {uuid}"))
    }
}

/// The instances that stand in none of these places.
pub(crate) fn unclaimed(inventory: &Inventory, claimed: &[Place]) -> Vec<Unclaimed> {
    let on = |gpu: &Gpu| -> Vec<Unclaimed> {
        let is_free = |one: &&Instance| {
            let (profile, start) = (one.profile, one.start);
            !claimed.contains(&Place { gpu: gpu.uuid.clone(), profile, start })
        };
        let name = |id| {
            let known = gpu.profile_by_id(id);
            known.map_or_else(|| format!("profile {id}"), |profile| profile.name.to_string())
        };
        let free = gpu.instances.iter().filter(is_free);
        free.map(|one| Unclaimed {
            gpu: gpu.uuid.clone(),
            profile: name(one.profile),
            start: one.start,
            mig_uuids: one.compute_instances.iter().filter_map(|it| it.uuid.clone()).collect(),
        })
        .collect()
    };
    inventory.gpus.iter().flat_map(on).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_in_no_records_place_is_named() {
        let own = |id: u32, profile: u32, start: u32, uuid: Option<&str>| {
            serde_json::json!({"gpu_instance": id, "profile": profile, "start": start, "size": 1,
                "compute_instances": [{"id": 0, "uuid": uuid, "profile": 0}]})
        };
        let mig = "MIG-11111111-2222-5333-8444-555555555555";
        let uuid = "GPU-11111111-2222-3333-4444-555555555555";
        let gpu = serde_json::json!({
            "index": 0, "uuid": uuid, "pci": "0000:1a:00.0", "minor": 0, "model": "NVIDIA H100", "brand": "nvidia",
            "compute_capability": {"major": 9, "minor": 0}, "memory": 81_559, "numa_node": null, "mig": true, "peers": {},
            "profiles": [{"id": 19, "name": "1g.10gb", "slices": 1, "compute": 1, "sms": 16, "memory": 9_856, "max": 7,
                "starts": [0, 1, 2], "media": false}],
            "instances": [own(7, 19, 0, None), own(8, 19, 1, Some(mig)), own(9, 77, 0, None)],
        });
        let inventory = serde_json::json!({"driver": null, "gpus": [gpu]});
        let inventory: Inventory = serde_json::from_value(inventory).expect("an inventory");
        let gpu = inventory.gpus[0].uuid.clone();
        let place = |profile, start| Place { gpu: gpu.clone(), profile, start };
        let words = |claimed: &[Place]| {
            unclaimed(&inventory, claimed).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            words(&[place(19, 0)]),
            [format!("1g.10gb@1 of {uuid}, {mig}"), format!("profile 77@0 of {uuid}")]
        );
        assert!(words(&[place(19, 0), place(19, 1), place(77, 0)]).is_empty());
        let other = Place {
            gpu: "GPU-22222222-2222-3333-4444-555555555555".parse().expect("one"),
            ..place(19, 0)
        };
        assert_eq!(words(&[other]).len(), 3);
    }
}
