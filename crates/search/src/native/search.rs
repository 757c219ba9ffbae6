//! [`Snapshot`]: an immutable state of the index that answers questions.
//!
//! A query runs in three steps: the plan of its pattern leaves candidates (`candidates`), their
//! texts are visited in order by up to [`Request::threads`] threads, and the lines that the plan
//! could not exclude are searched. Every candidate is verified, so the total is exact, unless
//! [`Request::stop`] ended the work or a ranked search has seen enough ([`RANKED_MATCHES_MIN`],
//! [`Request::verified_max`]).

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::candidates::Candidates;
use super::matcher::{LineVisitor, Matcher, Scratch, Window};
use super::score::Scorer;
use super::segment::Segment;
use super::workers::in_order;
use crate::document::DocNumber;
use crate::request::{Hit, MethodAnswer, Request, SearchError, Syntax, Text};
use crate::view::Searcher;

/// Candidates that one thread takes at a time: enough to pay for the hand-over, few enough to share
/// the work evenly and to decompress few blocks twice.
const CHUNK_DOCUMENTS: usize = 64;
/// A ranked search ends when so many documents matched, or so many for each hit that is wanted: what
/// stands in thousands of documents is no longer found by where it stands, and the deadline of a
/// search is short. [`Snapshot::enumerate`] has no such end.
const RANKED_MATCHES_MIN: usize = 2_000;
const RANKED_FOR_EACH_HIT: usize = 10;
/// Below this many candidates, starting a thread takes longer than searching them.
const SHARED_DOCUMENTS_MIN: usize = 24;

/// An immutable state of the `native` view.
#[derive(Clone, Debug)]
pub struct Snapshot {
    segments: Arc<[Arc<Segment>]>,
}

/// All matching lines of one document; what [`Snapshot::enumerate`] streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentLines {
    /// The document.
    pub number: DocNumber,
    /// Whether the title matches.
    pub title: bool,
    /// The matching lines of the body, in order.
    pub lines: Vec<EnumeratedLine>,
    text: String,
}

/// One line of [`DocumentLines`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnumeratedLine {
    /// The line's number, from 1.
    pub line: u32,
    /// The byte of the body at which the line starts.
    pub start: u32,
    text: Range<usize>,
}

impl DocumentLines {
    /// The contents of one of `lines`, without its `\n`.
    pub fn text(&self, line: &EnumeratedLine) -> &str {
        self.text.get(line.text.clone()).unwrap_or_default()
    }
}

/// How an enumeration ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enumeration {
    /// Documents that matched, up to the end of the walk.
    pub documents: u64,
    /// Their matching lines.
    pub lines: u64,
    /// Whether all was searched: false when the stop flag or the callback ended the walk.
    pub complete: bool,
}

/// What one chunk of candidates gave.
struct Chunk<T> {
    results: Vec<T>,
    complete: bool,
    error: Option<SearchError>,
}

impl Snapshot {
    pub(super) fn new(segments: &[Arc<Segment>]) -> Self {
        Self { segments: segments.into() }
    }

    /// Streams all matching documents with all matching lines, in order of document number;
    /// [`Request::limit`] does not apply. `Break` ends the walk.
    pub fn enumerate(
        &self,
        request: &Request<'_>,
        each: &mut dyn FnMut(DocumentLines) -> ControlFlow<()>,
    ) -> Result<Enumeration, SearchError> {
        let matcher = Matcher::new(request.text, request.pattern)?;
        let mut enumeration = Enumeration::default();
        let verify = |work: &mut Work<'_>, text: Text<'_>| work.lines(text);
        let candidates = self.candidates(request, &matcher, usize::MAX)?;
        enumeration.complete = self.verify(request, &matcher, &candidates, verify, |found| {
            enumeration.documents += 1;
            enumeration.lines += found.lines.len() as u64;
            each(found)
        })?;
        Ok(enumeration)
    }

    fn candidates(
        &self,
        request: &Request<'_>,
        matcher: &Matcher,
        max: usize,
    ) -> Result<Candidates, SearchError> {
        let mut candidates = Candidates::default();
        let (plan, stop) = (matcher.plan(), request.stop);
        for segment in self.segments.iter() {
            candidates.add(plan, segment, request.allowed, stop, max).map_err(|_| {
                let reason = "a posting list or a signature does not match its checksum";
                SearchError::damaged(segment.name(), reason)
            })?;
        }
        Ok(candidates)
    }

    /// Runs `check` over the text of the candidates and hands what it finds to `each`, in order.
    /// Answers whether all were searched.
    fn verify<T: Send>(
        &self,
        request: &Request<'_>,
        matcher: &Matcher,
        candidates: &Candidates,
        check: impl Fn(&mut Work<'_>, Text<'_>) -> Option<T> + Sync,
        mut each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<bool, SearchError> {
        let documents = candidates.len();
        let threads = if documents < SHARED_DOCUMENTS_MIN { 1 } else { request.threads };
        let chunk_documents = CHUNK_DOCUMENTS.min(documents.div_ceil(threads.max(1))).max(1);
        let chunks = documents.div_ceil(chunk_documents);
        let (mut complete, mut error) = (!request.stop.is_set(), None);
        in_order(
            threads,
            chunks,
            || matcher.scratch(),
            |scratch, chunk| {
                let start = chunk * chunk_documents;
                let end = (start + chunk_documents).min(documents);
                let work =
                    Work { request, matcher, scratch, candidates, at: start, complete: true };
                work.chunk(start..end, &check)
            },
            |chunk: Chunk<T>| {
                complete &= chunk.complete;
                for result in chunk.results {
                    if each(result).is_break() {
                        complete = false;
                        return ControlFlow::Break(());
                    }
                }
                error = chunk.error;
                if error.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        error.map_or(Ok(complete), Err)
    }
}

impl Searcher for Snapshot {
    fn search(&self, request: &Request<'_>) -> Result<MethodAnswer, SearchError> {
        let matcher = Matcher::new(request.text, request.pattern)?;
        let enough = RANKED_MATCHES_MIN.max(request.limit.saturating_mul(RANKED_FOR_EACH_HIT));
        let mut best = BinaryHeap::new();
        let mut total = 0;
        let verify = |work: &mut Work<'_>, text: Text<'_>| work.hit(text);
        let max = match request.pattern.syntax {
            Syntax::Literal => request.verified_max,
            Syntax::Regex => usize::MAX,
        };
        let candidates = self.candidates(request, &matcher, max)?;
        let all = self.verify(request, &matcher, &candidates, verify, |hit| {
            total += 1;
            best.push(Ranked(hit));
            if best.len() > request.limit {
                best.pop();
            }
            if total < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let hits = best.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect();
        let complete = all || total >= enough;
        let total_is_exact = all && !candidates.cut();
        Ok(MethodAnswer { hits, total: total as u64, total_is_exact, complete })
    }
}

/// Orders hits so that the worst is the greatest.
struct Ranked(Hit);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.score.total_cmp(&self.0.score).then(self.0.number.cmp(&other.0.number))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

/// One thread's view of the work.
struct Work<'a> {
    request: &'a Request<'a>,
    matcher: &'a Matcher,
    scratch: &'a mut Scratch,
    candidates: &'a Candidates,
    /// The candidate whose text is being looked at.
    at: usize,
    complete: bool,
}

impl<'a> Work<'a> {
    fn chunk<T>(
        mut self,
        range: Range<usize>,
        check: &impl Fn(&mut Work<'_>, Text<'_>) -> Option<T>,
    ) -> Chunk<T> {
        let mut results = Vec::new();
        if self.request.stop.is_set() {
            return Chunk { results, complete: false, error: None };
        }
        let candidates = self.candidates;
        let numbers: Vec<DocNumber> = range.clone().map(|at| candidates.number(at)).collect();
        let visited = self.request.texts.visit(&numbers, &mut |number, text| {
            while self.at < range.end && candidates.number(self.at) < number {
                self.at += 1;
            }
            if self.at < range.end && candidates.number(self.at) == number {
                results.extend(check(&mut self, text));
            }
            self.complete &= !self.request.stop.is_set();
            if self.complete { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        Chunk { results, complete: self.complete, error: visited.err() }
    }

    /// Calls `each` with every matching line of the candidate's windows.
    fn scan(&mut self, body: &[u8], each: LineVisitor<'_>) {
        let line_start =
            |it: &Window| it.start == 0 || body.get(it.start as usize - 1) == Some(&b'\n');
        let windows = match self.candidates.windows(self.at) {
            some @ [_, ..] if some.iter().all(line_start) => some,
            // A short document; or the store holds another text than the one indexed.
            _ => &[Window::WHOLE],
        };
        for &window in windows {
            let mut ended = false;
            let done = self.matcher.scan(
                body,
                window,
                self.scratch,
                self.request.stop,
                &mut |scratch, line, range| {
                    let flow = each(scratch, line, range);
                    ended = flow.is_break();
                    flow
                },
            );
            self.complete &= done;
            if ended || !done {
                return;
            }
        }
    }

    fn title_matches(&mut self, text: Text<'_>) -> bool {
        // The trigrams of the title are in the first unit of the document.
        self.candidates.windows(self.at).first().is_none_or(|window| window.start == 0)
            && self.matcher.matches_in(text.title, self.scratch)
    }

    fn lines(&mut self, text: Text<'_>) -> Option<DocumentLines> {
        let number = self.candidates.number(self.at);
        let mut found = DocumentLines { number, ..DocumentLines::default() };
        let body = text.body.as_bytes();
        self.scan(body, &mut |_, line, range| {
            let at = found.text.len();
            // A line of a `str` is a `str`: `\n` is never inside a character.
            found.text.push_str(text.body.get(range.clone()).unwrap_or_default());
            let text = at..found.text.len();
            found.lines.push(EnumeratedLine { line, start: range.start as u32, text });
            ControlFlow::Continue(())
        });
        found.title = self.title_matches(text);
        (found.title || !found.lines.is_empty()).then_some(found)
    }

    fn hit(&mut self, text: Text<'_>) -> Option<Hit> {
        let number = self.candidates.number(self.at);
        let body = text.body.as_bytes();
        let matcher = self.matcher;
        let mut scorer = Scorer::default();
        self.scan(body, &mut |scratch, _, range| {
            let first = matcher.first_match(body, &range, scratch);
            let more = scorer.line(body, range, first);
            if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let title = self.title_matches(text);
        if !title && !scorer.matched() {
            return None;
        }
        let path = self.matcher.matches_in(text.path, self.scratch);
        let score = scorer.score(text.body.len(), title, path);
        Some(Hit { number, score, passage: scorer.passage() })
    }
}
