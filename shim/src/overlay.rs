//! Overlay options that are longer than a page.
//!
//! Decides how overlay options are written: lower directories become relative to their common parent where they would not fit otherwise,
//! and the mount is then made by a thread of its own that has moved there. Must not know what is in a layer.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

/// The kernel copies at most one page of mount data, with a terminating zero.
pub const DATA_LIMIT: usize = 4095;

/// Runs `work` with `dir` as the working directory of a thread that shares it with nobody.
pub fn in_directory(dir: &Path, work: impl FnOnce() -> nix::Result<()> + Send) -> nix::Result<()> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(dir)?;
            work()
        });
        thread.join().unwrap_or(Err(Errno::EIO))
    })
}

/// Makes an overlay's lower directories relative to their common parent. The first may come from elsewhere, since it may be ours: it then
/// stays absolute.
pub fn shorten(data: &str) -> Option<(PathBuf, String)> {
    let options: Vec<&str> = data.split(',').collect();
    let lower = options.iter().find_map(|option| option.strip_prefix("lowerdir="))?;
    let dirs: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let first_aside = dirs.get(1..).filter(|rest| !rest.is_empty());
    let parents = [Some(&dirs[..]), first_aside].into_iter().flatten().filter_map(common_parent);
    let shortened = |parent: &Path| {
        let relative =
            |dir: &Path| dir.strip_prefix(parent).unwrap_or(dir).to_str().map(str::to_owned);
        let lower: Option<Vec<String>> = dirs.iter().map(|dir| relative(dir)).collect();
        let lower = format!("lowerdir={}", lower?.join(":"));
        let rewrite = |option: &&str| {
            if option.starts_with("lowerdir=") { lower.clone() } else { (*option).to_owned() }
        };
        Some(options.iter().map(rewrite).collect::<Vec<String>>().join(","))
    };
    let all = parents.filter_map(|parent| Some((parent.to_owned(), shortened(parent)?)));
    all.filter(|(_, short)| short.len() <= DATA_LIMIT).min_by_key(|(_, short)| short.len())
}

/// The deepest directory that holds all of `dirs`.
fn common_parent<'a>(dirs: &[&'a Path]) -> Option<&'a Path> {
    let mut parent = dirs.first()?.parent()?;
    while !dirs.iter().all(|dir| dir.starts_with(parent) && *dir != parent) {
        parent = parent.parent()?;
    }
    parent.is_absolute().then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_layers_fit_into_a_page() {
        let root = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let layers: Vec<String> = (100..200).map(|n| format!("{root}/{n}/fs")).collect();
        let data =
            format!("workdir={root}/1/work,upperdir={root}/1/fs,lowerdir={}", layers.join(":"));
        assert!(data.len() > DATA_LIMIT);
        let (parent, short) = shorten(&data).expect("they share a parent");
        assert_eq!(parent, Path::new(root));
        assert!(short.len() <= DATA_LIMIT && short.contains("lowerdir=100/fs:101/fs:"), "{short}");
        assert!(short.starts_with(&format!("workdir={root}/1/work,")), "{short}");
    }

    #[test]
    fn a_layer_from_elsewhere_does_not_lengthen_the_others() {
        let root = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let layers: Vec<String> = (100..200).map(|n| format!("{root}/{n}/fs")).collect();
        let data = format!("lowerdir=/var/lib/berth/driver/550/x:{}", layers.join(":"));
        let (parent, short) = shorten(&data).expect("they share a parent");
        assert_eq!(parent, Path::new(root));
        assert!(
            short.starts_with("lowerdir=/var/lib/berth/driver/550/x:100/fs:101/fs:"),
            "{short}"
        );
    }
}
