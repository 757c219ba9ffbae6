//! [`measured`]: a call to a model, with its duration and outcome as metrics.

use std::time::Instant;

use crate::embedder::{Embedder, Kind, Vectors};
use crate::error::EmbedError;

/// Makes a call to `model` that embeds `texts` texts, and records what it took.
///
/// # Errors
/// What the call returns.
pub fn measured(
    model: &dyn Embedder,
    kind: Kind,
    texts: usize,
    call: impl FnOnce() -> Result<Vectors, EmbedError>,
) -> Result<Vectors, EmbedError> {
    let begun = Instant::now();
    let result = call();
    let kind = match kind {
        Kind::Query => "query",
        Kind::Passage => "passage",
    };
    let name = model.identity().name.clone();
    metrics::histogram!("mainstay_embedding_duration_seconds", "model" => name, "kind" => kind)
        .record(begun.elapsed());
    match &result {
        Ok(_) => {
            metrics::counter!("mainstay_embedding_texts_total", "kind" => kind)
                .increment(texts as u64);
        }
        Err(_) => metrics::counter!("mainstay_embedding_failures_total").increment(1),
    }
    result
}
