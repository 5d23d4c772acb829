//! Where a drawing goes.
//!
//! Decides that a file is replaced as a whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::bail;

/// Writes the text to a file; `-` is standard output.
///
/// # Errors
/// Naming the path, which then is as it was.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    let shown = path.display();
    let failed = |error: std::io::Error| anyhow::anyhow!("{shown} cannot be written: {error}");
    let path = match fs::metadata(path) {
        // A link stays one, and what it names is replaced.
        Ok(there) if there.is_file() => fs::canonicalize(path).map_err(failed)?,
        Ok(_) => bail!(
            "{shown} is no file that could be replaced; name another, or - for standard output"
        ),
        Err(_) => path.to_owned(),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let mut file = File::create_new(&beside).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&beside, &path));
    written.map_err(|error| {
        // The first error says more than that of the removal would.
        let _ = fs::remove_file(&beside);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("berth-topo-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("made");
        path
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_link_stays_one() {
        let folder = folder("file");
        let (file, link) = (folder.join("map.svg"), folder.join("link.svg"));
        write(&file, "one").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        write(&link, "two").expect("written");
        assert_eq!(fs::read_to_string(&file).expect("there"), "two");
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2, "nothing else is left");
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn what_is_no_file_is_left_alone_and_a_failure_leaves_nothing() {
        let folder = folder("none");
        let refused = write(&folder, "x").expect_err("a folder").to_string();
        assert!(refused.contains("is no file that could be replaced"), "{refused}");
        let refused = write(Path::new("/dev/null"), "x").expect_err("a device").to_string();
        assert!(refused.starts_with("/dev/null is no file"), "{refused}");
        let nowhere = folder.join("no/map.svg");
        let refused = write(&nowhere, "x").expect_err("no such folder").to_string();
        assert!(refused.contains("cannot be written: No such file"), "{refused}");
        let no_file = folder.join("map.svg/");
        let refused = write(&no_file, "x").expect_err("a folder's name").to_string();
        assert!(refused.contains("cannot be written: Not a directory"), "{refused}");
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
        fs::remove_dir_all(folder).expect("removed");
    }
}
