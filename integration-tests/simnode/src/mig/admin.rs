//! MIG from outside: what an operator does with nvidia-smi, for tests and the command line, and the one way in which instances of a
//! node change.

use super::change::Count;
use super::{GpuInstance, Placement, profile};
use crate::code::Code;
use crate::error::NodeError;
use crate::node::Node;
use crate::state::Gpu;
use crate::store::Store;
use crate::tree;

/// Changes instances or the mode of one GPU while no other process can, and what the kernel shows of them with it. The answer
/// within is the driver's.
///
/// # Errors
/// When the state or a file cannot be changed.
pub fn carry_out<T>(
    store: &Store,
    gpu: usize,
    change: impl FnOnce(&mut Gpu, &mut Count) -> Result<T, Code>,
) -> Result<Result<T, Code>, NodeError> {
    store.change(|state| {
        let before = state.clone();
        let Some((gpu, count)) = state.to_cut(gpu) else { return Ok(Err(Code::INVALID_ARGUMENT)) };
        let answer = change(gpu, count);
        match answer {
            Ok(_) => tree::instances(&store.root(), state)?,
            // What was refused half way was not done.
            Err(_) => *state = before,
        }
        Ok(answer)
    })
}

impl Node {
    /// Makes a GPU instance by the name or id of its profile, where the driver chooses or from `start` on; and, unless `compute` is
    /// false, a compute instance that is all of it.
    ///
    /// # Errors
    /// When there is no such GPU or profile, or the driver refuses: then nothing is made.
    pub fn create_instance(
        &self,
        gpu: &str,
        profile: &str,
        start: Option<u32>,
        compute: bool,
    ) -> Result<GpuInstance, NodeError> {
        let what = || format!("create {profile} on GPU {gpu}");
        self.mig(gpu, what(), |gpu, count| {
            let profile = profile::named(gpu.gpu_profiles(), profile);
            let profile = profile.ok_or(Code::INVALID_ARGUMENT)?;
            let at = start.map(|start| Placement { start, size: profile.size });
            let id = gpu.create_instance(count, profile.id, at)?;
            if compute {
                let whole = super::compute::all(gpu, profile)
                    .find(|compute| compute.slices == profile.slices);
                gpu.create_compute(count, id, whole.ok_or(Code::INVALID_ARGUMENT)?.id, None)?;
            }
            gpu.instance(id).cloned().ok_or(Code::NOT_FOUND)
        })
    }

    /// Ends a GPU instance and the compute instances in it.
    ///
    /// # Errors
    /// When there is no such GPU or instance, or something runs in it: then nothing is ended.
    pub fn destroy_instance(&self, gpu: &str, id: u32) -> Result<(), NodeError> {
        let what = format!("destroy GPU instance {id} of GPU {gpu}");
        self.mig(gpu, what, |gpu, _| {
            let within = gpu.instance(id).ok_or(Code::NOT_FOUND)?.compute.iter();
            let within: Vec<u32> = within.map(|compute| compute.id).collect();
            within.into_iter().try_for_each(|compute| gpu.destroy_compute(id, compute))?;
            gpu.destroy_instance(id)
        })
    }

    /// Switches the mode as the driver does. The answer says why it is not in force yet, if it is not.
    ///
    /// # Errors
    /// When there is no such GPU, or the driver refuses.
    pub fn set_mig_mode(&self, gpu: &str, on: bool) -> Result<Option<Code>, NodeError> {
        self.mig(gpu, format!("set the MIG mode of GPU {gpu}"), |gpu, _| gpu.set_mig_mode(on))
    }

    /// Resets a GPU: its pending mode comes into force, its instances go.
    ///
    /// # Errors
    /// When there is no such GPU, or something runs on it.
    pub fn reset_gpu(&self, gpu: &str) -> Result<(), NodeError> {
        self.mig(gpu, format!("reset GPU {gpu}"), |gpu, _| gpu.reset())
    }

    fn mig<T>(
        &self,
        gpu: &str,
        what: String,
        change: impl FnOnce(&mut Gpu, &mut Count) -> Result<T, Code>,
    ) -> Result<T, NodeError> {
        let index = self.state()?.find(gpu)?;
        carry_out(self.store(), index, change)?.map_err(|code| NodeError::Refused { what, code })
    }
}
