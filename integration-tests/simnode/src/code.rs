//! What the driver library answers: NVML's return codes, by number, name and text (`nvmlReturn_t` of nvml.h).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Everything but success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code(u32);

macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// Each code: its name without `NVML_ERROR_`, and itself.
            pub const ALL: &[(&str, Self)] = &[$((stringify!($name), Self($number)),)*];
        }

        /// What `nvmlErrorString` says, NUL included; an unknown number is an unknown error.
        pub fn text(number: u32) -> &'static str {
            match number {
                0 => "Success\0",
                $($number => concat!($text, "\0"),)*
                _ => "Unknown Error\0",
            }
        }
    };
}

codes! {
    UNINITIALIZED = 1, "Uninitialized";
    INVALID_ARGUMENT = 2, "Invalid Argument";
    NOT_SUPPORTED = 3, "Not Supported";
    NO_PERMISSION = 4, "Insufficient Permissions";
    ALREADY_INITIALIZED = 5, "Already Initialized";
    NOT_FOUND = 6, "Not Found";
    INSUFFICIENT_SIZE = 7, "Insufficient Size";
    INSUFFICIENT_POWER = 8, "Insufficient External Power";
    DRIVER_NOT_LOADED = 9, "Driver Not Loaded";
    TIMEOUT = 10, "Timeout";
    IRQ_ISSUE = 11, "Interrupt Request Issue";
    LIBRARY_NOT_FOUND = 12, "NVML Shared Library Not Found";
    FUNCTION_NOT_FOUND = 13, "Function Not Found";
    CORRUPTED_INFOROM = 14, "Corrupted infoROM";
    GPU_IS_LOST = 15, "GPU is lost";
    RESET_REQUIRED = 16, "GPU requires reset";
    OPERATING_SYSTEM = 17, "GPU access blocked by the operating system";
    LIB_RM_VERSION_MISMATCH = 18, "Driver/library version mismatch";
    IN_USE = 19, "In use by another client";
    MEMORY = 20, "Insufficient Memory";
    NO_DATA = 21, "No data";
    VGPU_ECC_NOT_SUPPORTED = 22, "ECC is not supported with vGPU";
    INSUFFICIENT_RESOURCES = 23, "Insufficient Resources";
    FREQ_NOT_SUPPORTED = 24, "Requested frequency is not supported";
    ARGUMENT_VERSION_MISMATCH = 25, "Argument version mismatch";
    DEPRECATED = 26, "The requested functionality has been deprecated";
    NOT_READY = 27, "The system is not ready for the request";
    GPU_NOT_FOUND = 28, "No GPUs were found";
    INVALID_STATE = 29, "Resource is not in a valid state to perform the operation";
    UNKNOWN = 999, "Unknown Error";
}

impl Code {
    /// As it stands in nvml.h.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Its name in nvml.h, without `NVML_ERROR_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, code)| *code == self).map_or("UNKNOWN", |(name, _)| name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// That is no name of a return code.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no NVML error; write its name as in nvml.h, such as GPU_IS_LOST")]
pub struct NoCode(String);

impl FromStr for Code {
    type Err = NoCode;

    fn from_str(text: &str) -> Result<Self, NoCode> {
        let name = text.strip_prefix("NVML_ERROR_").unwrap_or(text);
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, code)| *code).ok_or_else(|| NoCode(text.to_owned()))
    }
}

impl TryFrom<String> for Code {
    type Error = NoCode;

    fn try_from(text: String) -> Result<Self, NoCode> {
        text.parse()
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_name_and_has_a_text() {
        for (name, code) in Code::ALL {
            assert_eq!(name.parse::<Code>().expect("known"), *code);
            assert_eq!(format!("NVML_ERROR_{name}").parse::<Code>().expect("known"), *code);
            assert!(text(code.number()).ends_with('\0'));
        }
        assert!("BROKEN".parse::<Code>().is_err());
        assert_eq!(text(4711), "Unknown Error\0");
    }
}
