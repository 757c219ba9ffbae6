//! Who asks for a flag, and what comes out.

use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

/// Who a flag is evaluated for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The user or API key: decides which side of a percentage it is on, the same in every process.
    pub user: Option<&'a str>,
    /// Further properties, such as the collection, for rules that name them.
    pub attributes: &'a [(&'a str, &'a str)],
}

impl<'a> Subject<'a> {
    /// A user of whom nothing else is known.
    #[must_use]
    pub const fn user(user: &'a str) -> Self {
        Subject { user: Some(user), attributes: &[] }
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        if name == "user" {
            return self.user;
        }
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// Why a value is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The flag has one value for everybody.
    Static,
    /// No rule matched.
    Default,
    /// A rule names the subject.
    TargetingMatch,
    /// A percentage holds the subject.
    Split,
    /// The flag is switched off.
    Disabled,
    /// It is not yet or no longer its time.
    Schedule,
    /// A flag that it requires stands otherwise.
    Requirement,
    /// The caller's default, because of an error.
    Error,
}

/// Why an evaluation gave the caller's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// No flag of this name is defined.
    FlagNotFound,
    /// The flag's values are of another type.
    TypeMismatch,
}

/// What an evaluation gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation<T> {
    /// The value to go by.
    pub value: T,
    /// The variant it came from; nothing when it is the caller's default.
    #[serde(serialize_with = "as_text")]
    pub variant: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
    /// What went wrong, if something did.
    pub error: Option<ErrorCode>,
}

fn as_text<S: Serializer>(variant: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    variant.as_deref().serialize(to)
}

impl<T> Evaluation<T> {
    pub(super) fn failed(default: T, error: ErrorCode) -> Self {
        let code = match error {
            ErrorCode::FlagNotFound => "flag_not_found",
            ErrorCode::TypeMismatch => "type_mismatch",
        };
        metrics::counter!("mainstay_flag_errors_total", "code" => code).increment(1);
        Evaluation { value: default, variant: None, reason: Reason::Error, error: Some(error) }
    }
}
