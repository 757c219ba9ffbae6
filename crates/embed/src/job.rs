//! What waits in the queue: a query with its deadline, or a job of many passages.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::embedder::{Embedder, Vectors};
use crate::error::EmbedError;

/// One query; the caller waits for it.
#[derive(Debug)]
pub(crate) struct QueryTask {
    pub(crate) model: Arc<dyn Embedder>,
    pub(crate) text: String,
    pub(crate) deadline: Instant,
    /// The span of whoever asks, so that logs, traces and calls to a provider name the request.
    pub(crate) span: tracing::Span,
    answer: Mutex<Option<Result<Arc<[f32]>, EmbedError>>>,
    answered: Condvar,
}

impl QueryTask {
    pub(crate) fn new(model: Arc<dyn Embedder>, text: &str, deadline: Instant) -> Self {
        let (answer, answered) = (Mutex::new(None), Condvar::new());
        let span = tracing::Span::current();
        Self { model, text: text.to_owned(), deadline, span, answer, answered }
    }

    pub(crate) fn finish(&self, answer: Result<Arc<[f32]>, EmbedError>) {
        *lock(&self.answer) = Some(answer);
        self.answered.notify_all();
    }

    /// Waits for the answer until the deadline.
    pub(crate) fn wait(&self) -> Result<Arc<[f32]>, EmbedError> {
        let mut answer = lock(&self.answer);
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(EmbedError::Timeout { waited_ms: 0 });
            }
            answer = match self.answered.wait_timeout(answer, left) {
                Ok((answer, _)) => answer,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Passages that were submitted together.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) model: Arc<dyn Embedder>,
    pub(crate) texts: Vec<String>,
    /// The span of whoever submits.
    pub(crate) span: tracing::Span,
    progress: Mutex<Progress>,
    finished: Condvar,
}

#[derive(Debug)]
struct Progress {
    /// Room for all vectors; filled as slices come back.
    data: Vec<f32>,
    left: usize,
    failure: Option<EmbedError>,
}

impl Job {
    pub(crate) fn new(model: Arc<dyn Embedder>, texts: Vec<String>) -> Self {
        let data = vec![0.0; model.identity().dimension * texts.len()];
        let progress = Progress { data, left: texts.len(), failure: None };
        let span = tracing::Span::current();
        Self { model, texts, span, progress: Mutex::new(progress), finished: Condvar::new() }
    }

    /// Takes the vectors of the texts at `positions`, in that order.
    pub(crate) fn fill(&self, positions: &[usize], vectors: &Vectors) {
        let dimension = self.model.identity().dimension;
        if vectors.dimension() != dimension || vectors.len() != positions.len() {
            let model = self.model.identity().name.clone();
            return self.fail(match vectors.dimension() == dimension {
                true => EmbedError::WrongCount {
                    model,
                    expected: positions.len(),
                    found: vectors.len(),
                },
                false => EmbedError::WrongDimension {
                    model,
                    expected: dimension,
                    found: vectors.dimension(),
                },
            });
        }
        let mut progress = lock(&self.progress);
        for (position, vector) in positions.iter().zip(vectors.iter()) {
            progress.data[position * dimension..][..dimension].copy_from_slice(vector);
        }
        progress.left -= positions.len();
        if progress.left == 0 {
            self.finished.notify_all();
        }
    }

    /// Fails the whole job; the first failure is the one reported.
    pub(crate) fn fail(&self, error: EmbedError) {
        lock(&self.progress).failure.get_or_insert(error);
        self.finished.notify_all();
    }

    pub(crate) fn is_done(&self) -> bool {
        let progress = lock(&self.progress);
        progress.left == 0 || progress.failure.is_some()
    }

    pub(crate) fn wait(&self) -> Result<Vectors, EmbedError> {
        let mut progress = lock(&self.progress);
        while progress.left > 0 && progress.failure.is_none() {
            progress = self.finished.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        let identity = self.model.identity();
        match progress.failure.take() {
            Some(error) => Err(error),
            None => Vectors::from_data(
                &identity.name,
                identity.dimension,
                std::mem::take(&mut progress.data),
            ),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that runs under these locks panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
