//! `berth topo --tree`: what is below what, as `lstopo` and `nvidia-smi topo` have it: NUMA node, CPUs, PCIe, GPU, slices, holders.
//!
//! Decides the branches' order and words.

use super::map::room_in_words;
use super::seating::{Branch, Cell, Ground, Holder, Part, Room, Seating, Slices, Strip};
use crate::view;

/// A line, and what is below it.
struct Twig {
    words: String,
    below: Vec<Twig>,
}

impl Twig {
    fn new(words: impl Into<String>, below: Vec<Twig>) -> Self {
        Self { words: words.into(), below }
    }

    fn leaf(words: impl Into<String>) -> Self {
        Self::new(words, Vec::new())
    }
}

/// The tree.
pub fn lines(seating: &Seating) -> Vec<String> {
    let mut lines = vec![seating.head()];
    if seating.driver.is_none() {
        return lines;
    }
    let mut twigs: Vec<Twig> = seating.rooms.iter().map(|room| of_room(room, seating)).collect();
    if !seating.strays.is_empty() {
        let strays = seating.strays.iter().map(|strip| of_strip(strip, seating)).collect();
        twigs.push(Twig::new("On no NUMA node that the machine tells", strays));
    }
    if !seating.bare.is_empty() {
        let many = if seating.bare.len() == 1 { "node" } else { "nodes" };
        twigs.push(Twig::leaf(format!("NUMA {many} {}: no CPUs, no GPUs", seating.bare)));
    }
    twigs.push(pool(seating));
    draw(&twigs, "", &mut lines);
    lines.iter().map(|line| view::visible(line)).collect()
}

fn draw(twigs: &[Twig], before: &str, lines: &mut Vec<String>) {
    for (nth, twig) in twigs.iter().enumerate() {
        let (fork, rest) =
            if nth + 1 == twigs.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(format!("{before}{fork}{}", twig.words));
        draw(&twig.below, &format!("{before}{rest}"), lines);
    }
}

fn of_room(room: &Room, seating: &Seating) -> Twig {
    let cpus = room.together().into_iter().map(|(cell, number)| {
        let cores = match number {
            _ if !room.by_core => String::new(),
            1 => "1 core, ".to_owned(),
            _ => format!("{number} cores, "),
        };
        let words = format!("{cores}CPUs {}: {}", cell.cpus, of_cell(&cell));
        Twig::new(words, cell.who.iter().map(|nth| of_holder(&seating.holders[*nth])).collect())
    });
    let gpus = room.branches.iter().map(|branch| of_branch(branch, room, seating));
    Twig::new(format!("NUMA node {}: {}", room.id, room_in_words(room)), cpus.chain(gpus).collect())
}

fn of_cell(cell: &Cell) -> String {
    let held = match (cell.who.len(), cell.alone) {
        (0, _) => "free",
        (1, true) => "held by",
        (1, false) => "used by",
        _ => "shared by",
    };
    let aside = match cell.ground {
        Ground::Shared => return held.to_owned(),
        Ground::Pool => "exclusive pool",
        Ground::Isolated => "isolated",
        Ground::Reserved => "reserved",
    };
    match (cell.who.is_empty(), cell.ground) {
        (true, Ground::Isolated | Ground::Reserved) => aside.to_owned(),
        _ => format!("{aside}, {held}"),
    }
}

fn of_branch(branch: &Branch, room: &Room, seating: &Seating) -> Twig {
    match branch {
        Branch::Gpu(at) => of_strip(&room.strips[*at], seating),
        Branch::Group { by, below } => {
            let below = below.iter().map(|branch| of_branch(branch, room, seating));
            Twig::new(*by, below.collect())
        }
    }
}

fn of_strip(strip: &Strip, seating: &Seating) -> Twig {
    let Strip { index, model, memory_mib, pci, .. } = strip;
    let mut words = format!("GPU {index}: {model}, {memory_mib} MiB, {pci}");
    let is_whole = |part: &Part| part.what == Slices::Whole;
    if strip.mig {
        words.push_str(", MIG mode");
    }
    if strip.parts.iter().any(|part| is_whole(part) && part.who.is_empty()) {
        words.push_str(", free");
    }
    let mut below: Vec<Twig> = strip
        .memory_node
        .map(|node| Twig::leaf(format!("NUMA node {node}: its memory")))
        .into_iter()
        .collect();
    for part in &strip.parts {
        let who = part.who.iter().map(|nth| of_holder(&seating.holders[*nth]));
        match is_whole(part) {
            true => below.extend(who),
            false => below.push(Twig::new(of_part(part), who.collect())),
        }
    }
    Twig::new(words, below)
}

fn of_part(part: &Part) -> String {
    let many = if part.size == 1 { "slice" } else { "slices" };
    let slices = format!("{many} {}", part.range());
    let Slices::Instance { profile, gpu_instance, mig_uuids, stage, foreign } = &part.what else {
        return if part.who.is_empty() { format!("{slices}: free") } else { slices };
    };
    let mut words = vec![format!("{slices}: {profile}")];
    words.extend(stage.map(str::to_owned));
    words.extend(gpu_instance.map(|id| format!("GPU instance {id}")));
    words.extend(mig_uuids.iter().cloned());
    if *foreign {
        words.push("not made by Berth".to_owned());
    }
    words.join(", ")
}

fn of_holder(holder: &Holder) -> Twig {
    let state =
        if holder.state.is_empty() { String::new() } else { format!(" ({})", holder.state) };
    let containers = match holder.containers.as_slice() {
        // Outside pods the label has the container's name.
        [one] if holder.label.ends_with(&format!("/{one}")) => String::new(),
        [] => String::new(),
        names => format!(": {}", names.join(", ")),
    };
    Twig::leaf(format!("{}{state}{containers}", holder.label))
}

fn pool(seating: &Seating) -> Twig {
    if seating.pool.is_empty() {
        return Twig::leaf("Exclusive pool: none (node.exclusive-cpus)");
    }
    let free = match seating.pool_free.is_empty() {
        true => "none".to_owned(),
        false => seating.pool_free.to_string(),
    };
    Twig::leaf(format!("Exclusive pool: CPUs {}, free: {free}", seating.pool))
}
