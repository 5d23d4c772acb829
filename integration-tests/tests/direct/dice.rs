//! Random numbers that come back with their seed. Decides nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed that BERTH_TEST_SEED names, else a new one.
pub fn seed() -> u64 {
    if let Some(given) = std::env::var("BERTH_TEST_SEED").ok().and_then(|text| text.parse().ok()) {
        return given;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 | 1)
}

/// xorshift64*: small, and the same everywhere.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// One of 0, 1, …, `sides` − 1.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
