//! The values of a request's fields.
//!
//! Decides what is well formed, and what this version has. Must not know other annotations, policy or the node.

use std::num::NonZeroU32;
use std::str::FromStr;

use super::field::Field;
use super::{Cpus, Numa, Want, Written};
use crate::capability::Capabilities;
use crate::extra::Extras;
use crate::ids::{BadName, GpuUuid, MigUuid};
use crate::refusal::Refusal;
use crate::words::quoted;

/// The most GPUs that one claim may name; no node has more.
const MOST: u32 = 64;

/// The value that opts a container out of its pod's claim.
pub(super) const NONE: &str = "none";

const UUID_EXAMPLE: &str = "GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d";

/// `gpus`: a number from 1 to 64, in ASCII digits and nothing else.
pub(super) fn gpus(written: &Written<'_>) -> Result<NonZeroU32, Refusal> {
    let text = written.value;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok().and_then(NonZeroU32::new)).flatten();
    match number {
        Some(number) if number.get() <= MOST && !text.starts_with('0') => Ok(number),
        _ => Err(written.malformed(&gpus_problem(text, digits), "2")),
    }
}

fn gpus_problem(text: &str, digits: bool) -> String {
    let unlike = |one: &char| !one.is_ascii() && one.is_numeric();
    if text.is_empty() {
        "it is empty".to_owned()
    } else if text == NONE {
        "only <container>.berth.dev/gpus can be none: it takes that container out of the pod's claim"
            .to_owned()
    } else if digits && text.bytes().all(|byte| byte == b'0') {
        "no GPUs is no request: leave the annotation out, or write <container>.berth.dev/gpus: none"
            .to_owned()
    } else if digits && text.starts_with('0') {
        "a number has no leading zeros".to_owned()
    } else if digits {
        format!("one claim has at most {MOST} GPUs")
    } else if let Some(look_alike) = text.chars().find(unlike) {
        format!("{} is not one of the digits 0 to 9", quoted(&look_alike.to_string()))
    } else {
        "it is not a whole number of GPUs".to_owned()
    }
}

/// `mig`: a profile's name, and before it how many where that is more than one: `2x3g.40gb`.
pub(super) fn mig(written: &Written<'_>) -> Result<Want, Refusal> {
    let bad = |problem: String| written.malformed(&problem, "2x3g.40gb");
    let (number, name) = match written.value.split_once('x') {
        Some((number, name)) if !number.contains('g') => (number, name),
        _ => ("1", written.value),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let count = digits.then(|| number.parse().ok().and_then(NonZeroU32::new)).flatten();
    let count = match count {
        Some(count) if count.get() <= MOST && !number.starts_with('0') => count,
        _ => return Err(bad(mig_count_problem(number, digits))),
    };
    let profile = name.parse().map_err(|_| bad(mig_problem(name)))?;
    Ok(Want::Mig { profile, count })
}

fn mig_count_problem(number: &str, digits: bool) -> String {
    if digits && number.bytes().all(|byte| byte == b'0') {
        "no instances are no request: leave the annotation out".to_owned()
    } else if digits && number.starts_with('0') {
        "a number has no leading zeros".to_owned()
    } else if digits {
        format!("one claim has at most {MOST} MIG instances")
    } else {
        format!("{} is not a number of MIG instances", quoted(number))
    }
}

fn mig_problem(name: &str) -> String {
    if name.is_empty() {
        "it names no profile".to_owned()
    } else if name.contains(',') {
        "one claim has instances of one profile".to_owned()
    } else {
        format!("{} is not a MIG profile's name", quoted(name))
    }
}

/// `devices`: UUIDs of one kind between commas, each once, spaces around them tolerated.
pub(super) fn devices(written: &Written<'_>) -> Result<Want, Refusal> {
    let (mut gpus, mut migs) = (Vec::<GpuUuid>::new(), Vec::<MigUuid>::new());
    for name in written.value.split(',').map(|name| name.trim_matches(' ')) {
        let bad = |problem: &str| written.malformed(problem, UUID_EXAMPLE);
        if name.is_empty() {
            return Err(bad("a device's name is empty"));
        }
        let problem = |_| bad(&device_problem(name));
        let is_new = match name.starts_with("MIG-") {
            true => once(&mut migs, name.parse().map_err(problem)?),
            false => once(&mut gpus, name.parse().map_err(problem)?),
        };
        if !is_new {
            return Err(bad(&format!("{name} is named twice")));
        }
    }
    let bad = |problem: &str| Err(written.malformed(problem, UUID_EXAMPLE));
    match (gpus.len(), migs.len()) {
        (1.., 1..) => bad("whole GPUs and MIG devices do not go together: no program can use both"),
        (most, 0) if most > MOST as usize => bad(&format!("one claim has at most {MOST} GPUs")),
        (0, most) if most > MOST as usize => {
            bad(&format!("one claim has at most {MOST} MIG devices"))
        }
        (_, 0) => Ok(Want::Exactly(gpus)),
        (..) => Ok(Want::Instances(migs)),
    }
}

/// Keeps what is not there yet.
fn once<T: PartialEq>(found: &mut Vec<T>, one: T) -> bool {
    let is_new = !found.contains(&one);
    if is_new {
        found.push(one);
    }
    is_new
}

fn device_problem(name: &str) -> String {
    match name.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("{} is an index, and indices change: name the GPU's UUID", quoted(name)),
        false if name.starts_with("MIG-") => {
            format!("{} is not a MIG device's UUID", quoted(name))
        }
        false => format!("{} is not a GPU's UUID", quoted(name)),
    }
}

/// `driver-capabilities`: names between commas. `compat32` says of what kind the others' libraries are to be as well, so it needs one.
pub(super) fn capabilities(written: &Written<'_>) -> Result<Capabilities, Refusal> {
    let asked: Capabilities = names(written)?;
    if asked.is_compat32_alone() {
        let problem =
            "compat32 brings the 32-bit libraries of those that stand beside it, and none does";
        return Err(written.malformed(problem, "compute,utility,compat32"));
    }
    Ok(asked)
}

/// The most CPUs that one container may ask for; no machine has more.
const MOST_CPUS: u32 = 8192;

/// `cpus`: `auto`, `off`, or a number from 1 to 8192.
pub(super) fn cpus(written: &Written<'_>) -> Result<Cpus, Refusal> {
    let text = written.value;
    match text {
        "auto" => return Ok(Cpus::Auto),
        "off" => return Ok(Cpus::Off),
        _ => {}
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok().and_then(NonZeroU32::new)).flatten();
    match number {
        Some(number) if number.get() <= MOST_CPUS && !text.starts_with('0') => {
            Ok(Cpus::Exclusively(number))
        }
        Some(number) if number.get() > MOST_CPUS => {
            Err(written.malformed(&format!("one container has at most {MOST_CPUS} CPUs"), "8"))
        }
        _ => Err(written.malformed("it is not one of auto, off or a number of CPUs", "auto")),
    }
}

/// `numa`.
pub(super) fn numa(written: &Written<'_>) -> Result<Numa, Refusal> {
    match written.value {
        "prefer" => Ok(Numa::Prefer),
        "strict" => Ok(Numa::Strict),
        "off" => Ok(Numa::Off),
        _ => Err(written.malformed("it is not one of prefer, strict, off", "prefer")),
    }
}

/// `extras`: names between commas, or `none`.
pub(super) fn extras(written: &Written<'_>) -> Result<Extras, Refusal> {
    names(written)
}

/// Names between commas.
fn names<T: FromStr<Err = BadName>>(written: &Written<'_>) -> Result<T, Refusal> {
    written.value.parse().map_err(|bad: BadName| {
        let problem = format!("{} is not {}", quoted(&bad.text), bad.what);
        written.malformed(&problem, bad.example)
    })
}

/// A field whose default is accepted and does nothing yet: that word passes, `later` is of a later version, anything else malformed.
pub(super) fn settled(written: &Written<'_>, field: Field) -> Result<(), Refusal> {
    let (now, later): (&[&str], &[&str]) = match field {
        Field::Isolation => (&["any"], &["view", "watched", "limited", "partitioned"]),
        _ => return Err(later_field(written, field)),
    };
    let text = written.value;
    if now.contains(&text) {
        return Ok(());
    }
    let hint = format!("write {}, or leave it out", now.join(" or "));
    if later.contains(&text) {
        return Err(written.not_in_this_version(&format!("{}: {text}", field.name()), &hint));
    }
    let known: Vec<&str> = now.iter().chain(later).copied().collect();
    Err(written.malformed(&format!("it is not one of {}", known.join(", ")), now[0]))
}

/// A field that comes with a later version, whatever its value.
pub(super) fn later_field(written: &Written<'_>, field: Field) -> Refusal {
    written.not_in_this_version(
        field.name(),
        "ask for whole GPUs with gpus, or for a part of one with mig",
    )
}
