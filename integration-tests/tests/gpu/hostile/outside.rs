//! CVE-2024-0133 and CVE-2024-0134: files, folders and links made outside of the root, by way of links in it.

use anyhow::Result;
use integration_tests::containerd::stage::Stage;

use super::Then::{Either, Refused};
use super::{BOTH, Way, fifo, file, link, try_all, upwards};

/// Where the driver comes to in a container, and the folders above it.
pub fn cve_2024_0133_the_driver_s_places_lead_out(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &BOTH,
        &[
            ("/usr", |root, canary| link(root, "usr", &canary.at("")), Either),
            ("/usr/local", |root, canary| link(root, "usr/local", &canary.at("local")), Either),
            (
                "/usr/local/nvidia",
                |root, canary| link(root, "usr/local/nvidia", &upwards(&canary.at("local/nvidia"))),
                Either,
            ),
            (
                "its libraries",
                |root, canary| link(root, "usr/local/nvidia/lib64", &canary.at("empty")),
                Either,
            ),
            (
                "through proc",
                |root, canary| {
                    link(
                        root,
                        "usr/local/nvidia",
                        &format!("/proc/self/root{}", canary.at("empty")),
                    )
                },
                Either,
            ),
            (
                "through init",
                |root, canary| {
                    link(root, "usr/local/nvidia", &format!("/proc/1/root{}", canary.at("empty")))
                },
                Either,
            ),
        ],
    )
}

pub fn cve_2024_0133_the_driver_s_places_are_no_folders(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &BOTH,
        &[
            ("loop", |root, _| link(root, "usr/local", "local"), Either),
            ("a fifo", |root, _| fifo(root, "usr/local/nvidia"), Either),
            ("a file", |root, _| file(root, "usr/local/nvidia/lib64", b""), Either),
            (
                "a library",
                |root, canary| {
                    link(
                        root,
                        "usr/local/nvidia/lib64/libcuda.so.1",
                        &canary.at("local/nvidia/lib64/libcuda.so.1"),
                    )
                },
                Either,
            ),
            (
                "a program",
                |root, canary| link(root, "usr/bin/nvidia-smi", &canary.at("secret")),
                Either,
            ),
        ],
    )
}

pub fn cve_2024_0134_the_loader_s_places_lead_out(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &BOTH,
        &[
            ("/etc", |root, canary| link(root, "etc", &canary.at("etc")), Either),
            ("/etc upwards", |root, canary| link(root, "etc", &upwards(&canary.at("etc"))), Either),
            (
                "/etc through proc",
                |root, canary| link(root, "etc", &format!("/proc/self/root{}", canary.at("etc"))),
                Either,
            ),
            (
                "/etc/ld.so.conf.d",
                |root, canary| link(root, "etc/ld.so.conf.d", &canary.at("etc/ld.so.conf.d")),
                Either,
            ),
            (
                "our file",
                |root, canary| {
                    link(root, "etc/ld.so.conf.d/000-berth.conf", &canary.at("etc/made"))
                },
                Either,
            ),
        ],
    )?;
    // ctr itself gives up on such images.
    try_all(
        stage,
        &[Way::Folder],
        &[
            ("/etc a loop", |root, _| link(root, "etc", "/etc"), Refused("/etc")),
            ("/etc a fifo", |root, _| fifo(root, "etc"), Refused("/etc")),
        ],
    )
}
