//! What comes after a container's creation as a part of the runtime specification: the `process` of an exec, the `resources` of an update.
//!
//! Decides nothing of its own: both are edited by the rules of the container's. Must not know how execs are started.

use std::borrow::Cow;

use crate::BundleError;
use crate::edits::{apply_cpuset, apply_env};

/// Sets variables in the environment of a process spec, by the same rules as [`crate::Edits::env`].
/// The very bytes that came in when nothing changes.
///
/// # Errors
/// [`BundleError::Process`], naming the field.
pub fn edit_process<'a>(
    process: &'a [u8],
    env: &[(String, String)],
) -> Result<Cow<'a, [u8]>, BundleError> {
    apply_env(process, env).map_err(|source| BundleError::Process { source })
}

/// Sets the CPUs and memory nodes in a `linux.resources` object. The very bytes that came in when nothing changes.
///
/// # Errors
/// [`BundleError::Resources`], naming the field.
pub fn edit_resources<'a>(
    resources: &'a [u8],
    cpus: Option<&str>,
    mems: Option<&str>,
) -> Result<Cow<'a, [u8]>, BundleError> {
    apply_cpuset(resources, cpus, mems).map_err(|source| BundleError::Resources { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_gets_cpus_and_keeps_all_else() {
        let sent = br#"{"memory":{"limit":1e3},"cpu":{"shares":18446744073709551615,"cpus":"0"}}"#;
        let edited = edit_resources(sent, Some("0-1"), Some("0")).expect("valid");
        let wanted = r#"{"memory":{"limit":1e3},"cpu":{"shares":18446744073709551615,"cpus":"0-1","mems":"0"}}"#;
        assert_eq!(String::from_utf8_lossy(&edited), wanted);
        let plain = edit_resources(b"{}", Some("0-1"), None).expect("valid");
        assert_eq!(&*plain, br#"{"cpu":{"cpus":"0-1"}}"#);
        let same = edit_resources(sent, None, None).expect("valid");
        assert!(matches!(same, Cow::Borrowed(bytes) if bytes == sent));
        let error = edit_resources(br#"{"cpu":{"cpus":5}}"#, Some("0"), None).expect_err("broken");
        assert!(error.to_string().contains("linux.resources.cpu.cpus"), "{error}");
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_variable_takes_the_place_of_its_first_entry_and_leaves_no_other() {
        let process = br#"{"args":["sh"],"env":["A=1","B=2","A=3","AB=4"],"cwd":"/"}"#;
        let edited = edit_process(process, &env(&[("A", "x=y"), ("C", "")])).expect("valid");
        let wanted = r#"{"args":["sh"],"env":["A=x=y","B=2","AB=4","C="],"cwd":"/"}"#;
        assert_eq!(String::from_utf8_lossy(&edited), wanted);
    }

    #[test]
    fn the_very_bytes_come_back_when_all_is_so_already() {
        let process = b" { \"env\" : [ \"A=1\" ] , \"rlimits\" : null }\n";
        let edited = edit_process(process, &env(&[("A", "1")])).expect("valid");
        assert!(matches!(edited, Cow::Borrowed(bytes) if bytes == process));
    }

    #[test]
    fn a_process_without_an_environment_gets_one() {
        for process in [r#"{"cwd":"/"}"#, r#"{"cwd":"/","env":null}"#] {
            let edited = edit_process(process.as_bytes(), &env(&[("A", "1")])).expect("valid");
            assert_eq!(&*edited, br#"{"cwd":"/","env":["A=1"]}"#);
        }
    }

    #[test]
    fn what_cannot_be_a_variable_is_refused_by_name() {
        for (name, value) in [("", "1"), ("A=B", "1"), ("A\0", "1"), ("A", "\0")] {
            let error = edit_process(b"{}", &env(&[(name, value)])).expect_err("not a variable");
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn a_broken_process_spec_is_described() {
        for (process, field) in [
            ("[]", "the document"),
            (r#"{"env":["A=1",5]}"#, "process.env[1]"),
            ("{", "the document"),
        ] {
            let error = edit_process(process.as_bytes(), &env(&[("A", "1")])).expect_err("broken");
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
