//! One thread of the pool: takes tasks, runs the model, rests between passages.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::counters::PoolCounters;
use crate::embedder::{Embedder, Kind, Vectors};
use crate::error::EmbedError;
use crate::job::{Job, QueryTask};
use crate::measured::measured;
use crate::queue::{Lane, Queue, Task};

pub(crate) struct Worker {
    pub(crate) queue: Arc<Queue>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) background_percent: Arc<AtomicU8>,
    pub(crate) lane: Lane,
}

/// What the workers of a pool did.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    queries: AtomicU64,
    passages: AtomicU64,
    query_nanos: AtomicU64,
    passage_nanos: AtomicU64,
    queries_timed_out: AtomicU64,
    failures: AtomicU64,
    rejected: AtomicU64,
}

impl Worker {
    pub(crate) fn run(&self) {
        let _presence = Presence(&self.queue);
        // When the last passages were done and how long they took.
        let mut last: Option<(Instant, Duration)> = None;
        loop {
            let rest_until = || {
                let (end, worked) = last?;
                let percent = self.background_percent.load(Ordering::Relaxed);
                end.checked_add(rest_after(worked, percent))
            };
            match self.queue.take(self.lane, rest_until) {
                Task::Close => return,
                Task::Query(task) => self.query(&task),
                Task::Slice(job, positions) => {
                    let begin = Instant::now();
                    self.slice(&job, &positions);
                    last = Some((Instant::now(), begin.elapsed()));
                }
            }
        }
    }

    fn query(&self, task: &QueryTask) {
        let begin = Instant::now();
        // The caller has gone when the deadline passes; it takes no answer any more.
        if begin >= task.deadline {
            return;
        }
        let call = || {
            let embed = || task.model.embed_by(&[&task.text], Kind::Query, task.deadline);
            measured(&*task.model, Kind::Query, 1, embed)
        };
        let answer = task.span.in_scope(|| self.guarded(&*task.model, call));
        self.meter.add(&self.meter.queries, &self.meter.query_nanos, 1, begin.elapsed());
        task.finish(answer.and_then(|vectors| single(&*task.model, vectors)));
    }

    fn slice(&self, job: &Arc<Job>, positions: &[usize]) {
        let begin = Instant::now();
        let texts: Vec<&str> = positions.iter().map(|at| job.texts[*at].as_str()).collect();
        let call = || {
            let embed = || job.model.embed(&texts, Kind::Passage);
            measured(&*job.model, Kind::Passage, texts.len(), embed)
        };
        match job.span.in_scope(|| self.guarded(&*job.model, call)) {
            Ok(vectors) => {
                let (passages, nanos) = (&self.meter.passages, &self.meter.passage_nanos);
                self.meter.add(passages, nanos, positions.len(), begin.elapsed());
                job.fill(positions, &vectors);
            }
            Err(error) => {
                self.queue.forget_job(job);
                job.fail(error);
            }
        }
    }

    fn guarded(
        &self,
        model: &dyn Embedder,
        call: impl FnOnce() -> Result<Vectors, EmbedError>,
    ) -> Result<Vectors, EmbedError> {
        let panicked = |_| EmbedError::Panicked { model: model.identity().name.clone() };
        let result = catch_unwind(AssertUnwindSafe(call)).map_err(panicked).flatten();
        if result.is_err() {
            self.meter.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

/// Signs the worker off however its thread ends.
struct Presence<'a>(&'a Queue);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.worker_goes();
    }
}

/// The one vector of a query.
fn single(model: &dyn Embedder, vectors: Vectors) -> Result<Arc<[f32]>, EmbedError> {
    let identity = model.identity();
    match vectors.len() == 1 && vectors.dimension() == identity.dimension {
        true => Ok(vectors.into_data().into()),
        false => Err(EmbedError::WrongDimension {
            model: identity.name.clone(),
            expected: identity.dimension,
            found: vectors.as_slice().len(),
        }),
    }
}

/// How long to rest after `worked` so that work is `percent` of the time.
fn rest_after(worked: Duration, percent: u8) -> Duration {
    let percent = u32::from(percent.clamp(1, 100));
    worked.saturating_mul(100 - percent) / percent
}

impl Meter {
    pub(crate) fn rejected(&self) {
        metrics::counter!("mainstay_embedding_rejected_total").increment(1);
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn query_timed_out(&self) {
        metrics::counter!("mainstay_embedding_queries_timed_out_total").increment(1);
        self.queries_timed_out.fetch_add(1, Ordering::Relaxed);
    }

    fn add(&self, texts: &AtomicU64, nanos: &AtomicU64, count: usize, spent: Duration) {
        texts.fetch_add(count as u64, Ordering::Relaxed);
        nanos.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn count(&self, counters: &mut PoolCounters) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seconds = |nanos: &AtomicU64| Duration::from_nanos(read(nanos)).as_secs_f64();
        counters.queries_embedded = read(&self.queries);
        counters.passages_embedded = read(&self.passages);
        counters.query_seconds = seconds(&self.query_nanos);
        counters.passage_seconds = seconds(&self.passage_nanos);
        counters.queries_timed_out = read(&self.queries_timed_out);
        counters.failures = read(&self.failures);
        counters.rejected = read(&self.rejected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_makes_work_the_given_share_of_the_time() {
        let worked = Duration::from_millis(30);
        for (percent, rest_ms) in [(100, 0), (50, 30), (75, 10), (25, 90), (1, 2970)] {
            assert_eq!(rest_after(worked, percent), Duration::from_millis(rest_ms), "{percent} %");
        }
    }

    #[test]
    fn a_share_out_of_range_is_taken_as_the_nearest_one() {
        assert_eq!(rest_after(Duration::from_millis(1), 0), Duration::from_millis(99));
        assert_eq!(rest_after(Duration::from_millis(1), 200), Duration::ZERO);
    }
}
