//! What NVIDIA's GPUs can be cut into, written down from their documents and from drivers.
//!
//! Decides nothing. Shared by the tests here and by the packing benchmark.
#![allow(dead_code, reason = "each user needs its part")]

use plan::mig::{Profile, ProfileName};
use plan::{Gpu, Mib};

/// A model: its name, its memory in MiB, and its profiles.
#[derive(Debug)]
pub struct Model {
    /// Product name.
    pub name: &'static str,
    /// Device memory, MiB.
    pub memory: u64,
    rows: &'static [Row],
}

/// Id, name, compute slices, SMs, MiB, slices, most, starts.
type Row = (u32, &'static str, u32, u32, u64, u32, u32, &'static [u32]);

/// Every model.
pub const ALL: [&Model; 7] = [&A100_40, &A100_80, &H100, &H200, &B200, &A30, &RTX_PRO_6000];

const ANY: &[u32] = &[0, 1, 2, 3, 4, 5, 6];
const PAIRS: &[u32] = &[0, 2, 4, 6];
const TWO: &[u32] = &[0, 2, 4];
const HALVES: &[u32] = &[0, 4];

/// A100 with 40 GB.
pub const A100_40: Model = Model {
    name: "NVIDIA A100-SXM4-40GB",
    memory: 40_960,
    rows: &[
        (19, "1g.5gb", 1, 14, 4_864, 1, 7, ANY),
        (20, "1g.5gb+me", 1, 14, 4_864, 1, 1, ANY),
        (15, "1g.10gb", 1, 14, 9_984, 2, 4, PAIRS),
        (14, "2g.10gb", 2, 28, 9_984, 2, 3, TWO),
        (9, "3g.20gb", 3, 42, 20_096, 4, 2, HALVES),
        (5, "4g.20gb", 4, 56, 20_096, 4, 1, &[0]),
        (0, "7g.40gb", 7, 98, 40_320, 8, 1, &[0]),
    ],
};

/// A100 with 80 GB.
pub const A100_80: Model = Model {
    name: "NVIDIA A100-SXM4-80GB",
    memory: 81_920,
    rows: &[
        (19, "1g.10gb", 1, 14, 9_856, 1, 7, ANY),
        (20, "1g.10gb+me", 1, 14, 9_856, 1, 1, ANY),
        (15, "1g.20gb", 1, 14, 19_968, 2, 4, PAIRS),
        (14, "2g.20gb", 2, 28, 19_968, 2, 3, TWO),
        (9, "3g.40gb", 3, 42, 40_192, 4, 2, HALVES),
        (5, "4g.40gb", 4, 56, 40_192, 4, 1, &[0]),
        (0, "7g.80gb", 7, 98, 80_384, 8, 1, &[0]),
    ],
};

/// H100 with 80 GB.
pub const H100: Model = Model {
    name: "NVIDIA H100 80GB HBM3",
    memory: 81_559,
    rows: &[
        (19, "1g.10gb", 1, 16, 9_984, 1, 7, ANY),
        (20, "1g.10gb+me", 1, 16, 9_984, 1, 1, ANY),
        (15, "1g.20gb", 1, 26, 19_968, 2, 4, PAIRS),
        (14, "2g.20gb", 2, 32, 19_968, 2, 3, TWO),
        (9, "3g.40gb", 3, 60, 40_448, 4, 2, HALVES),
        (5, "4g.40gb", 4, 64, 40_448, 4, 1, &[0]),
        (0, "7g.80gb", 7, 132, 81_152, 8, 1, &[0]),
    ],
};

/// H200; its placements are taken to be an H100's.
pub const H200: Model = Model {
    name: "NVIDIA H200",
    memory: 143_771,
    rows: &[
        (19, "1g.18gb", 1, 16, 16_384, 1, 7, ANY),
        (20, "1g.18gb+me", 1, 16, 16_384, 1, 1, ANY),
        (15, "1g.35gb", 1, 26, 33_024, 2, 4, PAIRS),
        (14, "2g.35gb", 2, 32, 33_024, 2, 3, TWO),
        (9, "3g.71gb", 3, 60, 71_168, 4, 2, HALVES),
        (5, "4g.71gb", 4, 64, 71_168, 4, 1, &[0]),
        (0, "7g.141gb", 7, 132, 144_384, 8, 1, &[0]),
    ],
};

/// B200.
pub const B200: Model = Model {
    name: "NVIDIA B200",
    memory: 183_359,
    rows: &[
        (19, "1g.23gb", 1, 18, 20_992, 1, 7, ANY),
        (20, "1g.23gb+me", 1, 18, 20_992, 1, 1, ANY),
        (15, "1g.45gb", 1, 30, 45_312, 2, 4, PAIRS),
        (14, "2g.45gb", 2, 36, 45_312, 2, 3, TWO),
        (9, "3g.90gb", 3, 70, 91_136, 4, 2, HALVES),
        (5, "4g.90gb", 4, 72, 91_136, 4, 1, &[0]),
        (0, "7g.180gb", 7, 148, 182_784, 8, 1, &[0]),
    ],
};

/// A30.
pub const A30: Model = Model {
    name: "NVIDIA A30",
    memory: 24_576,
    rows: &[
        (14, "1g.6gb", 1, 14, 5_952, 1, 4, &[0, 1, 2, 3]),
        (21, "1g.6gb+me", 1, 14, 5_952, 1, 1, &[0, 1, 2, 3]),
        (5, "2g.12gb", 2, 28, 11_968, 2, 2, &[0, 2]),
        (6, "2g.12gb+me", 2, 28, 11_968, 2, 1, &[0, 2]),
        (0, "4g.24gb", 4, 56, 24_000, 4, 1, &[0]),
    ],
};

/// RTX PRO 6000 Blackwell; SMs and memory of its instances are shares of the whole, and so are the ids its own.
pub const RTX_PRO_6000: Model = Model {
    name: "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    memory: 97_887,
    rows: &[
        (14, "1g.24gb", 1, 46, 24_192, 3, 4, &[0, 3, 6, 9]),
        (5, "2g.48gb", 2, 94, 48_384, 6, 2, &[0, 6]),
        (0, "4g.96gb", 4, 188, 97_280, 12, 1, &[0]),
    ],
};

/// No real GPU: compute slices run out before the others do, two profiles bring media, and the names are an A100's, but mean something else.
pub const MADE_UP: Model = Model {
    name: "made up",
    memory: 81_920,
    rows: &[
        (19, "1g.10gb", 1, 14, 9_856, 1, 8, &[0, 1, 2, 3, 4, 5, 6, 7]),
        (20, "1g.10gb+me", 1, 14, 9_856, 1, 2, &[2, 5]),
        (15, "1g.20gb", 1, 14, 19_968, 2, 4, &[1, 3, 5]),
        (14, "2g.20gb", 2, 28, 19_968, 2, 2, &[0, 3, 6]),
        (7, "2g.20gb+me", 2, 28, 19_968, 2, 1, &[0, 6]),
        (9, "3g.40gb", 3, 42, 40_192, 3, 2, &[0, 5]),
        (0, "4g.80gb", 4, 56, 80_384, 8, 1, &[0]),
    ],
};

impl Model {
    /// The profiles as the driver would tell them.
    pub fn profiles(&self) -> Vec<Profile> {
        let profile = |(id, name, compute, sms, memory, slices, max, starts): &Row| {
            let name: ProfileName = name.parse().expect("a profile's name");
            Profile {
                id: *id,
                media: name.brings_media(),
                name,
                slices: *slices,
                compute: *compute,
                sms: *sms,
                memory: Mib(*memory),
                max: *max,
                starts: starts.to_vec(),
            }
        };
        self.rows.iter().map(profile).collect()
    }

    /// A GPU, made one of this model, in MIG mode.
    pub fn split(&self, gpu: Gpu) -> Gpu {
        let (model, memory) = (self.name.to_owned(), Mib(self.memory));
        let profiles = self.profiles();
        Gpu { model, memory, profiles, mig: true, mig_capable: true, ..gpu }
    }
}
