//! The log of slow searches: one line for each, with its plan, and no more than a few a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use mainstay_db::{SearchAnswer, SearchRequest};

use crate::config::Config;

/// Lines that may stand in one [`WINDOW`]; a slow disk makes every search slow at once.
const LINES_MAX: u32 = 10;
/// The time in which lines are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// When the present window began, lines written in it, and lines left out.
static LINES: Mutex<Option<(Instant, u32, u64)>> = Mutex::new(None);

/// Logs a search that took longer than the configuration's threshold; zero logs none.
pub(crate) fn note(
    config: &Config,
    collection: &str,
    request: &SearchRequest,
    answer: &SearchAnswer,
) {
    let took = Duration::from_secs_f64(answer.duration_ms.max(0.0) / 1000.0);
    if config.slow_search.is_zero() || took < config.slow_search {
        return;
    }
    metrics::counter!("mainstay_slow_searches_total").increment(1);
    let Some(left_out) = turn() else { return };
    let plan: Vec<String> = answer
        .methods
        .iter()
        .map(|it| format!("{} {} {:.1}ms {} hits", it.method, it.status, it.took_ms, it.total))
        .collect();
    let text: String = request.query.chars().take(config.slow_search_text_chars).collect();
    tracing::warn!(
        collection,
        took_ms = answer.duration_ms,
        plan = plan.join(", "),
        hits = answer.hits.len(),
        total = answer.total,
        limit = request.limit,
        offset = request.offset,
        filtered = request.filter.is_some(),
        facets = request.facets.len(),
        strict = request.strict,
        level = answer.level.name(),
        query_bytes = request.query.len(),
        query_text = text,
        left_out,
        "slow search"
    );
}

/// Whether a line may be written now; with the lines left out since the last one.
fn turn() -> Option<u64> {
    let mut lines = LINES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let now = Instant::now();
    let (begun, written, left_out) = lines.unwrap_or((now, 0, 0));
    let (begun, written) =
        if now.duration_since(begun) >= WINDOW { (now, 0) } else { (begun, written) };
    let admitted = written < LINES_MAX;
    *lines = Some(match admitted {
        true => (begun, written + 1, 0),
        false => (begun, written, left_out + 1),
    });
    admitted.then_some(left_out)
}
