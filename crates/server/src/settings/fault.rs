//! [`SettingFault`]: what is wrong with a setting, where, and what to write instead.

use std::fmt;

use super::source::Origin;

/// A fault of one source.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingFault {
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl SettingFault {
    /// A name that is not in the table; `nearest` is how the nearest one is written there.
    pub(super) fn unknown(origin: Origin, message: &str, nearest: Option<String>) -> Self {
        let hint = match nearest {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "`mainstay config show` lists all".to_string(),
        };
        Self { origin, message: format!("{message}; {hint}") }
    }
}

impl fmt::Display for SettingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

impl std::error::Error for SettingFault {}
