//! The GPU instance profiles of every card here: rows as `nvidia-smi mig -lgip` and `-lgipp` list them.
//!
//! Names, ids, placements, SMs and memory are those of listings from real cards or of the MIG user guide. Where the listing of a
//! card was not to be had in full its memory is rounded from its size, and the table says so.

use super::profile::{Engines, GpuProfile, Index};

const fn engines(copy: u32, decoders: u32, encoders: u32, jpeg: u32, ofa: u32) -> Engines {
    Engines { copy, decoders, encoders, jpeg, ofa }
}

/// What differs between the cards with eight memory slices: a row for each profile.
struct Eight {
    names: [&'static str; 7],
    multiprocessors: [u32; 7],
    memory: [u64; 7],
    engines: [Engines; 7],
}

const EVERYWHERE: &[u32] = &[0, 1, 2, 3, 4, 5, 6];

/// All of them have the same ids and placements: 1g, 1g+me, 1g with double memory, 2g, 3g, 4g, 7g.
const fn eight(card: &Eight) -> [GpuProfile; 7] {
    const fn row(
        card: &Eight,
        row: usize,
        numbers: (Index, u32, u32),
        starts: &'static [u32],
        size: u32,
        max: u32,
    ) -> GpuProfile {
        let (index, id, slices) = numbers;
        GpuProfile {
            index,
            id,
            name: card.names[row],
            slices,
            starts,
            size,
            max,
            multiprocessors: card.multiprocessors[row],
            memory: card.memory[row],
            engines: card.engines[row],
        }
    }
    [
        row(card, 0, (Index::Slice1, 19, 1), EVERYWHERE, 1, 7),
        row(card, 1, (Index::Slice1Rev1, 20, 1), EVERYWHERE, 1, 1),
        row(card, 2, (Index::Slice1Rev2, 15, 1), &[0, 2, 4, 6], 2, 4),
        row(card, 3, (Index::Slice2, 14, 2), &[0, 2, 4], 2, 3),
        row(card, 4, (Index::Slice3, 9, 3), &[0, 4], 4, 2),
        row(card, 5, (Index::Slice4, 5, 4), &[0], 4, 1),
        row(card, 6, (Index::Slice7, 0, 7), &[0], 8, 1),
    ]
}

const AMPERE: [Engines; 7] = [
    engines(1, 0, 0, 0, 0),
    engines(1, 1, 0, 1, 1),
    engines(1, 1, 0, 0, 0),
    engines(2, 1, 0, 0, 0),
    engines(3, 2, 0, 0, 0),
    engines(4, 2, 0, 0, 0),
    engines(7, 5, 0, 1, 1),
];

const HOPPER: [Engines; 7] = [
    engines(1, 1, 0, 1, 0),
    engines(1, 1, 0, 1, 1),
    engines(1, 1, 0, 1, 0),
    engines(2, 2, 0, 2, 0),
    engines(3, 3, 0, 3, 0),
    engines(4, 4, 0, 4, 0),
    engines(8, 7, 0, 7, 1),
];

/// Twice the copy engines.
const BLACKWELL: [Engines; 7] = [
    engines(2, 1, 0, 1, 0),
    engines(2, 1, 0, 1, 1),
    engines(2, 1, 0, 1, 0),
    engines(4, 2, 0, 2, 0),
    engines(6, 3, 0, 3, 0),
    engines(8, 4, 0, 4, 0),
    engines(16, 7, 0, 7, 1),
];

pub(crate) static A100_40: [GpuProfile; 7] = eight(&Eight {
    names: ["1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"],
    multiprocessors: [14, 14, 14, 28, 42, 56, 98],
    memory: [4864, 4864, 9984, 9984, 20096, 20096, 40320],
    engines: AMPERE,
});

const EIGHTY: [&str; 7] =
    ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];

pub(crate) static A100_80: [GpuProfile; 7] = eight(&Eight {
    names: EIGHTY,
    multiprocessors: [14, 14, 14, 28, 42, 56, 98],
    memory: [9856, 9856, 19968, 19968, 40192, 40192, 80384],
    engines: AMPERE,
});

pub(crate) static H100_80: [GpuProfile; 7] = eight(&Eight {
    names: EIGHTY,
    multiprocessors: [16, 16, 26, 32, 60, 64, 132],
    memory: [9984, 9984, 20096, 20096, 40448, 40448, 81152],
    engines: HOPPER,
});

/// As the SXM card with the fewer SMs of its board: those are rounded.
pub(crate) static H100_PCIE: [GpuProfile; 7] = eight(&Eight {
    names: EIGHTY,
    multiprocessors: [14, 14, 20, 30, 46, 62, 114],
    memory: [9984, 9984, 20096, 20096, 40448, 40448, 81152],
    engines: HOPPER,
});

pub(crate) static H200: [GpuProfile; 7] = eight(&Eight {
    names: ["1g.18gb", "1g.18gb+me", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"],
    multiprocessors: [16, 16, 26, 32, 60, 64, 132],
    memory: [16384, 16384, 33024, 33024, 71168, 71168, 144_384],
    engines: HOPPER,
});

/// Memory of 3g and more rounded.
pub(crate) static B200: [GpuProfile; 7] = eight(&Eight {
    names: ["1g.23gb", "1g.23gb+me", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"],
    multiprocessors: [18, 18, 30, 36, 70, 72, 148],
    memory: [20992, 20992, 45312, 45312, 91136, 91136, 182_784],
    engines: BLACKWELL,
});

/// Memory and SMs of 3g and more rounded.
pub(crate) static GB200: [GpuProfile; 7] = eight(&Eight {
    names: ["1g.23gb", "1g.23gb+me", "1g.47gb", "2g.47gb", "3g.93gb", "4g.93gb", "7g.186gb"],
    multiprocessors: [18, 18, 32, 38, 74, 76, 152],
    memory: [22528, 22528, 46592, 46592, 93696, 93696, 187_904],
    engines: BLACKWELL,
});

/// Four memory slices, and as many compute slices. Memory rounded.
pub(crate) static A30: [GpuProfile; 4] = [
    GpuProfile {
        index: Index::Slice1,
        id: 14,
        name: "1g.6gb",
        slices: 1,
        starts: &[0, 1, 2, 3],
        size: 1,
        max: 4,
        multiprocessors: 14,
        memory: 5952,
        engines: engines(1, 0, 0, 0, 0),
    },
    GpuProfile {
        index: Index::Slice1Rev1,
        id: 21,
        name: "1g.6gb+me",
        slices: 1,
        starts: &[0, 1, 2, 3],
        size: 1,
        max: 1,
        multiprocessors: 14,
        memory: 5952,
        engines: engines(1, 1, 0, 1, 1),
    },
    GpuProfile {
        index: Index::Slice2,
        id: 5,
        name: "2g.12gb",
        slices: 2,
        starts: &[0, 2],
        size: 2,
        max: 2,
        multiprocessors: 28,
        memory: 11968,
        engines: engines(2, 2, 0, 0, 0),
    },
    GpuProfile {
        index: Index::Slice4,
        id: 0,
        name: "4g.24gb",
        slices: 4,
        starts: &[0],
        size: 4,
        max: 1,
        multiprocessors: 56,
        memory: 24000,
        engines: engines(4, 4, 0, 1, 1),
    },
];

/// Twelve memory slices, four compute slices. The card's further profiles (`+gfx`, `+me.all`, `-me`) are not simulated.
pub(crate) static RTX_PRO_6000: [GpuProfile; 4] = [
    GpuProfile {
        index: Index::Slice1,
        id: 14,
        name: "1g.24gb",
        slices: 1,
        starts: &[0, 3, 6, 9],
        size: 3,
        max: 4,
        multiprocessors: 46,
        memory: 24192,
        engines: engines(1, 1, 1, 1, 0),
    },
    GpuProfile {
        index: Index::Slice1Rev1,
        id: 21,
        name: "1g.24gb+me",
        slices: 1,
        starts: &[0, 3, 6, 9],
        size: 3,
        max: 1,
        multiprocessors: 46,
        memory: 24192,
        engines: engines(1, 1, 1, 1, 1),
    },
    GpuProfile {
        index: Index::Slice2,
        id: 5,
        name: "2g.48gb",
        slices: 2,
        starts: &[0, 6],
        size: 6,
        max: 2,
        multiprocessors: 94,
        memory: 48512,
        engines: engines(2, 2, 2, 2, 0),
    },
    GpuProfile {
        index: Index::Slice4,
        id: 0,
        name: "4g.96gb",
        slices: 4,
        starts: &[0],
        size: 12,
        max: 1,
        multiprocessors: 188,
        memory: 97280,
        engines: engines(4, 4, 4, 4, 1),
    },
];
