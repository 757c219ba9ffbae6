//! [`SearchFigures`]: how searches are counted.
//!
//! Each figure is looked up once and kept. A search has pushed everything else out of the processor's
//! caches when it ends, and finding a metric by its labels would fetch a dozen places in memory, for every
//! figure again. So whoever receives metrics is installed before the first search.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::Method;
use crate::error::DbError;
use crate::search_answer::{Level, MethodStatus, SearchAnswer};

/// The figures of one collection's searches.
#[derive(Default)]
pub(crate) struct SearchFigures {
    took: OnceLock<Histogram>,
    levels: [OnceLock<Counter>; Level::Maintenance as usize + 1],
    methods: [MethodFigures; Method::ALL.len()],
}

#[derive(Default)]
struct MethodFigures {
    took: OnceLock<Histogram>,
    statuses: [OnceLock<Counter>; MethodStatus::Failed as usize + 1],
}

impl SearchFigures {
    /// Counts a search that has ended.
    pub(crate) fn ended(&self, result: &Result<SearchAnswer, DbError>, took: Duration) {
        let duration = || metrics::histogram!("mainstay_search_duration_seconds");
        self.took.get_or_init(duration).record(took);
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                metrics::counter!("mainstay_search_requests_total", "level" => "none").increment(1);
                metrics::counter!("mainstay_search_errors_total", "code" => error.code())
                    .increment(1);
                return;
            }
        };
        let level = answer.level.name();
        let requests = || metrics::counter!("mainstay_search_requests_total", "level" => level);
        self.levels[answer.level as usize].get_or_init(requests).increment(1);
        for report in &answer.methods {
            let (method, status) = (report.method.name(), report.status.name());
            let figures = &self.methods[report.method as usize];
            let requests = || {
                metrics::counter!(
                    "mainstay_method_requests_total", "method" => method, "status" => status
                )
            };
            figures.statuses[report.status as usize].get_or_init(requests).increment(1);
            let duration =
                || metrics::histogram!("mainstay_method_duration_seconds", "method" => method);
            figures.took.get_or_init(duration).record(report.took_ms / 1000.0);
        }
    }
}
