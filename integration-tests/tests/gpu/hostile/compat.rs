//! CVE-2024-0132 and CVE-2025-23359: the image's own driver for forward compatibility, mounted by the node from where its name led.

use std::fs;

use anyhow::Result;
use integration_tests::containerd::stage::Stage;

use super::Then::{Refused, Runs};
use super::{BOTH, Change, Then, Way, device, fifo, folder, link, try_all, upwards};

const FOLDER: &str = "usr/local/cuda/compat";
const LIBRARY: &str = "usr/local/cuda/compat/libcuda.so.999.0";

/// NVIDIA's toolkit mounted what the link led to on the node into the container. Here nothing of an image is mounted at all.
pub fn cve_2024_0132_a_compat_library_that_is_a_link(stage: &Stage) -> Result<()> {
    let images: [(&str, Change, Then); 5] = [
        (
            "absolute",
            |root, canary| link(root, LIBRARY, &canary.at("local/cuda/compat/libcuda.so.998.0")),
            Runs,
        ),
        ("upwards", |root, canary| link(root, LIBRARY, &upwards(&canary.at("secret"))), Runs),
        ("a folder of the node", |root, canary| link(root, LIBRARY, &canary.at("")), Runs),
        (
            "through proc",
            |root, canary| link(root, LIBRARY, &format!("/proc/self/root{}", canary.at("secret"))),
            Runs,
        ),
        ("a loop", |root, _| link(root, LIBRARY, "libcuda.so.999.0"), Runs),
    ];
    try_all(stage, &[Way::Overlay], &images)?;
    try_all(stage, &[Way::Folder], &images)
}

/// The fix compared paths, and was led astray by the folders above.
pub fn cve_2025_23359_a_compat_folder_that_is_a_link(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &BOTH,
        &[
            ("absolute", |root, canary| link(root, FOLDER, &canary.at("local/cuda/compat")), Runs),
            (
                "through init",
                |root, canary| {
                    link(root, FOLDER, &format!("/proc/1/root{}", canary.at("local/cuda/compat")))
                },
                Runs,
            ),
            (
                "the one above",
                |root, canary| link(root, "usr/local/cuda", &upwards(&canary.at("local/cuda"))),
                Runs,
            ),
            ("a loop", |root, _| link(root, FOLDER, "compat"), Refused("usr/local/cuda/compat")),
        ],
    )
}

pub fn a_compat_library_that_is_no_file(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &BOTH,
        &[
            ("a fifo", |root, _| fifo(root, LIBRARY), Runs),
            ("a device", |root, _| device(root, LIBRARY), Runs),
            ("a folder", |root, _| folder(root, LIBRARY), Runs),
        ],
    )?;
    try_all(
        stage,
        &[Way::Folder],
        &[(
            "countless",
            |root, _| {
                for number in 0..5000 {
                    fs::write(root.join(FOLDER).join(format!("libcuda.so.999.{number}")), "")?;
                }
                Ok(())
            },
            Refused("4096 names"),
        )],
    )
}
