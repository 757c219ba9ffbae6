//! [`Plan`]: which trigrams and grams the text around a match must contain.
//!
//! From the bottom up, each part of the expression is described by what its matches can be
//! ([`Shape`]): the exact set while it is small, else the first and last two bytes, and a query that
//! their text satisfies. Joining two parts in sequence makes the trigrams across the seam. The idea
//! is Russ Cox's ("Regular Expression Matching with a Trigram Index", 2012); folding case first makes
//! it smaller: `[Kk\u{212a}]` is the one string `k`.
//!
//! Everything is a weakening: where a bound is reached the plan asks less, never more.

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use super::fold::{fold_char, fold_text};
use super::signature::{GRAM_BYTES, Gram, grams};
use super::trigram::{Trigram, trigram};

/// The most strings in an exact set.
const EXACT_MAX: usize = 64;
/// The most strings in a set of beginnings or ends.
const EDGE_MAX: usize = 32;
/// The most characters (after folding) of a class that is spelled out: room for `\s` and `[a-z]`.
const CLASS_MAX: usize = 32;
/// Copies of a repeated part that are looked at.
const COPIES_MAX: u32 = 4;
/// The most trigrams in a plan: beyond it a part of the pattern is left to verification.
const TRIGRAMS_MAX: usize = 4096;
/// The most trigrams of one literal: the rarest of so many decide as well as all.
const LITERAL_TRIGRAMS_MAX: usize = 256;
/// The most grams of one literal: so many bits of a signature say no to nearly everything.
const LITERAL_GRAMS_MAX: usize = 24;

/// A condition on the trigrams of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Every unit qualifies: the index cannot help.
    All,
    /// No unit qualifies: the pattern cannot match.
    None,
    /// The unit has this trigram.
    Trigram(Trigram),
    /// The signature of the document has this gram; never without trigrams beside it.
    Gram(Gram),
    /// All hold.
    And(Vec<Plan>),
    /// At least one holds.
    Or(Vec<Plan>),
}

impl Plan {
    /// The condition that every unit with a match of `hir` fulfils.
    pub(super) fn of(hir: &Hir) -> Self {
        shape(hir).loosen().query
    }

    fn size(&self) -> usize {
        match self {
            Self::All | Self::None | Self::Trigram(_) | Self::Gram(_) => 1,
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::size).sum(),
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, plan) | (plan, Self::All) => plan,
            (Self::None, _) | (_, Self::None) => Self::None,
            (a, b) if a == b => a,
            (a, b) if a.size() + b.size() > TRIGRAMS_MAX => a,
            (Self::And(mut parts), Self::And(more)) => {
                parts.extend(more);
                Self::And(parts)
            }
            (Self::And(mut parts), plan) | (plan, Self::And(mut parts)) => {
                if !parts.contains(&plan) {
                    parts.push(plan);
                }
                Self::And(parts)
            }
            (a, b) => Self::And(vec![a, b]),
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, plan) | (plan, Self::None) => plan,
            (a, b) if a == b => a,
            (a, b) if a.size() + b.size() > TRIGRAMS_MAX => Self::All,
            (Self::Or(mut parts), Self::Or(more)) => {
                parts.extend(more);
                Self::Or(parts)
            }
            (Self::Or(mut parts), plan) | (plan, Self::Or(mut parts)) => {
                parts.push(plan);
                Self::Or(parts)
            }
            (a, b) => Self::Or(vec![a, b]),
        }
    }

    /// The unit contains one of `strings`.
    fn one_of(strings: &[Vec<u8>]) -> Self {
        strings.iter().fold(Self::None, |plan, string| plan.or(Self::string(string)))
    }

    fn string(string: &[u8]) -> Self {
        let mut trigrams: Vec<Trigram> =
            string.windows(3).map(|three| trigram([three[0], three[1], three[2]])).collect();
        trigrams.sort_unstable();
        trigrams.dedup();
        // Every so many when there are too many, so that the whole literal is covered.
        let stride = trigrams.len().div_ceil(LITERAL_TRIGRAMS_MAX).max(1);
        let mut parts: Vec<Plan> =
            trigrams.into_iter().step_by(stride).map(Self::Trigram).collect();
        let count = string.len().saturating_sub(GRAM_BYTES - 1);
        let stride = count.div_ceil(LITERAL_GRAMS_MAX).max(1);
        parts.extend(grams(string).step_by(stride).map(Self::Gram));
        match parts.len() {
            0 => Self::All,
            1 => parts.remove(0),
            _ => Self::And(parts),
        }
    }
}

/// What is known about the folded text of a match of one part.
#[derive(Clone, Debug)]
struct Shape {
    /// All the strings a match can be, while they are few.
    exact: Option<Vec<Vec<u8>>>,
    /// Every match begins with one of these (at most two bytes are of use; empty says nothing).
    prefix: Vec<Vec<u8>>,
    /// Every match ends with one of these.
    suffix: Vec<Vec<u8>>,
    /// Holds for the text around every match.
    query: Plan,
}

impl Shape {
    fn exact(mut strings: Vec<Vec<u8>>) -> Self {
        strings.sort_unstable();
        strings.dedup();
        Self { exact: Some(strings), prefix: Vec::new(), suffix: Vec::new(), query: Plan::All }
    }

    fn anything() -> Self {
        Self { exact: None, prefix: vec![vec![]], suffix: vec![vec![]], query: Plan::All }
    }

    /// Trades the exact set for the query and the edges that follow from it.
    fn loosen(mut self) -> Self {
        if let Some(strings) = self.exact.take() {
            self.query = self.query.and(Plan::one_of(&strings));
            self.prefix = edge(strings.iter().map(|s| s[..s.len().min(2)].to_vec()).collect());
            self.suffix = edge(
                strings.into_iter().map(|s| s[s.len().saturating_sub(2)..].to_vec()).collect(),
            );
        }
        self
    }

    /// Matches of one part followed by matches of another.
    fn then(self, next: Self) -> Self {
        if let (Some(first), Some(second)) = (&self.exact, &next.exact)
            && first.len() * second.len() <= EXACT_MAX
        {
            let query = self.query.clone().and(next.query.clone());
            let joined = Self { query, ..Self::exact(cross(first, second)) };
            return joined.tidy();
        }
        let prefix_through = self.exact.clone();
        let suffix_through = next.exact.clone();
        let (first, second) = (self.loosen(), next.loosen());
        let mut query = first.query.and(second.query);
        if first.suffix.len() * second.prefix.len() <= EXACT_MAX {
            query = query.and(Plan::one_of(&cross(&first.suffix, &second.prefix)));
        }
        let short = |strings: &Vec<Vec<u8>>| strings.iter().any(|s| s.len() < 2);
        // A first part shorter than two bytes lets the beginning of the second shine through.
        let prefix = match prefix_through.filter(short) {
            Some(strings) => edge(trim(cross(&strings, &second.prefix), true)),
            None => first.prefix,
        };
        let suffix = match suffix_through.filter(short) {
            Some(strings) => edge(trim(cross(&first.suffix, &strings), false)),
            None => second.suffix,
        };
        Self { exact: None, prefix, suffix, query }
    }

    fn or(self, other: Self) -> Self {
        if let (Some(a), Some(b)) = (&self.exact, &other.exact)
            && a.len() + b.len() <= EXACT_MAX
            && self.query == other.query
        {
            let strings = a.iter().chain(b).cloned().collect();
            return Self { query: self.query.clone(), ..Self::exact(strings) };
        }
        let (a, b) = (self.loosen(), other.loosen());
        Self {
            exact: None,
            prefix: edge(a.prefix.into_iter().chain(b.prefix).collect()),
            suffix: edge(a.suffix.into_iter().chain(b.suffix).collect()),
            query: a.query.or(b.query),
        }
    }

    /// Loosens an exact set whose strings are long or many: longer ones add nothing at the seams.
    fn tidy(self) -> Self {
        let strings = self.exact.as_deref().unwrap_or_default();
        let bytes: usize = strings.iter().map(Vec::len).sum();
        if strings.iter().all(|s| s.len() > 8) || bytes > EXACT_MAX * 32 {
            self.loosen()
        } else {
            self
        }
    }
}

/// A set of edges, or nothing known when there are too many.
fn edge(mut strings: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    strings.sort_unstable();
    strings.dedup();
    if strings.len() > EDGE_MAX { vec![vec![]] } else { strings }
}

fn trim(strings: Vec<Vec<u8>>, front: bool) -> Vec<Vec<u8>> {
    let cut = |s: Vec<u8>| match front {
        true => s[..s.len().min(2)].to_vec(),
        false => s[s.len().saturating_sub(2)..].to_vec(),
    };
    strings.into_iter().map(cut).collect()
}

fn cross(first: &[Vec<u8>], second: &[Vec<u8>]) -> Vec<Vec<u8>> {
    first.iter().flat_map(|a| second.iter().map(move |b| [a.as_slice(), b].concat())).collect()
}

fn shape(hir: &Hir) -> Shape {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Shape::exact(vec![vec![]]),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => {
                let mut folded = Vec::new();
                fold_text(text, &mut folded);
                Shape::exact(vec![folded]).tidy()
            }
            // Parts of characters: folding may have changed the bytes around them.
            Err(_) => Shape::anything(),
        },
        HirKind::Class(class) => class_shape(class),
        HirKind::Capture(capture) => shape(&capture.sub),
        HirKind::Repetition(repetition) => repetition_shape(repetition),
        HirKind::Concat(parts) => {
            let empty = Shape::exact(vec![vec![]]);
            parts.iter().fold(empty, |sum, part| sum.then(shape(part)))
        }
        HirKind::Alternation(parts) => {
            let never = Shape::exact(Vec::new());
            parts.iter().fold(never, |sum, part| sum.or(shape(part)))
        }
    }
}

fn repetition_shape(repetition: &Repetition) -> Shape {
    let sub = shape(&repetition.sub);
    if repetition.min == 0 {
        return match repetition.max {
            Some(1) => Shape::exact(vec![vec![]]).or(sub),
            _ => Shape::anything(),
        };
    }
    let copies = repetition.min.min(COPIES_MAX);
    let repeated = (1..copies).fold(sub.clone(), |sum, _| sum.then(sub.clone()));
    // A match begins and ends with so many copies; what lies between is not looked at.
    if repetition.max == Some(copies) { repeated } else { repeated.loosen() }
}

fn class_shape(class: &Class) -> Shape {
    let count = |start: u32, end: u32| (end - start) as usize + 1;
    let mut characters: Vec<char> = match class {
        Class::Unicode(class) => {
            let ranges = class.ranges();
            let total: usize = ranges.iter().map(|r| count(r.start().into(), r.end().into())).sum();
            if total > CLASS_MAX * 4 {
                return Shape::anything();
            }
            ranges.iter().flat_map(|range| range.start()..=range.end()).collect()
        }
        Class::Bytes(class) if class.is_ascii() => class
            .ranges()
            .iter()
            .flat_map(|range| range.start()..=range.end())
            .map(char::from)
            .collect(),
        Class::Bytes(_) => return Shape::anything(),
    };
    characters.iter_mut().for_each(|c| *c = fold_char(*c));
    characters.sort_unstable();
    characters.dedup();
    if characters.len() > CLASS_MAX {
        return Shape::anything();
    }
    Shape::exact(characters.into_iter().map(|c| c.to_string().into_bytes()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::native::pattern::parse;
    use crate::request::{Case, Pattern, Syntax};

    fn plan(text: &str) -> String {
        let pattern = Pattern { syntax: Syntax::Regex, case: Case::Sensitive, word: false };
        show(&Plan::of(&parse(text, pattern).unwrap()))
    }

    fn show(plan: &Plan) -> String {
        let list = |parts: &[Plan], sep: &str| {
            let mut parts: Vec<String> =
                parts.iter().map(show).filter(|part| !part.is_empty()).collect();
            parts.sort();
            if parts.len() == 1 {
                return parts.remove(0);
            }
            format!("({})", parts.join(sep))
        };
        match plan {
            Plan::All => "all".into(),
            Plan::None => "none".into(),
            Plan::Trigram(t) => String::from_utf8_lossy(&t.to_be_bytes()[1..]).into_owned(),
            Plan::Gram(_) => String::new(),
            Plan::And(parts) => list(parts, " "),
            Plan::Or(parts) => list(parts, "|"),
        }
    }

    #[test]
    fn a_plan_asks_for_what_every_match_contains() {
        for (pattern, expected) in [
            ("abc", "abc"),
            ("ABC", "abc"),
            ("(?i)ſKin", "(kin ski)"),
            ("ab", "all"),
            ("a.c", "all"),
            ("abc.*def", "(abc def)"),
            ("abc|def", "(abc|def)"),
            ("ab(c|d)", "(abc|abd)"),
            ("ab?cd", "((abc bcd)|acd)"),
            ("(abc)+", "abc"),
            ("(abc)*", "all"),
            ("x(ab)+y", "(aby xab)"),
            ("a{4}", "aaa"),
            ("a{300}", "aaa"),
            (r"\w+abc", "abc"),
            (r"foo[01]", "((foo oo0)|(foo oo1))"),
            (r"foo[01]+bar", "((0ba|1ba) (oo0|oo1) bar foo)"),
            ("abc|", "all"),
            (r"[^\x00-\x{10FFFF}]abc", "none"),
        ] {
            assert_eq!(plan(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn hostile_patterns_have_small_plans() {
        for text in [
            r"(a{1000}){1000}",
            r"(.*)*x",
            r"\pL{500}",
            &"(ab|cd)".repeat(2_000),
            &"[ab]".repeat(200),
            &(0..3_000).map(|i| i.to_string()).collect::<Vec<_>>().join("|"),
        ] {
            let pattern = Pattern { syntax: Syntax::Regex, ..Pattern::default() };
            assert!(Plan::of(&parse(text, pattern).unwrap()).size() <= TRIGRAMS_MAX);
        }
    }
}
