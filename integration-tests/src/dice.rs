//! Random numbers that come back with their seed (splitmix64: <https://prng.di.unimi.it/splitmix64.c>).

use std::time::{SystemTime, UNIX_EPOCH};

/// A source of numbers that its seed decides.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Numbers of this seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// One of 0, 1, …, `sides` − 1.
    pub fn below(&mut self, sides: usize) -> usize {
        let sides = u64::try_from(sides.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % sides).unwrap_or(0)
    }

    /// One of these, if there are any.
    pub fn one_of<T: Clone>(&mut self, these: &[T]) -> Option<T> {
        these.get(self.below(these.len())).cloned()
    }
}

/// Seeds of a run: the one that `BERTH_TEST_SEED` names, else so many that follow on a new one.
pub fn seeds(many: u64) -> std::ops::Range<u64> {
    let named = std::env::var("BERTH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    match named {
        Some(seed) => seed..seed + 1,
        None => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let first = u64::from(since.subsec_nanos()) * 1_000_000 + since.as_secs() % 1_000_000;
            first..first + many
        }
    }
}
