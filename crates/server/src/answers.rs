//! [`Answers`]: complete answers that are kept to stand in for one that cannot be given.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_resilience::{AnswerCache, Clock};

use crate::search_json::SearchRequestJson;
use crate::wire::SearchAnswerJson;

/// Hits up to which an answer is kept: pages that people look at.
const HITS_MAX: usize = 100;
/// Kept answers are never fresh: a search that works is always made.
const TTL: Duration = Duration::from_millis(1);

/// What was asked: the collection and the request as JSON.
type Key = (String, String);

/// Kept answers, the least recently used dropped first.
pub(crate) struct Answers(Option<AnswerCache<Key, Kept>>);

type Kept = (Instant, Arc<SearchAnswerJson>);

impl Answers {
    /// Keeps up to so many answers, each for so long; zero keeps none.
    pub(crate) fn new(answers_max: u32, stale_for: Duration) -> Self {
        if stale_for.is_zero() {
            return Self(None);
        }
        let cache = AnswerCache::new(answers_max.max(1), TTL, stale_for, Clock::system());
        Self(cache.ok())
    }

    /// What an answer to this request is kept under; nothing when it is not to be kept: large ones,
    /// and those whose callers asked for nothing less than the newest.
    pub(crate) fn key(&self, collection: &str, request: &SearchRequestJson) -> Option<Key> {
        let plain = !request.strict
            && !request.body
            && request.min_seq.is_none()
            && request.limit.unwrap_or(0) <= HITS_MAX;
        self.0.as_ref().filter(|_| plain)?;
        Some((collection.to_string(), serde_json::to_string(request).ok()?))
    }

    /// Keeps a complete answer.
    pub(crate) fn keep(&self, key: Key, answer: &SearchAnswerJson) {
        if let Some(cache) = &self.0 {
            cache.insert(key, (Instant::now(), Arc::new(answer.clone())));
        }
    }

    /// The kept answer, marked as what it is, and why it is given.
    pub(crate) fn instead(&self, key: &Key, why: &str) -> Option<SearchAnswerJson> {
        let (at, kept) = self.0.as_ref()?.stale(key)?;
        metrics::counter!("mainstay_stale_answers_total").increment(1);
        let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(SearchAnswerJson {
            complete: false,
            level: "minimal".to_string(),
            reason: format!("a kept answer: {why}"),
            age_ms: Some(age_ms),
            ..(*kept).clone()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// D2: an answer that is given in place of a better one says so.
    #[test]
    fn a_kept_answer_says_what_it_is_and_large_ones_are_not_kept() {
        let answers = Answers::new(10, Duration::from_secs(60));
        let request = SearchRequestJson { query: "x".into(), ..SearchRequestJson::default() };
        let key = answers.key("docs", &request).unwrap();
        assert!(answers.instead(&key, "all methods failed").is_none());
        let whole = serde_json::json!({
            "results": [], "total": 0, "total_is_exact": true, "duration_ms": 1.0,
            "complete": true, "level": "full", "methods": [], "durable_seq": 7,
        });
        answers.keep(key.clone(), &serde_json::from_value(whole).unwrap());
        let given = answers.instead(&key, "all methods failed").unwrap();
        assert!(!given.complete && given.age_ms.is_some());
        assert_eq!((given.level.as_str(), given.durable_seq), ("minimal", 7));
        assert_eq!(given.reason, "a kept answer: all methods failed");
        for request in [
            SearchRequestJson { strict: true, ..request.clone() },
            SearchRequestJson { body: true, ..request.clone() },
            SearchRequestJson { limit: Some(101), ..request.clone() },
            SearchRequestJson { min_seq: Some(1), ..request.clone() },
        ] {
            assert!(answers.key("docs", &request).is_none(), "{request:?}");
        }
        assert!(Answers::new(10, Duration::ZERO).key("docs", &request).is_none());
    }
}
