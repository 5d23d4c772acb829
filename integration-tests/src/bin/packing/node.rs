//! The node of the benchmark: eight A100s, and what is on them.
//!
//! Decides what can be: a second, plainer reading of the rules than Berth's, against which Berth's choices are checked, too. Must not
//! choose.

use plan::mig::Profile;
use plan::{Gpu, Inventory};

use crate::geometry::A100_80;

/// GPUs of the node.
pub const GPUS: usize = 8;

/// Where something is: a GPU and the first slice.
pub type Place = (usize, u32);

/// Something that is on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// An instance of a profile.
    Slices { profile: usize, place: Place },
    /// Whole GPUs.
    Whole(Vec<usize>),
}

/// The node at one moment.
#[derive(Debug, Clone)]
pub struct Node {
    pub inventory: Inventory,
    pub profiles: Vec<Profile>,
    /// Slices that are taken, bit by bit.
    pub taken: [u16; GPUS],
    whole: [bool; GPUS],
    pub held: Vec<Held>,
}

impl Node {
    /// The first `whole` GPUs are whole, the others in MIG mode.
    pub fn new(whole: usize) -> Self {
        let gpu = |index: usize| {
            let plain = crate::gpu(index);
            if index < whole { plain } else { A100_80.split(plain) }
        };
        let gpus: Vec<Gpu> = (0..GPUS).map(gpu).collect();
        let is_whole = std::array::from_fn(|index| !gpus[index].mig);
        let inventory = Inventory { driver: Some(crate::driver()), gpus, ..Inventory::default() };
        let profiles = A100_80.profiles();
        Self { inventory, profiles, taken: [0; GPUS], whole: is_whole, held: Vec::new() }
    }

    /// The same without anything on it.
    pub fn emptied(&self) -> Self {
        Self { taken: [0; GPUS], held: Vec::new(), ..self.clone() }
    }

    /// The bits of an instance.
    pub fn row(&self, profile: usize, start: u32) -> u16 {
        ((1 << self.profiles[profile].slices) - 1) << start
    }

    /// The starts at which it fits on a GPU, lowest first.
    pub fn starts(&self, gpu: usize, profile: usize) -> impl Iterator<Item = u32> {
        let starts = self.profiles[profile].starts.iter().copied();
        starts.filter(move |start| {
            !self.whole[gpu] && self.taken[gpu] & self.row(profile, *start) == 0
        })
    }

    /// Everywhere that it fits, by GPU and start.
    pub fn places(&self, profile: usize) -> impl Iterator<Item = Place> {
        (0..GPUS).flat_map(move |gpu| self.starts(gpu, profile).map(move |start| (gpu, start)))
    }

    /// Slices of a GPU that are free.
    pub fn free(&self, gpu: usize) -> u32 {
        8 - self.taken[gpu].count_ones()
    }

    /// Whole GPUs that nobody has.
    pub fn idle(&self) -> impl Iterator<Item = usize> {
        (0..GPUS).filter(|gpu| self.whole[*gpu] && self.taken[*gpu] == 0)
    }

    /// Puts it there; it must fit.
    pub fn put(&mut self, what: Held) {
        for (gpu, row) in self.rows(&what) {
            assert_eq!(self.taken[gpu] & row, 0, "{what:?} does not fit");
            self.taken[gpu] |= row;
        }
        self.held.push(what);
    }

    /// Takes it away again.
    pub fn take(&mut self, what: &Held) {
        for (gpu, row) in self.rows(what) {
            self.taken[gpu] &= !row;
        }
        let place = self.held.iter().position(|one| one == what).expect("it is there");
        self.held.swap_remove(place);
    }

    fn rows(&self, what: &Held) -> Vec<(usize, u16)> {
        match what {
            Held::Slices { profile, place: (gpu, start) } => {
                vec![(*gpu, self.row(*profile, *start))]
            }
            Held::Whole(gpus) => gpus.iter().map(|gpu| (*gpu, 0xff)).collect(),
        }
    }
}
