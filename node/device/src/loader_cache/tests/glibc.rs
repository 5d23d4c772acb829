//! The loader cache against glibc's own tools: what `ldconfig` prints and writes, and what the real loader opens.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{LIB_DIR, cache_of, entry, ours, record, v3};
use crate::loader_cache::format::Hwcap;
use crate::loader_cache::{Entry, LoaderCache, PATH, install};
use crate::rootfs::Root;

/// What `ldconfig -p` says of these bytes: (soname, what is in parentheses, path).
fn printed(bytes: &[u8]) -> Option<Vec<(String, String, String)>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let ldconfig = ["/sbin/ldconfig", "/usr/sbin/ldconfig"].into_iter().find(|at| {
        // Only glibc's own has the option; a wrapper or busybox would prove nothing.
        Path::new(at).exists()
    })?;
    let output = Command::new(ldconfig).arg("-p").arg("-C").arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| line.strip_prefix('\t'));
    Some(
        lines
            .map(|line| {
                let (name, path) = line.split_once(" => ").unwrap();
                let (soname, kind) = name.split_once(" (").unwrap();
                (soname.to_owned(), kind.trim_end_matches(')').to_owned(), path.to_owned())
            })
            .collect(),
    )
}

#[test]
fn the_nodes_own_cache_comes_back_line_for_line() {
    let Ok(bytes) = fs::read(PATH) else {
        println!("skipped: no {PATH} here");
        return;
    };
    let rewritten = LoaderCache::parse(&bytes).unwrap().to_bytes();
    let Some(before) = printed(&bytes) else {
        println!("skipped: needs ldconfig");
        return;
    };
    assert!(before.len() > 3);
    assert_eq!(printed(&rewritten).unwrap(), before);
}

#[test]
fn ldconfig_lists_exactly_the_merged_set() {
    let mut cache = cache_of(vec![
        record("libc.so.6", "/lib/libc.so.6", 0x0303, Hwcap::Mask(0)),
        record("libcuda.so.1", "/old/libcuda.so.1", 0x0303, Hwcap::Mask(0)),
        record("libcuda.so.1", "/old/glibc-hwcaps/libcuda.so.1", 0x0303, v3()),
        record("libcuda.so.01", "/sly/libcuda.so.01", 0x0303, Hwcap::Mask(0)),
        record("libcuda.so.1", "/any/libcuda.so.1", 1, Hwcap::Mask(0)),
        record("libcuda.so.1", "/lib32/libcuda.so.1", 0x0003, Hwcap::Mask(0)),
        record("libz.so.1", "/hw/libz.so.1", 0x0303, v3()),
        record("libz.so.1", "/lib/libz.so.1", 0x0303, Hwcap::Mask(0)),
        record("libgone.so.1", "/usr/local/nvidia/lib64/libgone.so.1", 0x0303, Hwcap::Mask(0)),
        record("libkept.so.1", "/usr/local/nvidia/lib64x/libkept.so.1", 0x0303, Hwcap::Mask(0)),
    ]);
    let added = [("libcuda.so.1", 0x0303), ("libnvidia-ml.so.1", 0x0303)]
        .map(|(soname, flags)| Entry { flags, ..ours(soname) });
    cache.merge(&added, &[&format!("{LIB_DIR}/")]).unwrap();
    let Some(lines) = printed(&cache.to_bytes()) else {
        println!("skipped: needs ldconfig");
        return;
    };
    let lines: Vec<(&str, &str, &str)> =
        lines.iter().map(|(name, kind, path)| (&**name, &**kind, &**path)).collect();
    let expected = [
        ("libz.so.1", "libc6,x86-64, hwcap: \"x86-64-v3\"", "/hw/libz.so.1"),
        ("libz.so.1", "libc6,x86-64", "/lib/libz.so.1"),
        ("libnvidia-ml.so.1", "libc6,x86-64", "/usr/local/nvidia/lib64/libnvidia-ml.so.1"),
        ("libkept.so.1", "libc6,x86-64", "/usr/local/nvidia/lib64x/libkept.so.1"),
        ("libcuda.so.1", "libc6,x86-64", "/usr/local/nvidia/lib64/libcuda.so.1"),
        ("libcuda.so.1", "libc6", "/lib32/libcuda.so.1"),
        ("libc.so.6", "libc6,x86-64", "/lib/libc.so.6"),
    ];
    assert_eq!(lines, expected);
}

/// A root with the node's own glibc in it, a program that needs `libprobe.so.1`, and two of those: one in
/// `/opt/image`, one where ours go.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            println!("skipped: needs root, for chroot");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let needed = ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"];
        let tools = ["/sbin/ldconfig", "/usr/bin/cc", "/usr/sbin/chroot"];
        if let Some(missing) = needed.iter().chain(&tools).find(|path| !Path::new(path).exists()) {
            println!("skipped: needs {missing}");
            return None;
        }
        for path in needed {
            let copy = directory.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(path, copy).unwrap();
        }
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/ld.so.conf"), "/opt/image\n/lib/x86_64-linux-gnu\n")
            .unwrap();
        let machine = Self { directory };
        machine.library("opt/image", "image");
        machine.library(&LIB_DIR[1..], "ours");
        machine.program();
        Some(machine)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn library(&self, at: &str, says: &str) {
        let directory = self.path().join(at);
        fs::create_dir_all(&directory).unwrap();
        let source = format!("const char *probe(void) {{ return \"{says}\"; }}");
        self.compile(
            &source,
            &["-shared", "-fPIC", "-Wl,-soname,libprobe.so.1"],
            &directory.join("libprobe.so.1"),
        );
    }

    fn program(&self) {
        let source = "#include <stdio.h>\nextern const char *probe(void); int main(void) { puts(probe()); return 0; }";
        let library = self.path().join("opt/image/libprobe.so.1");
        self.compile(source, &[library.to_str().unwrap()], &self.path().join("program"));
    }

    fn compile(&self, source: &str, options: &[&str], to: &Path) {
        let file = self.path().join("source.c");
        fs::write(&file, source).unwrap();
        let made = Command::new("cc").arg("-o").arg(to).arg(&file).args(options).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// What the program says with the root's present cache: whose library was loaded.
    fn says(&self) -> String {
        let output = Command::new("/usr/sbin/chroot")
            .arg(self.path())
            .arg("/program")
            .env_clear()
            .output()
            .unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        String::from_utf8(text).unwrap().trim().to_owned()
    }
}

#[test]
fn the_real_loader_takes_ours_and_still_finds_the_rest() {
    let Some(machine) = Machine::new() else { return };
    let root = Root::open(machine.path()).unwrap();
    assert!(machine.says().contains("cannot open shared object file"), "{}", machine.says());

    // Without a cache of the image's own: libc is found in the loader's default directories.
    install(&root, &[ours("libprobe.so.1")], &[LIB_DIR], &[]).unwrap();
    assert_eq!(machine.says(), "ours");

    // With one that the image's ldconfig made, and a driver library of its own in it.
    for form in ["new", "compat"] {
        let made = Command::new("/sbin/ldconfig")
            .args(["-X", "-c", form, "-r"])
            .arg(machine.path())
            .status()
            .unwrap();
        assert!(made.success());
        assert_eq!(machine.says(), "image");
        install(&root, &[ours("libprobe.so.1")], &[LIB_DIR], &[]).unwrap();
        assert_eq!(machine.says(), "ours");
    }

    // A sly image puts a name that the loader takes for ours before it.
    let sly = entry("libprobe.so.01", "/opt/image/libprobe.so.1");
    let mut cache = LoaderCache::default();
    cache.merge(&[sly], &["/none"]).unwrap();
    root.replace(PATH, &cache.to_bytes(), 0o644).unwrap();
    assert_eq!(machine.says(), "image");
    install(&root, &[ours("libprobe.so.1")], &[LIB_DIR], &[]).unwrap();
    assert_eq!(machine.says(), "ours");
}

#[test]
fn the_forms_that_ldconfig_itself_writes_are_read() {
    let Some(stage) = Machine::new() else { return };
    let mut listings = BTreeSet::new();
    for form in ["new", "compat"] {
        let made = Command::new("/sbin/ldconfig")
            .args(["-X", "-c", form, "-r"])
            .arg(stage.path())
            .status()
            .unwrap();
        assert!(made.success());
        let bytes = fs::read(stage.path().join("etc/ld.so.cache")).unwrap();
        assert_eq!(bytes.starts_with(b"ld.so-1.7.0"), form == "compat");
        let cache = LoaderCache::parse(&bytes).unwrap();
        let sonames: Vec<String> = cache.entries().into_iter().map(|it| it.soname).collect();
        assert!(sonames.contains(&"libc.so.6".to_owned()), "{sonames:?}");
        listings.insert(sonames);
    }
    assert_eq!(listings.len(), 1);
}
