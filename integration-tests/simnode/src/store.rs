//! The state file: read without a lock, changed under one, replaced in one step.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{At, NodeError};
use crate::state::State;

/// The folder that marks a node.
pub const MARK: &str = ".simnode";

/// Where a node's state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    mark: PathBuf,
}

impl Store {
    /// That of the node in `dir`.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { mark: dir.join(MARK) }
    }

    /// That of the node which `path` lies in, if it lies in one.
    #[must_use]
    pub fn around(path: &Path) -> Option<Self> {
        let found = path.ancestors().map(Self::of).find(|store| store.file().exists());
        found.filter(|store| store.mark.is_absolute())
    }

    /// The root of the node's file system.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.mark.with_file_name("root")
    }

    /// The state file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.mark.join("state.json")
    }

    /// What it says now.
    ///
    /// # Errors
    /// When there is none, or it is no state.
    pub fn read(&self) -> Result<State, NodeError> {
        self.parse(&self.bytes()?)
    }

    /// The file as it is now: the same bytes are the same state.
    ///
    /// # Errors
    /// When there is none.
    pub fn bytes(&self) -> Result<Vec<u8>, NodeError> {
        let path = self.file();
        fs::read(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => self.missing(),
            _ => NodeError::File { action: "read", path, source },
        })
    }

    /// What those bytes say.
    ///
    /// # Errors
    /// When they are no state.
    pub fn parse(&self, bytes: &[u8]) -> Result<State, NodeError> {
        serde_json::from_slice(bytes)
            .map_err(|source| NodeError::State { path: self.file(), source })
    }

    /// Changes it while no other process can.
    ///
    /// # Errors
    /// When it cannot be read, locked or replaced, or `change` fails: then nothing is written.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        let _lock = self.lock()?;
        let mut state = self.read()?;
        let before = state.clone();
        let answer = change(&mut state)?;
        if state != before {
            self.replace(&state)?;
        }
        Ok(answer)
    }

    /// Makes it.
    pub(crate) fn create(&self, state: &State) -> Result<(), NodeError> {
        fs::create_dir_all(&self.mark).at("create", &self.mark)?;
        let lock = self.mark.join("lock");
        File::create(&lock).at("create", &lock)?;
        self.replace(state)
    }

    fn missing(&self) -> NodeError {
        NodeError::NoNode { dir: self.mark.parent().unwrap_or(&self.mark).to_owned() }
    }

    fn lock(&self) -> Result<Flock<File>, NodeError> {
        let path = self.mark.join("lock");
        let file = File::open(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => self.missing(),
            _ => NodeError::File { action: "open", path: path.clone(), source },
        })?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| NodeError::File {
            action: "lock",
            path,
            source: errno.into(),
        })
    }

    fn replace(&self, state: &State) -> Result<(), NodeError> {
        let file = self.file();
        let bytes = serde_json::to_vec_pretty(state)
            .map_err(|source| NodeError::State { path: file.clone(), source })?;
        let next = self.mark.join("state.next");
        fs::write(&next, bytes).at("write", &next)?;
        fs::rename(&next, &file).at("replace", &file)
    }
}
