//! [`compile`]: the text of a query to tantivy's query.
//!
//! [`super::grammar`] makes the tree. The leaves are ours: they know identifiers, stems, patterns,
//! ranges and edit distance. Values of attributes go through tantivy's own query parser, which knows
//! their types.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use regex::bytes::RegexBuilder;
use rust_stemmers::Stemmer;
use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, EmptyQuery, FuzzyTermQuery, Occur,
    PhrasePrefixQuery, PhraseQuery, Query, QueryParser, RangeQuery, TermQuery,
};
use tantivy::query_grammar::{
    Delimiter, UserInputAst, UserInputBound, UserInputLeaf, UserInputLiteral,
};
use tantivy::schema::{Field, IndexRecordOption};

use super::bounds::{as_bound, attribute_bounds};
use super::expansion::{Expansion, WordPattern};
use super::grammar::parse;
use super::schema::{FIELDS, Fields};
use super::steady::Steady;
use super::words::{Kind, fold, is_word_char, stemmer, tokenizers, words};
use crate::request::{SearchError, Stop};

/// Plain words are cut after this many different ones: a pasted page should still be answered.
const PLAIN_WORDS_MAX: usize = 128;
/// The largest weight that `^` gives.
const BOOST_MAX: f32 = 1000.0;
/// The largest edit distance: beyond it, words have nothing in common, and automata grow fast.
const DISTANCE_MAX: u8 = 2;
/// Longer words are not compared by edit distance.
const FUZZY_CHARS_MAX: usize = 64;
/// The largest compiled regular expression.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// How much a word weighs in the fields that are searched when none is named.
const TITLE_BOOST: f32 = 2.0;
const TAGS_BOOST: f32 = 1.5;
const PATH_BOOST: f32 = 1.2;
/// A word at an edit distance counts less than the word itself.
const FUZZY_BOOST: f32 = 0.5;

/// What can be searched.
const FIELD_NAMES: &str = "id, title, body, path, language, tags and attributes.NAME";

/// English words too frequent to tell documents apart; left out of plain words only.
const STOP_WORDS: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "do", "does", "for", "from", "how",
    "i", "if", "in", "into", "is", "it", "no", "not", "of", "on", "or", "s", "such", "t", "that",
    "the", "their", "then", "there", "these", "they", "this", "to", "was", "what", "when", "where",
    "which", "who", "why", "will", "with", "you",
];

/// A query that is ready to run.
pub(super) struct Compiled {
    pub(super) query: Box<dyn Query>,
    /// Whether it is a plain sum of words, which tantivy can prune.
    pub(super) is_sum_of_words: bool,
}

/// Reads `text`. A fault is an error when `strict`; otherwise the whole text is read as plain words.
pub(super) fn compile(text: &str, strict: bool, stop: &Stop) -> Result<Compiled, SearchError> {
    let compiler = Compiler { text, fields: &FIELDS, stemmer: stemmer(), stop, strict };
    let clause = match parse(text).and_then(|tree| compiler.tree(tree)) {
        Ok(clause) => clause,
        Err(error) if strict => return Err(error),
        Err(_) => compiler.plain_words(),
    };
    Ok(match clause {
        Clause::Nothing => Compiled { query: Box::new(EmptyQuery), is_sum_of_words: true },
        Clause::Words(words) => Compiled { query: sum_of_words(words), is_sum_of_words: true },
        Clause::Query(query) => Compiled { query, is_sum_of_words: false },
    })
}

/// A part of a query.
enum Clause {
    /// Text without words: it neither matches nor excludes.
    Nothing,
    /// Any of the words, each with its weight.
    Words(Vec<(Term, f32)>),
    /// Anything else.
    Query(Box<dyn Query>),
}

impl Clause {
    fn into_query(self) -> Option<Box<dyn Query>> {
        match self {
            Clause::Nothing => None,
            Clause::Words(words) => Some(sum_of_words(words)),
            Clause::Query(query) => Some(query),
        }
    }
}

fn sum_of_words(words: Vec<(Term, f32)>) -> Box<dyn Query> {
    let mut weights: BTreeMap<Term, f32> = BTreeMap::new();
    for (term, weight) in words {
        *weights.entry(term).or_default() += weight;
    }
    let mut queries: Vec<_> = weights
        .into_iter()
        .map(|(term, weight)| (Occur::Should, boosted(term_query(term), weight)))
        .collect();
    match queries.len() {
        1 => queries.remove(0).1,
        _ => Box::new(BooleanQuery::new(queries)),
    }
}

fn term_query(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
}

fn boosted(query: Box<dyn Query>, boost: f32) -> Box<dyn Query> {
    if boost == 1.0 { query } else { Box::new(BoostQuery::new(query, boost)) }
}

fn any_of(mut queries: Vec<Box<dyn Query>>) -> Clause {
    match queries.len() {
        0 => Clause::Nothing,
        1 => Clause::Query(queries.remove(0)),
        _ => {
            let queries = queries.into_iter().map(|query| (Occur::Should, query)).collect();
            Clause::Query(Box::new(BooleanQuery::new(queries)))
        }
    }
}

struct Compiler<'a> {
    text: &'a str,
    fields: &'a Fields,
    stemmer: Stemmer,
    stop: &'a Stop,
    strict: bool,
}

/// A field to look into and the weight of what is found there.
type Target = (Field, f32);

impl Compiler<'_> {
    /// Every word of the text as an alternative, without the most frequent ones.
    fn plain_words(&self) -> Clause {
        let mut found = Vec::new();
        let all = words(self.text, Some(&self.stemmer));
        let is_frequent = |text: &str| STOP_WORDS.binary_search(&text).is_ok();
        let only_frequent =
            all.iter().all(|word| word.kind == Kind::Stem || is_frequent(&word.text));
        let mut position = usize::MAX;
        let mut different = 0;
        for (index, word) in all.iter().enumerate() {
            let has_stem = all.get(index + 1).is_some_and(|next| next.kind == Kind::Stem);
            if word.position != position {
                position = word.position;
                different += 1;
            }
            if different > PLAIN_WORDS_MAX {
                break;
            }
            if only_frequent || !is_frequent(&word.text) {
                self.add_word(word.kind, &word.text, has_stem, &self.default_targets(), &mut found);
            }
        }
        if found.is_empty() { Clause::Nothing } else { Clause::Words(found) }
    }

    fn tree(&self, tree: UserInputAst) -> Result<Clause, SearchError> {
        match tree {
            UserInputAst::Leaf(leaf) => self.leaf(*leaf),
            UserInputAst::Boost(tree, boost) => {
                let boost = boost.into_inner() as f32;
                if boost > BOOST_MAX {
                    return Err(self.fault(
                        format!("the weight after ^ is {boost}, the bound is {BOOST_MAX}"),
                        "^",
                    ));
                }
                Ok(match self.tree(*tree)? {
                    Clause::Nothing => Clause::Nothing,
                    Clause::Words(mut words) => {
                        words.iter_mut().for_each(|(_, weight)| *weight *= boost);
                        Clause::Words(words)
                    }
                    Clause::Query(query) => Clause::Query(boosted(query, boost)),
                })
            }
            UserInputAst::Clause(children) => self.clause(children),
        }
    }

    fn clause(&self, children: Vec<(Option<Occur>, UserInputAst)>) -> Result<Clause, SearchError> {
        let mut compiled = Vec::new();
        for (occur, child) in children {
            compiled.push((occur.unwrap_or(Occur::Should), self.tree(child)?));
        }
        compiled.retain(|(_, clause)| !matches!(clause, Clause::Nothing));
        if compiled.is_empty() {
            return Ok(Clause::Nothing);
        }
        let is_sum = |(occur, clause): &(Occur, Clause)| {
            *occur == Occur::Should && matches!(clause, Clause::Words(_))
        };
        if compiled.iter().all(is_sum) {
            let mut all = Vec::new();
            for (_, clause) in compiled {
                if let Clause::Words(words) = clause {
                    all.extend(words);
                }
            }
            return Ok(Clause::Words(all));
        }
        let mut queries: Vec<_> = compiled
            .into_iter()
            .filter_map(|(occur, clause)| {
                let query = clause.into_query()?;
                let is_excluded = occur == Occur::MustNot;
                Some((occur, if is_excluded { Box::new(Steady(query)) } else { query }))
            })
            .collect();
        if queries.iter().all(|(occur, _)| *occur == Occur::MustNot) {
            let everything = ConstScoreQuery::new(Box::new(AllQuery), 0.0);
            queries.push((Occur::Must, Box::new(everything)));
        }
        Ok(Clause::Query(Box::new(BooleanQuery::new(queries))))
    }

    fn leaf(&self, leaf: UserInputLeaf) -> Result<Clause, SearchError> {
        match leaf {
            UserInputLeaf::All => Ok(Clause::Query(Box::new(AllQuery))),
            UserInputLeaf::Literal(literal) => self.literal(literal),
            UserInputLeaf::Exists { field } => {
                let (target, path) = self.named(&field)?;
                if target == self.fields.attributes && !path.is_empty() {
                    return self.typed(UserInputLeaf::Exists { field }, &path);
                }
                let stop = self.stop.clone();
                Ok(Clause::Query(Box::new(Expansion {
                    field: target,
                    pattern: WordPattern::Any,
                    stop,
                })))
            }
            UserInputLeaf::Regex { field: Some(name), pattern } => {
                let (field, path) = self.named(&name)?;
                if field == self.fields.attributes {
                    let message = "attributes cannot be searched by regular expression; use a word, \
                                   a phrase or a range";
                    return Err(self.fault(message.into(), &path));
                }
                let pattern = self.regex(&pattern)?;
                let stop = self.stop.clone();
                Ok(Clause::Query(Box::new(Expansion { field, pattern, stop })))
            }
            UserInputLeaf::Regex { field: None, pattern } => Err(self.fault(
                "a regular expression needs a field, such as body:/pat.*/; for a path put it in quotes"
                    .into(),
                &format!("/{pattern}"),
            )),
            UserInputLeaf::Range { field: None, .. } | UserInputLeaf::Set { field: None, .. } => {
                let message = "a range or set needs a field, such as attributes.price:[1 TO 5]";
                Err(self.fault(message.into(), "["))
            }
            UserInputLeaf::Range { field: Some(name), lower, upper } => {
                self.range(&name, &lower, &upper)
            }
            UserInputLeaf::Set { field: Some(name), elements } => self.set(name, elements),
        }
    }

    fn set(&self, name: String, elements: Vec<String>) -> Result<Clause, SearchError> {
        let (field, path) = self.named(&name)?;
        if field == self.fields.attributes {
            return self.typed(UserInputLeaf::Set { field: Some(name), elements }, &path);
        }
        let mut queries = Vec::new();
        for phrase in elements {
            let field_name = Some(name.clone());
            let delimiter = Delimiter::DoubleQuotes;
            let literal =
                UserInputLiteral { field_name, phrase, delimiter, slop: 0, prefix: false };
            queries.extend(self.literal(literal)?.into_query());
        }
        Ok(any_of(queries))
    }

    /// A range of values of an attribute, or of words of another field. tantivy's parser types each
    /// bound alone, and its range fails when the two types differ, so `[1 TO 2.5]` is typed here.
    fn range(
        &self,
        name: &str,
        lower: &UserInputBound,
        upper: &UserInputBound,
    ) -> Result<Clause, SearchError> {
        let (field, path) = self.named(name)?;
        let texts = [lower, upper].map(|bound| Some(bound.term_str()).filter(|&text| text != "*"));
        if texts == [None, None] {
            return self.leaf(UserInputLeaf::Exists { field: name.to_string() });
        }
        let [from, to] = if field == self.fields.attributes {
            attribute_bounds(self.fields.attributes, &path, texts).ok_or_else(|| {
                let message = "the bounds of a range must both be numbers, dates such as \
                               2024-01-31T00:00:00Z, or words";
                self.fault(message.into(), name)
            })?
        } else {
            let is_raw = field == self.fields.id;
            texts.map(|text| {
                text.map(|text| if is_raw { text.into() } else { fold(text) })
                    .map(|text| Term::from_field_text(field, &text))
            })
        };
        let range = RangeQuery::new(as_bound(lower, from), as_bound(upper, to));
        Ok(Clause::Query(Box::new(range)))
    }

    /// Hands a leaf to tantivy's parser, which knows the types of values.
    fn typed(&self, leaf: UserInputLeaf, at: &str) -> Result<Clause, SearchError> {
        let parser = QueryParser::new(self.fields.schema.clone(), Vec::new(), tokenizers());
        let tree = UserInputAst::Leaf(Box::new(leaf));
        let query = catch_unwind(AssertUnwindSafe(|| parser.build_query_from_user_input_ast(tree)));
        match query {
            Ok(Ok(query)) => Ok(Clause::Query(query)),
            Ok(Err(error)) => Err(self.fault(error.to_string(), at)),
            Err(_) => Err(self.fault("this value cannot be searched".into(), at)),
        }
    }

    fn literal(&self, literal: UserInputLiteral) -> Result<Clause, SearchError> {
        let targets = match &literal.field_name {
            None => self.default_targets(),
            Some(name) => {
                let (field, path) = self.named(name)?;
                if field == self.fields.attributes {
                    if path.is_empty() {
                        let message = "attributes need a name, such as attributes.price:5";
                        return Err(self.fault(message.into(), name));
                    }
                    return self.typed(UserInputLeaf::Literal(literal), &path);
                }
                vec![(field, 1.0)]
            }
        };
        if let [(field, _)] = targets[..]
            && let Some(clause) = self.whole_value(field, &literal)
        {
            return Ok(clause);
        }
        if literal.delimiter != Delimiter::None {
            return Ok(self.phrase(&literal, &targets));
        }
        if let Some((word, distance)) = fuzzy(&literal.phrase) {
            return self.fuzzy(word, distance, &targets);
        }
        if literal.phrase.contains('*') {
            return self.wildcard(&literal.phrase, &targets);
        }
        Ok(self.word(&literal.phrase, &targets))
    }

    /// A word or value of a field that is kept whole.
    fn whole_value(&self, field: Field, literal: &UserInputLiteral) -> Option<Clause> {
        let value = match field {
            _ if field == self.fields.id => literal.phrase.clone(),
            _ if field == self.fields.language => literal.phrase.to_lowercase(),
            _ => return None,
        };
        if literal.delimiter == Delimiter::None
            && let Some(prefix) = value.strip_suffix('*')
            && !prefix.contains('*')
        {
            let pattern = WordPattern::Prefix(prefix.to_string());
            let stop = self.stop.clone();
            return Some(Clause::Query(Box::new(Expansion { field, pattern, stop })));
        }
        let query = term_query(Term::from_field_text(field, &value));
        Some(Clause::Query(Box::new(ConstScoreQuery::new(query, 1.0))))
    }

    /// An unquoted word. One that is several words to us (`foo.bar`, `parseHttp`) must stand together.
    fn word(&self, text: &str, targets: &[Target]) -> Clause {
        let all = words(text, Some(&self.stemmer));
        let parts = all.iter().filter(|word| word.kind == Kind::Part).count();
        if parts <= 1 || !self.strict {
            let mut found = Vec::new();
            for (index, word) in all.iter().enumerate() {
                let has_stem = all.get(index + 1).is_some_and(|next| next.kind == Kind::Stem);
                self.add_word(word.kind, &word.text, has_stem, targets, &mut found);
            }
            return if found.is_empty() { Clause::Nothing } else { Clause::Words(found) };
        }
        let written: Vec<&str> =
            all.iter().filter(|word| word.kind == Kind::Part).map(|word| &*word.text).collect();
        let whole = all.iter().find(|word| word.kind == Kind::Whole);
        let is_one_run = text.chars().all(is_word_char);
        let mut queries = Vec::new();
        for &(field, weight) in targets {
            let term = |text: &str| Term::from_field_text(field, text);
            let phrase = PhraseQuery::new(written.iter().map(|text| term(text)).collect());
            queries.push(boosted(Box::new(phrase), weight));
            if let (Some(whole), true) = (whole, is_one_run) {
                queries.push(boosted(term_query(term(&whole.text)), weight));
            }
        }
        any_of(queries)
    }

    /// One token in all fields: by its stem where the field has stems, else as it is written.
    fn add_word(
        &self,
        kind: Kind,
        text: &str,
        has_stem: bool,
        targets: &[Target],
        found: &mut Vec<(Term, f32)>,
    ) {
        for &(field, weight) in targets {
            let is_wanted = match kind {
                Kind::Whole => true,
                Kind::Part => !(has_stem && self.has_stems(field)),
                Kind::Stem => self.has_stems(field),
            };
            if is_wanted {
                found.push((Term::from_field_text(field, text), weight));
            }
        }
    }

    /// Quoted text: the words as they are written, one after the other.
    fn phrase(&self, literal: &UserInputLiteral, targets: &[Target]) -> Clause {
        let all = words(&literal.phrase, None);
        let parts: Vec<&str> =
            all.iter().filter(|word| word.kind == Kind::Part).map(|word| &*word.text).collect();
        let mut queries: Vec<Box<dyn Query>> = Vec::new();
        for &(field, weight) in targets {
            let terms: Vec<(usize, Term)> =
                parts.iter().map(|text| Term::from_field_text(field, text)).enumerate().collect();
            let query: Box<dyn Query> = match (&terms[..], literal.prefix) {
                ([], _) => continue,
                ([_], true) => Box::new(Expansion {
                    field,
                    pattern: WordPattern::Prefix(parts[0].to_string()),
                    stop: self.stop.clone(),
                }),
                ([(_, term)], false) => term_query(term.clone()),
                (_, true) => Box::new(PhrasePrefixQuery::new_with_offset(terms)),
                (_, false) => Box::new(PhraseQuery::new_with_offset_and_slop(terms, literal.slop)),
            };
            queries.push(boosted(query, weight));
        }
        any_of(queries)
    }

    fn fuzzy(&self, word: &str, distance: u8, targets: &[Target]) -> Result<Clause, SearchError> {
        if distance > DISTANCE_MAX {
            let message = format!("the edit distance is {distance}, the bound is {DISTANCE_MAX}");
            return Err(self.fault(message, word));
        }
        let all = words(word, None);
        let [only] = &all[..] else {
            return Ok(self.word(word, targets));
        };
        if distance == 0 || only.text.chars().count() > FUZZY_CHARS_MAX {
            return Ok(self.word(word, targets));
        }
        let mut queries = Vec::new();
        for &(field, weight) in targets {
            let term = Term::from_field_text(field, &only.text);
            queries.push(boosted(term_query(term.clone()), weight));
            let near = FuzzyTermQuery::new(term, distance, true);
            queries.push(boosted(Box::new(near), weight * FUZZY_BOOST));
        }
        Ok(any_of(queries))
    }

    /// A word with `*`; `\*` is the character itself, which no word contains.
    fn wildcard(&self, text: &str, targets: &[Target]) -> Result<Clause, SearchError> {
        let text = text.replace("\\*", " ");
        if !text.contains('*') {
            return Ok(self.word(&text, targets));
        }
        let folded = fold(&text);
        let Some((beginning, rest)) = folded.split_once('*') else {
            return Ok(Clause::Nothing);
        };
        let is_name = |text: &str| text.chars().all(|c| is_word_char(c) || c == '*');
        if !is_name(rest) {
            let message = "a pattern with * stays within one word; use \"quotes\" for phrases";
            return Err(self.fault(message.into(), &text));
        }
        if !is_name(beginning) {
            // `foo.ba*`: the words in front must stand together with it.
            let phrase = beginning.to_string();
            let delimiter = Delimiter::DoubleQuotes;
            let prefix = true;
            let literal = UserInputLiteral { field_name: None, phrase, delimiter, slop: 0, prefix };
            return Ok(self.phrase(&literal, targets));
        }
        let pattern = if rest.is_empty() {
            WordPattern::Prefix(beginning.to_string())
        } else {
            let pieces: Vec<String> = folded.split('*').map(regex::escape).collect();
            let mut pattern = self.regex(&pieces.join(".*"))?;
            if let WordPattern::Regex { prefix, .. } = &mut pattern {
                *prefix = beginning.to_string();
            }
            pattern
        };
        Ok(any_of(
            targets
                .iter()
                .map(|&(field, weight)| {
                    let (pattern, stop) = (pattern.clone(), self.stop.clone());
                    boosted(Box::new(Expansion { field, pattern, stop }), weight)
                })
                .collect(),
        ))
    }

    fn regex(&self, pattern: &str) -> Result<WordPattern, SearchError> {
        let regex = RegexBuilder::new(&format!("(?s)^(?:{pattern})$"))
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|error| self.fault(format!("regular expression: {error}"), pattern))?;
        // Words begin with the letters and digits before the first special character, unless that
        // makes the last of them optional or there are alternatives.
        let plain = pattern.find(|c: char| !c.is_alphanumeric()).unwrap_or(pattern.len());
        let is_certain =
            plain == pattern.len() || (pattern[plain..].starts_with('.') && !pattern.contains('|'));
        let prefix = if is_certain { pattern[..plain].to_string() } else { String::new() };
        Ok(WordPattern::Regex { prefix, regex })
    }

    fn default_targets(&self) -> Vec<Target> {
        vec![
            (self.fields.title, TITLE_BOOST),
            (self.fields.body, 1.0),
            (self.fields.path, PATH_BOOST),
            (self.fields.tags, TAGS_BOOST),
        ]
    }

    fn has_stems(&self, field: Field) -> bool {
        field == self.fields.title || field == self.fields.body
    }

    /// The field of this name, and for attributes the rest of the name.
    fn named(&self, name: &str) -> Result<(Field, String), SearchError> {
        let (base, path) = name.split_once('.').unwrap_or((name, ""));
        let field = match base {
            "id" => self.fields.id,
            "title" => self.fields.title,
            "body" => self.fields.body,
            "path" => self.fields.path,
            "language" => self.fields.language,
            "tags" => self.fields.tags,
            "attributes" => return Ok((self.fields.attributes, path.to_string())),
            _ => return Err(self.unknown_field(name)),
        };
        if path.is_empty() { Ok((field, String::new())) } else { Err(self.unknown_field(name)) }
    }

    fn unknown_field(&self, name: &str) -> SearchError {
        let shown: String = name.chars().take(64).collect();
        self.fault(
            format!(
                "there is no field \"{shown}\"; fields are {FIELD_NAMES}; put text with a colon in \
                 quotes"
            ),
            name,
        )
    }

    /// The tree has no positions, so a fault is placed where its text first stands.
    fn fault(&self, message: String, at: &str) -> SearchError {
        let position = if at.is_empty() { None } else { self.text.find(at) };
        SearchError::Query { message, position }
    }
}

/// `word~` and `word~N`; `~name` and `a~b` are plain text.
fn fuzzy(text: &str) -> Option<(&str, u8)> {
    let (word, distance) = text.rsplit_once('~')?;
    if word.is_empty() || distance.len() > 2 {
        return None;
    }
    if distance.is_empty() {
        return Some((word, 1));
    }
    distance.parse().ok().map(|distance| (word, distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_sorted_so_that_they_are_found() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn a_tilde_means_distance_only_after_a_word() {
        assert_eq!(fuzzy("word~"), Some(("word", 1)));
        assert_eq!(fuzzy("word~2"), Some(("word", 2)));
        assert_eq!(fuzzy("~Foo"), None);
        assert_eq!(fuzzy("a~b"), None);
    }
}
