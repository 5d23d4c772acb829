//! What is to go wrong in the driver library, and when: at the nth call of a function, counted over all processes.

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// One thing that is to go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The function's name in nvml.h, or `*` for every one.
    pub function: String,
    /// Only calls for the GPU of this index count.
    pub gpu: Option<usize>,
    /// Which call: 1 is the next one.
    pub nth: u64,
    /// Every later call as well.
    pub onwards: bool,
    /// What happens.
    pub action: Action,
    /// Calls so far.
    pub seen: u64,
}

/// What happens at a faulty call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It answers this and does nothing.
    Error(Code),
    /// It is carried out, and answers this all the same: as a driver that was too slow, or a reset in between.
    ErrorAfter(Code),
    /// It takes so many milliseconds, then answers as usual.
    Delay(u64),
    /// The calling process is killed.
    Die,
    /// It is carried out, and the calling process is killed before it hears.
    DieAfter,
}

/// Counts one call of `function` and says what is to happen to it.
pub fn next(faults: &mut [Fault], function: &str, gpu: Option<usize>) -> Vec<Action> {
    let mut due = Vec::new();
    for fault in faults {
        let named = fault.function == "*" || fault.function == function;
        if named && (fault.gpu.is_none() || fault.gpu == gpu) {
            fault.seen += 1;
            if fault.seen == fault.nth || (fault.onwards && fault.seen > fault.nth) {
                due.push(fault.action);
            }
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(function: &str, nth: u64) -> Fault {
        Fault {
            function: function.to_owned(),
            gpu: None,
            nth,
            onwards: false,
            action: Action::Error(Code::GPU_IS_LOST),
            seen: 0,
        }
    }

    #[test]
    fn the_nth_call_and_no_other_fails() {
        let mut faults = [fault("nvmlInit_v2", 2)];
        let due = |faults: &mut [Fault]| next(faults, "nvmlInit_v2", None).len();
        assert!(next(&mut faults, "nvmlShutdown", None).is_empty());
        assert_eq!([due(&mut faults), due(&mut faults), due(&mut faults)], [0, 1, 0]);
    }

    #[test]
    fn onwards_goes_on_and_a_gpu_narrows() {
        let mut faults = [Fault { onwards: true, gpu: Some(1), ..fault("*", 1) }];
        assert!(next(&mut faults, "nvmlDeviceGetName", Some(0)).is_empty());
        assert_eq!(next(&mut faults, "nvmlDeviceGetName", Some(1)).len(), 1);
        assert_eq!(next(&mut faults, "nvmlDeviceGetUUID", Some(1)).len(), 1);
    }
}
