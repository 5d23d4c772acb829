//! What containerd says to `start`, and what it understands in return.
//!
//! | containerd | on standard input | understands |
//! |---|---|---|
//! | 1.6 | options (`Any`) or nothing | an address |
//! | 1.7 | the same | an address, or JSON up to version 2 |
//! | 2.0 to 2.2 | the same | an address, or JSON up to version 3 |
//! | 2.3 and later | `BootstrapParams` | an address, JSON, or `BootstrapResult` |
//!
//! Decides which is spoken. An address is the default, since all understand it.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

use crate::cli::Cli;
use crate::options::is_known;
use engine::config::Dialect;

/// The most that is read from standard input.
pub const INPUT_LIMIT: u64 = 10 << 20;

/// What came in on standard input.
#[derive(Debug)]
pub enum Greeting {
    /// Nothing.
    Nothing,
    /// Runtime options, up to containerd 2.2.
    Options(Any),
    /// Parameters, from containerd 2.3 on.
    Params(Box<BootstrapParams>),
}

impl Greeting {
    /// Reads standard input to its end. A terminal is not read: somebody tries the shim by hand.
    pub fn read(cli: &Cli) -> io::Result<Self> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Ok(Self::Nothing);
        }
        let mut input = Vec::new();
        stdin.lock().take(INPUT_LIMIT).read_to_end(&mut input)?;
        Ok(Self::parse(&input, cli))
    }

    /// An `Any` is also a valid `BootstrapParams`, with its type in the place of the instance id: only
    /// parameters that agree with the flags are parameters.
    fn parse(input: &[u8], cli: &Cli) -> Self {
        if input.is_empty() {
            return Self::Nothing;
        }
        match BootstrapParams::parse_from_bytes(input) {
            Ok(params) if params.instance_id == cli.id && params.namespace == cli.namespace => {
                Self::Params(Box::new(params))
            }
            // Bytes that are neither are no reason to refuse a container.
            _ => Any::parse_from_bytes(input).map_or(Self::Nothing, Self::Options),
        }
    }

    /// Runtime options, if any came.
    pub fn options(&self) -> Option<&Any> {
        // Other extensions may come along; what is unknown is no reason to refuse a container.
        let known = |any: &&Any| is_known(&any.type_url);
        match self {
            Self::Nothing => None,
            Self::Options(any) => Some(any).filter(known),
            Self::Params(params) => {
                params.extensions.iter().filter_map(|e| e.value.as_ref()).find(known)
            }
        }
    }

    /// Where containerd wants the socket, if it says.
    pub fn socket_dir(&self) -> Option<PathBuf> {
        match self {
            Self::Params(params) => {
                params.socket_dir.as_ref().filter(|dir| !dir.is_empty()).map(Into::into)
            }
            _ => None,
        }
    }

    /// Where events go; empty for nowhere.
    pub fn events_address(&self) -> String {
        match self {
            Self::Params(params) if !params.containerd_ttrpc_address.is_empty() => {
                params.containerd_ttrpc_address.clone()
            }
            _ => std::env::var("TTRPC_ADDRESS").unwrap_or_default(),
        }
    }

    /// The reply that says where the shim listens.
    pub fn reply(&self, dialect: Dialect, address: &str) -> Vec<u8> {
        const VERSION: i32 = 3;
        match (dialect, self) {
            (Dialect::Address, _) => address.as_bytes().to_vec(),
            (Dialect::V3, Self::Params(_)) => {
                let result = BootstrapResult {
                    version: VERSION,
                    address: address.into(),
                    protocol: "ttrpc".into(),
                    ..BootstrapResult::default()
                };
                // Encoding into memory fails only for unset required fields, which proto3 lacks.
                result.write_to_bytes().unwrap_or_default()
            }
            (Dialect::V3, _) => {
                let json = serde_json::json!({
                    "version": VERSION, "address": address, "protocol": "ttrpc",
                });
                json.to_string().into_bytes()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;
    use containerd_shim_protos::protobuf::MessageField;

    fn cli() -> Cli {
        let line = "-namespace ns -id c1 start";
        Cli::parse(line.split(' ').map(Into::into)).expect("valid")
    }

    fn options() -> Any {
        Any { type_url: "containerd.runc.v1.Options".into(), value: vec![8, 1], ..Any::default() }
    }

    #[test]
    fn old_options_are_not_taken_for_parameters() {
        let bytes = options().write_to_bytes().expect("encodable");
        assert!(BootstrapParams::parse_from_bytes(&bytes).is_ok(), "the trap is real");
        let greeting = Greeting::parse(&bytes, &cli());
        assert_eq!(greeting.options(), Some(&options()));
        assert_eq!(greeting.socket_dir(), None);
    }

    #[test]
    fn parameters_are_understood_and_answered_in_kind() {
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "ns".into(),
            containerd_ttrpc_address: "/run/t.sock".into(),
            socket_dir: Some("/run/short".into()),
            extensions: vec![Extension {
                value: MessageField::some(options()),
                ..Extension::default()
            }],
            ..BootstrapParams::default()
        };
        let greeting = Greeting::parse(&params.write_to_bytes().expect("encodable"), &cli());
        assert_eq!(greeting.socket_dir(), Some("/run/short".into()));
        assert_eq!(greeting.events_address(), "/run/t.sock");
        assert_eq!(greeting.options(), Some(&options()));
        let reply = greeting.reply(Dialect::V3, "unix:///s");
        let result = BootstrapResult::parse_from_bytes(&reply).expect("a result");
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, "unix:///s", "ttrpc")
        );
        assert_eq!(greeting.reply(Dialect::Address, "unix:///s"), b"unix:///s");
    }

    #[test]
    fn others_get_json_only_when_asked_for() {
        assert_eq!(Greeting::Nothing.reply(Dialect::Address, "unix:///s"), b"unix:///s");
        let reply = Greeting::Nothing.reply(Dialect::V3, "unix:///s");
        let json: serde_json::Value = serde_json::from_slice(&reply).expect("json");
        assert_eq!(
            json,
            serde_json::json!({"version": 3, "address": "unix:///s", "protocol": "ttrpc"})
        );
    }
}
