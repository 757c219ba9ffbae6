//! Secrets out of texts and values that people or logs get to see.
//!
//! It errs on the side of hiding: what stands behind a name that sounds like a secret is replaced,
//! whatever it is.

use std::borrow::Cow;

use serde_json::Value;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Parts of a name that make what it names a secret.
const SECRET_WORDS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "authorization",
    "credential",
    "private_key",
];
/// For each letter that one of those words begins with the letters that follow, a bit each from `a` on.
const SECOND_LETTERS: [u32; 26] = {
    let (mut letters, mut at) = ([0; 26], 0);
    while at < SECRET_WORDS.len() {
        let word = SECRET_WORDS[at].as_bytes();
        letters[(word[0] - b'a') as usize] |= 1 << (word[1] - b'a');
        at += 1;
    }
    letters
};
/// Parameters of an address (`?key=…`) that are secrets, beside those of secret names: their names
/// mean something else anywhere else.
const SECRET_PARAMETERS: [&str; 6] = ["key", "sig", "signature", "auth", "code", "pass"];
/// Values are replaced down to this depth; what lies deeper is replaced as a whole.
const DEPTH_MAX: usize = 32;

/// Whether `name` names a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.as_bytes();
    // By first letters, without a copy: the fields of each span and event are asked about.
    let begins = |at: usize| {
        let letter = |at: usize| name.get(at).map(|it| it.to_ascii_lowercase().wrapping_sub(b'a'));
        let (Some(first @ 0..26), Some(second @ 0..26)) = (letter(at), letter(at + 1)) else {
            return false;
        };
        SECOND_LETTERS[usize::from(first)] & 1 << second != 0
            && SECRET_WORDS.iter().any(|word| {
                let found = name.get(at..at + word.len());
                found.is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes()))
            })
    };
    (0..name.len()).any(begins)
        || [b"pwd", b"dsn"].iter().any(|word| name.eq_ignore_ascii_case(*word))
}

/// The text with passwords in addresses (`postgres://user:…@host`), values of secret names
/// (`password=…`, `token: …`) and bearer or basic credentials replaced.
#[must_use]
pub fn redact(text: &str) -> String {
    redacted(text).into_owned()
}

/// The same, without a copy where nothing can be a secret.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    if may_hold_secret(text) { Cow::Owned(hide_named(&redact_logins(text))) } else { text.into() }
}

/// Whether something in the text could stand between a name, or the end of `Bearer` or `Basic`, and a
/// secret; nearly every text of a span has nothing of it.
fn may_hold_secret(text: &str) -> bool {
    let mut before = 0;
    text.bytes().any(|byte| {
        let scheme_may_end = matches!(before, b'r' | b'R' | b'c' | b'C');
        before = byte;
        match byte {
            b'=' | b':' => true,
            b' ' | b'"' | b'\'' => scheme_may_end,
            _ => false,
        }
    })
}

/// Whether the text holds a password or a token: in the login of an address, where a name alone is
/// none except towards HTTP, or behind a secret name.
#[must_use]
pub fn holds_secret(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, after) = (&rest[..at], &rest[at + 3..]);
        if let Some(login) = login_bytes(after) {
            let password = after[..login].split_once(':').is_some_and(|(_, word)| !word.is_empty());
            let http = scheme.ends_with("http") || scheme.ends_with("https");
            if password || http && login > 0 {
                return true;
            }
        }
        rest = after;
    }
    hide_named(text) != text
}

/// Where the login ends, of what follows `scheme://`.
fn login_bytes(after: &str) -> Option<usize> {
    let end = after
        .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\''))
        .unwrap_or(after.len());
    // A password may hold an unescaped '/', so the login ends at the last '@' of the word.
    let word = after.find(char::is_whitespace).unwrap_or(after.len());
    after[..end].rfind('@').or_else(|| {
        let colon = after[..end].contains(':');
        after[..word].rfind('@').filter(|_| colon)
    })
}

/// The text with what stands before the `@` in addresses (`scheme://user:password@host`) replaced,
/// and nothing else: for what people write to people, where words such as `token:` are no secrets.
#[must_use]
pub fn redact_logins(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        rest = match login_bytes(after) {
            Some(login) => {
                shown.push_str(REDACTED);
                &after[login..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    shown
}

/// The value behind a secret name and `=` or `:`, and behind `Bearer` and `Basic`.
fn hide_named(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((name, after)) = next_word(rest) {
        let with_name = &rest[..rest.len() - after.len()];
        shown.push_str(with_name);
        rest = after;
        let scheme = name.eq_ignore_ascii_case("bearer") || name.eq_ignore_ascii_case("basic");
        // Most words have nothing behind them that could be a value, whatever they name.
        let gap = gap_bytes(after, scheme);
        if gap == 0 {
            continue;
        }
        let before = &with_name[..with_name.len() - name.len()];
        let parameter = before.ends_with(['?', '&'])
            && after.starts_with('=')
            && SECRET_PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known));
        if !(scheme || parameter || is_secret_name(name)) {
            continue;
        }
        let (between, value) = after.split_at(gap);
        let length = value_bytes(value);
        // "Authorization: Bearer x": the scheme stands for itself, its credential follows.
        let is_scheme = ["bearer", "basic"].iter().any(|s| value[..length].eq_ignore_ascii_case(s));
        if length == 0 || is_scheme || value.starts_with(REDACTED) {
            continue;
        }
        shown.push_str(between);
        shown.push_str(REDACTED);
        rest = &value[length..];
    }
    shown.push_str(rest);
    shown
}

/// The next run of letters, digits, `_` and `-`, and what follows it.
fn next_word(text: &str) -> Option<(&str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let begin = text.find(is_word)?;
    let word = &text[begin..];
    let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
    Some((&word[..end], &word[end..]))
}

/// How many bytes of quotes, spaces and one `=` or `:` stand between a name and its value.
fn gap_bytes(after: &str, spaces_alone: bool) -> usize {
    let gap = after.bytes().take_while(|b| matches!(b, b' ' | b'"' | b'\'' | b'=' | b':')).count();
    let named = after[..gap].contains(['=', ':']);
    if named || spaces_alone { gap } else { 0 }
}

fn value_bytes(value: &str) -> usize {
    value
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '}' | ')'))
        .unwrap_or(value.len())
}

/// The value with everything below a secret name replaced, and every text passed through
/// [`redact`].
#[must_use]
pub fn redact_value(value: &Value) -> Value {
    redact_within(value, DEPTH_MAX)
}

fn redact_within(value: &Value, depth: usize) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) if depth == 0 => Value::String(REDACTED.to_owned()),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    let hidden = is_secret_name(name) && !value.is_null();
                    let shown = if hidden {
                        Value::String(REDACTED.to_owned())
                    } else {
                        redact_within(value, depth - 1)
                    };
                    (name.clone(), shown)
                })
                .collect(),
        ),
        Value::Array(values) => {
            Value::Array(values.iter().map(|value| redact_within(value, depth - 1)).collect())
        }
        Value::String(text) => Value::String(redact(text)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_form_of_a_secret_survives() {
        for text in [
            "connect postgres://admin:hunter2@db:5432/x: refused",
            "connect postgres://admin:hun/hunter2@db: refused",
            "password=hunter2 host=db",
            "header Authorization: Bearer hunter2",
            "header authorization: basic hunter2, next",
            "{\"api_key\":\"hunter2\",\"a\":1}",
            "OPENAI_API_KEY=hunter2",
            "x-api-key: hunter2",
            "redis_password = 'hunter2'",
            "remote:https://host/v1?key=hunter2,m,3",
            "https://host/v1?a=1&Sig=hunter2&b=2",
            "bearer\"hunter2\"",
            "Basic'hunter2'",
        ] {
            let shown = redact(text);
            assert!(!shown.contains("hunter2") && shown.contains(REDACTED), "{shown}");
        }
    }

    #[test]
    fn an_address_with_a_name_alone_holds_no_secret() {
        for text in [
            "postgres://ada:hunter2@db/x",
            "redis://:hunter2@db",
            "remote:https://u:hunter2@host/v1,m,3",
            "https://hunter2@host",
            "postgres://ada@db/x?password=hunter2",
        ] {
            assert!(holds_secret(text), "{text}");
        }
        for text in ["postgres://ada@db:5432/x", "redis://db:6379/0", "remote:http://h:1/v1,m,3"] {
            assert!(!holds_secret(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_was() {
        for text in [
            "http://db:5432/path?x=1",
            "5 tokens left",
            "state: open, next probe in 3 s",
            "é: ü",
            "incident key=slo",
            "a code: 3",
        ] {
            assert_eq!(redact(text), text);
        }
        let told = "at http://u:hunter2@host: send `Authorization: Bearer KEY`";
        assert_eq!(redact_logins(told), told.replace("u:hunter2", REDACTED));
    }

    #[test]
    fn values_are_hidden_by_their_names_at_every_depth() {
        let shown = redact_value(&json!({
            "a": [{ "token": { "x": "hunter2" } }], "b": "pwd=hunter2", "limit": 3
        }));
        assert_eq!(
            shown,
            json!({ "a": [{ "token": REDACTED }], "b": format!("pwd={REDACTED}"), "limit": 3 })
        );
    }

    proptest::proptest! {
        #[test]
        fn a_text_that_is_passed_over_has_nothing_to_hide(
            text in "(bearer|Basic|BEARER|basiC|token|password|[ =:\"']|[a-z0-9é/@?&{}._-]){0,6}"
        ) {
            proptest::prop_assert_eq!(redact(&text), hide_named(&redact_logins(&text)));
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        for text in ["://@", "password", "password=", "token:\"", "a://b@", "bearer", "ß=://é@ü"]
        {
            let _ = redact(text);
        }
    }
}
