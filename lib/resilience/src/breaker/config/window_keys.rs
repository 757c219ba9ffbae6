//! A breaker's window as it stands in files: its keys side by side, read one by one so that an error
//! has the key's whole path; then those of another kind are refused.

use super::{Window, slices_default};
use std::time::Duration;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowKeys {
    kind: Kind,
    calls: Option<u32>,
    #[serde(default, with = "crate::serde_duration::optional")]
    length: Option<Duration>,
    slices: Option<u32>,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    None,
    Count,
    Time,
}

impl TryFrom<WindowKeys> for Window {
    /// In serde's words, as if each kind were a table of its own.
    type Error = String;

    fn try_from(keys: WindowKeys) -> Result<Self, String> {
        let refuse = |is_there: bool, name: &str, expected: &str| match is_there {
            true => Err(format!("unknown field `{name}`, expected {expected}")),
            false => Ok(()),
        };
        let missing = |name: &str| format!("missing field `{name}`");
        match keys.kind {
            Kind::None => {
                for (name, is_there) in [
                    ("calls", keys.calls.is_some()),
                    ("length", keys.length.is_some()),
                    ("slices", keys.slices.is_some()),
                ] {
                    refuse(is_there, name, "no key beside `kind` for the kind `none`")?;
                }
                Ok(Window::None)
            }
            Kind::Count => {
                let expected = "only `calls` beside `kind` for the kind `count`";
                refuse(keys.length.is_some(), "length", expected)?;
                refuse(keys.slices.is_some(), "slices", expected)?;
                Ok(Window::Count { calls: keys.calls.ok_or_else(|| missing("calls"))? })
            }
            Kind::Time => {
                let expected = "only `length` and `slices` beside `kind` for the kind `time`";
                refuse(keys.calls.is_some(), "calls", expected)?;
                let length = keys.length.ok_or_else(|| missing("length"))?;
                Ok(Window::Time { length, slices: keys.slices.unwrap_or_else(slices_default) })
            }
        }
    }
}
