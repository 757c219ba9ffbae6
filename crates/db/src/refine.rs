//! Background refinement: passages get the vectors of the better model, a few at a time.
//!
//! Nothing is lost when it stops: what has no refined vector is found again after a restart, and is
//! searched by its instant vector meanwhile.

use std::sync::Arc;
use std::time::Duration;

use mainstay_embed::EmbedError;
use mainstay_search::document::DocNumber;
use mainstay_search::method::Method;
use mainstay_search::semantic::{Refinement, text_to_embed};
use mainstay_search::view::ViewError;

use crate::driven::ViewKind;
use crate::engine::Engine;

/// Passages in one round: a quarter of a second of MiniLM, so that a shutdown waits no longer.
const ROUND_PASSAGES: usize = 32;
/// How long to wait when everything is refined.
const IDLE_WAIT: Duration = Duration::from_millis(300);
/// The first and the longest pause after a failure, such as a provider that is down.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Refines until the collection closes.
pub(crate) fn run(inner: &Arc<Engine>) {
    let mut failures = 0u32;
    while !inner.stopper.is_set() {
        let pause = match round(inner) {
            Ok(0) => IDLE_WAIT,
            Ok(_) => {
                failures = 0;
                continue;
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                metrics::counter!("mainstay_refine_failures_total").increment(1);
                tracing::warn!(collection = inner.name(), reason, failures, "refinement waits");
                BACKOFF.0.saturating_mul(1 << failures.min(10)).min(BACKOFF.1)
            }
        };
        inner.stopper.wait(pause);
    }
}

/// Embeds some passages and hands them to the view; answers how many.
fn round(inner: &Arc<Engine>) -> Result<usize, String> {
    let embedding = inner.embedding();
    let Some(model) = embedding.refined.clone() else { return Ok(0) };
    let Ok(documents) = inner.documents() else { return Ok(0) };
    let slot = inner.slot(ViewKind::Method(Method::Semantic));
    let waiting = {
        let held = slot.held();
        let Some(driven) = &held.driven else { return Ok(0) };
        driven.unrefined(ROUND_PASSAGES, documents.living())
    };
    let mut keys: Vec<(DocNumber, u32)> = Vec::new();
    let mut texts = Vec::new();
    for waiting in waiting {
        let document = documents.get(waiting.number).map_err(|e| e.to_string())?;
        // Not stored yet, or removed meanwhile: the next round sees it, or does not ask for it.
        let Some(document) = document else { continue };
        for (index, range) in waiting.passages {
            if let Some(text) = text_to_embed(&document, &range) {
                keys.push((waiting.number, index));
                texts.push(text.into_owned());
            }
        }
    }
    if texts.is_empty() {
        return Ok(0);
    }
    let vectors = match embedding.pool.embed_passages(&model, texts) {
        Ok(vectors) => vectors,
        Err(EmbedError::QueueFull { .. }) => return Ok(0),
        Err(error) => return Err(error.to_string()),
    };
    let batch: Vec<_> = keys
        .into_iter()
        .zip(vectors.iter())
        .map(|((number, passage), vector)| Refinement { number, passage, vector: vector.to_vec() })
        .collect();
    let mut held = slot.held();
    // A rebuild may have put another model's view in this place meanwhile.
    if !Arc::ptr_eq(&embedding, &inner.embedding()) {
        return Ok(0);
    }
    let Some(driven) = held.driven.as_mut() else { return Ok(0) };
    driven.refine(&batch).map_err(|e: ViewError| e.to_string())?;
    slot.publish(&mut held);
    metrics::counter!("mainstay_passages_refined_total").increment(batch.len() as u64);
    Ok(batch.len())
}
