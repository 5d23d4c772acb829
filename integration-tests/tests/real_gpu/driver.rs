//! The driver's files as Berth prepares them for containers.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cuda;
use crate::ground::{Ground, lacking};
use crate::smi;

/// Where the libraries are in a tree.
const LIBRARIES: &str = "usr/local/nvidia/lib64";

/// The prepared tree of the default capabilities: the only one below Berth's state.
fn tree(ground: &Ground) -> Result<PathBuf> {
    let berth = ground.berth()?;
    let said = berth.berth(&["prepare-driver", "--capabilities", "compute,utility"])?;
    ensure!(said.code() == 0, "{}{}", said.out, said.err);
    let only = |folder: PathBuf| -> Result<PathBuf> {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        // Beside it are a lock and, in a folder with a dot, what another trial is just preparing.
        let hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        let whole = entries.flatten().filter(|entry| !hidden(entry)).map(|entry| entry.path());
        let found: Vec<PathBuf> = whole.filter(|path| path.is_dir()).collect();
        ensure!(found.len() == 1, "not one thing in {}: {found:?}", folder.display());
        Ok(found[0].clone())
    };
    Ok(only(only(berth.path("state/driver"))?)?.join("root"))
}

pub fn every_name_of_a_library_resolves(ground: &Ground) -> Result<()> {
    let folder = tree(ground)?.join(LIBRARIES);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        if path.is_symlink() {
            let led = path.canonicalize().with_context(|| format!("{name} leads nowhere"))?;
            ensure!(
                led.starts_with(folder.canonicalize()?),
                "{name} leads out, to {}",
                led.display()
            );
            ensure!(
                !fs::read_link(&path)?.is_absolute(),
                "{name} would lead elsewhere in a container"
            );
        }
        if path.is_file() {
            ensure!(is_elf(&path)?, "{name} is no library");
            names.insert(name);
        }
    }
    let version = smi::gpus(ground)?.first().context("a GPU")?.driver.clone();
    let whole = |stem: &str| [format!("{stem}.so.1"), format!("{stem}.so.{version}")];
    let wanted = ["libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler"].map(whole);
    for name in wanted.iter().flatten().map(String::as_str).chain(["libcuda.so"]) {
        ensure!(names.contains(name), "{name} is not among {names:#?}");
    }
    Ok(())
}

fn is_elf(path: &Path) -> Result<bool> {
    let mut magic = [0; 4];
    fs::File::open(path)?.read_exact(&mut magic)?;
    Ok(magic == *b"\x7fELF")
}

pub fn nvidia_smi_runs_from_the_prepared_tree(ground: &Ground) -> Result<()> {
    if ground.root() != Path::new("/") {
        return Err(lacking("nvidia-smi would ask this machine, and the node is another"));
    }
    let tree = tree(ground)?;
    let said = ground.with_tree(&tree, &tree.join("usr/bin/nvidia-smi"), &["-L"])?;
    ensure!(said.code() == 0, "{}{}", said.out, said.err);
    for gpu in smi::gpus(ground)? {
        ensure!(said.out.contains(&gpu.uuid), "{} is not in {}", gpu.uuid, said.out);
    }
    Ok(())
}

pub fn cuda_runs_from_the_prepared_tree(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    let tree = tree(ground)?;
    let seen = cuda::seen(&ground.with_tree(&tree, &cuda::program()?, &[])?)?;
    ensure!(seen.library.starts_with(tree.join(LIBRARIES)), "another one: {seen:?}");
    let mut wanted: Vec<String> = smi::gpus(ground)?.into_iter().map(|gpu| gpu.uuid).collect();
    wanted.sort();
    ensure!(seen.gpus == wanted, "{seen:?}, not {wanted:?}");
    Ok(())
}
