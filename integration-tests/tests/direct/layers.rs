//! Root file systems of more layers than their options fit into a page, which is all that mount(2) takes. Must not
//! know the shim's way around that.

use std::fs;

use anyhow::{Result, ensure};
use containerd_shim_protos::api::Mount;
use integration_tests::bundle::Spec;
use integration_tests::deadline::within;
use integration_tests::lab::{Lab, Launch};
use integration_tests::machine::mounts_below;
use integration_tests::suite::Suite;
use integration_tests::trials;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(suite, "layers", [a_hundred_layers_given_to_create_are_mounted]);
}

const PAGE: usize = 4096;

async fn a_hundred_layers_given_to_create_are_mounted(lab: &Lab) -> Result<()> {
    let mut lower = Vec::new();
    for n in 0..100 {
        let layer = lab.scratch.folder(format!("snapshots/layer-number-{n}/fs"))?;
        fs::write(layer.join("top"), format!("{n}\n"))?;
        fs::write(layer.join(format!("only-{n}")), "")?;
        lower.push(layer.display().to_string());
    }
    lower.push(lab.image.display().to_string());
    let options = vec![
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", lab.scratch.folder("upper")?.display()),
        format!("workdir={}", lab.scratch.folder("work")?.display()),
    ];
    ensure!(options.join(",").len() > PAGE, "they fit into a page");
    let args = ["sh", "-c", "cat /top; ls -d /only-* | wc -l; echo grown >/leaf"];
    let spec = Spec::new("rootfs", &format!("/{}/birch", lab.scratch.cgroup()), &args);
    let rootfs = vec![Mount {
        type_: "overlay".into(),
        source: "overlay".into(),
        options,
        ..Default::default()
    }];
    let c = lab.run(Launch { rootfs, ..lab.launch("birch", spec) }).await?;
    // The first is on top, and each is there.
    ensure!(c.io.stdout_text().await? == "0\n100\n");
    ensure!(within("Wait", c.wait()).await?? == 0);
    c.delete().await?;
    ensure!(mounts_below(&c.bundle.rootfs())?.is_empty(), "Delete left the overlay");
    ensure!(fs::read_to_string(lab.scratch.path("upper/leaf"))? == "grown\n");
    lab.dismiss(c).await
}
