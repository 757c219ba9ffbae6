//! A sentence transformer in ONNX, run on the processor by `rten`.
//!
//! Invariants: a call computes on one thread however many cores there are, so the caller decides
//! the parallelism by the number of its threads (two threads with one inference each do nearly
//! twice the work of one inference on two threads); the model was run once when it was opened, so
//! its dimension is known and its operators are there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rten::{Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

use crate::embedder::{Embedder, Kind, Vectors, normalise};
use crate::error::EmbedError;
use crate::identity::ModelIdentity;
use crate::model_file::ModelBytes;
use crate::tokenizer_file::TokenizerFile;
use crate::wordpiece::readable;

/// Texts of this many tokens or fewer share an inference; longer ones gain nothing by it.
const SHORT_TOKENS_MAX: usize = 32;

/// Texts in one inference: 16 short ones do 1.4 times the work of one at a time, more add little.
const BATCH_TEXTS_MAX: usize = 16;

/// Passages handed over at once. One takes 17 ms at 128 tokens, so a worker is free for a query
/// after 70 ms at the latest.
const SLICE_TEXTS: usize = 4;

/// Largest difference of a number between a text alone and among others, for texts to share an
/// inference. Rounding differs by 1e-6; dynamic quantisation, whose scale spans the batch, by 1e-2.
const BATCH_DIFFERENCE_MAX: f32 = 1e-4;

/// How token vectors become the vector of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The vector of the first token.
    First,
}

impl Pooling {
    /// The name that enters a model's hash; never changes.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::First => "first",
        }
    }
}

/// What a model's files say about its use.
#[derive(Debug, Clone)]
pub(crate) struct TransformerSettings {
    pub(crate) name: String,
    pub(crate) sha256: String,
    /// Used only when the graph does not pool by itself.
    pub(crate) pooling: Pooling,
    pub(crate) normalised: bool,
    /// Tokens read of a text, those around it included.
    pub(crate) tokens_max: usize,
    /// Put before queries.
    pub(crate) query_prompt: String,
    /// Put before passages.
    pub(crate) passage_prompt: String,
}

/// A transformer with its tokeniser.
pub struct Transformer {
    identity: ModelIdentity,
    settings: TransformerSettings,
    tokenizer: TokenizerFile,
    graph: Graph,
    /// Whether short texts share an inference: only if that does not change their vectors.
    batches: bool,
    threads: Threads,
}

impl Transformer {
    /// Opens an ONNX model from its bytes and runs it once.
    ///
    /// # Errors
    /// [`EmbedError::Damaged`] when the bytes are no model, [`EmbedError::UnsupportedModel`] when
    /// its inputs, outputs or operators are not those of a sentence model.
    pub(crate) fn open(
        settings: TransformerSettings,
        weights: ModelBytes,
        tokenizer: TokenizerFile,
    ) -> Result<Self, EmbedError> {
        let graph = Graph::open(&settings, weights)?;
        let identity = ModelIdentity {
            name: settings.name.clone(),
            sha256: settings.sha256.clone(),
            dimension: 0,
            normalised: settings.normalised,
            tokens_max: settings.tokens_max,
        };
        let threads = Threads::default();
        let mut model = Self { identity, settings, tokenizer, graph, batches: false, threads };
        model.probe()?;
        Ok(model)
    }

    /// Finds out the dimension and whether texts may share an inference.
    fn probe(&mut self) -> Result<(), EmbedError> {
        let texts = ["a", "the quick brown fox jumps over the lazy dog"];
        let tokens: Vec<_> = texts.iter().map(|text| self.tokens(text, Kind::Passage)).collect();
        let alone = self.infer(&tokens[..1]).map_err(|error| EmbedError::UnsupportedModel {
            file: self.settings.name.clone(),
            reason: error.to_string(),
        })?;
        self.identity.dimension = alone.len();
        let together = self.infer(&tokens)?;
        let difference = |(a, b): (&f32, &f32)| (a - b).abs();
        self.batches =
            alone.iter().zip(&together).map(difference).all(|d| d < BATCH_DIFFERENCE_MAX);
        Vectors::from_data(&self.identity.name, self.identity.dimension, together)?
            .require_finite(&self.identity.name)
    }

    /// The tokens of `text` with those around it; empty when there is nothing in it.
    fn tokens(&self, text: &str, kind: Kind) -> Vec<i32> {
        let TokenizerFile { wordpiece, before, after, .. } = &self.tokenizer;
        let tokens_max = self.settings.tokens_max;
        let room = tokens_max.saturating_sub(before.len() + after.len());
        let prompt = match kind {
            Kind::Query => &self.settings.query_prompt,
            Kind::Passage => &self.settings.passage_prompt,
        };
        let mut tokens = before.clone();
        wordpiece.encode(prompt, room, &mut tokens);
        let prompted = tokens.len();
        let text = readable(text, tokens_max);
        match prompt.is_empty() {
            true => wordpiece.encode(text, room, &mut tokens),
            false => {
                // The prompt is part of the text: its last word may go on in the text.
                tokens.truncate(before.len());
                wordpiece.encode(&format!("{prompt}{text}"), room, &mut tokens);
            }
        }
        if tokens.len() == prompted {
            return Vec::new();
        }
        tokens.extend_from_slice(after);
        // Token numbers come from a vocabulary file and stay far below 2^31.
        tokens.into_iter().map(|token| i32::try_from(token).unwrap_or(0)).collect()
    }

    fn embed_until(
        &self,
        texts: &[&str],
        kind: Kind,
        deadline: Option<Instant>,
    ) -> Result<Vectors, EmbedError> {
        let dimension = self.identity.dimension;
        let tokens: Vec<_> = texts.iter().map(|text| self.tokens(text, kind)).collect();
        let mut order: Vec<usize> = (0..texts.len()).filter(|at| !tokens[*at].is_empty()).collect();
        order.sort_by_key(|at| tokens[*at].len());
        let mut data = vec![0.0; dimension * texts.len()];
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(EmbedError::Timeout { waited_ms: 0 });
            }
            let (group, others) = rest.split_at(self.group_length(rest, &tokens));
            rest = others;
            let group_tokens: Vec<_> = group.iter().map(|at| tokens[*at].clone()).collect();
            let vectors = self.infer(&group_tokens)?;
            if vectors.len() != dimension * group.len() {
                return Err(EmbedError::WrongDimension {
                    model: self.identity.name.clone(),
                    expected: dimension,
                    found: vectors.len() / group.len(),
                });
            }
            for (at, vector) in group.iter().zip(vectors.chunks_exact(dimension)) {
                data[at * dimension..(at + 1) * dimension].copy_from_slice(vector);
            }
        }
        let vectors = Vectors::from_data(&self.identity.name, dimension, data)?;
        vectors.require_finite(&self.identity.name)?;
        Ok(vectors)
    }

    /// How many of the texts in `order`, sorted by length, go into one inference.
    fn group_length(&self, order: &[usize], tokens: &[Vec<i32>]) -> usize {
        if !self.batches {
            return 1;
        }
        let short = order.iter().take_while(|at| tokens[**at].len() <= SHORT_TOKENS_MAX).count();
        short.clamp(1, BATCH_TEXTS_MAX)
    }

    /// Vectors of token lists that are not empty, one after the other.
    fn infer(&self, texts: &[Vec<i32>]) -> Result<Vec<f32>, EmbedError> {
        let length = texts.iter().map(Vec::len).max().unwrap_or(0);
        let shape = [texts.len(), length];
        let mut tokens =
            NdTensor::<i32, 2>::full(shape, i32::try_from(self.tokenizer.padding).unwrap_or(0));
        let mut mask = NdTensor::<i32, 2>::zeros(shape);
        for (text, list) in texts.iter().enumerate() {
            for (at, token) in list.iter().enumerate() {
                tokens[[text, at]] = *token;
                mask[[text, at]] = 1;
            }
        }
        let pool = self.threads.borrow();
        let output = self.graph.run(&self.settings.name, tokens.view(), mask.view(), pool.get())?;
        let mut vectors = self.pool_tokens(output, texts)?;
        if self.settings.normalised && texts.len() * self.identity.dimension.max(1) <= vectors.len()
        {
            let dimension = vectors.len() / texts.len();
            vectors.chunks_exact_mut(dimension.max(1)).for_each(normalise);
        }
        Ok(vectors)
    }

    /// Brings the output of the graph to one vector a text.
    fn pool_tokens(&self, output: Tensor<f32>, texts: &[Vec<i32>]) -> Result<Vec<f32>, EmbedError> {
        let shape = output.shape().to_vec();
        let numbers = output.to_vec();
        let (text_count, token_count, dimension) = match shape[..] {
            [text_count, _] if text_count == texts.len() => return Ok(numbers),
            [text_count, token_count, dimension] if text_count == texts.len() => {
                (text_count, token_count, dimension)
            }
            _ => {
                return Err(EmbedError::Inference {
                    model: self.settings.name.clone(),
                    reason: format!("its output has shape {shape:?} for {} texts", texts.len()),
                });
            }
        };
        let mut vectors = vec![0.0; text_count * dimension];
        for (text, list) in texts.iter().enumerate() {
            let vector = &mut vectors[text * dimension..(text + 1) * dimension];
            let used = match self.settings.pooling {
                Pooling::Mean => list.len().min(token_count),
                Pooling::First => 1,
            };
            let first = text * token_count * dimension;
            for row in numbers[first..first + used * dimension].chunks_exact(dimension) {
                vector.iter_mut().zip(row).for_each(|(sum, number)| *sum += number);
            }
            vector.iter_mut().for_each(|sum| *sum /= used.max(1) as f32);
        }
        Ok(vectors)
    }
}

impl Embedder for Transformer {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str], kind: Kind) -> Result<Vectors, EmbedError> {
        self.embed_until(texts, kind, None)
    }

    fn embed_by(
        &self,
        texts: &[&str],
        kind: Kind,
        deadline: Instant,
    ) -> Result<Vectors, EmbedError> {
        self.embed_until(texts, kind, Some(deadline))
    }

    fn known_share(&self, text: &str) -> f32 {
        self.tokenizer.wordpiece.known_share(text, self.identity.tokens_max)
    }

    fn batch_texts(&self) -> usize {
        if self.batches { BATCH_TEXTS_MAX } else { SLICE_TEXTS }
    }
}

impl std::fmt::Debug for Transformer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transformer")
            .field("identity", &self.identity)
            .field("settings", &self.settings)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}

/// The loaded model and where texts go in and vectors come out.
struct Graph {
    model: Model,
    tokens: NodeId,
    mask: NodeId,
    /// Segment numbers, all zero; not every export asks for them.
    segments: Option<NodeId>,
    output: NodeId,
}

impl Graph {
    fn open(settings: &TransformerSettings, weights: ModelBytes) -> Result<Self, EmbedError> {
        let model = load(&settings.name, weights)?;
        let unsupported =
            |reason: String| EmbedError::UnsupportedModel { file: settings.name.clone(), reason };
        let (mut tokens, mut mask, mut segments) = (None, None, None);
        for id in model.input_ids() {
            let info = model.node_info(*id);
            match info.as_ref().and_then(|info| info.name()).unwrap_or("") {
                "input_ids" => tokens = Some(*id),
                "attention_mask" => mask = Some(*id),
                "token_type_ids" => segments = Some(*id),
                other => {
                    return Err(unsupported(format!(
                        "it wants the input {other:?}; export it with input_ids, attention_mask \
                         and at most token_type_ids"
                    )));
                }
            }
        }
        let missing = |name: &str| unsupported(format!("it has no input {name:?}"));
        let tokens = tokens.ok_or_else(|| missing("input_ids"))?;
        let mask = mask.ok_or_else(|| missing("attention_mask"))?;
        let output = output(&model).ok_or_else(|| {
            unsupported("it has no output sentence_embedding or last_hidden_state".into())
        })?;
        Ok(Self { model, tokens, mask, segments, output })
    }

    fn run(
        &self,
        name: &str,
        tokens: rten_tensor::NdTensorView<'_, i32, 2>,
        mask: rten_tensor::NdTensorView<'_, i32, 2>,
        threads: &Arc<ThreadPool>,
    ) -> Result<Tensor<f32>, EmbedError> {
        let failed = |reason: String| EmbedError::Inference { model: name.to_owned(), reason };
        let segments = NdTensor::<i32, 2>::zeros(tokens.shape());
        let mut inputs: Vec<(NodeId, ValueOrView<'_>)> =
            vec![(self.tokens, tokens.into()), (self.mask, mask.into())];
        if let Some(id) = self.segments {
            inputs.push((id, segments.view().into()));
        }
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(threads)));
        // A model from a folder may hold a graph that the runtime did not foresee; it must not
        // take the process down.
        let run = || self.model.run(inputs, &[self.output], Some(options));
        let outputs = catch_unwind(AssertUnwindSafe(run))
            .map_err(|_| EmbedError::Panicked { model: name.to_owned() })?
            .map_err(|error| failed(error.to_string()))?;
        match outputs.into_iter().next() {
            Some(Value::FloatTensor(tensor)) => Ok(tensor),
            _ => Err(failed("its output is no tensor of f32".into())),
        }
    }
}

fn load(name: &str, weights: ModelBytes) -> Result<Model, EmbedError> {
    let mut options = ModelOptions::with_all_ops();
    // Five times the speed for the memory of the weights once more.
    options.prepack_weights(true);
    let load = || match weights {
        ModelBytes::Borrowed(bytes) => options.load_static_slice(bytes),
        ModelBytes::Owned(bytes) => options.load(bytes),
    };
    let damaged = |reason| EmbedError::Damaged { file: name.to_owned(), reason };
    catch_unwind(AssertUnwindSafe(load))
        .map_err(|_| damaged("the runtime panicked while loading it".into()))?
        .map_err(|error| damaged(format!("it is no ONNX model that can be run: {error}")))
}

/// The pooled output if the graph has one, otherwise the token vectors.
fn output(model: &Model) -> Option<NodeId> {
    let by_name = |wanted: &str| {
        model
            .output_ids()
            .iter()
            .copied()
            .find(|id| model.node_info(*id).is_some_and(|info| info.name() == Some(wanted)))
    };
    let by_rank = || {
        model.output_ids().iter().copied().find(|id| {
            let shape: Option<Vec<Dimension>> = model.node_info(*id).and_then(|info| info.shape());
            shape.is_none_or(|shape| shape.len() == 3)
        })
    };
    by_name("sentence_embedding")
        .or_else(|| by_name("last_hidden_state"))
        .or_else(|| by_name("token_embeddings"))
        .or_else(by_rank)
}

/// One-thread pools, as many as there were calls at the same time.
#[derive(Default)]
struct Threads {
    idle: Mutex<Vec<Arc<ThreadPool>>>,
}

impl Threads {
    fn borrow(&self) -> BorrowedThread<'_> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pool = idle.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(1)));
        BorrowedThread { threads: self, pool: Some(pool) }
    }
}

struct BorrowedThread<'a> {
    threads: &'a Threads,
    pool: Option<Arc<ThreadPool>>,
}

impl BorrowedThread<'_> {
    fn get(&self) -> &Arc<ThreadPool> {
        self.pool.as_ref().expect("the pool is taken only when this is dropped")
    }
}

impl Drop for BorrowedThread<'_> {
    fn drop(&mut self) {
        let mut idle = self.threads.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.pool.take());
    }
}
