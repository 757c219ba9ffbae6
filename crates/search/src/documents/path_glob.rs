//! [`PathGlob`]: path patterns as in ignore files and `rg -g`.
//!
//! `*` and `?` stay inside one part of the path, `**` crosses parts, `[a-z]` and `[!a-z]` are
//! classes, `{a,b}` are alternatives, `\` takes the next character literally. A pattern without `/`
//! meets the last part at any depth; one with `/` inside or in front is anchored at the beginning; one
//! that ends in `/` meets everything below that folder.
//!
//! A pattern becomes a regular expression, whose time is linear whatever the pattern. The literal
//! beginning is kept beside it: in a sorted dictionary it narrows the search to one range.

use regex::bytes::{Regex, RegexBuilder};

use crate::document::TITLE_BYTES_MAX;
use crate::request::SearchError;

/// The longest pattern, in bytes: no path is longer.
pub const GLOB_BYTES_MAX: usize = TITLE_BYTES_MAX;
/// The compiled pattern's memory: about 100 times what the longest literal path takes.
const COMPILED_BYTES_MAX: usize = 8 << 20;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct PathGlob {
    prefix: String,
    rest: Rest,
}

/// What must follow the literal beginning.
#[derive(Clone, Debug)]
enum Rest {
    Nothing,
    Anything,
    /// Anything that ends so; the pattern has no literal beginning.
    Ending(String),
    Pattern(Regex),
}

impl PathGlob {
    pub(super) fn new(glob: &str) -> Result<Self, SearchError> {
        let fault = |reason: &str| SearchError::query(format!("path pattern {reason}"));
        if glob.is_empty() {
            return Err(fault("is empty; * meets every path"));
        }
        if glob.len() > GLOB_BYTES_MAX {
            return Err(fault(&format!("has {} bytes, the bound is {GLOB_BYTES_MAX}", glob.len())));
        }
        let folder = glob.ends_with('/');
        let body = glob.strip_suffix('/').unwrap_or(glob);
        let anchored = body.contains('/');
        let body = body.strip_prefix('/').unwrap_or(body);
        let mut pattern = String::from(r"\A");
        if !anchored {
            pattern.push_str("(?:.*/)?");
        }
        translate(body, &mut pattern).map_err(|reason| fault(&reason))?;
        pattern.push_str(if folder { "/.+" } else { "" });
        pattern.push_str(r"\z");
        let (prefix, rest) = literal_parts(body, anchored, folder);
        let rest = match rest {
            Some(rest) => rest,
            None => Rest::Pattern(
                RegexBuilder::new(&pattern)
                    .dot_matches_new_line(true)
                    .size_limit(COMPILED_BYTES_MAX)
                    .build()
                    .map_err(|error| fault(&format!("\"{glob}\" is too large: {error}")))?,
            ),
        };
        Ok(Self { prefix, rest })
    }

    /// How every path that matches begins.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether every path that begins so matches.
    pub(super) fn is_prefix(&self) -> bool {
        matches!(self.rest, Rest::Anything)
    }

    /// The extension that all paths that match have and no others, where the pattern is of that
    /// kind: `*.rs`.
    pub(super) fn extension(&self) -> Option<&str> {
        let Rest::Ending(ending) = &self.rest else {
            return None;
        };
        ending.strip_prefix('.').filter(|rest| !rest.is_empty() && !rest.contains('.'))
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match &self.rest {
            Rest::Nothing => path == self.prefix.as_bytes(),
            Rest::Anything => path.starts_with(self.prefix.as_bytes()),
            Rest::Ending(ending) => path.ends_with(ending.as_bytes()),
            Rest::Pattern(regex) => regex.is_match(path),
        }
    }
}

/// The literal beginning, and the rest where it is simple.
fn literal_parts(body: &str, anchored: bool, folder: bool) -> (String, Option<Rest>) {
    let special = |text: &str| text.contains(['*', '?', '[', ']', '{', '}', '\\']);
    if !anchored {
        let ending = body.strip_prefix('*').filter(|rest| !special(rest) && !folder);
        return (String::new(), ending.map(|ending| Rest::Ending(ending.to_string())));
    }
    if !special(body) {
        return match folder {
            true => (format!("{body}/"), Some(Rest::Anything)),
            false => (body.to_string(), Some(Rest::Nothing)),
        };
    }
    if let Some(start) = body.strip_suffix("/**").filter(|start| !special(start) && !folder) {
        return (format!("{start}/"), Some(Rest::Anything));
    }
    if let Some(ending) = body.strip_prefix("**/*").filter(|ending| !special(ending) && !folder)
        && !ending.contains('/')
    {
        return (String::new(), Some(Rest::Ending(ending.to_string())));
    }
    let literal = body.find(['*', '?', '[', ']', '{', '}', '\\']).unwrap_or(body.len());
    // `a/**/b` also matches `a/b`: the slash before `**` belongs to the pattern.
    let literal = if body[literal..].starts_with("**") {
        body[..literal].trim_end_matches('/')
    } else {
        &body[..literal]
    };
    (literal.to_string(), None)
}

/// Appends the regular expression of a pattern without anchors.
fn translate(glob: &str, out: &mut String) -> Result<(), String> {
    let mut rest = glob;
    let mut depth = 0u32;
    while let Some(character) = rest.chars().next() {
        let at_part = rest.len() == glob.len() || glob[..glob.len() - rest.len()].ends_with('/');
        let after = &rest[character.len_utf8()..];
        rest = match character {
            '*' if at_part && rest.starts_with("**/") => {
                out.push_str("(?:.*/)?");
                &rest[3..]
            }
            '*' if at_part && rest == "**" => {
                out.push_str(".+");
                ""
            }
            '*' => {
                out.push_str("[^/]*");
                rest.trim_start_matches('*')
            }
            '?' => {
                out.push_str("[^/]");
                after
            }
            '[' => class(after, out)?,
            '{' => {
                depth += 1;
                out.push_str("(?:");
                after
            }
            '}' if depth > 0 => {
                depth -= 1;
                out.push(')');
                after
            }
            ',' if depth > 0 => {
                out.push('|');
                after
            }
            '\\' => {
                let next = after.chars().next().ok_or("ends in a single \\; write \\\\ for one")?;
                literal(next, out);
                &after[next.len_utf8()..]
            }
            character => {
                literal(character, out);
                after
            }
        };
    }
    if depth > 0 { Err("has a { without its }".to_string()) } else { Ok(()) }
}

fn literal(character: char, out: &mut String) {
    out.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
}

/// Translates what follows a `[` and answers what follows the class.
fn class<'a>(inside: &'a str, out: &mut String) -> Result<&'a str, String> {
    let negated = inside.starts_with(['!', '^']);
    let members = if negated { &inside[1..] } else { inside };
    // A `]` in front is a member.
    let close = members.char_indices().skip(1).find(|&(_, c)| c == ']').map(|(at, _)| at);
    let close = close.ok_or("has a [ without its ]; write \\[ for a bracket")?;
    let characters: Vec<char> = members[..close].chars().collect();
    out.push_str(if negated { "[^/" } else { "[" });
    let mut at = 0;
    let mut any = negated;
    while at < characters.len() {
        let first = characters[at];
        let last = match characters.get(at + 1..at + 3) {
            Some(&['-', last]) => {
                at += 2;
                last
            }
            _ => first,
        };
        at += 1;
        if first > last {
            return Err(format!("has the empty range {first}-{last}"));
        }
        literal(first, out);
        out.push('-');
        literal(last, out);
        any = true;
    }
    // A class never crosses parts, not even one such as [.-0] that spans the slash.
    out.push_str(if negated || !any { "]" } else { "&&[^/]]" });
    Ok(&members[close + 1..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        PathGlob::new(glob).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn patterns_mean_what_ignore_files_mean() {
        for (glob, hits, misses) in [
            ("*.rs", &["a.rs", "src/b.rs", ".rs"][..], &["a.rst", "rs", "a.rs/b"][..]),
            ("main.c", &["main.c", "x/y/main.c"], &["xmain.c", "main.cc"]),
            ("/main.c", &["main.c"], &["x/main.c"]),
            ("src/*.rs", &["src/a.rs"], &["src/x/a.rs", "y/src/a.rs"]),
            ("vendor/**", &["vendor/a", "vendor/a/b"], &["vendor", "x/vendor/a", "vendors/a"]),
            ("vendor/", &["vendor/a", "x/vendor/a/b"], &["vendor", "vendors/a"]),
            ("/vendor/", &["vendor/a"], &["x/vendor/a"]),
            ("a/vendor/", &["a/vendor/a"], &["x/a/vendor/a"]),
            ("**/test/**", &["test/a", "x/y/test/z/a"], &["test", "tests/a"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb"]),
            ("**/*.c", &["a.c", "x/a.c"], &["a.cc"]),
            ("a?c", &["abc", "x/aéc"], &["ac", "a/c"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "[x"]),
            ("[!a-c]x", &["dx"], &["ax", "/x"]),
            ("[]]x", &["]x"], &["ax"]),
            ("[.-0]x", &[".x", "0x"], &["-x", "1x"]),
            ("*.{c,h}", &["a.c", "b/a.h"], &["a.cc", "a."]),
            ("a\\*", &["a*"], &["ab"]),
            ("a,b", &["a,b"], &["a", "b"]),
            ("a(b|c).+", &["a(b|c).+"], &["ab"]),
            ("a**b", &["axb", "ab"], &["a/b"]),
            ("src/m*n.rs", &["src/main.rs"], &["src/x/main.rs"]),
        ] {
            hits.iter().for_each(|path| assert!(matches(glob, path), "{glob} misses {path}"));
            misses.iter().for_each(|path| assert!(!matches(glob, path), "{glob} hits {path}"));
        }
    }

    #[test]
    fn a_faulty_pattern_says_what_is_wrong() {
        for (glob, expected) in [
            ("", "path pattern is empty; * meets every path"),
            ("[a", "path pattern has a [ without its ]; write \\[ for a bracket"),
            ("a\\", "path pattern ends in a single \\; write \\\\ for one"),
            ("{a", "path pattern has a { without its }"),
            ("[z-a]", "path pattern has the empty range z-a"),
        ] {
            assert_eq!(PathGlob::new(glob).unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_an_error_or_answers_and_agrees_with_its_literal_beginning(
            glob in "[ab/*?{},\\\\\\[\\]!^-]{1,10}", path in "[ab/,-]{0,8}",
        ) {
            if let Ok(glob) = PathGlob::new(&glob)
                && glob.matches(path.as_bytes())
            {
                prop_assert!(path.starts_with(glob.prefix()), "{glob:?} {path}");
            }
        }
    }
}
