//! Runtime options as containerd sends them with Create and on `start`'s standard input.
//!
//! Decides how `containerd.runc.v1.Options` (typed) and `runtimeoptions.v1.Options` (TOML, inline or
//! by path) become one [`RuntimeOptions`] over the node's configuration. CRI sends the first only for
//! `runtime_type = "io.containerd.runc.v2"` and the second for any other name. Must not act on them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, CodedInputStream, Message};
use containerd_shim_protos::shim::oci;
use serde::Deserialize;

use engine::config::{Config, RuntimeSection};

/// How the OCI runtime is to be called for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The OCI runtime, a path or a name looked up in `PATH`.
    pub binary: String,
    /// Its state directory, without the containerd namespace.
    pub root: PathBuf,
    /// Let systemd make the cgroups.
    pub systemd_cgroup: bool,
    /// cgroup for the shim itself; empty for none.
    pub shim_cgroup: String,
    /// Owner of the container's stdio pipes.
    pub io_owner: (u32, u32),
    /// criu, a path or a name looked up in `PATH`; empty for `criu`.
    pub criu_path: String,
    /// Where criu works and logs at a restore; empty for a place in the bundle.
    pub criu_work_path: String,
    /// Use MS_MOVE instead of pivot_root(2).
    pub no_pivot_root: bool,
    /// Do not join a new session keyring.
    pub no_new_keyring: bool,
    /// Longest create, start, exec, checkpoint or restore.
    pub launch_deadline: Duration,
    /// Longest call of any other kind.
    pub control_deadline: Duration,
}

/// Options that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A type that no shim of this family takes.
    #[error(
        "runtime options of type {0:?} are not supported; use containerd.runc.v1.Options or runtimeoptions.v1.Options"
    )]
    UnknownType(String),
    /// A checkpoint's options of a type that no shim of this family takes.
    #[error(
        "checkpoint options of type {0:?} are not supported; use containerd.runc.v1.CheckpointOptions"
    )]
    UnknownCheckpointType(String),
    /// Bytes that are not the message that they claim to be.
    #[error("runtime options of type {kind} are malformed: {source}")]
    Malformed {
        /// The type's name.
        kind: &'static str,
        /// What the decoder said.
        source: containerd_shim_protos::protobuf::Error,
    },
    /// The file named in the options cannot be read.
    #[error("cannot read runtime options file {path}: {source}", path = path.display())]
    File {
        /// `config_path`.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The TOML cannot be used.
    #[error("runtime options {origin} are not valid: {source}")]
    Toml {
        /// The file, or where the text came from.
        origin: String,
        /// Key, line and reason.
        source: Box<toml::de::Error>,
    },
}

/// The keys of containerd's `[…runtimes.<name>.options]` table, as CRI hands them on in TOML.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase", default)]
struct TomlOptions {
    binary_name: Option<String>,
    root: Option<PathBuf>,
    systemd_cgroup: Option<bool>,
    shim_cgroup: Option<String>,
    io_uid: Option<u32>,
    io_gid: Option<u32>,
    criu_path: Option<String>,
    criu_work_path: Option<String>,
    no_pivot_root: Option<bool>,
    no_new_keyring: Option<bool>,
    // Sent by CRI for every runtime and without meaning here.
    #[serde(rename = "CriuImagePath")]
    _criu_image_path: Option<String>,
    #[serde(rename = "TaskApiAddress")]
    _task_api_address: Option<String>,
    #[serde(rename = "TaskApiVersion")]
    _task_api_version: Option<u32>,
    #[serde(rename = "TypeUrl")]
    _type_url: Option<String>,
    #[serde(rename = "ConfigPath")]
    _config_path: Option<String>,
    /// Berth's own section, the only one that a handler may override.
    #[serde(rename = "runtime")]
    runtime: Option<RuntimeSection>,
}

/// Typed options, for `runtime_type = "io.containerd.runc.v2"`.
const RUNC: &str = "containerd.runc.v1.Options";
/// TOML options, for any other runtime type.
const GENERIC: &str = "runtimeoptions.v1.Options";
/// What `ctr` of containerd 1.6 and 1.7 sends for user namespaces.
const LEGACY: &str = "containerd.linux.runc.CreateOptions";

/// Whether options of that type can be read.
pub fn is_known(type_url: &str) -> bool {
    [RUNC, GENERIC, LEGACY].contains(&type_of(type_url))
}

/// The program that executing `binary` would run: itself if it is a path, else the first in `PATH`.
pub fn look_up(binary: &str) -> Option<PathBuf> {
    if binary.contains('/') {
        return Some(binary.into()).filter(|path: &PathBuf| path.is_file());
    }
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join(binary)).find(|path| path.is_file())
}

/// A type URL's message name, without the server in front of it.
fn type_of(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or_default()
}

impl RuntimeOptions {
    /// The node's configuration, with what `any` says laid over it.
    ///
    /// # Errors
    /// [`OptionsError`] naming the type, file or key.
    pub fn resolve(config: &Config, any: Option<&Any>) -> Result<Self, OptionsError> {
        let mut options = Self::from_section(&config.runtime);
        if let Some(any) = any {
            options.overlay(any)?;
        }
        // Looked up once, or every call would try each directory of PATH in turn. What is not found
        // stays as it is, for the error of the first call to name.
        if let Some(found) =
            look_up(&options.binary).and_then(|path| path.into_os_string().into_string().ok())
        {
            options.binary = found;
        }
        Ok(options)
    }

    fn overlay(&mut self, any: &Any) -> Result<(), OptionsError> {
        match type_of(&any.type_url) {
            "" if any.value.is_empty() => Ok(()),
            RUNC => self.overlay_runc(&any.value),
            GENERIC => self.overlay_generic(&any.value),
            LEGACY => self.overlay_legacy(&any.value),
            _ => Err(OptionsError::UnknownType(any.type_url.clone())),
        }
    }

    /// What the configuration's section says by itself; the binary is not looked up.
    pub fn from_section(section: &RuntimeSection) -> Self {
        Self {
            binary: section.binary.clone(),
            root: section.root.clone(),
            systemd_cgroup: section.systemd_cgroup,
            shim_cgroup: String::new(),
            io_owner: (0, 0),
            criu_path: String::new(),
            criu_work_path: String::new(),
            no_pivot_root: false,
            no_new_keyring: false,
            launch_deadline: section.launch_deadline(),
            control_deadline: section.control_deadline(),
        }
    }

    fn overlay_runc(&mut self, bytes: &[u8]) -> Result<(), OptionsError> {
        let typed = oci::Options::parse_from_bytes(bytes)
            .map_err(|source| OptionsError::Malformed { kind: RUNC, source })?;
        if !typed.binary_name.is_empty() {
            self.binary = typed.binary_name;
        }
        if !typed.root.is_empty() {
            self.root = typed.root.into();
        }
        self.systemd_cgroup |= typed.systemd_cgroup;
        self.shim_cgroup = typed.shim_cgroup;
        self.io_owner = (typed.io_uid, typed.io_gid);
        self.no_pivot_root = typed.no_pivot_root;
        self.no_new_keyring = typed.no_new_keyring;
        self.criu_work_path = typed.criu_work_path;
        // Field 8 was `criu_path` up to containerd 1.7 and is reserved since.
        self.criu_path = Fields::read(bytes, RUNC)?.text(8).unwrap_or_default();
        Ok(())
    }

    /// What `ctr` of containerd 1.6 and 1.7 sends to runtimes of other names, for user namespaces:
    /// `no_pivot_root` = 1, `no_new_keyring` = 8, `shim_cgroup` = 9, `io_uid` = 10, `io_gid` = 11.
    fn overlay_legacy(&mut self, bytes: &[u8]) -> Result<(), OptionsError> {
        let mut fields = Fields::read(bytes, LEGACY)?;
        self.no_pivot_root = fields.number(1) != 0;
        self.no_new_keyring = fields.number(8) != 0;
        self.shim_cgroup = fields.text(9).unwrap_or_default();
        self.io_owner = (fields.number(10), fields.number(11));
        Ok(())
    }

    fn overlay_generic(&mut self, bytes: &[u8]) -> Result<(), OptionsError> {
        // message Options { string type_url = 1; string config_path = 2; bytes config_body = 3; }
        let mut fields = Fields::read(bytes, GENERIC)?;
        let body = fields.text(3).filter(|body| !body.is_empty());
        let (origin, text) = match (body, fields.text(2).filter(|path| !path.is_empty())) {
            (Some(body), _) => ("in the handler's [...options] table".to_owned(), body),
            (None, Some(path)) => {
                let path = PathBuf::from(path);
                let text = fs::read_to_string(&path)
                    .map_err(|source| OptionsError::File { path: path.clone(), source })?;
                (path.display().to_string(), text)
            }
            (None, None) => return Ok(()),
        };
        let toml: TomlOptions = toml::from_str(&text)
            .map_err(|source| OptionsError::Toml { origin, source: Box::new(source) })?;
        self.overlay_toml(toml);
        Ok(())
    }

    fn overlay_toml(&mut self, toml: TomlOptions) {
        if let Some(section) = toml.runtime {
            *self = Self::from_section(&section);
        }
        let set = |slot: &mut String, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                *slot = value;
            }
        };
        set(&mut self.binary, toml.binary_name);
        set(&mut self.shim_cgroup, toml.shim_cgroup);
        set(&mut self.criu_path, toml.criu_path);
        set(&mut self.criu_work_path, toml.criu_work_path);
        if let Some(root) = toml.root.filter(|root| !root.as_os_str().is_empty()) {
            self.root = root;
        }
        self.systemd_cgroup = toml.systemd_cgroup.unwrap_or(self.systemd_cgroup);
        self.no_pivot_root = toml.no_pivot_root.unwrap_or(self.no_pivot_root);
        self.no_new_keyring = toml.no_new_keyring.unwrap_or(self.no_new_keyring);
        self.io_owner =
            (toml.io_uid.unwrap_or(self.io_owner.0), toml.io_gid.unwrap_or(self.io_owner.1));
    }
}

/// The fields of a message for which there is no generated type, by number: texts and small numbers.
#[derive(Default)]
struct Fields {
    texts: Vec<(u32, String)>,
    numbers: Vec<(u32, u32)>,
}

impl Fields {
    fn read(bytes: &[u8], kind: &'static str) -> Result<Self, OptionsError> {
        let mut input = CodedInputStream::from_bytes(bytes);
        let mut fields = Self::default();
        while fields
            .read_one(&mut input)
            .map_err(|source| OptionsError::Malformed { kind, source })?
        {}
        Ok(fields)
    }

    /// Reads one field; says whether there was one. Wire types are those of the protobuf encoding.
    fn read_one(&mut self, input: &mut CodedInputStream<'_>) -> protobuf::Result<bool> {
        let Some(tag) = input.read_raw_tag_or_eof()? else { return Ok(false) };
        let number = tag >> 3;
        match tag & 7 {
            0 => {
                let value = input.read_raw_varint64()?;
                self.numbers.push((number, u32::try_from(value).unwrap_or(u32::MAX)));
            }
            2 => {
                let text = input.read_bytes()?;
                self.texts.push((number, String::from_utf8_lossy(&text).into_owned()));
            }
            1 => input.skip_raw_bytes(8)?,
            5 => input.skip_raw_bytes(4)?,
            // Groups, which no such message has: past the end, which is an error with a position.
            _ => input.skip_raw_bytes(u32::MAX)?,
        }
        Ok(true)
    }

    /// The last text of that number, which is the one that counts.
    fn text(&mut self, number: u32) -> Option<String> {
        let at = self.texts.iter().rposition(|(found, _)| *found == number)?;
        Some(self.texts.swap_remove(at).1)
    }

    /// The last number of that number; absent reads as zero.
    fn number(&self, number: u32) -> u32 {
        let found = self.numbers.iter().rfind(|(found, _)| *found == number);
        found.map_or(0, |(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(kind: &str, value: Vec<u8>) -> Any {
        Any { type_url: kind.into(), value, ..Any::default() }
    }

    fn generic(path: &str, body: &str) -> Any {
        let mut value = Vec::new();
        for (number, text) in [(1u8, "x"), (2, path), (3, body)] {
            value.extend([number << 3 | 2, u8::try_from(text.len()).expect("short")]);
            value.extend(text.as_bytes());
        }
        any("runtimeoptions.v1.Options", value)
    }

    fn resolve(any: &Any) -> Result<RuntimeOptions, OptionsError> {
        RuntimeOptions::resolve(&Config::default(), Some(any))
    }

    #[test]
    fn nothing_means_the_configuration() {
        let config = Config::default();
        let options = RuntimeOptions::resolve(&config, None).expect("no options are fine");
        let found = look_up("runc").map_or("runc".into(), |path| path.display().to_string());
        assert_eq!(options.binary, found);
        assert_eq!(options.root, PathBuf::from("/run/containerd/runc"));
        assert_eq!(
            RuntimeOptions::resolve(&config, Some(&Any::default())).expect("nor empty"),
            options
        );
    }

    #[test]
    fn typed_options_are_read() {
        let typed = oci::Options {
            binary_name: "/bin/crun".into(),
            root: "/r".into(),
            systemd_cgroup: true,
            io_uid: 5,
            no_new_keyring: true,
            ..oci::Options::default()
        };
        let mut bytes = typed.write_to_bytes().expect("encodable");
        bytes.extend([8 << 3 | 2, 4]);
        bytes.extend(b"criu");
        let options = resolve(&any("containerd.runc.v1.Options", bytes)).expect("valid");
        assert_eq!((options.binary.as_str(), options.criu_path.as_str()), ("/bin/crun", "criu"));
        assert!(options.systemd_cgroup && options.no_new_keyring && !options.no_pivot_root);
        assert_eq!(options.io_owner, (5, 0));
    }

    #[test]
    fn a_toml_body_is_no_cgroup_name() {
        let options = resolve(&generic("", "SystemdCgroup = true\nBinaryName = \"/bin/crun\"\n"));
        let options = options.expect("what CRI sends for a custom runtime type");
        assert!(options.systemd_cgroup && options.shim_cgroup.is_empty());
        assert_eq!(options.binary, "/bin/crun");
    }

    #[test]
    fn a_toml_file_is_read_and_a_missing_one_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("o.toml");
        fs::write(&file, "[runtime]\nlaunch-deadline = 7\n").expect("writable");
        let options = resolve(&generic(&file.to_string_lossy(), "")).expect("valid");
        assert_eq!(options.launch_deadline, Duration::from_secs(7));
        let error = resolve(&generic("/nonexistent/o.toml", "")).expect_err("missing").to_string();
        assert!(error.contains("/nonexistent/o.toml"), "{error}");
    }

    #[test]
    fn the_options_of_an_old_ctr_are_read() {
        // no_pivot_root, no_new_keyring, shim_cgroup "/s", io_uid 1000, io_gid 5000
        let bytes = [&[8, 1, 64, 1, 74, 2][..], b"/s", &[80, 0xe8, 7, 88, 0x88, 39]].concat();
        let options = resolve(&any("containerd.linux.runc.CreateOptions", bytes)).expect("valid");
        assert!(options.no_pivot_root && options.no_new_keyring);
        assert_eq!((options.shim_cgroup.as_str(), options.io_owner), ("/s", (1000, 5000)));
    }

    #[test]
    fn bad_options_are_errors() {
        assert!(matches!(resolve(&any("other.Type", vec![])), Err(OptionsError::UnknownType(_))));
        let torn = any("containerd.runc.v1.Options", vec![0x3a, 0xff]);
        assert!(matches!(resolve(&torn), Err(OptionsError::Malformed { .. })));
        let typo = generic("", "SystemdCgrup = true");
        let words = resolve(&typo).expect_err("a typing error").to_string();
        assert!(words.contains("SystemdCgrup"), "{words}");
    }
}
