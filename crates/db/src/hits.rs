//! From candidates to hits: fuse, sort, cut to the page, and show why each was found.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use mainstay_search::analysis::QueryTerms;
use mainstay_search::bitmap::Bitmap;
use mainstay_search::document::{DocNumber, Document, Value};
use mainstay_search::documents::{DocumentsSnapshot, SortKey, date};
use mainstay_search::fusion::{self, FusedHit, Weights, fuse};
use mainstay_search::method::Method;
use mainstay_search::native::{LineLimits, LineMatch, Matcher, with_context};
use mainstay_search::request::{Allowed, MethodAnswer};
use mainstay_search::snippet::{MatchingLine, Shape, SnippetOptions, matching_lines, snippets};

use crate::engine::{Engine, documents_failed};
use crate::error::DbError;
use crate::question::Question;
use crate::search_answer::{Contribution, Facet, HitLine, HitSnippet, SearchAnswer, SearchHit};
use crate::search_request::{DEPTH_MAX, Fusion, SearchRequest};

/// Bytes of a body in which words are looked for to highlight them; beyond it only the passage that
/// a method named is shown. Keeps the cost of a page of the largest documents in milliseconds.
const HIGHLIGHT_BYTES_MAX: usize = 256 << 10;

/// Bytes of one line that are shown: a file without line ends must not fill an answer.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Bytes shown in front of the first match of a line that is longer.
const LINE_LEAD_BYTES: usize = 512;

/// Lines of one document that are compared to find the best to show.
const LINES_COMPARED_MAX: usize = 500;

/// Fills an answer from what the methods found.
pub(crate) fn fill(
    inner: &Engine,
    request: &SearchRequest,
    question: &Question,
    answers: Vec<(Method, MethodAnswer)>,
    answer: &mut SearchAnswer,
) -> Result<(), DbError> {
    let lists: Vec<(Method, &MethodAnswer)> = answers.iter().map(|(m, a)| (*m, a)).collect();
    let (strategy, weights) = match request.fusion {
        Fusion::Weighted(weights) => {
            let weights = weights.unwrap_or_else(|| default_weights(inner, question, answer));
            (fusion::Fusion::Scores, weights)
        }
        Fusion::ReciprocalRank { k } => {
            (fusion::Fusion::Ranks { k }, default_weights(inner, question, answer))
        }
    };
    let mut candidates = fuse(&lists, &weights, strategy, DEPTH_MAX * lists.len().max(1));
    let found = candidates.len() as u64;
    answer.total = answers.iter().map(|(_, one)| one.total).chain([found]).max().unwrap_or(0);
    // The union of several lists is known exactly only when each list was whole.
    answer.total_is_exact = match &answers[..] {
        [(_, only)] => only.total_is_exact,
        several => {
            several.iter().all(|(_, one)| one.total_is_exact && one.total == one.hits.len() as u64)
        }
    };
    let documents = &question.documents;
    if !request.facets.is_empty() {
        let among: Bitmap = candidates.iter().map(|hit| hit.number).collect();
        answer.facets = facets(documents, request, &among)?;
    }
    if !request.sort.is_empty() {
        candidates = sorted(documents, &request.sort, candidates)?;
    }
    let shown = Shown::new(request, question);
    for fused in candidates.into_iter().skip(request.offset).take(request.limit) {
        if let Some(document) = documents.get(fused.number).map_err(documents_failed)? {
            answer.hits.push(shown.hit(document, fused));
        }
    }
    Ok(())
}

/// Fills an answer to an empty query: every document that passes the filter.
pub(crate) fn browse(
    request: &SearchRequest,
    documents: &Arc<DocumentsSnapshot>,
    allowed: &Allowed,
    answer: &mut SearchAnswer,
) -> Result<(), DbError> {
    answer.total = allowed.len();
    answer.total_is_exact = true;
    if !request.facets.is_empty() {
        let among: Bitmap = allowed.iter().collect();
        answer.facets = facets(documents, request, &among)?;
    }
    let end = request.offset + request.limit;
    let numbers: Vec<DocNumber> = if request.sort.is_empty() {
        allowed.iter().take(end).collect()
    } else {
        let sorted = documents.sort(allowed.iter(), &request.sort, end);
        sorted.map_err(field_failed)?.into_iter().map(|one| one.number).collect()
    };
    for number in numbers.into_iter().skip(request.offset) {
        if let Some(mut document) = documents.get(number).map_err(documents_failed)? {
            if !request.with_body {
                document.body = String::new();
            }
            answer.hits.push(SearchHit {
                document,
                score: 0.0,
                methods: Vec::new(),
                explanation: Vec::new(),
                snippet: None,
                lines: Vec::new(),
            });
        }
    }
    Ok(())
}

/// The collection's own weights, or the measured defaults: between those for instant vectors and
/// those for refined ones, by how far refinement has come, with less for `semantic` where its model
/// knows little of the query.
fn default_weights(inner: &Engine, question: &Question, answer: &SearchAnswer) -> Weights {
    if let Some(weights) = inner.settings().weights {
        return weights;
    }
    let share = match answer.refined {
        None => 0.0,
        Some((_, 0)) => 1.0,
        Some((done, total)) => done as f32 / total as f32,
    };
    let between = |method| {
        let (from, to) = (Weights::INSTANT.of(method), Weights::REFINED.of(method));
        from + (to - from) * share
    };
    let weights = Method::ALL
        .into_iter()
        .fold(Weights::INSTANT, |all, method| all.with(method, between(method)));
    weights.where_known(inner.embedding().known_share(&question.text))
}

fn sorted(
    documents: &DocumentsSnapshot,
    order: &[SortKey],
    candidates: Vec<FusedHit>,
) -> Result<Vec<FusedHit>, DbError> {
    let numbers: Vec<DocNumber> = candidates.iter().map(|hit| hit.number).collect();
    let places = documents.sort(numbers, order, candidates.len()).map_err(field_failed)?;
    let mut by_number: std::collections::HashMap<DocNumber, FusedHit> =
        candidates.into_iter().map(|hit| (hit.number, hit)).collect();
    Ok(places.iter().filter_map(|place| by_number.remove(&place.number)).collect())
}

fn facets(
    documents: &DocumentsSnapshot,
    request: &SearchRequest,
    among: &Bitmap,
) -> Result<Vec<Facet>, DbError> {
    let fields: Vec<&str> = request.facets.iter().map(String::as_str).collect();
    let found = documents.facets(among, &fields, request.facet_values).map_err(field_failed)?;
    let facets = found.into_iter().map(|facet| Facet {
        field: facet.field,
        values: facet.values.into_iter().map(|one| (text_of(&one.value), one.count)).collect(),
    });
    Ok(facets.collect())
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Date(at_ms) => date::format(*at_ms),
        Value::Boolean(truth) => truth.to_string(),
    }
}

fn field_failed(error: mainstay_search::request::SearchError) -> DbError {
    use mainstay_search::request::SearchError;
    match error {
        SearchError::Query { message, position } => {
            DbError::Query { method: None, message, position }
        }
        SearchError::Bound { message } => DbError::Bound { message },
        other => documents_failed(other),
    }
}

/// How the hits of one answer are shown.
struct Shown<'a> {
    request: &'a SearchRequest,
    question: &'a Question,
    terms: QueryTerms,
    /// Made for the first hit of `native`; `None` in it when the text is no pattern.
    matcher: OnceCell<Option<Matcher>>,
}

/// The words of the query in a body, looked for at most once.
struct Words<'a> {
    terms: &'a QueryTerms,
    body: &'a str,
    found: OnceCell<Vec<Range<usize>>>,
}

impl Words<'_> {
    /// In the part of the body in which they are looked for.
    fn ranges(&self) -> &[Range<usize>] {
        self.found.get_or_init(|| {
            let end = self.body.floor_char_boundary(HIGHLIGHT_BYTES_MAX);
            self.terms.matches(&self.body[..end])
        })
    }
}

impl<'a> Shown<'a> {
    fn new(request: &'a SearchRequest, question: &'a Question) -> Self {
        let terms = QueryTerms::of(&question.text);
        Self { request, question, terms, matcher: OnceCell::new() }
    }

    fn matcher(&self) -> Option<&Matcher> {
        let compiled = || Matcher::new(&self.question.text, self.question.pattern).ok();
        self.matcher.get_or_init(compiled).as_ref()
    }

    fn hit(&self, mut document: Document, fused: FusedHit) -> SearchHit {
        let body = std::mem::take(&mut document.body);
        let by_native = fused.contributions.iter().any(|part| part.method == Method::Native);
        let passage = fused.passage().map(|(_, range)| range.start as usize..range.end as usize);
        let words = Words { terms: &self.terms, body: &body, found: OnceCell::new() };
        let (lines, ranges) = self.matches(&words, by_native);
        let snippet = self.snippet(&document, &words, ranges, passage);
        if self.request.with_body {
            document.body = body;
        }
        let explanation = if self.request.explain { &fused.contributions[..] } else { &[] };
        SearchHit {
            document,
            score: fused.score,
            methods: fused.contributions.iter().map(|part| part.method).collect(),
            explanation: explanation
                .iter()
                .map(|part| Contribution {
                    method: part.method,
                    rank: part.rank as usize,
                    score: part.score,
                    normalised: part.normalised,
                    weight: part.weight,
                })
                .collect(),
            snippet,
            lines,
        }
    }

    /// The lines that match, and every range to highlight: those of `native` where it found the
    /// document, else the words of the query.
    fn matches(&self, words: &Words<'_>, by_native: bool) -> (Vec<HitLine>, Vec<Range<usize>>) {
        let (body, lines_max) = (words.body, self.request.lines.max(1));
        let found: Vec<LineMatch> = match by_native.then(|| self.matcher()).flatten() {
            Some(matcher) => matcher.lines(body, LineLimits { lines_max, ..LineLimits::default() }),
            None => word_lines(words, lines_max),
        };
        let ranges = found.iter().flat_map(|line| line.matches.clone()).collect();
        if self.request.lines == 0 {
            return (Vec::new(), ranges);
        }
        let context = self.request.context_lines;
        let lines = with_context(body, &found, context, context).into_iter().map(|shown| {
            let matched = shown.matched.map(|at| &found[at]);
            let highlights = matched.map(|line| &line.matches[..]).unwrap_or_default();
            let first = highlights.first().map_or(shown.range.start, |range| range.start);
            let cut = cut(body, &shown.range, first);
            let text = body[cut.clone()].trim_end_matches('\r').to_string();
            HitLine {
                line: shown.line,
                column: matched.map_or(0, |line| line.column),
                offset: cut.start - shown.range.start,
                highlights: highlights
                    .iter()
                    .map(|range| {
                        let from = range.start.saturating_sub(cut.start).min(text.len());
                        let to = range.end.saturating_sub(cut.start).min(text.len());
                        from..to
                    })
                    .filter(|range| !range.is_empty() || cut.len() == shown.range.len())
                    .collect(),
                text,
            }
        });
        (lines.collect(), ranges)
    }

    fn snippet(
        &self,
        document: &Document,
        words: &Words<'_>,
        ranges: Vec<Range<usize>>,
        passage: Option<Range<usize>>,
    ) -> Option<HitSnippet> {
        let body = words.body;
        if self.request.snippet_bytes == 0 || body.is_empty() {
            return None;
        }
        let is_code = !document.language.is_empty() && document.language.len() > 2;
        let options = SnippetOptions {
            shape: if is_code { Shape::Code } else { Shape::Prose },
            bytes_max: self.request.snippet_bytes,
            count: 1,
            focus: passage,
        };
        let mut all = ranges;
        if !all.is_empty() && self.request.query.contains(' ') {
            all.extend_from_slice(words.ranges());
        }
        let best = snippets(body, &all, &options).into_iter().next()?;
        Some(HitSnippet { text: best.text, line: best.line, highlights: best.highlights })
    }
}

/// The part of a line that is shown: all of it, or what surrounds the first match.
fn cut(body: &str, line: &Range<usize>, first: usize) -> Range<usize> {
    if line.len() <= LINE_BYTES_MAX {
        return line.clone();
    }
    let start = body.ceil_char_boundary(first.saturating_sub(LINE_LEAD_BYTES).max(line.start));
    let start = start.min(line.end);
    start..body.floor_char_boundary((start + LINE_BYTES_MAX).min(line.end))
}

/// The lines that say most of the query, in order, in the form that `native` gives.
fn word_lines(words: &Words<'_>, lines_max: usize) -> Vec<LineMatch> {
    let body = words.body;
    let mut found = matching_lines(body, words.ranges(), LINES_COMPARED_MAX);
    if found.len() > lines_max {
        let mut weights: Vec<(usize, u32)> =
            found.iter().map(|line| (weight(line), line.number)).collect();
        weights.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        weights.truncate(lines_max);
        let best: BTreeSet<u32> = weights.into_iter().map(|(_, number)| number).collect();
        found.retain(|line| best.contains(&line.number));
    }
    let lines = found.into_iter().map(|line| {
        let start = body[..line.start].rfind('\n').map_or(0, |at| at + 1);
        let end = body[line.start..].find('\n').map_or(body.len(), |at| line.start + at);
        let matches: Vec<_> =
            line.highlights.iter().map(|h| line.start + h.start..line.start + h.end).collect();
        let column = matches.first().map_or(0, |first| (first.start - start) as u32 + 1);
        LineMatch { line: line.number, column, range: start..end, matches }
    });
    lines.collect()
}

/// How much of a query a line says: the letters of its different words, as long words tell more
/// than short ones.
fn weight(line: &MatchingLine) -> usize {
    let words = line.highlights.iter().filter_map(|range| line.text.get(range.clone()));
    let different: BTreeSet<String> = words.map(str::to_lowercase).collect();
    different.iter().map(String::len).sum()
}
