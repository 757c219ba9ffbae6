//! [`Runtime`]: the threads and models that all collections of a data directory share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mainstay_embed::{
    CacheCounters, EmbedError, ModelChoice, Opened, Pool, PoolCounters, PoolSettings,
};
use mainstay_resilience::{Criticality, DependencyKind, Pipelines};

use crate::error::DbError;
use crate::lanes::{LaneFigures, Lanes, cores};
use crate::large_records::LargeRecords;
use crate::options::Options;

/// The threads and models that all collections share.
pub(crate) struct Runtime {
    pub(crate) lanes: Lanes,
    pub(crate) large_records: LargeRecords,
    settings: PoolSettings,
    /// For models that compute here. Each remote provider has a pool of its own, so that threads
    /// which wait for the network are not missed by local models.
    pool: Arc<Pool>,
    models: Mutex<HashMap<String, (Opened, Arc<Pool>)>>,
    pipelines: Pipelines,
    /// Until when views keep little in memory, in milliseconds since `began`.
    short_until_ms: AtomicU64,
    began: Instant,
}

/// What the threads and caches of a data directory hold now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RuntimeFigures {
    /// Each search method's threads.
    pub lanes: [LaneFigures; 4],
    /// The threads that embed, their queues added up.
    pub embedding: PoolCounters,
    /// The remembered query vectors.
    pub query_cache: CacheCounters,
}

impl Runtime {
    /// Starts the threads.
    pub(crate) fn start(options: &Options) -> Result<Self, DbError> {
        let threads = if options.search_threads == 0 { cores() } else { options.search_threads };
        let lanes = Lanes::start(threads).map_err(DbError::io("start search threads", ""))?;
        let settings = PoolSettings {
            workers: options.embed_threads,
            background_percent: options.refine_percent,
            query_cache_bytes_max: options.query_cache_bytes,
            ..PoolSettings::default()
        };
        let pool = Arc::new(Pool::start(settings.clone())?);
        let pipelines = options.pipelines.clone();
        pipelines.declare_service(
            mainstay_embed::SERVICE,
            DependencyKind::Http,
            Criticality::Degrades,
        );
        Ok(Self {
            lanes,
            large_records: LargeRecords::new(),
            settings,
            pool,
            models: Mutex::new(HashMap::new()),
            pipelines,
            short_until_ms: AtomicU64::new(0),
            began: Instant::now(),
        })
    }

    /// Opens models once, however many collections use them.
    pub(crate) fn models(&self, choice: &ModelChoice) -> Result<(Opened, Arc<Pool>), EmbedError> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let key = choice.to_string();
        if let Some((opened, pool)) = models.get(&key) {
            return Ok((opened.clone(), Arc::clone(pool)));
        }
        let key_of = |variable: &str| std::env::var(variable).ok();
        let opened = mainstay_embed::open_within(choice, &self.pipelines, key_of)?;
        let pool = match choice {
            ModelChoice::Remote(_) => Arc::new(Pool::start(self.settings.clone())?),
            _ => self.pool(),
        };
        models.insert(key, (opened.clone(), Arc::clone(&pool)));
        Ok((opened, pool))
    }

    /// What the threads and caches hold, over all pools.
    pub(crate) fn figures(&self) -> RuntimeFigures {
        let mut figures = RuntimeFigures {
            lanes: self.lanes.figures(),
            embedding: self.pool.counters(),
            query_cache: self.pool.cache().counters(),
        };
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, pool) in models.values().filter(|(_, pool)| !Arc::ptr_eq(pool, &self.pool)) {
            let (of, cache) = (pool.counters(), pool.cache().counters());
            figures.embedding.workers += of.workers;
            figures.embedding.queries_queued += of.queries_queued;
            figures.embedding.passages_queued += of.passages_queued;
            figures.query_cache.bytes += cache.bytes;
        }
        figures
    }

    /// Lets views keep little in memory for a while.
    pub(crate) fn memory_short_for(&self, lasting: Duration) {
        let until = (self.began.elapsed() + lasting).as_millis() as u64;
        self.short_until_ms.fetch_max(until, Ordering::Relaxed);
    }

    /// Whether views are to keep little in memory.
    pub(crate) fn memory_is_short(&self) -> bool {
        let until = self.short_until_ms.load(Ordering::Relaxed);
        until > 0 && (self.began.elapsed().as_millis() as u64) < until
    }

    /// Keeps about this share of the embedded queries of every pool; answers the bytes freed.
    pub(crate) fn shrink_query_caches(&self, keep: f64) -> u64 {
        let mut pools = vec![self.pool()];
        {
            let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
            let others = models.values().filter(|(_, pool)| !Arc::ptr_eq(pool, &self.pool));
            pools.extend(others.map(|(_, pool)| Arc::clone(pool)));
        }
        let shrink = |pool: Arc<Pool>| {
            let before = pool.cache().counters();
            let kept = (before.bytes as f64 * keep.clamp(0.0, 1.0)) as usize;
            pool.cache().set_bytes_max(kept.min(before.bytes_max));
            pool.cache().set_bytes_max(before.bytes_max);
            before.bytes.saturating_sub(pool.cache().counters().bytes) as u64
        };
        pools.into_iter().map(shrink).sum()
    }

    /// The pool of the models that compute here.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }
}
