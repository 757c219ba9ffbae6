//! [`Question`]: what every method of one query is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_search::documents::DocumentsSnapshot;
use mainstay_search::method::Method;
use mainstay_search::request::{Allowed, Pattern, Stop};

use crate::lanes::cores;
use crate::search_request::{SearchRequest, Service};

/// The share of the time after which methods are asked to answer with what they have.
const SOFT_SHARE: f64 = 0.85;
/// Texts that `native` verifies beside other methods, at least: some 4 ms of one core, when each
/// stands in a block of its own.
const VERIFIED_MAX: usize = 500;
/// The same for each hit that is wanted.
const VERIFIED_FOR_EACH_HIT: usize = 5;

/// What every method is asked; shared with their threads, which may outlive the request.
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) pattern: Pattern,
    pub(crate) documents: Arc<DocumentsSnapshot>,
    pub(crate) allowed: Allowed,
    /// Whether a fault in the query language is an error: the user asked for that language alone.
    pub(crate) strict_language: bool,
    pub(crate) service: Service,
    pub(crate) depth: usize,
    pub(crate) verified_max: usize,
    pub(crate) threads: usize,
    pub(crate) stop: Stop,
    pub(crate) begun: Instant,
    pub(crate) timeout: Duration,
    /// Whether a remembered vector of the query will do.
    pub(crate) from_cache: bool,
}

impl Question {
    pub(crate) fn new(
        request: &SearchRequest,
        methods: &[Method],
        documents: Arc<DocumentsSnapshot>,
        allowed: Allowed,
        begun: Instant,
    ) -> Self {
        Self {
            text: request.query.clone(),
            pattern: request.pattern,
            documents,
            allowed,
            strict_language: methods == [Method::Tantivy],
            service: request.service.clone(),
            depth: request.depth(),
            verified_max: match methods {
                [_] => usize::MAX,
                _ => request
                    .scaled(VERIFIED_MAX)
                    .max(request.depth().saturating_mul(VERIFIED_FOR_EACH_HIT)),
            },
            threads: if methods.len() == 1 { cores() } else { 1 },
            stop: Stop::new(),
            begun,
            timeout: request.timeout,
            from_cache: true,
        }
    }

    pub(crate) fn soft_deadline(&self) -> Instant {
        self.begun + self.timeout.mul_f64(SOFT_SHARE)
    }

    pub(crate) fn hard_deadline(&self) -> Instant {
        self.begun + self.timeout
    }
}
