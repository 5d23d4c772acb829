//! The layers of a container's overlay, and one more than containerd asked for.
//!
//! Decides where that one goes: above the image's, below the container's own. Must not know what is in it.

use std::path::{Path, PathBuf};

use crate::mount::Mount;

/// Directories of the overlay that `mounts` is, upper ones first. Empty if it is none, or not only one.
pub fn layers(mounts: &[Mount]) -> Vec<PathBuf> {
    let [Mount { kind, target, options, .. }] = mounts else { return Vec::new() };
    if kind != "overlay" || !target.is_empty() {
        return Vec::new();
    }
    let upper = options.iter().filter_map(|option| option.strip_prefix("upperdir="));
    let lower = options.iter().filter_map(|option| option.strip_prefix("lowerdir="));
    upper.chain(lower.flat_map(|lower| lower.split(':'))).map(PathBuf::from).collect()
}

/// The same overlay with `layer` as its uppermost lower directory.
pub fn with_layer(mounts: &[Mount], layer: &Path) -> Vec<Mount> {
    let layer = layer.to_string_lossy();
    let mut mounts = mounts.to_vec();
    for option in mounts.iter_mut().flat_map(|mount| &mut mount.options) {
        if let Some(lower) = option.strip_prefix("lowerdir=") {
            *option = format!("lowerdir={layer}:{lower}");
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> Mount {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Mount { kind: "overlay".into(), options, ..Mount::default() }
    }

    #[test]
    fn a_layer_goes_above_the_others() {
        let mounts = [overlay(&["workdir=/w", "upperdir=/u", "lowerdir=/a:/b"])];
        assert_eq!(layers(&mounts), ["/u", "/a", "/b"].map(PathBuf::from));
        let more = with_layer(&mounts, Path::new("/ours"));
        assert_eq!(more[0].options, ["workdir=/w", "upperdir=/u", "lowerdir=/ours:/a:/b"]);
    }

    #[test]
    fn what_is_no_single_overlay_has_no_layers() {
        let bind = Mount { kind: "bind".into(), ..Mount::default() };
        assert!(layers(&[bind]).is_empty());
        assert!(layers(&[overlay(&["lowerdir=/a"]), overlay(&["lowerdir=/b"])]).is_empty());
    }
}
