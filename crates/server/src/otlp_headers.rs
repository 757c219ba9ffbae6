//! [`OtlpHeaders`]: what goes with every batch of spans, such as the key of a hosted collector.
//!
//! Written as OpenTelemetry writes them, `name=value,name=value`, with values in percent-encoding
//! where they hold a comma, a space or another character that is not plain. Values are secrets: they
//! are never shown, and no fault repeats one.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_ops::redact::REDACTED;

/// Headers at most: a collector needs a key and a tenant.
const COUNT_MAX: usize = 32;
/// Bytes of all of them at most: what servers commonly take as the head of a request.
const BYTES_MAX: usize = 8 << 10;
/// Headers that belong to the transport.
const RESERVED: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Headers by name; in the order of their names when they are shown.
#[derive(Clone, Default, PartialEq)]
pub struct OtlpHeaders(HeaderMap);

impl OtlpHeaders {
    /// Reads `name=value,name=value`; an empty text has none.
    ///
    /// # Errors
    /// Which one cannot be used and why; never its value.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("at most {BYTES_MAX} bytes"));
        }
        let mut headers = HeaderMap::new();
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        for (number, pair) in (1..).zip(pairs) {
            if number > COUNT_MAX {
                return Err(format!("at most {COUNT_MAX} headers"));
            }
            // What stands before a missing `=` may be a value.
            let (name, value) = pair.split_once('=').ok_or(format!("number {number} has no ="))?;
            let name = name.trim();
            let unusable = |why: &str| format!("number {number} {why}");
            let name = HeaderName::try_from(name)
                .map_err(|_| unusable("has a name that no header may have"))?;
            if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
                return Err(unusable("has a name that the transport sets itself"));
            }
            if name.as_str().ends_with("-bin") {
                return Err(unusable("has a name that is for bytes in gRPC; use one without -bin"));
            }
            let value = decoded(value.trim()).ok_or(unusable("has a % without two digits"))?;
            let mut value = HeaderValue::from_bytes(&value)
                .ok()
                .filter(|value| value.to_str().is_ok())
                .ok_or(unusable("has a value with characters that no header may have"))?;
            value.set_sensitive(true);
            if headers.insert(name, value).is_some() {
                return Err(unusable("has a name that another one has"));
            }
        }
        Ok(Self(headers))
    }

    /// The headers, with values that are marked as sensitive.
    #[must_use]
    pub fn map(&self) -> &HeaderMap {
        &self.0
    }
}

/// Without percent-encoding; nothing when that is broken.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let digits = part.get(..2).filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(part[2..].bytes());
    }
    Some(bytes)
}

/// The names alone.
impl fmt::Display for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<&str> = self.0.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        for (at, name) in names.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={REDACTED}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OtlpHeaders({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        let headers =
            OtlpHeaders::parse(" X-Key = hunter2== ,authorization=Basic%20aHVudGVyMg%3D%3D,,a=");
        let headers = headers.unwrap();
        assert_eq!(headers.map()["x-key"], "hunter2==");
        assert_eq!(headers.map()["authorization"], "Basic aHVudGVyMg==");
        assert_eq!(headers.map()["a"], "");
        let shown = "a=[redacted],authorization=[redacted],x-key=[redacted]";
        assert_eq!(headers.to_string(), shown);
        assert!(!format!("{headers:?}{:?}", headers.map()).contains("hunter2"));
        assert_eq!(OtlpHeaders::parse(""), Ok(OtlpHeaders::default()));
    }

    #[test]
    fn headers_that_cannot_be_sent_are_refused_without_their_values() {
        let many = (0..33).map(|n| format!("a{n}=hunter2")).collect::<Vec<_>>().join(",");
        let long = format!("a=hunter2{}", "x".repeat(BYTES_MAX));
        for (text, told) in [
            ("hunter2", "number 1 has no ="),
            ("a=1,hunter2", "number 2 has no ="),
            ("hunter2 x=1", "a name that no header"),
            ("=hunter2", "a name that no header"),
            ("grpc-timeout=hunter2", "the transport"),
            ("Content-Type=hunter2", "the transport"),
            ("key-bin=hunter2", "without -bin"),
            ("a=hunter2%2", "two digits"),
            ("a=hunter2%é", "two digits"),
            ("a=hunter2%0A", "characters that no header"),
            ("a=hunter2é", "characters that no header"),
            ("a=1,A=hunter2", "another one"),
            (&many, "at most 32"),
            (&long, "at most 8192"),
        ] {
            let refused = OtlpHeaders::parse(text).unwrap_err();
            assert!(refused.contains(told) && !refused.contains("hunter2"), "{text}: {refused}");
        }
    }
}
