//! Durations in configuration files, written as people write them.

use crate::human_duration;
use serde::{Deserialize, Deserializer, Serializer, de};
use std::borrow::Cow;
use std::time::Duration;

pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&human_duration::format(*value))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = Cow::<'de, str>::deserialize(from)?;
    human_duration::parse("duration", &text).map_err(de::Error::custom)
}

/// The same for durations that may be absent.
pub(crate) mod optional {
    use super::{Cow, Deserialize, Deserializer, Duration, Serializer, de, human_duration};

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
        let text = Option::<Cow<'de, str>>::deserialize(from)?;
        text.map(|text| human_duration::parse("duration", &text).map_err(de::Error::custom))
            .transpose()
    }
}
