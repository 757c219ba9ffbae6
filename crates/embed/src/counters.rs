//! What a pool counts.

/// What a pool did and holds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PoolCounters {
    /// Threads for passages and queries.
    pub workers: usize,
    /// Queries waiting.
    pub queries_queued: usize,
    /// Passages waiting.
    pub passages_queued: usize,
    /// Bytes of the passages waiting.
    pub passage_bytes_queued: usize,
    /// Queries embedded; those that the cache answered are not among them.
    pub queries_embedded: u64,
    /// Passages embedded.
    pub passages_embedded: u64,
    /// Time spent embedding queries, summed over threads.
    pub query_seconds: f64,
    /// Time spent embedding passages, summed over threads.
    pub passage_seconds: f64,
    /// Queries that got no vector in time.
    pub queries_timed_out: u64,
    /// Calls to the model that failed, panics included.
    pub failures: u64,
    /// Calls that were turned away because the queue was full.
    pub rejected: u64,
}
