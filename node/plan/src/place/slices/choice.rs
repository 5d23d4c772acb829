//! The choice among places on GPUs in MIG mode.
//!
//! Decides which set of places is best. Must not know why a GPU is barred, nor any words.

use std::ops::Add;

use super::Chip;
use crate::mig::cut::{Cut, Row};
use crate::mig::options::Loss;

/// What is bad about places; less is better, the first difference decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Instances that have to be made.
    pub(super) made: u32,
    /// What the node loses.
    pub(super) loss: Loss,
    /// GPUs touched.
    pub(super) gpus: u32,
    /// Free slices of each one's GPU, over all instances.
    pub(super) spare: u32,
}

/// Places on one GPU: starts, and whether an instance is there already.
pub(super) type Places = Vec<(u32, bool)>;

/// The best set of places.
#[derive(Debug)]
pub(super) struct Chosen {
    /// On each GPU, in the order of the chips.
    pub(super) places: Vec<Places>,
    pub(super) cost: Cost,
    /// The best single place that each GPU has, for telling why it was passed over.
    pub(super) single: Vec<Option<(Cost, Places)>>,
}

/// The best `count` places; `None` where there are not so many, or none are asked for.
pub(super) fn best(chips: &[Chip<'_>], count: u32) -> Option<Chosen> {
    let count = usize::try_from(count).ok().filter(|count| *count > 0)?;
    let mut options: Vec<Vec<(Cost, Places)>> = Vec::with_capacity(chips.len());
    for (place, chip) in chips.iter().enumerate() {
        // Many GPUs of a node are cut alike, above all not at all.
        let alike = chips[..place].iter().position(|other| other.is_like(chip));
        let own = alike.map(|alike| options[alike].clone());
        options.push(own.unwrap_or_else(|| self::options(chip, count)));
    }
    let shares = share(&options, count)?;
    let cost = shares.iter().zip(&options).map(|(share, options)| options[*share].0);
    let cost = cost.fold(Cost::default(), Cost::add);
    let single = options.iter().map(|own| own.get(1).cloned()).collect();
    let places = shares.iter().zip(options).map(|(share, mut own)| own.swap_remove(*share).1);
    Some(Chosen { places: places.collect(), cost, single })
}

/// The best places on one GPU for none, one, two, … instances: as many as fit, and no more than `most`.
fn options(chip: &Chip<'_>, most: usize) -> Vec<(Cost, Places)> {
    let mut found = vec![(Cost::default(), Places::new())];
    let Some(kind) = chip.kind.filter(|_| chip.barred.is_none()) else { return found };
    let spare = chip.pattern.free(&chip.cut);
    let adopted: Places = chip.idle.iter().map(|start| (*start, true)).collect();
    let before = chip.weights.loss(&chip.pattern, &chip.cut);
    let option = |made: &[u32], loss: Loss, adopted: &[(u32, bool)]| {
        let mut places: Places = made.iter().map(|start| (*start, false)).collect();
        places.extend_from_slice(adopted);
        places.sort_unstable();
        let number = places.len() as u32;
        (Cost { made: made.len() as u32, loss, gpus: 1, spare: spare * number }, places)
    };
    found.extend((1..=adopted.len()).map(|number| option(&[], 0, &adopted[..number])));
    for made in sets(chip, kind, most.saturating_sub(adopted.len())) {
        found.push(option(&made.starts, made.loss - before, &adopted));
    }
    found.truncate(most + 1);
    found
}

/// Instances to be made on one GPU, and what it has lost with them.
struct Made {
    loss: Loss,
    starts: Vec<u32>,
}

/// The best set of new places of each size from one on, by trying all; at equal loss that with the lower starts.
fn sets(chip: &Chip<'_>, kind: usize, most: usize) -> Vec<Made> {
    let mut best = Vec::new();
    let fitting: Vec<(u32, Row)> = chip.pattern.fitting(&chip.cut, kind).collect();
    grow(chip, kind, &fitting, &chip.cut, &mut Vec::new(), most, &mut best);
    best
}

/// Adds every set that begins with `starts`, in the order of its starts.
fn grow(
    chip: &Chip<'_>,
    kind: usize,
    left: &[(u32, Row)],
    cut: &Cut,
    starts: &mut Vec<u32>,
    most: usize,
    best: &mut Vec<Made>,
) {
    if starts.len() == most || !chip.pattern.may_have(cut, kind) {
        return;
    }
    for (place, (start, row)) in left.iter().enumerate() {
        if cut.taken & row != 0 {
            continue;
        }
        let cut = chip.pattern.with(cut, kind, *row);
        let loss = chip.weights.loss(&chip.pattern, &cut);
        starts.push(*start);
        match best.get_mut(starts.len() - 1) {
            Some(known) if loss < known.loss => *known = Made { loss, starts: starts.clone() },
            Some(_) => {}
            None => best.push(Made { loss, starts: starts.clone() }),
        }
        grow(chip, kind, &left[place + 1..], &cut, starts, most, best);
        starts.pop();
    }
}

/// How many each GPU gives, so that the whole costs least; at equal cost the earlier GPUs give more.
fn share(options: &[Vec<(Cost, Places)>], count: usize) -> Option<Vec<usize>> {
    // For each GPU and each number that it and those after it have to give: the least cost, and how many it gives itself.
    let mut tails = vec![vec![None; count + 1]; options.len() + 1];
    tails[options.len()][0] = Some((Cost::default(), 0));
    for (gpu, own) in options.iter().enumerate().rev() {
        for wanted in 0..=count {
            let ways = (0..own.len().min(wanted + 1)).rev().filter_map(|gives| {
                let (after, _) = tails[gpu + 1][wanted - gives]?;
                Some((own[gives].0 + after, gives))
            });
            // The first of equals is that which gives more.
            tails[gpu][wanted] = ways.min_by_key(|(cost, _)| *cost);
        }
    }
    let mut left = count;
    let mut shares = Vec::with_capacity(options.len());
    for tail in &tails[..options.len()] {
        let (_, gives) = tail[left]?;
        shares.push(gives);
        left -= gives;
    }
    Some(shares)
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            made: self.made + other.made,
            loss: self.loss + other.loss,
            gpus: self.gpus + other.gpus,
            spare: self.spare + other.spare,
        }
    }
}
