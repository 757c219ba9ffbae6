//! The threads on which texts are embedded.
//!
//! Invariants:
//! - the number of threads never changes: `workers`, and one more that takes queries only, so a
//!   query never waits for a passage to be finished, whatever the model;
//! - a waiting query is taken before any waiting passage;
//! - what waits is bounded in number and bytes; over the bound nothing is queued;
//! - work whose caller has gone (ticket dropped, deadline passed) is not begun;
//! - a panic in a model fails its task and nothing else.
//!
//! Models that compute here may share one pool. A remote provider gets a pool of its own, so that
//! threads that wait for the network are not missed by local models.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cache::QueryCache;
use crate::counters::PoolCounters;
use crate::embedder::{Embedder, Vectors};
use crate::error::EmbedError;
use crate::job::{Job, QueryTask};
use crate::queue::{Lane, Queue, QueueLimits};
use crate::worker::{Meter, Worker};

/// How long a pool that is dropped waits for running work: a hundred times the longest local
/// inference, and a sixth of the 30 s in which a process must have shut down.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// How a pool is set up.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Threads for passages and queries; 0 means one for each core. One more takes queries only.
    pub workers: usize,
    /// Queries that may wait. Default 256: a quarter of a second of MiniLM on one core.
    pub queries_max: usize,
    /// Passages that may wait. Default 16,384; room for their vectors, 25 MB of MiniLM, is taken
    /// when they are queued.
    pub passages_max: usize,
    /// Bytes of passages that may wait. Default 64 MiB.
    pub passage_bytes_max: usize,
    /// Share of each worker's time that passages may take, in percent, 1 to 100. Default 100.
    pub background_percent: u8,
    /// Bytes of query vectors that are remembered; 0 remembers none. Default 16 MiB, about 9,000
    /// queries of MiniLM.
    pub query_cache_bytes_max: usize,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            workers: 0,
            queries_max: 256,
            passages_max: 16_384,
            passage_bytes_max: 64 << 20,
            background_percent: 100,
            query_cache_bytes_max: 16 << 20,
        }
    }
}

/// A fixed number of threads behind a bounded queue. Dropping it fails what is waiting with
/// [`EmbedError::Closed`] and waits for what is running, at most 5 s.
#[derive(Debug)]
pub struct Pool {
    queue: Arc<Queue>,
    meter: Arc<Meter>,
    background_percent: Arc<AtomicU8>,
    cache: QueryCache,
    threads: Vec<JoinHandle<()>>,
    workers: usize,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`EmbedError::Setting`] for a share outside 1 to 100 or a thread that cannot be started.
    pub fn start(settings: PoolSettings) -> Result<Self, EmbedError> {
        let background_percent =
            Arc::new(AtomicU8::new(checked_percent(settings.background_percent)?));
        let workers = match settings.workers {
            0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
            workers => workers,
        };
        let queue = Arc::new(Queue::new(QueueLimits {
            queries_max: settings.queries_max,
            passages_max: settings.passages_max,
            passage_bytes_max: settings.passage_bytes_max,
        }));
        let mut pool = Self {
            queue,
            meter: Arc::default(),
            background_percent,
            cache: QueryCache::new(settings.query_cache_bytes_max),
            threads: Vec::with_capacity(workers + 1),
            workers,
        };
        let lanes = std::iter::once(Lane::QueriesOnly).chain(vec![Lane::All; workers]);
        for (number, lane) in lanes.enumerate() {
            pool.spawn(number, lane)?;
        }
        Ok(pool)
    }

    fn spawn(&mut self, number: usize, lane: Lane) -> Result<(), EmbedError> {
        let worker = Worker {
            queue: Arc::clone(&self.queue),
            meter: Arc::clone(&self.meter),
            background_percent: Arc::clone(&self.background_percent),
            lane,
        };
        self.queue.worker_comes();
        let thread = thread::Builder::new()
            .name(format!("embed-{number}"))
            .spawn(move || worker.run())
            .inspect_err(|_| self.queue.worker_goes())
            .map_err(|error| EmbedError::Setting {
                name: "workers",
                value: format!("{} ({error})", self.workers),
                allowed: "as many threads as the system can start",
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// The vector of a query, from the cache or from `model`. Waits at most `timeout`.
    ///
    /// # Errors
    /// [`EmbedError::Timeout`], [`EmbedError::QueueFull`], and what the model returns.
    pub fn embed_query(
        &self,
        model: &Arc<dyn Embedder>,
        text: &str,
        timeout: Duration,
    ) -> Result<Arc<[f32]>, EmbedError> {
        if let Some(vector) = self.cache.get(model.identity(), text) {
            return Ok(vector);
        }
        let vector = self.embed_query_anew(model, text, timeout)?;
        self.cache.put(model.identity(), text, Arc::clone(&vector));
        Ok(vector)
    }

    /// The vector of a query from `model`, whatever is remembered, and without remembering it: for
    /// finding out whether the model works. Waits at most `timeout`.
    ///
    /// # Errors
    /// As [`embed_query`](Self::embed_query).
    pub fn embed_query_anew(
        &self,
        model: &Arc<dyn Embedder>,
        text: &str,
        timeout: Duration,
    ) -> Result<Arc<[f32]>, EmbedError> {
        let begin = Instant::now();
        // A timeout beyond what the clock can count is a year.
        let deadline =
            begin.checked_add(timeout).unwrap_or(begin + Duration::from_secs(31_536_000));
        let task = Arc::new(QueryTask::new(Arc::clone(model), text, deadline));
        self.queue.push_query(Arc::clone(&task)).inspect_err(|_| self.meter.rejected())?;
        match task.wait() {
            Err(EmbedError::Timeout { .. }) => {
                self.queue.forget_query(&task);
                self.meter.query_timed_out();
                let waited_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                Err(EmbedError::Timeout { waited_ms })
            }
            answer => answer,
        }
    }

    /// Queues passages to be embedded behind all queries, and returns at once.
    ///
    /// # Errors
    /// [`EmbedError::QueueFull`]: nothing was queued; try again when less is waiting.
    pub fn submit(
        &self,
        model: &Arc<dyn Embedder>,
        texts: Vec<String>,
    ) -> Result<Ticket, EmbedError> {
        let job = Arc::new(Job::new(Arc::clone(model), texts));
        self.queue.push_job(Arc::clone(&job)).inspect_err(|_| self.meter.rejected())?;
        Ok(Ticket { job, queue: Arc::clone(&self.queue) })
    }

    /// Embeds passages behind all queries and waits for them.
    ///
    /// # Errors
    /// [`EmbedError::QueueFull`], [`EmbedError::Closed`], and what the model returns.
    pub fn embed_passages(
        &self,
        model: &Arc<dyn Embedder>,
        texts: Vec<String>,
    ) -> Result<Vectors, EmbedError> {
        self.submit(model, texts)?.wait()
    }

    /// Changes the share of each worker's time that passages may take, 1 to 100 percent.
    ///
    /// # Errors
    /// [`EmbedError::Setting`].
    pub fn set_background_percent(&self, percent: u8) -> Result<(), EmbedError> {
        self.background_percent.store(checked_percent(percent)?, Ordering::Relaxed);
        self.queue.wake_all();
        Ok(())
    }

    /// The remembered query vectors.
    pub fn cache(&self) -> &QueryCache {
        &self.cache
    }

    /// What the pool did and holds.
    pub fn counters(&self) -> PoolCounters {
        let mut counters = PoolCounters { workers: self.workers, ..PoolCounters::default() };
        self.queue.count(&mut counters);
        self.meter.count(&mut counters);
        counters
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
        if !self.queue.wait_for_workers(CLOSING_MAX) {
            // A call to a provider that does not answer ends with its own timeout; the thread
            // holds nothing but its model and is left behind.
            tracing::warn!(waited_s = CLOSING_MAX.as_secs(), "embedding pool closed while busy");
            return;
        }
        for thread in self.threads.drain(..) {
            // A worker catches what a model throws; there is nothing to do about anything else.
            let _ = thread.join();
        }
    }
}

fn checked_percent(percent: u8) -> Result<u8, EmbedError> {
    match percent {
        1..=100 => Ok(percent),
        _ => Err(EmbedError::Setting {
            name: "background_percent",
            value: percent.to_string(),
            allowed: "1 to 100",
        }),
    }
}

/// Passages on their way. Dropping it gives up those that were not begun.
#[derive(Debug)]
pub struct Ticket {
    job: Arc<Job>,
    queue: Arc<Queue>,
}

impl Ticket {
    /// Waits for all vectors, in the order of the texts.
    ///
    /// # Errors
    /// The first failure of the model; [`EmbedError::Closed`] when the pool was dropped.
    pub fn wait(self) -> Result<Vectors, EmbedError> {
        self.job.wait()
    }

    /// Whether [`wait`](Self::wait) would return at once.
    pub fn is_done(&self) -> bool {
        self.job.is_done()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue.forget_job(&self.job);
    }
}
