//! The two worlds of a comparison. Decides which side goes first, and that the user's wish to stop is
//! heard between two steps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::figures::Side;
use super::interrupt;
use super::world::World;

/// Both worlds, and who goes first.
pub struct Duel {
    berth: Arc<World>,
    reference: Arc<World>,
    random: u64,
}

impl Duel {
    /// Makes both worlds.
    pub async fn new(berth: PathBuf, reference: PathBuf) -> Result<Duel> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
        let (berth, reference) = (World::new(berth).await?, World::new(reference).await?);
        let (berth, reference) = (Arc::new(berth), Arc::new(reference));
        Ok(Duel { berth, reference, random: now.as_nanos() as u64 | 1 })
    }

    /// One side's world.
    pub fn world(&self, side: Side) -> &Arc<World> {
        match side {
            Side::Berth => &self.berth,
            Side::Reference => &self.reference,
        }
    }

    /// Both sides in the order of the next iteration, drawn by chance: what one leaves to the other (a
    /// warm cache, a cgroup that the kernel still takes down) must not always fall to the same.
    ///
    /// # Errors
    /// When the user wants to stop.
    pub fn order(&mut self) -> Result<[Side; 2]> {
        if interrupt::asked() {
            bail!("interrupted");
        }
        // xorshift64: good enough to toss a coin.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let [first, second] = Side::BOTH;
        Ok(if self.random >> 63 == 0 { [first, second] } else { [second, first] })
    }
}
