//! The way of a query: ask the methods side by side under one deadline, join what arrived, and say
//! what the answer is worth.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use mainstay_resilience::{Dependency, OwnedPermit, State};
use mainstay_search::document::DocNumber;
use mainstay_search::method::Method;
use mainstay_search::request::{Allowed, MethodAnswer, QueryVector, Request, SearchError};
use mainstay_search::view::Searcher;
use tracing::Span;
use tracing::field::Empty;

use crate::collection::Collection;
use crate::driven::{Readers, ViewKind};
use crate::engine::{Engine, documents_failed};
use crate::error::DbError;
use crate::hits;
use crate::panics::panic_message;
use crate::question::Question;
use crate::search_answer::{Level, MethodReport, MethodStatus, SearchAnswer};
use crate::search_request::SearchRequest;

/// The share of a read-your-writes request's time that may pass in waiting for the views.
const FRESHNESS_SHARE: f64 = 0.5;

impl Collection {
    /// Answers a query with the methods it names, fused. Blocks for at most the request's timeout
    /// and the few milliseconds that fetching the hits takes.
    ///
    /// # Errors
    /// [`DbError::Bound`] and [`DbError::Query`] for a request that cannot be answered,
    /// [`DbError::Unanswered`] when no method answered, or when the request is strict and one did not.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchAnswer, DbError> {
        let begun = Instant::now();
        let result = self.answer(request, begun);
        self.inner.search_figures.ended(&result, begun.elapsed());
        result
    }

    fn answer(&self, request: &SearchRequest, begun: Instant) -> Result<SearchAnswer, DbError> {
        request.validate()?;
        let inner = &self.inner;
        let durable_seq = inner.log.durable_seq();
        let methods = request.methods();
        if request.min_seq > 0 {
            let patience = request.timeout.mul_f64(FRESHNESS_SHARE);
            self.wait_indexed(request.min_seq, &methods, patience);
        }
        let documents = inner.documents()?;
        let filter = match &request.filter {
            Some(filter) => Some(documents.filter(filter).map_err(filter_failed)?),
            None => None,
        };
        let allowed = Allowed::new(documents.living().clone(), filter);
        let mut answer =
            SearchAnswer { durable_seq, refined: inner.refined(), ..Default::default() };
        if request.query.trim().is_empty() {
            hits::browse(request, &documents, &allowed, &mut answer)?;
        } else {
            let question = Arc::new(Question::new(request, &methods, documents, allowed, begun));
            let mut asked = Asked::start(inner, &question, &methods);
            asked.collect();
            asked.check(request)?;
            answer.methods = asked.reports(request);
            hits::fill(inner, request, &question, asked.answers(), &mut answer)?;
        }
        let full = answer.methods.iter().all(|report| report.status == MethodStatus::Ok);
        answer.complete = full;
        let by_methods = if full { Level::Full } else { Level::Degraded };
        answer.level = by_methods.max(request.service.level);
        if answer.level > Level::Full {
            answer.reason = match request.service.level {
                Level::Full => unwell(&answer.methods),
                _ => request.service.reason.clone(),
            };
        }
        answer.duration_ms = milliseconds(begun.elapsed());
        Ok(answer)
    }
}

/// What each method ranks by itself, before fusion; for evaluation and tuning.
#[derive(Clone, Debug, Default)]
pub struct RankedLists {
    /// Each method that answered.
    pub lists: Vec<(Method, MethodAnswer)>,
    /// The ids of all documents in the lists.
    pub ids: std::collections::BTreeMap<DocNumber, String>,
    /// How long each method took.
    pub took: Vec<(Method, Duration)>,
    /// The share of the query that the embedding model knows; see [`Weights::where_known`].
    ///
    /// [`Weights::where_known`]: mainstay_search::fusion::Weights::where_known
    pub known_share: f32,
}

impl Collection {
    /// Asks the methods as [`Collection::search`] does and answers their own lists.
    ///
    /// # Errors
    /// As [`Collection::search`] with `strict`.
    pub fn ranked_lists(&self, request: &SearchRequest) -> Result<RankedLists, DbError> {
        let begun = Instant::now();
        request.validate()?;
        let documents = self.inner.documents()?;
        let allowed = Allowed::new(documents.living().clone(), None);
        let methods = request.methods();
        let question = Question::new(request, &methods, Arc::clone(&documents), allowed, begun);
        let question = Arc::new(question);
        let mut asked = Asked::start(&self.inner, &question, &methods);
        asked.collect();
        asked.check(&SearchRequest { strict: true, ..request.clone() })?;
        let mut ranked = RankedLists { took: asked.took(), ..RankedLists::default() };
        ranked.lists = asked.answers();
        ranked.known_share = self.inner.embedding().known_share(&request.query);
        for hit in ranked.lists.iter().flat_map(|(_, answer)| &answer.hits) {
            if let Some(document) = documents.get(hit.number).map_err(documents_failed)? {
                ranked.ids.insert(hit.number, document.id);
            }
        }
        Ok(ranked)
    }
}

/// What a method's thread sends back.
struct Reply {
    method: Method,
    took: Duration,
    ended: Instant,
    outcome: Result<Answered, Failure>,
    /// What the method's thread worked in. It is closed by who began it: what a span consists of would be
    /// fetched from another processor's caches otherwise.
    span: Span,
}

struct Answered {
    answer: MethodAnswer,
    /// Whether the deadline ended the search early; a method may also stop by itself when more work
    /// would not change its best hits much, and then only its total is a lower bound.
    stopped: bool,
    /// Why the answer is only a part, when it is for another reason than the deadline.
    note: Option<String>,
}

enum Failure {
    /// The user's fault: says nothing about the method.
    Query(SearchError),
    /// The method's fault.
    Method(String),
}

/// One method of a running query.
struct Turn {
    method: Method,
    dependency: Dependency,
    indexed_through: u64,
    state: TurnState,
}

enum TurnState {
    /// The permit is recorded when the reply comes or the deadline passes.
    Running(OwnedPermit),
    Skipped {
        reason: String,
        retry_after: Option<Duration>,
    },
    Done {
        took: Duration,
        outcome: Result<Answered, Failure>,
    },
    TimedOut,
}

/// The methods of a running query.
pub(crate) struct Asked<'a> {
    question: &'a Arc<Question>,
    turns: Vec<Turn>,
    replies: Receiver<Reply>,
}

impl<'a> Asked<'a> {
    pub(crate) fn start(
        inner: &Arc<Engine>,
        question: &'a Arc<Question>,
        methods: &[Method],
    ) -> Self {
        let (send, replies) = mpsc::channel();
        // A level that leaves out all that works would turn less service into none.
        let relaxed = question.service.leaves_nothing_of(methods, |method| usable(inner, method));
        let turns =
            methods.iter().map(|&method| ask(inner, question, method, &send, relaxed)).collect();
        Self { question, turns, replies }
    }

    /// Waits for replies until all are there or the time is over.
    pub(crate) fn collect(&mut self) {
        let mut deadline = self.question.soft_deadline();
        while self.turns.iter().any(Turn::is_running) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.replies.recv_timeout(left) {
                Ok(reply) => self.take(reply),
                Err(_) if self.question.stop.is_set() => break,
                Err(_) => {
                    self.question.stop.set();
                    deadline = self.question.hard_deadline();
                }
            }
        }
        self.question.stop.set();
        for turn in &mut self.turns {
            if turn.is_running()
                && let TurnState::Running(permit) =
                    std::mem::replace(&mut turn.state, TurnState::TimedOut)
            {
                permit.failure();
                let (waited, dependency) = (self.question.timeout, &turn.dependency);
                dependency.figures().failed(waited, format_args!("no answer within {waited:?}"));
            }
        }
    }

    fn take(&mut self, reply: Reply) {
        // This thread may have been kept from hearing of it.
        reply.span.record("otel.ended_ns_ago", reply.ended.elapsed().as_nanos() as u64);
        let Some(turn) = self.turns.iter_mut().find(|turn| turn.method == reply.method) else {
            return;
        };
        let done = TurnState::Done { took: reply.took, outcome: reply.outcome };
        let before = std::mem::replace(&mut turn.state, done);
        let TurnState::Running(permit) = before else { return };
        let figures = turn.dependency.figures();
        match &turn.state {
            TurnState::Done { outcome: Ok(_), took } => {
                figures.succeeded(*took);
                permit.success();
            }
            TurnState::Done { outcome: Err(Failure::Method(reason)), took } => {
                figures.failed(*took, reason);
                permit.failure();
            }
            _ => permit.ignore(),
        }
    }

    /// Refuses an answer that would be none, or less than the caller can use.
    pub(crate) fn check(&self, request: &SearchRequest) -> Result<(), DbError> {
        let answered = |turn: &&Turn| matches!(&turn.state, TurnState::Done { outcome: Ok(_), .. });
        let answered = self.turns.iter().filter(answered).count();
        let too_few = answered < request.methods_min.max(1);
        let reports = self.reports(request);
        let incomplete = reports.iter().any(|report| report.status != MethodStatus::Ok);
        if !(too_few || request.strict && incomplete) {
            return Ok(());
        }
        let faults = self.turns.iter().filter_map(|turn| match &turn.state {
            TurnState::Done { outcome: Err(Failure::Query(error)), .. } => {
                Some(query_error(turn.method, error))
            }
            _ => None,
        });
        let faults: Vec<DbError> = faults.collect();
        let all_query = faults.len() == self.turns.len() || (request.strict && !faults.is_empty());
        if let (true, Some(first)) = (all_query, faults.into_iter().next()) {
            return Err(first);
        }
        let mut reasons = unwell(&reports);
        if too_few && answered > 0 {
            reasons =
                format!("methods_min is {}, {answered} answered; {reasons}", request.methods_min);
        }
        Err(DbError::Unanswered {
            reasons,
            retry_after_ms: reports.iter().filter_map(|report| report.retry_after_ms).min(),
        })
    }

    fn reports(&self, request: &SearchRequest) -> Vec<MethodReport> {
        self.turns.iter().map(|turn| turn.report(request, self.question)).collect()
    }

    fn took(&self) -> Vec<(Method, Duration)> {
        let done = self.turns.iter().filter_map(|turn| match &turn.state {
            TurnState::Done { took, .. } => Some((turn.method, *took)),
            _ => None,
        });
        done.collect()
    }

    fn answers(self) -> Vec<(Method, MethodAnswer)> {
        let done = self.turns.into_iter().filter_map(|turn| match turn.state {
            TurnState::Done { outcome: Ok(answered), .. } => Some((turn.method, answered.answer)),
            _ => None,
        });
        done.collect()
    }
}

impl Turn {
    fn is_running(&self) -> bool {
        matches!(self.state, TurnState::Running(_))
    }

    fn report(&self, request: &SearchRequest, question: &Question) -> MethodReport {
        let mut report = MethodReport {
            method: self.method,
            status: MethodStatus::Ok,
            reason: String::new(),
            indexed_through: self.indexed_through,
            took_ms: 0.0,
            total: 0,
            retry_after_ms: None,
        };
        match &self.state {
            TurnState::Skipped { reason, retry_after } => {
                report.status = MethodStatus::Skipped;
                report.reason = reason.clone();
                report.retry_after_ms = retry_after.map(|wait| wait.as_millis() as u64);
            }
            TurnState::Running(_) | TurnState::TimedOut => {
                report.status = MethodStatus::TimedOut;
                report.reason = format!("no answer within {:?}", question.timeout);
                report.took_ms = milliseconds(question.timeout);
            }
            TurnState::Done { took, outcome } => {
                report.took_ms = milliseconds(*took);
                match outcome {
                    Ok(answered) => {
                        report.total = answered.answer.total;
                        if let Some(note) = &answered.note {
                            report.status = MethodStatus::Partial;
                            report.reason = note.clone();
                        } else if answered.stopped {
                            report.status = MethodStatus::Partial;
                            report.reason = "the deadline ended the search early".into();
                        } else if self.indexed_through < request.min_seq {
                            report.status = MethodStatus::Partial;
                            report.reason = format!(
                                "has indexed up to {}, {} was asked for",
                                self.indexed_through, request.min_seq
                            );
                        }
                    }
                    Err(failure) => {
                        report.status = MethodStatus::Failed;
                        report.reason = match failure {
                            Failure::Query(error) => error.to_string(),
                            Failure::Method(reason) => reason.clone(),
                        };
                    }
                }
            }
        }
        report
    }
}

/// Whether a method has an index and a breaker that admits calls.
fn usable(inner: &Engine, method: Method) -> bool {
    let indexed = inner.slot(ViewKind::Method(method)).published().readers.is_some();
    let state = inner.methods[method as usize].breaker().state();
    indexed && !matches!(state, State::Open | State::Isolated)
}

/// Asks one method, if its index is there, its breaker admits it and its lane has room.
fn ask(
    inner: &Arc<Engine>,
    question: &Arc<Question>,
    method: Method,
    send: &Sender<Reply>,
    relaxed: bool,
) -> Turn {
    let published = inner.slot(ViewKind::Method(method)).published();
    let indexed_through = published.through;
    let dependency = inner.methods[method as usize].clone();
    let turn = |state| Turn { method, dependency: dependency.clone(), indexed_through, state };
    let skipped = |reason: String, retry_after| turn(TurnState::Skipped { reason, retry_after });
    if let Some(reason) = question.service.leaves_out(method, relaxed) {
        return skipped(reason, None);
    }
    let Some(Readers::Method(searcher)) = published.readers.clone() else {
        return skipped(format!("its index is {}", published.state), None);
    };
    let permit = match dependency.breaker().try_acquire_owned() {
        Ok(permit) => permit,
        Err(rejection) => return skipped(rejection.explain(), rejection.retry_after()),
    };
    let (owner, question, send) = (Arc::clone(inner), Arc::clone(question), send.clone());
    let span = tracing::info_span!(
        "search.method",
        method = method.name(),
        indexed_through,
        "otel.ended_ns_ago" = Empty,
    );
    // Where nobody records the trace its thread works for the search as a whole.
    let span = if span.is_disabled() { Span::current() } else { span };
    let job = Box::new(move || {
        let started = Instant::now();
        let outcome = span.in_scope(|| {
            let asked = || answer(&owner, &question, method, &*searcher);
            catch_unwind(AssertUnwindSafe(asked)).unwrap_or_else(|panic| {
                let message = panic_message(panic.as_ref());
                tracing::error!(%method, panic = message, "search method panicked");
                Err(Failure::Method(format!("panic: {message}")))
            })
        });
        let ended = Instant::now();
        let took = ended - started;
        // Nobody listens any more when the deadline has passed.
        let _ = send.send(Reply { method, took, ended, outcome, span });
    });
    match inner.runtime.lanes.submit(method, job) {
        Ok(()) => turn(TurnState::Running(permit)),
        Err(full) => {
            permit.ignore();
            skipped(format!("{} searches wait for it already", full.queue_max), None)
        }
    }
}

/// Runs on the method's thread.
fn answer(
    inner: &Engine,
    question: &Question,
    method: Method,
    searcher: &dyn Searcher,
) -> Result<Answered, Failure> {
    if question.stop.is_set() {
        return Ok(Answered { answer: MethodAnswer::default(), stopped: true, note: None });
    }
    let faults = inner.methods[method as usize].faults();
    faults.strike().map_err(|injected| Failure::Method(injected.to_string()))?;
    let mut vectors: Vec<QueryVector> = Vec::new();
    let mut note = None;
    if method == Method::Semantic {
        let embedded = inner.embedding().embed_query(
            &question.text,
            question.soft_deadline(),
            question.service.refine,
            question.from_cache,
        );
        vectors = embedded.vectors;
        if vectors.is_empty() {
            let reason = embedded.note.unwrap_or_else(|| "the query has no vector".to_string());
            return Err(Failure::Method(reason));
        }
        note = embedded.note;
    }
    let request = Request {
        text: &question.text,
        pattern: question.pattern,
        strict: question.strict_language,
        vectors: &vectors,
        limit: question.depth,
        allowed: &question.allowed,
        texts: &*question.documents,
        verified_max: question.verified_max,
        threads: question.threads,
        stop: &question.stop,
    };
    match searcher.search(&request) {
        Ok(answer) => {
            let stopped = !answer.complete && question.stop.is_set();
            Ok(Answered { answer, stopped, note })
        }
        Err(error @ (SearchError::Query { .. } | SearchError::Bound { .. })) => {
            Err(Failure::Query(error))
        }
        Err(error) => Err(Failure::Method(error.to_string())),
    }
}

/// Which methods an answer lacks, for people.
fn unwell(methods: &[MethodReport]) -> String {
    let unwell = methods.iter().filter(|report| report.status != MethodStatus::Ok);
    let told: Vec<String> =
        unwell.map(|r| format!("{} {}: {}", r.method, r.status, r.reason)).collect();
    told.join("; ")
}

fn query_error(method: Method, error: &SearchError) -> DbError {
    let position = match error {
        SearchError::Query { position, .. } => *position,
        _ => None,
    };
    let message = match error {
        SearchError::Query { message, .. } => message.clone(),
        other => other.to_string(),
    };
    DbError::Query { method: Some(method), message, position }
}

fn filter_failed(error: SearchError) -> DbError {
    match error {
        SearchError::Query { message, position } => {
            DbError::Query { method: None, message: format!("filter: {message}"), position }
        }
        SearchError::Bound { message } => DbError::Bound { message: format!("filter: {message}") },
        other => documents_failed(other),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
