//! The choice among sets of GPUs.
//!
//! Decides which set is best: by trying all of them where they are few, else by growing sets and exchanging members. Must not know what
//! makes a set good, beyond that it compares.

use std::cmp::Ordering;

use super::nearness::{Closeness, Ground, Room, Set, ones};

/// The most GPUs that a choice has to do with.
pub(super) const MOST: usize = Set::BITS as usize;

/// The most sets that are all tried: enough for any choice out of 16.
const FEW: u64 = 20_000;

/// What makes one set better than another of the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Score {
    pub closeness: Closeness,
    pub room: Room,
    pub set: Set,
}

impl Score {
    pub(super) fn of(ground: &Ground<'_>, set: Set) -> Self {
        let room = ground.room(ground.all() & !set);
        Self { closeness: ground.closeness(set), room, set }
    }

    /// Closer is greater, then the better rest, then the lower UUIDs.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        (self.closeness, self.room)
            .cmp(&(other.closeness, other.room))
            .then_with(|| lower(self.set, other.set))
    }
}

/// Greater is the set that has the lowest UUID in which the two differ.
fn lower(one: Set, other: Set) -> Ordering {
    match one ^ other {
        0 => Ordering::Equal,
        difference if one & (difference & difference.wrapping_neg()) != 0 => Ordering::Greater,
        _ => Ordering::Less,
    }
}

/// The best set of `number` GPUs; `None` where there are fewer, or none are asked for.
pub(super) fn best(ground: &Ground<'_>, number: usize) -> Option<Set> {
    if number == 0 || number > ground.len() {
        return None;
    }
    let best = if choices(ground.len(), number) <= FEW {
        best_of(ground, subsets(ground.len(), number))
    } else {
        let grown = (0..ground.len()).map(|seed| grown(ground, seed, number));
        grown.max_by(Score::order).map(|score| improved(ground, score))
    };
    best.map(|score| score.set)
}

/// The best of these. What a set would leave is only looked at where it is as close as the best so far.
fn best_of(ground: &Ground<'_>, sets: impl Iterator<Item = Set>) -> Option<Score> {
    sets.fold(None, |best: Option<Score>, set| {
        let closeness = ground.closeness(set);
        if best.is_some_and(|best| closeness < best.closeness) {
            return best;
        }
        let score = Score { closeness, room: ground.room(ground.all() & !set), set };
        best.into_iter().chain([score]).max_by(Score::order)
    })
}

/// `total` over `number`, or as good as infinite.
fn choices(total: usize, number: usize) -> u64 {
    let number = number.min(total - number) as u64;
    let step = |found: u64, i: u64| found.saturating_mul(total as u64 - i) / (i + 1);
    (0..number).fold(1, step)
}

/// All sets of `number` of the lowest `total` bits, by Gosper's step from one to the next.
fn subsets(total: usize, number: usize) -> impl Iterator<Item = Set> {
    let first: u128 = (1 << number) - 1;
    let next = |set: &u128| {
        let lowest = set & set.wrapping_neg();
        let carried = set + lowest;
        Some((((carried ^ set) >> 2) / lowest) | carried)
    };
    std::iter::successors(Some(first), next)
        .take_while(move |set| set >> total == 0)
        .map(|set| set as Set)
}

/// From one GPU on, always the one that fits the set best.
fn grown(ground: &Ground<'_>, seed: usize, number: usize) -> Score {
    let mut score = Score::of(ground, 1 << seed);
    for _ in 1..number {
        let others = ones(ground.all() & !score.set);
        let larger = others.map(|other| score.set | 1 << other);
        score = best_of(ground, larger).unwrap_or(score);
    }
    score
}

/// Exchanges one member at a time for as long as that makes the set better.
fn improved(ground: &Ground<'_>, mut score: Score) -> Score {
    while let Some(better) = best_of(ground, exchanges(ground, score.set))
        .filter(|other| other.order(&score) == Ordering::Greater)
    {
        score = better;
    }
    score
}

/// All sets that differ from this one in a single member.
fn exchanges(ground: &Ground<'_>, set: Set) -> impl Iterator<Item = Set> {
    ones(ground.all() & !set)
        .flat_map(move |joins| ones(set).map(move |leaves| set & !(1 << leaves) | 1 << joins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_as_many_as_there_are_choices() {
        for total in 1..=10 {
            for number in 1..=total {
                let all: Vec<Set> = subsets(total, number).collect();
                assert_eq!(all.len() as u64, choices(total, number), "{total} over {number}");
                assert!(all.iter().all(|set| set.count_ones() as usize == number));
                assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "none comes twice");
            }
        }
    }

    #[test]
    fn sixty_four_gpus_overflow_nothing() {
        assert_eq!(subsets(64, 64).collect::<Vec<_>>(), [Set::MAX]);
        assert_eq!(subsets(64, 1).count(), 64);
        assert!(choices(64, 32) > FEW);
        assert!(choices(16, 8) <= FEW);
    }
}
