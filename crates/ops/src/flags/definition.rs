//! Flags as people write them, and what is allowed.

use super::Definitions;
use crate::store::StateError;
use crate::wall_clock::parse_rfc3339;
use mainstay_resilience::ConfigError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Bytes of a flag's, variant's or attribute's name.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of a text value or a user's name.
const TEXT_BYTES_MAX: usize = 1_024;
/// Variants of one flag: an experiment has a handful.
const VARIANTS_MAX: usize = 32;
/// Rules of one flag: they are tried one after the other.
const RULES_MAX: usize = 64;
/// Values of one condition of a rule; longer lists belong into an attribute.
const VALUES_MAX: usize = 10_000;
/// Flags that one flag may require.
const REQUIRES_MAX: usize = 8;

/// One value of a flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlagValue {
    /// On or off.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    String(#[serde(with = "text")] Arc<str>),
}

impl FlagValue {
    const fn kind(&self) -> &'static str {
        match self {
            FlagValue::Bool(_) => "bool",
            FlagValue::Int(_) | FlagValue::Float(_) => "number",
            FlagValue::String(_) => "string",
        }
    }
}

mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(value: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}

/// Who gets which variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Conditions that must all hold: an attribute (`user` is the user) and its possible values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub when: BTreeMap<String, Vec<String>>,
    /// The share of users, 0 to 100 (default 100), in steps of 0.001. A user who is in at 10 is in
    /// at 20. A subject without a user is in at 100 only.
    #[serde(default = "everybody", skip_serializing_if = "is_everybody")]
    pub percent: f64,
    /// What they get.
    pub variant: String,
}

fn everybody() -> f64 {
    100.0
}

fn is_everybody(percent: &f64) -> bool {
    *percent >= 100.0
}

/// A flag that must stand as required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The flag.
    pub flag: String,
    /// The variant that it must give for the same subject.
    pub variant: String,
}

/// A flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// False (default true) gives `off` to everybody.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Values by name, all of one type, 1 to 32.
    pub variants: BTreeMap<String, FlagValue>,
    /// The variant for whom no rule matches.
    pub default: String,
    /// The variant while it is disabled, outside its schedule or missing a requirement.
    pub off: String,
    /// The first rule that matches decides; up to 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Flags that must stand as required, up to 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// When it begins, RFC 3339; absent: it has always been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When it is over, RFC 3339; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

fn yes() -> bool {
    true
}

impl Definition {
    /// A flag with the variants `on` and `off`; everybody gets the one named by `on`.
    #[must_use]
    pub fn switch(description: &str, on: bool) -> Self {
        let variants = [("on", true), ("off", false)];
        let variants = variants.map(|(name, value)| (name.to_owned(), FlagValue::Bool(value)));
        Definition {
            description: description.to_owned(),
            enabled: true,
            variants: variants.into_iter().collect(),
            default: if on { "on" } else { "off" }.to_owned(),
            off: "off".to_owned(),
            rules: Vec::new(),
            requires: Vec::new(),
            from: None,
            until: None,
        }
    }

    /// The type of its values, for messages.
    pub(super) fn kind(&self) -> &'static str {
        self.variants.values().next().map_or("none", FlagValue::kind)
    }

    /// Checks everything that concerns this flag alone.
    pub(super) fn validate(&self, name: &str) -> Result<(), ConfigError> {
        let at = |field: &str| format!("flags.{name}.{field}");
        check_name("flags", name)?;
        check_count(&at("variants"), self.variants.len(), 1, VARIANTS_MAX)?;
        for (variant, value) in &self.variants {
            let field = at(&format!("variants.{variant}"));
            check_name(&at("variants"), variant)?;
            if value.kind() != self.kind() {
                let allowed = format!("a {} as the others", self.kind());
                return Err(ConfigError::new(field, format!("a {}", value.kind()), allowed));
            }
            match value {
                FlagValue::Float(value) if !value.is_finite() => {
                    return Err(ConfigError::new(field, value, "a finite number"));
                }
                FlagValue::String(value) => check_text(&field, value)?,
                _ => {}
            }
        }
        check_text(&at("description"), &self.description)?;
        self.check_variant(&at("default"), &self.default)?;
        self.check_variant(&at("off"), &self.off)?;
        check_count(&at("rules"), self.rules.len(), 0, RULES_MAX)?;
        for (n, rule) in self.rules.iter().enumerate() {
            self.check_rule(&at(&format!("rules[{n}]")), rule)?;
        }
        check_count(&at("requires"), self.requires.len(), 0, REQUIRES_MAX)?;
        let (from, until) = self.schedule(name)?;
        if from >= until {
            let shown = self.until.clone().unwrap_or_default();
            return Err(ConfigError::new(at("until"), shown, "a time after from"));
        }
        Ok(())
    }

    /// Beginning and end in milliseconds since 1970.
    pub(super) fn schedule(&self, name: &str) -> Result<(u64, u64), ConfigError> {
        let read = |field: &str, text: &Option<String>, absent: u64| match text {
            None => Ok(absent),
            Some(text) => parse_rfc3339(text).ok_or_else(|| {
                let allowed = "a time such as 2026-11-21T06:00:00Z";
                ConfigError::new(format!("flags.{name}.{field}"), format!("{text:?}"), allowed)
            }),
        };
        Ok((read("from", &self.from, 0)?, read("until", &self.until, u64::MAX)?))
    }

    fn check_rule(&self, at: &str, rule: &Rule) -> Result<(), ConfigError> {
        if !(0.0..=100.0).contains(&rule.percent) {
            return Err(ConfigError::new(format!("{at}.percent"), rule.percent, "0 to 100"));
        }
        self.check_variant(&format!("{at}.variant"), &rule.variant)?;
        check_count(&format!("{at}.when"), rule.when.len(), 0, VARIANTS_MAX)?;
        for (attribute, values) in &rule.when {
            let field = format!("{at}.when.{attribute}");
            check_name(&format!("{at}.when"), attribute)?;
            check_count(&field, values.len(), 1, VALUES_MAX)?;
            for value in values {
                check_text(&field, value)?;
            }
        }
        Ok(())
    }

    fn check_variant(&self, field: &str, variant: &str) -> Result<(), ConfigError> {
        if self.variants.contains_key(variant) {
            return Ok(());
        }
        let known: Vec<&str> = self.variants.keys().map(String::as_str).collect();
        Err(ConfigError::new(field, format!("{variant:?}"), format!("one of {}", known.join(", "))))
    }
}

fn check_name(field: &str, name: &str) -> Result<(), ConfigError> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(letter) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    let allowed = "a name of 1 to 64 of the letters a to z, digits, '-', '_' and '.'";
    Err(ConfigError::new(field, format!("{shown:?}"), allowed))
}

fn check_text(field: &str, text: &str) -> Result<(), ConfigError> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let shown = format!("a text of {} bytes", text.len());
    Err(ConfigError::new(field, shown, format!("at most {TEXT_BYTES_MAX}")))
}

fn check_count(field: &str, count: usize, min: usize, max: usize) -> Result<(), ConfigError> {
    if (min..=max).contains(&count) {
        return Ok(());
    }
    Err(ConfigError::new(field, format!("{count} entries"), format!("{min} to {max}")))
}

/// Reads definitions from JSON: an object of flags by name.
///
/// # Errors
/// It is no such object; the error names the flag and the field.
pub fn parse(text: &str) -> Result<Definitions, FlagError> {
    let unreadable = |name: &str, error: serde_json::Error| FlagError::Unreadable {
        name: name.to_owned(),
        reason: error.to_string(),
    };
    let values: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| unreadable("*", error))?;
    let read = |(name, value): (String, serde_json::Value)| {
        let definition = serde_json::from_value(value).map_err(|error| unreadable(&name, error))?;
        Ok((name, definition))
    };
    values.into_iter().map(read).collect()
}

/// Why a change to flags was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum FlagError {
    /// A field is not allowed; the error names flag, field, value and range.
    Invalid(ConfigError),
    /// A definition cannot be read.
    Unreadable {
        /// The flag; `*` when it is the whole text.
        name: String,
        /// What is wrong and where.
        reason: String,
    },
    /// Flags require each other in a circle.
    Cycle {
        /// The flags of the circle, the first one again at the end.
        flags: Vec<String>,
    },
    /// There is no such flag.
    NotFound {
        /// The flag.
        name: String,
    },
    /// The state could not be read or saved.
    State(StateError),
}

impl fmt::Display for FlagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlagError::Invalid(error) => write!(f, "{error}"),
            FlagError::Unreadable { name, reason } => write!(f, "flags.{name}: {reason}"),
            FlagError::Cycle { flags } => {
                let circle = flags.join(" → ");
                write!(f, "flags require each other in a circle: {circle}; remove one of them")
            }
            FlagError::NotFound { name } => {
                write!(f, "flag {name} is not defined or not overridden; list the flags for names")
            }
            FlagError::State(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for FlagError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FlagError::Invalid(error) => Some(error),
            FlagError::State(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for FlagError {
    fn from(error: ConfigError) -> Self {
        FlagError::Invalid(error)
    }
}

impl From<StateError> for FlagError {
    fn from(error: StateError) -> Self {
        FlagError::State(error)
    }
}
