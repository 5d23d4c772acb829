//! Dress: what the mounted root filesystem needs before the container starts, so that its own loader finds the driver.
//!
//! Decides how the libraries become known there. The root is the image's: it is only entered by descriptor, and nothing of it is run.

use std::path::Path;

use device::loader_cache::{self, Libc};
use device::rootfs::{Kind, Root};
use device::{DriverTree, Library, Placing, Width};
use oci_specs::{Edits, SpecView};
use plan::{Capability, GrantId, Warning};

use crate::admit::{Admission, Given};
use crate::crash::point;
use crate::{Fault, Node, pinning};

impl Node {
    /// Refuses a root, mounted at `rootfs`, in which the OCI runtime must not make the container. Changes nothing. Else: whether
    /// [`Node::dress`] may be done beside the runtime, which then mounts nothing on the files that are written.
    ///
    /// # Errors
    /// [`Fault::Rootfs`], with what is wrong with it.
    pub fn inspect_root(&self, admission: &Admission, rootfs: &Path) -> Result<bool, Fault> {
        let Some(given) = admission.given() else { return Ok(false) };
        let root = self.inspected(given, rootfs)?;
        // A link of the image's may lead a mount onto them.
        let is_plain = |place: &String| {
            matches!(root.kind(place), Ok(Kind::Absent | Kind::Directory | Kind::File))
        };
        Ok(given.mounted_beside.as_ref().is_some_and(|places| places.iter().all(is_plain)))
    }

    /// Makes the driver's libraries known to the loader of the image whose root is mounted at `rootfs`, after a look at it. May be done
    /// while the OCI runtime makes the container if [`Node::inspect_root`] says so.
    ///
    /// # Errors
    /// [`Fault::Rootfs`] when the libraries would not be found.
    pub fn dress(&self, admission: &mut Admission, rootfs: &Path) -> Result<(), Fault> {
        let Some(given) = admission.given_mut() else { return Ok(()) };
        point("dress.start");
        let root = self.inspected(given, rootfs)?;
        let Some(tree) = given.tree.clone() else { return Ok(()) };
        if loader_cache::libc_of(&root) == Libc::Musl {
            given.note(&Warning::Musl { loader: loader_cache::MUSL_LOADER.to_owned() });
            return Ok(());
        }
        let container = given.container.clone();
        self.teach_loader(given, &tree, &root)
            .map_err(|problem| Fault::Rootfs { container, problem })?;
        point("dress.cache");
        Ok(())
    }

    fn inspected(&self, given: &Given, rootfs: &Path) -> Result<Root, Fault> {
        let fault = |problem| Fault::Rootfs { container: given.container.clone(), problem };
        let root = Root::open(rootfs).map_err(|error| fault(error.to_string()))?;
        if root.is(&self.host.root) {
            let own = "it is the node's own root, whose files are not changed: give the container a root of its own";
            return Err(fault(own.to_owned()));
        }
        takes_nodes(&root).map_err(fault)?;
        let tree = given.tree.as_ref().filter(|_| given.layered);
        if let Some(tree) = tree.filter(|tree| !shows(&root, tree))
            && loader_cache::libc_of(&root) != Libc::Musl
        {
            return Err(fault(format!(
                "{} is hidden by what the container wrote there before it was restarted; \
                 create the container anew",
                tree.lib_dirs.join(":")
            )));
        }
        Ok(root)
    }

    fn teach_loader(
        &self,
        given: &mut Given,
        tree: &DriverTree,
        root: &Root,
    ) -> Result<(), String> {
        let libraries: Vec<loader_cache::Entry> = tree
            .libraries
            .iter()
            .map(|Library { soname, path, width }| match width {
                Width::Native => loader_cache::Entry::native(soname, path),
                Width::Narrow => loader_cache::Entry::of_32_bits(soname, path),
            })
            .collect();
        let compat = if given.capabilities.has(Capability::Compute) {
            loader_cache::compat_entries(root, &given.driver).map_err(|error| error.to_string())?
        } else {
            Vec::new()
        };
        if !compat.is_empty() && (given.own_root || root.is_overlay()) {
            keep_order(given, root);
        }
        let lib_dirs: Vec<&str> = tree.lib_dirs.iter().map(String::as_str).collect();
        let merged = loader_cache::merged(root, &libraries, &lib_dirs, &compat)
            .map_err(|error| error.to_string())?;
        let Some(bytes) = merged else { return Ok(()) };
        // A plain folder that was there before the container stays after it: what it has is covered, not changed. Where it has no cache,
        // there is nothing to cover. An overlay that another mounted (Docker) has a layer of the container's own above the image: there
        // the file is written, since ldconfig in the container could not replace one that is a mount.
        let has_one = matches!(root.kind(loader_cache::PATH), Ok(Kind::File));
        if has_one && !given.own_root && !root.is_overlay() {
            return self.cover(given, &bytes);
        }
        let made = root.make_dirs("/etc", 0o755);
        match made.and_then(|()| root.replace(loader_cache::PATH, &bytes, 0o644)) {
            Ok(()) => Ok(()),
            Err(error) if error.is_read_only() && has_one => self.cover(given, &bytes),
            Err(error) if error.is_read_only() => {
                let (cache, libraries) = (loader_cache::PATH.to_owned(), tree.lib_dirs.join(":"));
                given.note(&Warning::NoLoaderCache { cache, libraries });
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Lets the cache be put over the image's own when the container is armed.
    fn cover(&self, given: &mut Given, bytes: &[u8]) -> Result<(), String> {
        let name = kept_name(&given.grant, &given.container);
        let file = device::keep(&self.host, &name, bytes).map_err(|error| error.to_string())?;
        point("dress.kept");
        given.placings.push(Placing::file(file, loader_cache::PATH));
        Ok(())
    }

    /// Forgets what was kept for a container that has it by now, or never will.
    pub(crate) fn forget(&self, grant: &GrantId, container: &str) {
        for name in [kept_name(grant, container), pinning::kept_name(grant, container)] {
            if let Err(error) = device::forget(&self.host, &name) {
                tracing::warn!(container, %error, "left for reconcile");
            }
        }
    }

    /// Forgets what was kept for containers whose processes died before they had it.
    pub(crate) fn forget_the_dead(&self, ledger: &ledger::Ledger) -> Result<(), Fault> {
        let kept = device::kept(&self.host)?;
        // Read after the listing: what is kept is kept for a grant that is in the ledger before.
        let grants = if kept.is_empty() { Vec::new() } else { ledger.snapshot()?.grants };
        let needed = |name: &String| {
            let starts = |kept: String| name.starts_with(&kept);
            let of = |id| starts(kept_name(id, "")) || starts(pinning::kept_name(id, ""));
            grants.iter().any(|grant| of(&grant.id))
        };
        for name in kept.iter().filter(|name| !name.starts_with('.') && !needed(name)) {
            device::forget(&self.host, name)?;
        }
        Ok(device::sweep(&self.host)?)
    }
}

/// A cache that `ldconfig` makes in the container goes by the loader's configuration: let it, too, look at the image's newer driver first.
fn keep_order(given: &mut Given, root: &Root) {
    let made = root.make_dirs("/etc/ld.so.conf.d", 0o755);
    let conf = format!("{}\n", loader_cache::COMPAT_DIRECTORY);
    let kept = made.and_then(|()| root.replace(loader_cache::COMPAT_CONF, conf.as_bytes(), 0o644));
    if let Err(error) = kept {
        let what = "the precedence of the image's newer CUDA driver after ldconfig".to_owned();
        given.note(&Warning::Without { what, why: error.to_string() });
    }
}

/// Where a bundle, and what is added to it, mount something, if nothing of it touches the loader's files while its container is made: neither a
/// hook nor, by its name, a mount.
pub(crate) fn mounted_beside(spec: &SpecView, added: Option<&Edits>) -> Option<Vec<String>> {
    // By the last name: whichever way the path to it leads.
    let is_loaders = |place: &String| {
        let name = place.trim_end_matches(['/', '.']).rsplit('/').next();
        name.is_none_or(|name| name.is_empty() || name == "etc" || name.starts_with("ld"))
    };
    let runs_hooks = !spec.hooks.is_empty() || added.is_some_and(|edits| !edits.hooks.is_empty());
    let own = spec.mounts.iter().map(|mount| &mount.destination);
    let added = added.iter().flat_map(|edits| &edits.mounts).map(|mount| &mount.destination);
    let places: Vec<String> = own.chain(added).cloned().collect();
    (!runs_hooks && !places.iter().any(is_loaders)).then_some(places)
}

/// The name of a loader cache that is kept from dressing to arming, for a root that cannot be written.
fn kept_name(grant: &GrantId, container: &str) -> String {
    format!("ld.so.cache.{grant}.{container}")
}

/// Whether device nodes can be made in this root. Some versions of OCI runtimes join its path with `/dev` and follow a link there, which
/// is then one of the node's.
fn takes_nodes(root: &Root) -> Result<(), String> {
    match root.kind("/dev").map_err(|error| error.to_string())? {
        Kind::Directory | Kind::Absent => Ok(()),
        other => {
            let found = other.words();
            Err(format!(
                "/dev is {found}, in whose place are to be the GPU's nodes: make it a directory in the image"
            ))
        }
    }
}

/// Whether the layer's libraries are seen through the overlay: an upper directory that replaced one of ours hides them.
fn shows(root: &Root, tree: &DriverTree) -> bool {
    let first = tree.libraries.first();
    first.is_none_or(|library| matches!(root.target_kind(&library.path), Ok(Kind::File)))
}

#[cfg(test)]
mod tests {
    use oci_specs::Mount;

    use super::*;

    fn spec(more: &serde_json::Value) -> SpecView {
        let mut spec = serde_json::json!({ "ociVersion": "1.0.2" });
        let (Some(all), Some(more)) = (spec.as_object_mut(), more.as_object()) else {
            panic!("two objects");
        };
        all.extend(more.clone());
        serde_json::from_value(spec).expect("a spec")
    }

    fn mounts(places: &[&str]) -> serde_json::Value {
        let mount = |place: &&str| serde_json::json!({ "destination": place, "source": "/s" });
        serde_json::json!({ "mounts": places.iter().map(mount).collect::<Vec<_>>() })
    }

    #[test]
    fn the_root_is_dressed_beside_the_runtime_unless_something_touches_the_loaders_files() {
        let pods = ["/proc", "/etc/hosts", "/etc/resolv.conf", "/dev/shm", "/data"];
        assert_eq!(mounted_beside(&spec(&mounts(&pods)), None).expect("all are apart"), pods);
        for place in ["/etc", "/etc/", "/etc/.", "/", "/etc/ld.so.cache", "/x/../etc/ld.so.conf.d"]
        {
            assert_eq!(mounted_beside(&spec(&mounts(&[place])), None), None, "{place}");
        }
        let hook = serde_json::json!({ "hooks": { "createContainer": [{ "path": "/bin/h" }] } });
        assert_eq!(mounted_beside(&spec(&hook), None), None, "it may be an ldconfig");
        let mount = Mount {
            destination: "/etc/ld.so.cache".into(),
            kind: "bind".into(),
            source: "/s".into(),
            options: Vec::new(),
        };
        let added = Edits { mounts: vec![mount], ..Edits::default() };
        assert_eq!(mounted_beside(&spec(&mounts(&pods)), Some(&added)), None);
    }
}
