//! [`Answers`]: complete answers that are kept to stand in for one that cannot be given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay_ops::memory::Shrinker;
use mainstay_resilience::{AnswerCache, Clock};

use crate::search_json::SearchRequestJson;
use crate::wire::SearchAnswerJson;

/// Hits up to which an answer is kept: pages that people look at.
const HITS_MAX: usize = 100;
/// Bytes of answers that are kept, whatever their number: some thousand of the usual size.
pub(crate) const BYTES_MAX: u64 = 64 << 20;
/// Bytes of a hit beside its texts.
const HIT_BYTES: usize = 512;
/// Kept answers are never fresh: a search that works is always made.
const TTL: Duration = Duration::from_millis(1);

/// What was asked: the collection and the request as JSON.
type Key = (String, String);

/// Kept answers, the least recently used dropped first. Clones share them.
#[derive(Clone)]
pub(crate) struct Answers {
    cache: Option<Arc<AnswerCache<Key, Arc<Kept>>>>,
    /// Of everything that is kept, or was and is still being given out.
    bytes: Arc<AtomicU64>,
}

struct Kept {
    at: Instant,
    answer: SearchAnswerJson,
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Answers {
    /// Keeps up to so many answers, each for so long; zero keeps none.
    pub(crate) fn new(answers_max: u32, stale_for: Duration) -> Self {
        let bytes = Arc::default();
        if stale_for.is_zero() {
            return Self { cache: None, bytes };
        }
        let cache = AnswerCache::new(answers_max.max(1), TTL, stale_for, Clock::system());
        Self { cache: cache.ok().map(Arc::new), bytes }
    }

    /// Answers that are kept.
    pub(crate) fn len(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.len())
    }

    /// What an answer to this request is kept under; nothing when it is not to be kept: large ones,
    /// and those whose callers asked for nothing less than the newest.
    pub(crate) fn key(&self, collection: &str, request: &SearchRequestJson) -> Option<Key> {
        let plain = !request.strict
            && !request.body
            && request.min_seq.is_none()
            && request.limit.unwrap_or(0) <= HITS_MAX;
        self.cache.as_ref().filter(|_| plain)?;
        Some((collection.to_string(), serde_json::to_string(request).ok()?))
    }

    /// Keeps a complete answer.
    pub(crate) fn keep(&self, key: Key, answer: &SearchAnswerJson) {
        let Some(cache) = &self.cache else { return };
        let bytes = size(&key, answer);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let (answer, total) = (answer.clone(), Arc::clone(&self.bytes));
        cache.insert(key, Arc::new(Kept { at: Instant::now(), answer, bytes, total }));
        while self.bytes.load(Ordering::Relaxed) > BYTES_MAX && !cache.is_empty() {
            cache.keep_newest(cache.len() - 1);
        }
    }

    /// The kept answer, marked as what it is, and why it is given.
    pub(crate) fn instead(&self, key: &Key, why: &str) -> Option<SearchAnswerJson> {
        let found = self.cache.as_ref()?.stale(key);
        let result = if found.is_some() { "hit" } else { "miss" };
        metrics::counter!("mainstay_cache_requests_total", "cache" => "answers", "result" => result)
            .increment(1);
        let kept = found?;
        metrics::counter!("mainstay_stale_answers_total").increment(1);
        let age_ms = u64::try_from(kept.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(SearchAnswerJson {
            complete: false,
            level: "minimal".to_string(),
            reason: format!("a kept answer: {why}"),
            age_ms: Some(age_ms),
            ..kept.answer.clone()
        })
    }
}

/// About what an answer takes: its texts, and so much for each hit.
fn size(key: &Key, answer: &SearchAnswerJson) -> u64 {
    let hits = answer.results.iter().map(|hit| {
        let snippet = hit.snippet.as_ref().map_or(0, |snippet| snippet.text.len());
        let lines: usize = hit.lines.iter().map(|line| line.text.len() + HIT_BYTES / 8).sum();
        HIT_BYTES + hit.document.id.len() + snippet + lines
    });
    (key.0.len() + key.1.len() + hits.sum::<usize>()) as u64
}

impl Shrinker for Answers {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn shrink(&self, keep: f64) -> u64 {
        let before = self.bytes();
        if let Some(cache) = &self.cache {
            cache.keep_newest((cache.len() as f64 * keep) as usize);
        }
        before.saturating_sub(self.bytes())
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

    /// O2: what is kept is known in bytes and given up when memory is short, the oldest first.
    #[test]
    fn kept_answers_are_given_up_when_memory_is_short() {
        let answers = Answers::new(10, Duration::from_secs(60));
        let whole = serde_json::json!({
            "results": [{"id": "1", "score": 1.0, "methods": [],
                         "snippet": {"text": "x".repeat(5_000), "line": 1, "highlights": []}}],
            "total": 1, "total_is_exact": true, "duration_ms": 1.0, "complete": true,
            "level": "full", "methods": [], "durable_seq": 7,
        });
        let whole: SearchAnswerJson = serde_json::from_value(whole).unwrap();
        let key = |n: u32| ("docs".to_string(), n.to_string());
        (0..12).for_each(|n| answers.keep(key(n), &whole));
        let all = answers.bytes();
        assert!((50_000..70_000).contains(&all), "{all}: ten of five thousand and something");
        let freed = answers.shrink(0.5);
        assert_eq!((answers.len(), answers.bytes()), (5, all - freed));
        assert!(answers.instead(&key(6), "").is_none() && answers.instead(&key(7), "").is_some());
        answers.shrink(0.0);
        assert_eq!((answers.len(), answers.bytes()), (0, 0));
    }
}
