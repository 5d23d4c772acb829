//! The driver's files for containers that others make: which file of the node belongs where, without a prepared tree and without a loader's cache.
//!
//! Decides places in the container. Nothing of ours runs for such a container, so each library goes where loaders look without being told, under
//! the name that programs ask for. Must not know who reads this.

use std::path::PathBuf;

use plan::{Capabilities, Driver};

use super::data::LOADER_DIRS;
use super::files::find;
use super::layout::{LIB_DIR, Layout};
use super::root::Found;
use super::sockets;
use crate::Host;
use crate::error::DeviceError;

/// Something of the driver, and where a container should have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverFile {
    /// On the node, as this process finds it.
    pub source: PathBuf,
    /// In the container.
    pub place: String,
    /// Whether it is a socket, which is written to.
    pub is_socket: bool,
}

/// The driver's files of these capabilities, and its services' sockets that are there. In a fixed order.
///
/// # Errors
/// When the files are not where they should be.
pub fn driver_files(
    host: &Host,
    driver: &Driver,
    capabilities: &Capabilities,
) -> Result<Vec<DriverFile>, DeviceError> {
    let layout = Layout::of(find(host, driver, capabilities)?, &driver.version);
    let root = host.driver_path();
    let source = |found: &Found| root.join(found.path.trim_start_matches('/'));
    let on_host = |place: &str| {
        let (_, found) = layout.files.iter().find(|(file, _)| file == place)?;
        Some(source(found))
    };
    // A link leads to another in its folder, or to a file there.
    let behind = |place: &str| {
        let mut place = place.to_owned();
        while let Some((_, target)) = layout.links.iter().find(|(link, _)| *link == place) {
            place = format!("{}/{target}", place.rsplit_once('/')?.0);
        }
        on_host(&place)
    };
    let file = |source, place| DriverFile { source, place, is_socket: false };
    let mut files = Vec::new();
    for library in &layout.libraries {
        let Some(source) = behind(&library.path) else { continue };
        let places = LOADER_DIRS.iter().map(|dir| format!("{dir}/{}", library.soname));
        files.extend(places.map(|place| file(source.clone(), place)));
    }
    let is_library = |place: &str| place.starts_with(LIB_DIR);
    let others = layout.files.iter().filter(|(place, _)| !is_library(place));
    files.extend(others.map(|(place, found)| file(source(found), place.clone())));
    let sockets = sockets(host, capabilities).into_iter();
    files.extend(sockets.map(|place| DriverFile {
        source: host.path(&place),
        place,
        is_socket: true,
    }));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvidia::fake::{Fake, VERSION};

    #[test]
    fn libraries_are_where_loaders_look_and_programs_where_shells_do() {
        let fake = Fake::new();
        let folder = "/usr/lib/x86_64-linux-gnu";
        fake.library(&format!("{folder}/libcuda.so.{VERSION}"), "libcuda.so.1");
        fake.library(&format!("{folder}/libnvidia-ml.so.{VERSION}"), "libnvidia-ml.so.1");
        fake.write("/usr/bin/nvidia-smi", "a program");
        fake.write("/run/nvidia-persistenced/socket", "");
        let driver =
            Driver { version: VERSION.to_owned(), cuda: plan::CudaVersion { major: 12, minor: 4 } };
        let files = driver_files(&fake.host, &driver, &Capabilities::default()).expect("found");
        let mut expected = Vec::new();
        for (soname, stem) in [
            ("libcuda.so", "libcuda"),
            ("libcuda.so.1", "libcuda"),
            ("libnvidia-ml.so", "libnvidia-ml"),
            ("libnvidia-ml.so.1", "libnvidia-ml"),
        ] {
            let source = fake.host.path(&format!("{folder}/{stem}.so.{VERSION}"));
            for dir in LOADER_DIRS {
                let place = format!("{dir}/{soname}");
                expected.push(DriverFile { source: source.clone(), place, is_socket: false });
            }
        }
        for (path, is_socket) in
            [("/usr/bin/nvidia-smi", false), ("/run/nvidia-persistenced/socket", true)]
        {
            expected.push(DriverFile {
                source: fake.host.path(path),
                place: path.to_owned(),
                is_socket,
            });
        }
        assert_eq!(files, expected);
    }
}
