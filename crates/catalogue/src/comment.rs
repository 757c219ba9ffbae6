//! [`comment`]: whose work a statement does, written at its end, so that the database's own log and
//! its list of running statements name the request and the trace.
//!
//! The form is that of the specification of sqlcommenter: keys in order, values in percent-encoding
//! between single quotes. So no value can end its quotes or the comment.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mainstay_resilience::propagated_headers;

/// ` /*correlation_id='…',traceparent='…'*/` of the span that this thread is in; empty outside of one.
pub(crate) fn comment() -> String {
    let mut pairs = BTreeMap::new();
    propagated_headers(&mut |name, value| {
        let key = name.strip_prefix("x-").unwrap_or(name).replace('-', "_");
        pairs.insert(key, value.to_owned());
    });
    written(&pairs)
}

fn written(pairs: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        text.push_str(if text.is_empty() { " /*" } else { "," });
        let _ = write!(text, "{}='{}'", encoded(key), encoded(value));
    }
    if !text.is_empty() {
        text.push_str("*/");
    }
    text
}

/// Percent-encoding of all but the unreserved characters of RFC 3986, 2.3.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_order_and_no_value_ends_the_comment() {
        let pairs = [("tracestate", "a=1,b='*/; DROP TABLE x"), ("correlation_id", "abc-1")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(
            written(&BTreeMap::from(pairs)),
            " /*correlation_id='abc-1',tracestate='a%3D1%2Cb%3D%27%2A%2F%3B%20DROP%20TABLE%20x'*/"
        );
        assert_eq!(written(&BTreeMap::new()), "");
    }
}
