//! CPUs that a container gets for itself: from the pool that the operator set aside, and never one that another holds.
//!
//! Decides which, and the words when there are too few.

use std::num::NonZeroU32;

use super::ground::in_words;
use super::{CpuSet, Ground, pick};
use crate::refusal::Refusal;

/// CPUs of the pool that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held<'a> {
    /// Whose they are, as refusals name it.
    pub label: &'a str,
    /// Which.
    pub cpus: &'a CpuSet,
    /// Whether they are being given back, so that waiting helps.
    pub releasing: bool,
}

/// `number` CPUs of the pool that nobody holds.
///
/// # Errors
/// [`Refusal::NoPool`] without a pool, `key` being the annotation that asks; [`Refusal::NoCpus`] naming the pool, its holders, what is free
/// and the nearest fit.
pub fn exclusive(
    key: &str,
    number: NonZeroU32,
    ground: &Ground<'_>,
    held: &[Held<'_>],
) -> Result<CpuSet, Refusal> {
    if ground.pool.is_empty() {
        return Err(Refusal::NoPool { key: key.to_owned(), value: number.to_string() });
    }
    let there = ground.exclusive();
    let taken: CpuSet = held.iter().flat_map(|one| one.cpus.iter()).collect();
    let free = there.without(&taken);
    let wanted = number.get() as usize;
    pick(wanted, &free, ground.near, ground.topology).ok_or_else(|| {
        let kept: CpuSet =
            held.iter().filter(|one| !one.releasing).flat_map(|one| one.cpus.iter()).collect();
        let holders = held.iter().filter(|one| !one.cpus.is_empty()).map(|one| {
            let verb = if one.releasing { "being released" } else { "held" };
            format!("{} {verb} by {}", one.cpus, one.label)
        });
        let outside = ground.pool.without(&there);
        let gone = (!outside.is_empty()).then(|| format!("{outside} not to be had here"));
        let states: Vec<String> = holders.chain(gone).collect();
        Refusal::NoCpus {
            wanted: number.get(),
            pool: ground.pool.to_string(),
            states: states.iter().map(|state| format!("{state}; ")).collect(),
            free: in_words(&free),
            nearest: match free.len() {
                0 => "nothing is free".to_owned(),
                most => format!("nearest fit: cpus {most}"),
            },
            releasing: there.without(&kept).len() >= wanted,
        }
    })
}
