//! Durations in configuration files, written as people write them.

use crate::human_duration;
use serde::{Deserializer, Serializer, de};
use std::fmt;
use std::time::Duration;

struct AsPeopleWrite;

impl de::Visitor<'_> for AsPeopleWrite {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number and a unit such as 250ms, 1.5s or 5m, at most 365d")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        let refuse = |_| E::invalid_value(de::Unexpected::Str(text), &self);
        human_duration::parse("duration", text).map_err(refuse)
    }
}

pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&human_duration::format(*value))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(AsPeopleWrite)
}

/// The same for durations that may be absent.
pub(crate) mod optional {
    use super::{AsPeopleWrite, Deserializer, Duration, Serializer, de, fmt, human_duration};

    struct OrNone;

    impl<'de> de::Visitor<'de> for OrNone {
        type Value = Option<Duration>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            AsPeopleWrite.expecting(f)
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_str(AsPeopleWrite).map(Some)
        }
    }

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_some(&human_duration::format(*value)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        from.deserialize_option(OrNone)
    }
}
