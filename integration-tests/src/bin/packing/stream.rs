//! What is asked for, and for how long: made up, and the same for every policy.
//!
//! Decides the mixes and draws from them. Must not know what fits.

/// What one container asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// An instance of the profile at this place among the model's.
    Slices(usize),
    /// So many whole GPUs.
    Whole(u32),
}

/// One container.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// When it comes.
    pub at: f64,
    /// When it would go.
    pub until: f64,
    /// What it asks for.
    pub ask: Ask,
    /// Slices that this is worth: eight for a whole GPU.
    pub slices: u32,
}

/// A kind of work: weights of 1g, 1g with double memory, 2g, 3g, 4g and 7g, and whether half of what is asked for are whole GPUs.
#[derive(Debug)]
pub struct Mix {
    /// How the table calls it.
    pub name: &'static str,
    /// Relative numbers of requests.
    pub weights: [f64; 6],
    /// GPUs that are whole; the others are in MIG mode.
    pub whole: usize,
}

/// The mixes of the table.
pub const MIXES: [Mix; 5] = [
    Mix { name: "uniform", weights: [1.0; 6], whole: 0 },
    Mix { name: "small-skewed", weights: [8.0, 4.0, 4.0, 2.0, 2.0, 1.0], whole: 0 },
    Mix { name: "big-skewed", weights: [1.0, 2.0, 2.0, 4.0, 4.0, 8.0], whole: 0 },
    Mix { name: "no-7g", weights: [1.0, 1.0, 1.0, 1.0, 1.0, 0.0], whole: 0 },
    Mix { name: "mixed", weights: [1.0; 6], whole: 4 },
];

/// Offered slices over the node's.
pub const LOADS: [f64; 3] = [0.7, 0.9, 1.1];

/// Places of 1g, 1g with double memory, 2g, 3g, 4g and 7g among an A100's profiles, and their slices. None asks for `+me`.
pub const PROFILES: [(usize, u32); 6] = [(0, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 8)];

/// Numbers of whole GPUs and their weights.
const WHOLE: [(u32, f64); 3] = [(1, 4.0), (2, 2.0), (4, 1.0)];

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, less than 1.
    fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// With mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.share()).ln()
    }

    fn weighted(&mut self, weights: impl Iterator<Item = f64> + Clone) -> usize {
        let mut left = self.share() * weights.clone().sum::<f64>();
        let passes = |weight: f64| {
            left -= weight;
            left < 0.0
        };
        weights.clone().map(passes).position(|here| here).unwrap_or_default()
    }
}

/// `number` containers that come at random (Poisson) and stay for random times (exponential, mean 1), so that `load` of the node's slices are
/// asked for on average.
pub fn arrivals(mix: &Mix, load: f64, gpus: usize, seed: u64, number: usize) -> Vec<Arrival> {
    let mean = |pairs: &[(f64, f64)]| {
        let weights: f64 = pairs.iter().map(|(weight, _)| weight).sum();
        pairs.iter().map(|(weight, slices)| weight * slices).sum::<f64>() / weights
    };
    let sliced: Vec<(f64, f64)> = mix
        .weights
        .iter()
        .zip(PROFILES)
        .map(|(weight, (_, size))| (*weight, f64::from(size)))
        .collect();
    let whole: Vec<(f64, f64)> =
        WHOLE.iter().map(|(number, weight)| (*weight, f64::from(number * 8))).collect();
    let rate = |gpus: usize, mean: f64| load * gpus as f64 * 8.0 / mean;
    let of_slices = rate(gpus - mix.whole, mean(&sliced));
    let of_whole = rate(mix.whole, mean(&whole));
    let (mut random, mut now) = (Random(seed), 0.0);
    let draw = |_| {
        now += random.exponential() / (of_slices + of_whole);
        let is_whole = random.share() * (of_slices + of_whole) < of_whole;
        let (ask, slices) = if is_whole {
            let (number, _) = WHOLE[random.weighted(WHOLE.iter().map(|(_, weight)| *weight))];
            (Ask::Whole(number), number * 8)
        } else {
            let (profile, size) = PROFILES[random.weighted(mix.weights.iter().copied())];
            (Ask::Slices(profile), size)
        };
        Arrival { at: now, until: now + random.exponential(), ask, slices }
    };
    (0..number).map(draw).collect()
}
