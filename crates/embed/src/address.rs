//! Addresses as people may see them: without login, query and fragment, which may be secrets.

/// What stands in place of what is not shown.
const HIDDEN: &str = "[redacted]";

/// The text with what stands before an `@`, and from a `?` or `#` on, replaced; behind `://` as a
/// whole where it cannot be told which is which. It rather hides too much.
pub(crate) fn shown(text: &str) -> String {
    let begin = text.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at(begin);
    match (rest.rfind('@'), rest.find(['?', '#'])) {
        (None, None) => text.to_owned(),
        (Some(at), None) => format!("{scheme}{HIDDEN}{}", &rest[at..]),
        (None, Some(end)) => format!("{scheme}{}{HIDDEN}", &rest[..=end]),
        (Some(at), Some(end)) if at < end => {
            format!("{scheme}{HIDDEN}{}{HIDDEN}", &rest[at..=end])
        }
        _ => format!("{scheme}{HIDDEN}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_hidden_and_nothing_else() {
        for (text, expected) in [
            ("http://h:1/v1", "http://h:1/v1"),
            ("http://u:p@h/v1", "http://[redacted]@h/v1"),
            ("http://u:p/@q@h/v1", "http://[redacted]@h/v1"),
            ("http://u:p?q@h/v1", "http://[redacted]"),
            ("http://h/v1?key=p@q", "http://[redacted]"),
            ("http://u:p@h/v1?key=k", "http://[redacted]@h/v1?[redacted]"),
            ("http://h/v1#k", "http://h/v1#[redacted]"),
            ("u:p@h", "[redacted]@h"),
            ("minilm", "minilm"),
            ("://@", "://[redacted]@"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
