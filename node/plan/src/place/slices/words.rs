//! Why these slices and not those, and why none, in words.
//!
//! Decides the words, and the nearest request that would fit; the comparison that they tell of is `choice`'s.

use super::choice::Chosen;
use super::{Asked, Barred, Chip};
use crate::mig::ProfileName;
use crate::nearest::{self, Nearest};
use crate::occupancy::{Holder, Slice};
use crate::place::{NAMED, Verdict, held};
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::words::listed;

/// How an instance is named that neither a grant nor Berth's own list accounts for.
const FOREIGN: &str = "an instance that Berth did not make";
/// How an idle instance is named.
const IDLE: &str = "an idle instance of Berth's";

/// Refuses what no waiting makes possible: a node without a GPU in MIG mode, a profile that none of them has.
pub(super) fn possible(
    asked: Asked<'_>,
    chips: &[Chip<'_>],
    policy: &Policy,
) -> Result<(), Refusal> {
    let split = |chip: &&Chip<'_>| chip.gpu.mig;
    if chips.is_empty() {
        return Err(no_room(asked, chips, false));
    }
    if !chips.iter().any(|chip| split(&chip)) {
        return Err(Refusal::NoMig { wanted: asked.to_string(), why: mode_off(chips, policy) });
    }
    // What is excluded is not the node's to show.
    let allowed: Vec<&Chip<'_>> = chips
        .iter()
        .filter(split)
        .filter(|chip| !matches!(chip.barred, Some(Barred::Excluded)))
        .collect();
    if allowed.is_empty() || allowed.iter().any(|chip| chip.kind.is_some()) {
        return Ok(());
    }
    let mut profiles: Vec<&str> = Vec::new();
    for profile in allowed.iter().flat_map(|chip| &chip.gpu.profiles) {
        if !profiles.contains(&profile.name.as_str()) {
            profiles.push(profile.name.as_str());
        }
    }
    Err(Refusal::UnknownProfile {
        wanted: asked.to_string(),
        profiles: match profiles.is_empty() {
            true => "the driver offers none".to_owned(),
            false => format!("there are {}", listed(&profiles)),
        },
    })
}

/// What could be done on a node whose GPUs are all whole.
fn mode_off(chips: &[Chip<'_>], policy: &Policy) -> String {
    let capable = |chip: &&Chip<'_>| matches!(chip.barred, Some(Barred::ModeOff { capable: true }));
    let capable: Vec<&str> =
        chips.iter().filter(capable).map(|chip| chip.gpu.uuid.as_str()).collect();
    if capable.is_empty() {
        let why = "no GPU that Berth may hand out here can do MIG; ask for whole GPUs with gpus, or choose another node";
        return why.to_owned();
    }
    format!(
        "no GPU of this node is in MIG mode; {} could be: the node's operator switches it on (nvidia-smi -i <UUID> -mig 1), or lets Berth do so \
         while a GPU is idle (policy.mig-mode-switch, now {:?})",
        listed(&capable),
        policy.mig_mode_switch.word()
    )
}

/// Why nothing was given: every GPU, and the nearest request that would fit.
pub(super) fn no_room(asked: Asked<'_>, chips: &[Chip<'_>], releasing: bool) -> Refusal {
    let mut order: Vec<&Chip<'_>> = chips.iter().collect();
    order.sort_by_key(|chip| (chip.gpu.index, &chip.gpu.uuid));
    let state = |chip: &&Chip<'_>| format!("{}: {}", chip.gpu.uuid, state(chip));
    let candidates = match order.is_empty() {
        true => "this node has no GPU".to_owned(),
        false => order.iter().map(state).collect::<Vec<_>>().join("; "),
    };
    let fit = nearest(asked, chips).and_then(|(count, name)| nearest::mig(name, count));
    let nearest = Nearest::new(fit, "nothing smaller fits");
    Refusal::NoRoom { wanted: asked.to_string(), candidates, nearest, releasing }
}

/// The verdict on a GPU that gives nothing.
pub(super) fn verdict(chips: &[Chip<'_>], chosen: &Chosen, place: usize) -> Verdict {
    let chip = &chips[place];
    let Some((cost, places)) = &chosen.single[place] else {
        return Verdict::Unavailable(state(chip));
    };
    let several = chosen.places.iter().map(Vec::len).sum::<usize>() > 1;
    Verdict::Passed(if several {
        "the chosen are the better set".to_owned()
    } else if cost.made > chosen.cost.made {
        "it has no idle instance to take over".to_owned()
    } else if cost.loss > chosen.cost.loss {
        worse(chip, places)
    } else if cost.spare > chosen.cost.spare {
        "as good; the chosen has fewer free slices".to_owned()
    } else {
        "as good; the chosen has the lower UUID".to_owned()
    })
}

/// What would no longer fit on the GPU.
fn worse(chip: &Chip<'_>, places: &[(u32, bool)]) -> String {
    let row = |kind: usize| {
        let start = places.first().map(|(start, _)| *start);
        chip.pattern.kinds[kind].rows.iter().find(|(at, _)| Some(*at) == start)
    };
    let lost = chip.kind.and_then(|kind| {
        let after = chip.pattern.with(&chip.cut, kind, row(kind)?.1);
        let fits = |kind: &usize, cut| chip.pattern.fitting(cut, *kind).next().is_some();
        let lost = |kind: &usize| fits(kind, &chip.cut) && !fits(kind, &after);
        let lost = (0..chip.pattern.kinds.len()).filter(lost);
        Some(lost.map(|kind| chip.pattern.kinds[kind].profile.name.as_str()).collect::<Vec<_>>())
    });
    match lost.filter(|names| !names.is_empty()) {
        Some(names) => format!("would leave no room there for {}", listed(&names)),
        None => "would leave less room for what may be asked for next".to_owned(),
    }
}

/// What stands in the way on one GPU.
fn state(chip: &Chip<'_>) -> String {
    match (&chip.barred, chip.kind) {
        (Some(Barred::Excluded), _) => "not in node.gpus".to_owned(),
        (Some(Barred::ModeOff { capable: true }), _) => "not in MIG mode".to_owned(),
        (Some(Barred::ModeOff { capable: false }), _) => "without MIG".to_owned(),
        (Some(Barred::Held(holders)), _) => held(holders),
        (None, None) => "has no such profile".to_owned(),
        (None, Some(kind)) => slices(chip, kind),
    }
}

fn slices(chip: &Chip<'_>, kind: usize) -> String {
    let (free, all) = (chip.pattern.free(&chip.cut), chip.pattern.slices);
    let profile = chip.pattern.kinds[kind].profile;
    if let room @ 1.. = chip.room() {
        return format!("has room for {room}");
    }
    if free == 0 {
        return filled(chip);
    }
    let have = format!("{free} of {all} slices free");
    let foreign =
        if chip.foreign.is_empty() { "" } else { ", beside an instance that Berth did not make" };
    let why = if chip.cut.number(kind) >= profile.max {
        format!(", but it has all {} of {} that there can be", profile.max, profile.name)
    } else if profile.media && chip.cut.has_media() {
        ", but its media engines are taken".to_owned()
    } else if longest_run(chip.cut.taken, all) < free.min(profile.slices) {
        ", not contiguous".to_owned()
    } else if free < profile.slices {
        String::new()
    } else if profile.compute > chip.pattern.compute_left(&chip.cut) {
        format!(", but only {} compute slices", chip.pattern.compute_left(&chip.cut))
    } else {
        format!(", but {} cannot begin there", profile.name)
    };
    format!("{have}{why}{foreign}")
}

/// Free slices next to each other, the most of them.
fn longest_run(taken: u16, slices: u32) -> u32 {
    let runs = (0..slices).scan(0, |run, slice| {
        *run = if taken & (1 << slice) == 0 { *run + 1 } else { 0 };
        Some(*run)
    });
    runs.max().unwrap_or_default()
}

/// Who has all the slices: `held by 7g.80gb (ns/pod/c)`.
fn filled(chip: &Chip<'_>) -> String {
    let name = |id: u32| {
        let kind = chip.pattern.kind(id);
        kind.map_or("an instance", |kind| chip.pattern.kinds[kind].profile.name.as_str())
    };
    let holder = |holder: &Holder<'_>| match (holder.releasing, holder.external) {
        (true, _) => format!("being released by {}", holder.label),
        (false, true) => format!("{}, another allocator's", holder.label),
        (false, false) => holder.label.clone().into_owned(),
    };
    let slice = |slice: &Slice<'_>| {
        (slice.start, format!("{} ({})", name(slice.profile), holder(&slice.holder)))
    };
    let foreign = chip.foreign.iter();
    let foreign = foreign.map(|one| (one.start, format!("{} ({FOREIGN})", name(one.profile))));
    let mut all: Vec<(u32, String)> = chip.slices.iter().map(slice).chain(foreign).collect();
    all.sort();
    let mut words: Vec<String> = all.into_iter().map(|(_, words)| words).collect();
    if words.is_empty() {
        return format!("held by {IDLE}");
    }
    if let Some(more @ 1..) = words.len().checked_sub(NAMED) {
        words.truncate(NAMED);
        words.push(format!("{more} more"));
    }
    format!("held by {}", words.join(" and "))
}

/// Fewer of the same, else as many as can be of the largest profile that is no larger.
fn nearest<'a>(asked: Asked<'a>, chips: &'a [Chip<'_>]) -> Option<(u32, &'a ProfileName)> {
    let open = || chips.iter().filter(|chip| chip.barred.is_none());
    let room = |name: &ProfileName| -> u32 {
        let most = |chip: &Chip<'_>| {
            let kind = chip.pattern.kinds.iter().position(|kind| kind.profile.name == *name);
            let idle = if chip.kind == kind { chip.idle.len() as u32 } else { 0 };
            kind.map_or(0, |kind| chip.pattern.most(&chip.cut, kind) + idle)
        };
        open().map(most).sum()
    };
    if let Some(fewer @ 1..) = Some(room(asked.profile).min(asked.count.saturating_sub(1))) {
        return Some((fewer, asked.profile));
    }
    let wanted = chips.iter().find_map(|chip| Some(chip.pattern.kinds[chip.kind?].profile))?;
    let others = nearest::lesser(wanted, open().flat_map(|chip| &chip.gpu.profiles));
    let best = others.into_iter().find(|profile| room(&profile.name) > 0)?;
    Some((room(&best.name).min(asked.count), &best.name))
}

impl std::fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            1 => write!(f, "mig {}", self.profile),
            count => write!(f, "mig {count}x{}", self.profile),
        }
    }
}
