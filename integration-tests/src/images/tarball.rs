//! A tar archive in memory, in the ustar format: folders, files and symbolic links owned by root,
//! dated 1970.
//!
//! Knows the format (POSIX.1-2017, pax, "ustar Interchange Format") and nothing of images.

use anyhow::{Result, ensure};

const BLOCK: usize = 512;

/// An archive that is being written.
#[derive(Default)]
pub struct Tarball {
    bytes: Vec<u8>,
}

impl Tarball {
    /// Adds a folder that everybody may read.
    pub fn folder(&mut self, name: &str) -> Result<()> {
        self.header(&format!("{name}/"), 0o755, 0, b'5', "")
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.header(name, mode, content.len(), b'0', "")?;
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.header(name, 0o777, 0, b'2', target)
    }

    /// Adds a fifo, or, with its numbers, a character device.
    pub fn special(&mut self, name: &str, device: Option<(u32, u32)>) -> Result<()> {
        let kind = if device.is_some() { b'3' } else { b'6' };
        self.entry(name, 0o666, 0, kind, "", device.unwrap_or_default())
    }

    /// The whole archive: what was added, and the two empty blocks that end it.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn header(&mut self, name: &str, mode: u32, size: usize, kind: u8, target: &str) -> Result<()> {
        self.entry(name, mode, size, kind, target, (0, 0))
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        size: usize,
        kind: u8,
        target: &str,
        (major, minor): (u32, u32),
    ) -> Result<()> {
        ensure!(name.len() < 100 && target.len() < 100, "{name}: too long a name for plain ustar");
        let mut block = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        put(329, format!("{major:07o}").as_bytes());
        put(337, format!("{minor:07o}").as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }
}
