//! Filters as people type them: `language:rust price>=10 -path:vendor/** (tags:red OR tags:blue)`.
//!
//! ```text
//! any   = all { "OR" all }
//! all   = one { [ "AND" ] one }
//! one   = ( "-" | "NOT" ) one | "(" any ")" | field test
//! test  = ":" value { "," value }     one of these; `*` alone: any value
//!       | ":" [ low ] ".." [ high ]   between, both ends included
//!       | "=" value | "!=" value | ">" value | ">=" value | "<" value | "<=" value
//! ```
//!
//! Names and values end at a blank, a parenthesis or (values) a comma; within `"…"` everything
//! counts, `\"` is a quote and `\\` a backslash. What is quoted is text. What is not is text and,
//! where it reads so, also a number, a date or a truth value: `year:2024` finds the number and the
//! string. A plain date is the whole day: `date<=2024-01-31` includes its evening. `path:` takes a
//! pattern as in ignore files.

use std::ops::Bound;

use super::date;
use super::field::BuiltIn;
use super::filter::{FILTER_DEPTH_MAX, Filter};
use super::path_glob::PathGlob;
use crate::document::Value;
use crate::request::{QUERY_BYTES_MAX, SearchError};

impl Filter {
    /// Reads the text form. Faults name the byte at which they stand. Text without any condition is
    /// the filter that lets every document pass. Field names are looked up when the filter is used.
    pub fn parse(text: &str) -> Result<Self, SearchError> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(SearchError::Bound {
                message: format!(
                    "the filter has {} bytes, the bound is {QUERY_BYTES_MAX}; shorten it",
                    text.len()
                ),
            });
        }
        let mut parser = Parser { text, at: 0 };
        parser.blanks();
        if parser.rest().is_empty() {
            return Ok(Self::All(Vec::new()));
        }
        let filter = parser.any(1)?;
        match parser.rest().chars().next() {
            None => Ok(filter),
            Some(_) => Err(parser.fault(parser.at, "there is a ) without its (")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// A value as written.
struct Literal {
    text: String,
    quoted: bool,
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Parser<'_> {
    fn fault(&self, at: usize, message: impl Into<String>) -> SearchError {
        SearchError::Query { message: format!("filter: {}", message.into()), position: Some(at) }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Takes `OR`, `AND` or `NOT` where it stands as a word of its own.
    fn keyword(&mut self, word: &str) -> bool {
        let ends = |rest: &str| {
            rest.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')'))
        };
        let found = self.rest().strip_prefix(word).is_some_and(ends);
        if found {
            self.at += word.len();
            self.blanks();
        }
        found
    }

    fn any(&mut self, level: usize) -> Result<Filter, SearchError> {
        let mut filters = vec![self.all(level)?];
        while self.keyword("OR") {
            filters.push(self.all(level)?);
        }
        Ok(single(filters, Filter::Any))
    }

    fn all(&mut self, level: usize) -> Result<Filter, SearchError> {
        let mut filters = vec![self.one(level)?];
        loop {
            let joined = self.keyword("AND");
            let rest = self.rest();
            let over = rest.is_empty() || rest.starts_with(')') || Parser { ..*self }.keyword("OR");
            if over && !joined {
                return Ok(single(filters, Filter::All));
            }
            filters.push(self.one(level)?);
        }
    }

    fn one(&mut self, level: usize) -> Result<Filter, SearchError> {
        if level > FILTER_DEPTH_MAX {
            return Err(
                self.fault(self.at, format!("nested deeper than {FILTER_DEPTH_MAX} levels"))
            );
        }
        let start = self.at;
        let filter = if self.take("-") || self.keyword("NOT") {
            Filter::Not(Box::new(self.one(level + 1)?))
        } else if self.take("(") {
            self.blanks();
            let inner = self.any(level + 1)?;
            if !self.take(")") {
                return Err(self.fault(start, "this ( has no )"));
            }
            inner
        } else {
            self.condition()?
        };
        self.blanks();
        Ok(filter)
    }

    fn condition(&mut self) -> Result<Filter, SearchError> {
        let start = self.at;
        let field = self.name()?;
        let Some(operator) = self.operator() else {
            let message = if field.is_empty() {
                "expected a condition such as language:rust".to_string()
            } else {
                format!("\"{field}\" needs a test such as {field}:value or {field}>=10")
            };
            return Err(self.fault(start, message));
        };
        if field.is_empty() {
            return Err(self.fault(start, "a test needs a field in front, such as language:rust"));
        }
        if operator != Operator::Is {
            let literal = self.value(&[])?;
            return self.compared(field, operator, &literal);
        }
        if field == BuiltIn::Path.name() {
            return self.paths();
        }
        let mut values = vec![self.value(&[','])?];
        while self.take(",") {
            values.push(self.value(&[','])?);
        }
        if let [only] = values.as_slice()
            && !only.quoted
        {
            if only.text == "*" {
                return Ok(Filter::Exists { field });
            }
            if let Some((low, high)) = only.text.split_once("..") {
                return self.range(field, low, high, only.at);
            }
        }
        let mut choices = Vec::new();
        for literal in &values {
            choices.extend(self.equal_to(&field, literal)?);
        }
        Ok(single(choices, Filter::Any))
    }

    fn name(&mut self) -> Result<String, SearchError> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let ends = |c: char| {
            c.is_whitespace() || matches!(c, ':' | '<' | '>' | '=' | '!' | '(' | ')' | '"')
        };
        let length = self.rest().find(ends).unwrap_or(self.rest().len());
        let name = self.rest()[..length].to_string();
        self.at += length;
        Ok(name)
    }

    fn operator(&mut self) -> Option<Operator> {
        const OPERATORS: [(&str, Operator); 8] = [
            (">=", Operator::AtLeast),
            ("<=", Operator::AtMost),
            ("!=", Operator::IsNot),
            (">", Operator::Above),
            ("<", Operator::Below),
            ("==", Operator::Is),
            ("=", Operator::Is),
            (":", Operator::Is),
        ];
        let first = OPERATORS.iter().find(|(token, _)| self.take(token))?;
        if first.0 == ":" {
            // `price:>=10` is how some other tools write `price>=10`.
            let comparison = OPERATORS[..5].iter().find(|(token, _)| self.take(token));
            return Some(comparison.map_or(Operator::Is, |(_, operator)| *operator));
        }
        Some(first.1)
    }

    fn value(&mut self, stops: &[char]) -> Result<Literal, SearchError> {
        let at = self.at;
        if self.rest().starts_with('"') {
            let text = self.quoted()?;
            return Ok(Literal { text, quoted: true, at });
        }
        let mut braces = 0u32;
        let ends = |c: char| {
            match c {
                '{' => braces += 1,
                '}' => braces = braces.saturating_sub(1),
                _ => {}
            }
            c.is_whitespace() || matches!(c, '(' | ')' | '"') || braces == 0 && stops.contains(&c)
        };
        let length = self.rest().find(ends).unwrap_or(self.rest().len());
        let text = self.rest()[..length].to_string();
        self.at += length;
        match self.rest().chars().next() {
            _ if text.is_empty() => {
                Err(self.fault(at, "a value is missing; write \"\" for empty text"))
            }
            Some('(' | '"') => {
                Err(self.fault(self.at, "put a value with parentheses or quotes in quotes"))
            }
            _ => Ok(Literal { text, quoted: false, at }),
        }
    }

    fn quoted(&mut self) -> Result<String, SearchError> {
        let start = self.at;
        let mut text = String::new();
        let mut characters = self.text[start + 1..].char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.at = start + 1 + at + 1;
                    return Ok(text);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    Some((_, other)) => text.extend(['\\', other]),
                    None => break,
                },
                other => text.push(other),
            }
        }
        Err(self.fault(start, "this quote is never closed"))
    }

    fn paths(&mut self) -> Result<Filter, SearchError> {
        let mut globs = Vec::new();
        loop {
            let literal = self.value(&[','])?;
            globs.push(match literal.text.as_str() {
                "*" if !literal.quoted => {
                    Filter::Exists { field: BuiltIn::Path.name().to_string() }
                }
                _ => {
                    let fault = |error: SearchError| self.fault(literal.at, error.to_string());
                    PathGlob::new(&literal.text).map_err(fault)?;
                    Filter::Path { glob: literal.text }
                }
            });
            if !self.take(",") {
                return Ok(single(globs, Filter::Any));
            }
        }
    }

    /// Every reading of a value, as conditions of equality.
    fn equal_to(&self, field: &str, literal: &Literal) -> Result<Vec<Filter>, SearchError> {
        let equals = |value: Value| Filter::Equals { field: field.to_string(), value };
        match built_in(field) {
            Some(BuiltIn::Size | BuiltIn::Depth) => {
                return self.number(field, literal).map(|number| vec![equals(number)]);
            }
            Some(_) => return Ok(vec![equals(Value::String(literal.text.clone()))]),
            None => {}
        }
        let mut readings = vec![equals(Value::String(literal.text.clone()))];
        if literal.quoted {
            return Ok(readings);
        }
        readings.extend(number(&literal.text).map(&equals));
        match literal.text.as_str() {
            "true" => readings.push(equals(Value::Boolean(true))),
            "false" => readings.push(equals(Value::Boolean(false))),
            _ => {}
        }
        if let Some(span) = date::parse(&literal.text) {
            readings.push(Filter::Range {
                field: field.to_string(),
                from: Bound::Included(Value::Date(span.start_ms)),
                to: Bound::Excluded(Value::Date(span.end_ms)),
            });
        }
        Ok(readings)
    }

    fn compared(
        &self,
        field: String,
        operator: Operator,
        literal: &Literal,
    ) -> Result<Filter, SearchError> {
        if operator == Operator::IsNot {
            let equal = single(self.equal_to(&field, literal)?, Filter::Any);
            return Ok(Filter::Not(Box::new(equal)));
        }
        let (first, last) = self.ends(&field, literal)?;
        let (from, to) = match operator {
            Operator::AtLeast => (Bound::Included(first), Bound::Unbounded),
            Operator::Below => (Bound::Unbounded, Bound::Excluded(first)),
            Operator::AtMost => (Bound::Unbounded, Bound::Included(last)),
            _ => (Bound::Excluded(last), Bound::Unbounded),
        };
        Ok(Filter::Range { field, from, to })
    }

    fn range(
        &self,
        field: String,
        low: &str,
        high: &str,
        at: usize,
    ) -> Result<Filter, SearchError> {
        let end = |text: &str, at: usize| -> Result<Option<(Value, Value)>, SearchError> {
            let literal = Literal { text: text.to_string(), quoted: false, at };
            (!text.is_empty()).then(|| self.ends(&field, &literal)).transpose()
        };
        let from = end(low, at)?.map_or(Bound::Unbounded, |(first, _)| Bound::Included(first));
        let high_at = at + low.len() + 2;
        let to = end(high, high_at)?.map_or(Bound::Unbounded, |(_, last)| Bound::Included(last));
        if matches!((&from, &to), (Bound::Unbounded, Bound::Unbounded)) {
            return Err(self.fault(at, format!("a range needs an end, such as {field}:1..10")));
        }
        Ok(Filter::Range { field, from, to })
    }

    /// The first and the last moment, number or text that a literal stands for.
    fn ends(&self, field: &str, literal: &Literal) -> Result<(Value, Value), SearchError> {
        let value = match built_in(field) {
            Some(BuiltIn::Size | BuiltIn::Depth) => self.number(field, literal)?,
            Some(_) => Value::String(literal.text.clone()),
            None if literal.quoted => Value::String(literal.text.clone()),
            None => {
                if let Some(span) = date::parse(&literal.text) {
                    return Ok((Value::Date(span.start_ms), Value::Date(span.end_ms - 1)));
                }
                number(&literal.text).unwrap_or_else(|| Value::String(literal.text.clone()))
            }
        };
        Ok((value.clone(), value))
    }

    fn number(&self, field: &str, literal: &Literal) -> Result<Value, SearchError> {
        let message = || format!("{field} is a number, \"{}\" is none", literal.text);
        number(&literal.text).ok_or_else(|| self.fault(literal.at, message()))
    }
}

fn built_in(field: &str) -> Option<BuiltIn> {
    BuiltIn::ALL.into_iter().find(|built_in| built_in.name() == field)
}

/// A finite number; words such as `inf` and `nan` are text.
fn number(text: &str) -> Option<Value> {
    let number: f64 = text.parse().ok()?;
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    (number.is_finite() && digits).then_some(Value::Number(number))
}

fn single(mut filters: Vec<Filter>, join: impl FnOnce(Vec<Filter>) -> Filter) -> Filter {
    match (filters.pop(), filters.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            filters.extend(last);
            join(filters)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn string(field: &str, value: &str) -> Filter {
        Filter::Equals { field: field.into(), value: Value::String(value.into()) }
    }

    fn path(glob: &str) -> Filter {
        Filter::Path { glob: glob.into() }
    }

    fn range(field: &str, from: Bound<Value>, to: Bound<Value>) -> Filter {
        Filter::Range { field: field.into(), from, to }
    }

    #[test]
    fn conditions_are_joined_as_people_expect() {
        assert_eq!(
            Filter::parse("language:rust -path:vendor/** (tags:a OR tags:\"b c\")").unwrap(),
            Filter::All(vec![
                string("language", "rust"),
                Filter::Not(Box::new(path("vendor/**"))),
                Filter::Any(vec![string("tags", "a"), string("tags", "b c")]),
            ])
        );
        let or_binds_weaker = Filter::Any(vec![
            Filter::All(vec![string("id", "a"), string("id", "b")]),
            string("id", "c"),
        ]);
        assert_eq!(Filter::parse("id:a AND id:b OR id:c").unwrap(), or_binds_weaker);
        assert_eq!(Filter::parse(" id:a id:b OR id:c ").unwrap(), or_binds_weaker);
        assert_eq!(
            Filter::parse("language:c,cpp").unwrap(),
            Filter::Any(vec![string("language", "c"), string("language", "cpp")])
        );
        assert_eq!(Filter::parse("path:*.{c,h}").unwrap(), path("*.{c,h}"));
        assert_eq!(Filter::parse("  ").unwrap(), Filter::All(Vec::new()));
        let not = Filter::Not(Box::new(string("language", "c")));
        assert_eq!(Filter::parse("NOT language:c").unwrap(), not);
        assert_eq!(Filter::parse("language!=c").unwrap(), not);
        assert_eq!(Filter::parse("x:*").unwrap(), Filter::Exists { field: "x".into() });
    }

    #[test]
    fn values_are_read_in_every_way_they_can_be_meant() {
        let number = |number: f64| Value::Number(number);
        assert_eq!(
            Filter::parse("year:2024").unwrap(),
            Filter::Any(vec![
                string("year", "2024"),
                Filter::Equals { field: "year".into(), value: number(2024.0) },
            ])
        );
        assert_eq!(Filter::parse("year:\"2024\"").unwrap(), string("year", "2024"));
        assert_eq!(
            Filter::parse("price>=-1.5").unwrap(),
            range("price", Bound::Included(number(-1.5)), Bound::Unbounded)
        );
        assert_eq!(Filter::parse("price:>=-1.5").unwrap(), Filter::parse("price>=-1.5").unwrap());
        assert_eq!(
            Filter::parse("price:1..2").unwrap(),
            range("price", Bound::Included(number(1.0)), Bound::Included(number(2.0)))
        );
        let day = date::DAY_MS;
        assert_eq!(
            Filter::parse("at>1970-01-01").unwrap(),
            range("at", Bound::Excluded(Value::Date(day - 1)), Bound::Unbounded)
        );
        assert_eq!(
            Filter::parse("at<=1970-01-01").unwrap(),
            range("at", Bound::Unbounded, Bound::Included(Value::Date(day - 1)))
        );
    }

    #[test]
    fn faults_name_their_place() {
        for (text, expected) in [
            (
                "language:",
                "filter: a value is missing; write \"\" for empty text (at byte 9 of the query)",
            ),
            ("id:a )", "filter: there is a ) without its ( (at byte 5 of the query)"),
            ("id:a (id:b", "filter: this ( has no ) (at byte 5 of the query)"),
            ("id:\"a", "filter: this quote is never closed (at byte 3 of the query)"),
            (
                "hello",
                "filter: \"hello\" needs a test such as hello:value or hello>=10 (at byte 0 of the query)",
            ),
            (
                ":x",
                "filter: a test needs a field in front, such as language:rust (at byte 0 of the query)",
            ),
            (
                "id:a OR",
                "filter: expected a condition such as language:rust (at byte 7 of the query)",
            ),
            ("size>big", "filter: size is a number, \"big\" is none (at byte 5 of the query)"),
            (
                "é:1 path:[a",
                "filter: path pattern has a [ without its ]; write \\[ for a bracket (at byte 10 of the query)",
            ),
        ] {
            assert_eq!(Filter::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        let deep = "(".repeat(FILTER_DEPTH_MAX + 1);
        assert!(Filter::parse(&deep).unwrap_err().to_string().contains("nested deeper than 64"));
        assert!(Filter::parse(&"-".repeat(QUERY_BYTES_MAX)).is_err());
        assert!(Filter::parse(&"-".repeat(QUERY_BYTES_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_a_fault_inside_it(
            text in prop_oneof![
                any::<String>(),
                "([ab]|path|size|:|,|\\.\\.|[<>=!]|\\(|\\)|\"|\\\\|-| |OR|AND|NOT|1|2024-01|\\*|é){0,12}",
            ],
        ) {
            if let Err(SearchError::Query { position, .. }) = Filter::parse(&text) {
                let at = position.unwrap();
                prop_assert!(at <= text.len() && text.is_char_boundary(at), "{at} in {text:?}");
            }
        }
    }
}
