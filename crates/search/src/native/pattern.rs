//! [`parse`]: a query with its [`Pattern`] to an expression with ripgrep's meaning.
//!
//! Line by line: `^` and `$` stand at line ends, `\A` and `\z` too; no class matches `\n`; a literal
//! line break is refused. `\r` is an ordinary character, as without `rg --crlf`. Smart case looks at
//! the letters that were typed as themselves (`\pL` and `\W` do not count). A word match is a match
//! between half word boundaries.

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{self, Ast, ClassSetItem, Visitor, visit};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look,
    Repetition,
};

use crate::request::{Case, Pattern, QUERY_BYTES_MAX, SearchError, Syntax};

/// The deepest nesting of groups, classes and repetitions; ripgrep's bound. Every walk over the
/// expression recurses, a few hundred bytes of stack each level.
pub const NEST_MAX: u32 = 250;
/// The most classes in one pattern. Folding the case of a large class takes near a millisecond, so
/// this bounds parsing to some tenths of a second.
pub const CLASSES_MAX: usize = 256;

/// The expression of a query, without `\n` in any literal or class.
pub(super) fn parse(text: &str, pattern: Pattern) -> Result<Hir, SearchError> {
    if text.len() > QUERY_BYTES_MAX {
        let bytes = text.len();
        return Err(SearchError::Bound {
            message: format!(
                "the pattern has {bytes} bytes, the bound is {QUERY_BYTES_MAX}; shorten it"
            ),
        });
    }
    let hir = match pattern.syntax {
        Syntax::Literal => literal(text, pattern.case)?,
        Syntax::Regex => expression(text, pattern.case)?,
    };
    if !pattern.word {
        return Ok(hir);
    }
    let start = Hir::look(Look::WordStartHalfUnicode);
    Ok(Hir::concat(vec![start, hir, Hir::look(Look::WordEndHalfUnicode)]))
}

fn newline_refused(position: Option<usize>) -> SearchError {
    SearchError::Query {
        message: "the pattern contains a line break, but a match never spans lines; \
                  search for one line at a time"
            .into(),
        position,
    }
}

/// Whether a literal is found in any case.
pub(super) fn is_any_case(text: &str, case: Case) -> bool {
    match case {
        Case::Sensitive => false,
        Case::Insensitive => true,
        Case::Smart => !text.is_empty() && !text.chars().any(char::is_uppercase),
    }
}

fn literal(text: &str, case: Case) -> Result<Hir, SearchError> {
    if let Some(at) = text.find('\n') {
        return Err(newline_refused(Some(at)));
    }
    if !is_any_case(text, case) {
        return Ok(Hir::literal(text.as_bytes()));
    }
    let letters = text.chars().map(|c| {
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        class.case_fold_simple();
        Hir::class(Class::Unicode(class))
    });
    Ok(Hir::concat(letters.collect()))
}

fn expression(text: &str, case: Case) -> Result<Hir, SearchError> {
    let ast = ParserBuilder::new()
        .nest_limit(NEST_MAX)
        .build()
        .parse(text)
        .map_err(|error| syntax_error(&error.kind().to_string(), error.span().start.offset))?;
    let survey = visit(&ast, Survey::default())?;
    let insensitive = match case {
        Case::Sensitive => false,
        Case::Insensitive => true,
        Case::Smart => survey.any_literal && !survey.any_uppercase,
    };
    let hir = TranslatorBuilder::new()
        .utf8(false)
        .multi_line(true)
        .case_insensitive(insensitive)
        .build()
        .translate(text, &ast)
        .map_err(|error| syntax_error(&error.kind().to_string(), error.span().start.offset))?;
    by_line(hir)
}

fn syntax_error(message: &str, at: usize) -> SearchError {
    SearchError::Query {
        message: format!("the regular expression cannot be read: {message}"),
        position: Some(at),
    }
}

/// What the syntax tree says before it is translated.
#[derive(Default)]
struct Survey {
    any_literal: bool,
    any_uppercase: bool,
    classes: usize,
}

impl Survey {
    fn literal(&mut self, literal: &ast::Literal) {
        self.any_literal = true;
        self.any_uppercase |= literal.c.is_uppercase();
    }

    fn class(&mut self) -> Result<(), SearchError> {
        self.classes += 1;
        if self.classes <= CLASSES_MAX {
            return Ok(());
        }
        Err(SearchError::Bound {
            message: format!(
                "the pattern has more than {CLASSES_MAX} character classes; simplify it"
            ),
        })
    }
}

impl Visitor for Survey {
    type Output = Self;
    type Err = SearchError;

    fn finish(self) -> Result<Self, SearchError> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), SearchError> {
        match ast {
            Ast::Literal(literal) if literal.c == '\n' => {
                Err(newline_refused(Some(literal.span.start.offset)))
            }
            Ast::Literal(literal) => {
                self.literal(literal);
                Ok(())
            }
            Ast::ClassUnicode(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) | Ast::Dot(_) => {
                self.class()
            }
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), SearchError> {
        match item {
            ClassSetItem::Literal(literal) => self.literal(literal),
            ClassSetItem::Range(range) => {
                self.literal(&range.start);
                self.literal(&range.end);
            }
            ClassSetItem::Unicode(_) | ClassSetItem::Perl(_) | ClassSetItem::Bracketed(_) => {
                self.class()?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Takes `\n` out of classes, turns the ends of the text into ends of the line, and drops groups.
fn by_line(hir: Hir) -> Result<Hir, SearchError> {
    Ok(match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => {
            return Err(newline_refused(None));
        }
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(Class::Unicode(mut class)) => {
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(mut class)) => {
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Hir::class(Class::Bytes(class))
        }
        HirKind::Look(Look::Start) => Hir::look(Look::StartLF),
        HirKind::Look(Look::End) => Hir::look(Look::EndLF),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            min: repetition.min,
            max: repetition.max,
            greedy: repetition.greedy,
            sub: Box::new(by_line(*repetition.sub)?),
        }),
        HirKind::Capture(capture) => by_line(*capture.sub)?,
        HirKind::Concat(parts) => {
            Hir::concat(parts.into_iter().map(by_line).collect::<Result<_, _>>()?)
        }
        HirKind::Alternation(parts) => {
            Hir::alternation(parts.into_iter().map(by_line).collect::<Result<_, _>>()?)
        }
    })
}

/// The expression without its Unicode word boundaries, which the fast automata cannot evaluate on
/// text beyond ASCII: it matches in every line in which the whole expression matches. `None` when
/// there are none, or when nothing selective would be left.
pub(super) fn without_word_boundaries(hir: &Hir) -> Option<Hir> {
    if !hir.properties().look_set().contains_word_unicode() {
        return None;
    }
    let stripped = strip_word(hir);
    stripped.properties().minimum_len().is_some_and(|bytes| bytes > 0).then_some(stripped)
}

fn strip_word(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Look(
            Look::WordUnicode
            | Look::WordUnicodeNegate
            | Look::WordStartUnicode
            | Look::WordEndUnicode
            | Look::WordStartHalfUnicode
            | Look::WordEndHalfUnicode,
        ) => Hir::empty(),
        HirKind::Repetition(repetition) => {
            let sub = Box::new(strip_word(&repetition.sub));
            Hir::repetition(Repetition { sub, ..repetition.clone() })
        }
        HirKind::Capture(capture) => strip_word(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(strip_word).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(strip_word).collect()),
        _ => hir.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn regex(text: &str) -> Result<Hir, SearchError> {
        parse(text, Pattern { syntax: Syntax::Regex, ..Pattern::default() })
    }

    #[test]
    fn a_syntax_error_names_its_position() {
        for (text, at) in [("ab(c", 2), ("é[a", 2), ("a{3,1}", 1), ("x*\\q", 2)] {
            match regex(text) {
                Err(SearchError::Query { position, .. }) => {
                    assert_eq!(position, Some(at), "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_line_break_in_a_pattern_is_refused_with_its_position() {
        for (text, at) in [("ab\\n", Some(2)), ("a\nb", Some(1)), ("[\\n]", None)] {
            match regex(text) {
                Err(SearchError::Query { position, message }) => {
                    assert_eq!(position, at, "{text}");
                    assert!(message.contains("line break"));
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let literal = parse("a\nb", Pattern::default());
        assert!(matches!(literal, Err(SearchError::Query { position: Some(1), .. })));
    }

    #[test]
    fn nesting_length_and_classes_are_bounded() {
        let deep = format!("{}a{}", "(".repeat(300), ")".repeat(300));
        assert!(matches!(regex(&deep), Err(SearchError::Query { .. })));
        assert!(matches!(regex(&"a".repeat(QUERY_BYTES_MAX + 1)), Err(SearchError::Bound { .. })));
        assert!(matches!(regex(&r"\pL".repeat(5_000)), Err(SearchError::Bound { .. })));
    }

    #[test]
    fn smart_case_looks_only_at_typed_letters() {
        let insensitive =
            |text: &str| regex(text).unwrap() == regex(&format!("(?i){text}")).unwrap();
        assert!(insensitive(r"foo\W"));
        assert!(insensitive(r"[a-f]\pL"));
        assert!(!insensitive("Foo"));
        assert!(!insensitive("[A-F]oo"));
        assert!(!insensitive(r"\p{Lu}"));
    }
}
