//! A remote provider that speaks the OpenAI embeddings protocol.
//!
//! Invariants: no call is longer than its attempts allow; what fails for a reason that another
//! attempt cannot mend is not tried again; no vector of another dimension, with NaN, or in another
//! order than the texts leaves this file.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use crate::embedder::{Embedder, Kind, Vectors, normalise};
use crate::error::{EmbedError, RemoteFailure};
use crate::identity::ModelIdentity;
use crate::model_file::fingerprint;
use crate::openai::{ApiKey, Endpoint, Failure};

/// How to reach a provider and how hard to try.
#[derive(Debug, Clone)]
pub struct RemoteSettings {
    /// Base address, such as `https://api.openai.com/v1`; `/embeddings` is added.
    pub url: String,
    /// The provider's name of the model.
    pub model: String,
    /// The key; `None` sends none, as local servers want it.
    pub key: Option<ApiKey>,
    /// Numbers in a vector. Every answer is checked against it.
    pub dimension: usize,
    /// Whether to ask the provider for this dimension, for models that offer several.
    pub asks_dimension: bool,
    /// Time for one attempt in milliseconds. Default 30,000.
    pub timeout_ms: u64,
    /// Attempts in all, at least 1. Default 3.
    pub attempts_max: u32,
    /// Wait before the second attempt in milliseconds; doubles with each one. Default 1,000.
    pub backoff_base_ms: u64,
    /// Texts in one request. Default 64.
    pub batch_texts_max: usize,
    /// Bytes of text in one request. Default 256 KiB.
    pub batch_bytes_max: usize,
    /// Bytes of one text; the rest is not sent. Default 24 KiB, about 6,000 tokens of English:
    /// providers refuse more than 8,192 tokens.
    pub text_bytes_max: usize,
}

impl RemoteSettings {
    /// The defaults for `model` at `url`.
    pub fn new(url: &str, model: &str, dimension: usize) -> Self {
        Self {
            url: url.to_owned(),
            model: model.to_owned(),
            key: None,
            dimension,
            asks_dimension: false,
            timeout_ms: 30_000,
            attempts_max: 3,
            backoff_base_ms: 1_000,
            batch_texts_max: 64,
            batch_bytes_max: 256 << 10,
            text_bytes_max: 24 << 10,
        }
    }

    fn check(&self) -> Result<(), EmbedError> {
        let check = |fits: bool, name, value: String, allowed| match fits {
            true => Ok(()),
            false => Err(EmbedError::Setting { name, value, allowed }),
        };
        let (dimension, attempts) = (self.dimension, self.attempts_max);
        // No provider offers vectors of more than a few thousand numbers.
        let fits = (1..=65_536).contains(&dimension);
        check(fits, "dimension", dimension.to_string(), "1 to 65536")?;
        check((1..=10).contains(&attempts), "attempts_max", attempts.to_string(), "1 to 10")?;
        check(!self.model.is_empty(), "model", "empty".into(), "the provider's name of a model")?;
        check(self.timeout_ms > 0, "timeout_ms", "0".into(), "1 or more")?;
        check(self.batch_texts_max > 0, "batch_texts_max", "0".into(), "1 or more")?;
        check(self.batch_bytes_max > 0, "batch_bytes_max", "0".into(), "1 or more")?;
        check(
            self.text_bytes_max >= 4,
            "text_bytes_max",
            self.text_bytes_max.to_string(),
            "4 or more",
        )
    }
}

/// Wait between attempts at most, before jitter.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A provider that asks for a longer wait is not waited for: the caller has better uses for the
/// thread, and its breaker keeps the time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// A model behind an address.
#[derive(Debug)]
pub struct Remote {
    identity: ModelIdentity,
    settings: RemoteSettings,
    endpoint: Endpoint,
}

impl Remote {
    /// Checks the settings; makes no connection.
    ///
    /// # Errors
    /// [`EmbedError::Setting`].
    pub fn new(settings: RemoteSettings) -> Result<Self, EmbedError> {
        settings.check()?;
        let mut endpoint = Endpoint::new(&settings.url, &settings.model, settings.key.clone())?;
        endpoint.dimensions = settings.asks_dimension.then_some(settings.dimension);
        let sha256 = fingerprint(&[
            ("address", endpoint.address().as_bytes()),
            ("model", settings.model.as_bytes()),
            ("dimension", &(settings.dimension as u64).to_le_bytes()),
            ("text_bytes_max", &(settings.text_bytes_max as u64).to_le_bytes()),
        ]);
        let identity = ModelIdentity {
            name: settings.model.clone(),
            sha256,
            dimension: settings.dimension,
            normalised: true,
            tokens_max: 0,
        };
        Ok(Self { identity, settings, endpoint })
    }

    fn embed_until(
        &self,
        texts: &[&str],
        deadline: Option<Instant>,
    ) -> Result<Vectors, EmbedError> {
        let begin = Instant::now();
        let dimension = self.identity.dimension;
        let mut data = vec![0.0; texts.len() * dimension];
        // A text without content is not sent: providers refuse it, and it has the zero vector.
        let sent: Vec<(usize, &str)> = texts
            .iter()
            .map(|text| &text[..text.floor_char_boundary(self.settings.text_bytes_max)])
            .enumerate()
            .filter(|(_, text)| text.chars().any(has_content))
            .collect();
        for batch in self.batches(&sent) {
            let batch_texts: Vec<&str> = batch.iter().map(|(_, text)| *text).collect();
            let vectors = self.ask(&batch_texts, begin, deadline).map_err(|error| match error {
                // The position in the batch means nothing to the caller.
                EmbedError::NotFinite { model, text_index } => {
                    EmbedError::NotFinite { model, text_index: batch[text_index].0 }
                }
                error => error,
            })?;
            for ((at, _), vector) in batch.iter().zip(vectors.iter()) {
                let target = &mut data[at * dimension..(at + 1) * dimension];
                target.copy_from_slice(vector);
                normalise(target);
            }
        }
        Vectors::from_data(&self.identity.name, dimension, data)
    }

    /// Cuts `texts` into runs within the bounds; a run has at least one text.
    fn batches<'a, 'b>(&self, texts: &'a [(usize, &'b str)]) -> Vec<&'a [(usize, &'b str)]> {
        let mut batches = Vec::new();
        let mut rest = texts;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting =
                rest.iter().take(self.settings.batch_texts_max).take_while(|(_, text)| {
                    bytes += text.len();
                    bytes <= self.settings.batch_bytes_max
                });
            let (batch, others) = rest.split_at(fitting.count().max(1));
            batches.push(batch);
            rest = others;
        }
        batches
    }

    /// Asks for one batch, again if that can help.
    fn ask(
        &self,
        texts: &[&str],
        begin: Instant,
        deadline: Option<Instant>,
    ) -> Result<Vectors, EmbedError> {
        let mut attempts = 0;
        loop {
            let timeout = self.time_left(begin, deadline)?;
            attempts += 1;
            let failure = match self.endpoint.ask(texts, self.identity.dimension, timeout)? {
                Ok(vectors) => return Ok(vectors),
                Err(failure) => failure,
            };
            let wait = backoff(&self.settings, attempts, failure.retry_after, jitter());
            let too_late =
                deadline.is_some_and(|end| end.saturating_duration_since(Instant::now()) <= wait);
            let last = attempts >= self.settings.attempts_max;
            if last || too_late || wait > RETRY_AFTER_MAX || !failure.cause.is_retryable() {
                return Err(self.final_failure(failure, attempts));
            }
            tracing::debug!(
                provider = self.endpoint.provider,
                cause = failure.cause.as_str(),
                attempts,
                wait_ms = wait.as_millis(),
                "embedding request failed"
            );
            std::thread::sleep(wait);
        }
    }

    /// Time for the next attempt.
    fn time_left(&self, begin: Instant, deadline: Option<Instant>) -> Result<Duration, EmbedError> {
        let timeout = Duration::from_millis(self.settings.timeout_ms);
        let Some(deadline) = deadline else { return Ok(timeout) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let waited_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Err(EmbedError::Timeout { waited_ms });
        }
        Ok(left.min(timeout))
    }

    fn final_failure(&self, failure: Failure, attempts: u32) -> EmbedError {
        EmbedError::Remote(RemoteFailure {
            provider: self.endpoint.provider.clone(),
            cause: failure.cause,
            attempts,
            message: failure.message,
        })
    }
}

impl Embedder for Remote {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str], _kind: Kind) -> Result<Vectors, EmbedError> {
        self.embed_until(texts, None)
    }

    fn embed_by(
        &self,
        texts: &[&str],
        _kind: Kind,
        deadline: Instant,
    ) -> Result<Vectors, EmbedError> {
        self.embed_until(texts, Some(deadline))
    }

    fn batch_texts(&self) -> usize {
        self.settings.batch_texts_max
    }
}

fn has_content(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !matches!(c, '\u{FEFF}' | '\u{200B}')
}

/// How long to wait after attempt number `attempts`: doubling from the base, at most
/// [`BACKOFF_MAX`], lengthened by `jitter` in [0, 1) of a tenth; never less than the provider asks.
fn backoff(
    settings: &RemoteSettings,
    attempts: u32,
    retry_after: Option<Duration>,
    jitter: f64,
) -> Duration {
    let doublings = attempts.saturating_sub(1).min(20);
    let base = Duration::from_millis(settings.backoff_base_ms);
    let wait = base.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    wait.max(retry_after.unwrap_or_default()).mul_f64(1.0 + 0.1 * jitter)
}

/// A number in [0, 1) that differs between processes and calls: the standard library seeds its
/// hashers from the system.
fn jitter() -> f64 {
    RandomState::new().hash_one(0) as f64 / 2f64.powi(64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings() -> RemoteSettings {
        RemoteSettings::new("http://127.0.0.1:1/v1", "m", 2)
    }

    #[test]
    fn waits_double_up_to_five_seconds_and_jitter_adds_at_most_a_tenth() {
        let wait = |attempts, jitter| backoff(&settings(), attempts, None, jitter).as_millis();
        assert_eq!([1, 2, 3, 4, 60].map(|n| wait(n, 0.0)), [1000, 2000, 4000, 5000, 5000]);
        assert_eq!(wait(1, 1.0), 1100);
        assert!((0..100).all(|_| (0.0..1.0).contains(&jitter())));
    }

    #[test]
    fn the_provider_s_wish_is_a_lower_bound() {
        let wait = |seconds| backoff(&settings(), 1, Some(Duration::from_secs(seconds)), 0.0);
        assert_eq!(wait(7), Duration::from_secs(7));
        assert_eq!(wait(0), Duration::from_secs(1));
        assert!(wait(u64::MAX / 4) > RETRY_AFTER_MAX);
    }

    #[test]
    fn batches_are_bounded_in_texts_and_bytes() {
        let bounds = RemoteSettings { batch_texts_max: 3, batch_bytes_max: 10, ..settings() };
        let remote = Remote::new(bounds).unwrap();
        let texts = ["1", "22", "333", "4444", "55555", "666666666666", "7"];
        let texts: Vec<(usize, &str)> = texts.into_iter().enumerate().collect();
        let lengths: Vec<usize> = remote.batches(&texts).iter().map(|batch| batch.len()).collect();
        assert_eq!(lengths, [3, 2, 1, 1]);
    }

    #[test]
    fn the_key_is_in_no_debug_output() {
        let key = ApiKey::new(" secret-123\n").unwrap();
        let remote = Remote::new(RemoteSettings { key: Some(key), ..settings() }).unwrap();
        let printed = format!("{remote:?} {:?}", remote.settings);
        assert!(printed.contains("not shown") && !printed.contains("secret-123"), "{printed}");
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        for (name, settings) in [
            ("dimension", RemoteSettings { dimension: 0, ..settings() }),
            ("attempts_max", RemoteSettings { attempts_max: 0, ..settings() }),
            ("model", RemoteSettings { model: String::new(), ..settings() }),
            ("timeout_ms", RemoteSettings { timeout_ms: 0, ..settings() }),
            ("batch_texts_max", RemoteSettings { batch_texts_max: 0, ..settings() }),
            ("url", RemoteSettings { url: "ftp://host/x".into(), ..settings() }),
            ("url", RemoteSettings { url: "host".into(), ..settings() }),
            ("url", RemoteSettings { url: "https://user:secret@host/v1".into(), ..settings() }),
            ("url", RemoteSettings { url: "https://host/v1?key=secret".into(), ..settings() }),
        ] {
            let error = Remote::new(settings).unwrap_err().to_string();
            assert!(error.contains(&format!("setting {name} ")), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(ApiKey::new("two words").is_err());
    }
}
