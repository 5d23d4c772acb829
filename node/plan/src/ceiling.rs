//! Ceilings: the most that one namespace may hold at once.
//!
//! Decides which ceiling is a namespace's and whether a request stays below it. Must not know how holdings are counted.

use crate::glob;
use crate::ids::Mib;
use crate::nearest::{Nearest, whole};
use crate::policy::{Ceiling, Policy};
use crate::refusal::Refusal;
use crate::request::Want;

/// Whether `namespace`, which holds so many GPUs with so much memory, may hold what `want` gets on top. Whole GPUs count all their memory. The ceiling with exactly its name counts alone; else each glob that matches.
///
/// # Errors
/// [`Refusal::Ceiling`] naming the ceiling, what is held, and what would still fit.
pub fn check_ceiling(
    namespace: &str,
    policy: &Policy,
    want: &Want,
    (held_gpus, held_memory): (u32, Mib),
    (asked_gpus, asked_memory): (u32, Mib),
) -> Result<(), Refusal> {
    let own = policy.ceilings.get_key_value(namespace);
    let globs = policy.ceilings.iter().filter(|(pattern, _)| glob::matches(pattern, namespace));
    let all: Vec<(&String, &Ceiling)> = match own {
        Some(own) => vec![own],
        None => globs.collect(),
    };
    let gpus_left = |most: u32| most.saturating_sub(held_gpus);
    // The fewest GPUs that any ceiling leaves: what all of them would let pass.
    let left = all.iter().filter_map(|(_, ceiling)| ceiling.gpus.map(gpus_left)).min();
    for (pattern, ceiling) in all {
        let refused = |held: String, nearest: Option<u32>| {
            let nearest = nearest.filter(|left| *left > 0 && *left < asked_gpus);
            Err(Refusal::Ceiling {
                wanted: want.to_string(),
                namespace: namespace.to_owned(),
                pattern: pattern.clone(),
                held,
                nearest: Nearest::new(nearest.and_then(whole), "release something first"),
            })
        };
        if let Some(most) = ceiling.gpus.filter(|most| asked_gpus > gpus_left(*most)) {
            return refused(format!("gpus {} of at most {most}", held_gpus), left);
        }
        let memory = held_memory.0.saturating_add(asked_memory.0);
        if let Some(most) = ceiling.memory.filter(|most| memory > most.0) {
            let each = asked_memory.0 / u64::from(asked_gpus.max(1));
            let fit = most.0.saturating_sub(held_memory.0).checked_div(each).unwrap_or(0);
            let fit = u32::try_from(fit).unwrap_or(u32::MAX);
            let nearest = left.unwrap_or(u32::MAX).min(fit);
            return refused(format!("{} of at most {most}", held_memory), Some(nearest));
        }
    }
    Ok(())
}
