//! A remote provider that speaks the OpenAI embeddings protocol.
//!
//! Invariants: every request goes through the pipeline of the service [`SERVICE`] and the
//! provider's address, which decides on time, attempts and breaker; no vector of another dimension,
//! with NaN, or in another order than the texts leaves this file.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_resilience::{
    Attempt, Clock, Context, Deadline, Error, FanOut, MetricsObserver, NoSleeper, Pipelines,
    PipelinesConfig, Priority, TracingObserver,
};

use crate::address::shown;
use crate::embedder::{Embedder, Kind, Vectors, normalise};
use crate::error::{EmbedError, RemoteCause, RemoteFailure};
use crate::identity::ModelIdentity;
use crate::model_file::fingerprint;
use crate::openai::{ApiKey, AskError, Endpoint, Failure};

/// The name under which the toolkit's configuration knows providers of embeddings; the endpoint is
/// scheme, host and port.
pub const SERVICE: &str = "embedding";

/// How to reach a provider. Time, attempts and breaker are configured in the pipelines.
#[derive(Clone)]
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
    /// Texts in one request. Default 64.
    pub batch_texts_max: usize,
    /// Bytes of text in one request. Default 256 KiB.
    pub batch_bytes_max: usize,
    /// Bytes of one text; the rest is not sent. Default 24 KiB, about 6,000 tokens of English:
    /// providers refuse more than 8,192 tokens.
    pub text_bytes_max: usize,
}

/// Without what its address may hold of a secret.
impl fmt::Debug for RemoteSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSettings")
            .field("url", &shown(&self.url))
            .field("model", &self.model)
            .field("key", &self.key)
            .field("dimension", &self.dimension)
            .finish_non_exhaustive()
    }
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
        let dimension = self.dimension;
        // No provider offers vectors of more than a few thousand numbers.
        let fits = (1..=65_536).contains(&dimension);
        check(fits, "dimension", dimension.to_string(), "1 to 65536")?;
        check(!self.model.is_empty(), "model", "empty".into(), "the provider's name of a model")?;
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

/// A model behind an address.
pub struct Remote {
    identity: ModelIdentity,
    settings: RemoteSettings,
    endpoint: Endpoint,
    pipelines: Pipelines,
}

impl Remote {
    /// Checks the settings; makes no connection. Requests go through a pipeline of their own with
    /// the toolkit's preset for external services: 30 s for an attempt, 3 attempts, and a breaker.
    ///
    /// # Errors
    /// [`EmbedError::Setting`].
    pub fn new(settings: RemoteSettings) -> Result<Self, EmbedError> {
        let observer = FanOut::new(vec![Arc::new(MetricsObserver), Arc::new(TracingObserver)]);
        let pipelines = Pipelines::with(
            PipelinesConfig::default(),
            Clock::system(),
            NoSleeper,
            Arc::new(observer),
        );
        let pipelines = pipelines.map_err(|error| {
            let value = error.to_string();
            EmbedError::Setting { name: "pipelines", value, allowed: "a valid preset" }
        })?;
        Self::with_pipelines(settings, pipelines)
    }

    /// As [`new`](Self::new), with the pipelines of the process, which must be on the system's
    /// clock for deadlines to mean anything.
    ///
    /// # Errors
    /// [`EmbedError::Setting`].
    pub fn with_pipelines(
        settings: RemoteSettings,
        pipelines: Pipelines,
    ) -> Result<Self, EmbedError> {
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
        // In use from now on, so that it is listed before it is first called.
        let _ = pipelines.endpoint(SERVICE, &endpoint.provider);
        Ok(Self { identity, settings, endpoint, pipelines })
    }

    /// Says how the provider is probed: one short text is embedded, past every cache and whatever the
    /// level of service. Of several models of one provider the last one speaks for it.
    pub(crate) fn declare_probe(self: &Arc<Self>) {
        let remote = Arc::downgrade(self);
        let probe = move || {
            let remote = remote.upgrade().ok_or("the model is closed")?;
            let deadline = Instant::now() + PROBE_MAX;
            let answer = remote.embed_by(&[PROBE_TEXT], Kind::Query, deadline);
            answer.map(drop).map_err(|error| error.to_string())
        };
        self.pipelines.endpoint(SERVICE, &self.endpoint.provider).dependency().probe_by(probe);
    }

    fn embed_until(
        &self,
        texts: &[&str],
        kind: Kind,
        deadline: Option<Instant>,
    ) -> Result<Vectors, EmbedError> {
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
            let vectors =
                self.ask(&batch_texts, context(kind, deadline)?).map_err(|error| match error {
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

    /// Asks for one batch, as often as the pipeline allows.
    fn ask(&self, texts: &[&str], context: Context) -> Result<Vectors, EmbedError> {
        let dependency = self.pipelines.endpoint(SERVICE, &self.endpoint.provider);
        let ask = |attempt: Attempt| {
            let left = attempt.deadline().remaining(attempt.began()).min(ATTEMPT_MAX);
            let (faults, begun) = (dependency.dependency().faults(), Instant::now());
            faults.strike_within(left).map_err(|injected| {
                let (cause, message) = (RemoteCause::Connection, injected.to_string());
                AskError::Failed(Failure { cause, message, retry_after: None })
            })?;
            let left = left.saturating_sub(begun.elapsed());
            self.endpoint.ask(texts, self.identity.dimension, left)
        };
        let provider = &self.endpoint.provider;
        self.pipelines.run(SERVICE, provider, context, ask).map_err(|error| self.failure(error))
    }

    fn failure(&self, error: Error<AskError>) -> EmbedError {
        let attempts = match &error {
            Error::Exhausted(exhausted) => exhausted.errors().len(),
            Error::Rejected(_) => 0,
            Error::Operation(_) | Error::TimedOut(_) => 1,
            // Whatever else a policy makes of a call, it was made.
            _ => 1,
        };
        let refused = match &error {
            Error::Rejected(rejection) => Some(rejection.to_string()),
            _ => None,
        };
        let timed_out = error.is_timeout();
        let failure = match (error.into_operation(), refused) {
            (Some(AskError::Unusable(error)), _) => return error,
            (Some(AskError::Failed(failure)), _) => failure,
            (None, Some(message)) => {
                Failure { cause: RemoteCause::Refused, message, retry_after: None }
            }
            (None, None) => {
                let cause = if timed_out { RemoteCause::Timeout } else { RemoteCause::Refused };
                Failure { cause, message: "a limit was reached".into(), retry_after: None }
            }
        };
        EmbedError::Remote(RemoteFailure {
            provider: self.endpoint.provider.clone(),
            cause: failure.cause,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            message: failure.message,
        })
    }
}

/// Longest time for an attempt when the pipeline sets none: what the toolkit's presets give.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);

/// Longest time for a probe with all its attempts: a provider that computes takes a second, one that
/// has to load its model first some more.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// What a probe embeds: two tokens, for providers are paid by the token.
const PROBE_TEXT: &str = "probe";

/// What the pipeline is told of a call.
fn context(kind: Kind, deadline: Option<Instant>) -> Result<Context, EmbedError> {
    let deadline = match deadline {
        None => Deadline::NEVER,
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(EmbedError::Timeout { waited_ms: 0 });
            }
            Deadline::after(&Clock::system(), left)
        }
    };
    let priority = match kind {
        Kind::Query => Priority::Normal,
        Kind::Passage => Priority::Background,
    };
    Ok(Context::within(deadline).priority(priority))
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("identity", &self.identity)
            .field("settings", &self.settings)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Embedder for Remote {
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

    fn batch_texts(&self) -> usize {
        self.settings.batch_texts_max
    }
}

fn has_content(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !matches!(c, '\u{FEFF}' | '\u{200B}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings() -> RemoteSettings {
        RemoteSettings::new("http://127.0.0.1:1/v1", "m", 2)
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
            ("model", RemoteSettings { model: String::new(), ..settings() }),
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
