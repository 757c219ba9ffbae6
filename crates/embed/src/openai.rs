//! One exchange of the OpenAI embeddings protocol: `POST {base}/embeddings`.
//!
//! Invariants: an answer is read up to a bound that follows from the question; the key is sent to
//! the configured address only (redirects are not followed) and never printed, not even when the
//! provider repeats it in an error.

use std::fmt;
use std::time::{Duration, SystemTime};

use mainstay_resilience::{Classify, ErrorKind, Verdict, parse_retry_after, propagated_headers};
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::{StatusCode, Uri};

use crate::address::shown;
use crate::embedder::Vectors;
use crate::error::{EmbedError, RemoteCause};

/// Bytes of a number in JSON, with room: 24 for the longest f64, a comma and white space.
const NUMBER_BYTES_MAX: u64 = 32;

/// An answer may always have this size, so that one of the wrong dimension can still be named.
const ANSWER_BYTES_MIN: u64 = 16 << 20;

/// Bytes of an error's body that are looked at.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// Characters of an error's message that are passed on.
const MESSAGE_CHARS_MAX: usize = 200;

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a key as the provider gave it, without white space around it.
    ///
    /// # Errors
    /// [`EmbedError::Setting`] when it is empty or cannot be sent in a header.
    pub fn new(key: &str) -> Result<Self, EmbedError> {
        let key = key.trim();
        match !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(key.to_owned())),
            false => Err(EmbedError::Setting {
                name: "key",
                value: "not shown".into(),
                allowed: "one word of printable ASCII characters",
            }),
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(not shown)")
    }
}

/// Where and how to ask.
#[derive(Debug)]
pub(crate) struct Endpoint {
    agent: Agent,
    address: String,
    /// Scheme, host and port, for messages.
    pub(crate) provider: String,
    key: Option<ApiKey>,
    pub(crate) model: String,
    /// The dimension to ask for; `None` leaves it to the model.
    pub(crate) dimensions: Option<usize>,
}

/// Why an exchange gave no vectors.
#[derive(Debug)]
pub(crate) enum AskError {
    /// It failed.
    Failed(Failure),
    /// It went well, but what came back must not be used.
    Unusable(EmbedError),
}

impl std::fmt::Display for AskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(failure) => f.write_str(&failure.message),
            Self::Unusable(error) => write!(f, "{error}"),
        }
    }
}

/// An exchange that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: RemoteCause,
    pub(crate) message: String,
    /// How long the provider asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    input: &'a [&'a str],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    /// `null` is what some servers make of NaN.
    embedding: Vec<Option<f64>>,
}

impl Endpoint {
    /// Checks `base` and prepares connections.
    pub(crate) fn new(base: &str, model: &str, key: Option<ApiKey>) -> Result<Self, EmbedError> {
        let refused = |value: &str| EmbedError::Setting {
            name: "url",
            value: shown(value),
            allowed: "http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH, without a key in it",
        };
        let uri: Uri = base.parse().map_err(|_| refused(base))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(refused(base));
        };
        // What stands before an `@` or behind a `?` may be a secret, and would be printed.
        if !matches!(scheme, "http" | "https") || authority.as_str().contains('@') {
            return Err(refused(base));
        }
        if uri.query().is_some() || base.contains('#') {
            return Err(refused(base));
        }
        let base = base.trim_end_matches('/');
        let address = match base.ends_with("/embeddings") {
            true => base.to_owned(),
            false => format!("{base}/embeddings"),
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            address,
            provider: format!("{scheme}://{authority}"),
            key,
            model: model.to_owned(),
            dimensions: None,
        })
    }

    /// Where questions go.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks once for the vectors of `texts`, each of `dimension` numbers.
    pub(crate) fn ask(
        &self,
        texts: &[&str],
        dimension: usize,
        timeout: Duration,
    ) -> Result<Vectors, AskError> {
        let question = Question {
            model: &self.model,
            input: texts,
            encoding_format: "float",
            dimensions: self.dimensions,
        };
        let mut request =
            self.agent.post(&self.address).config().timeout_global(Some(timeout)).build();
        if let Some(ApiKey(key)) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        // Whose work it is, so that the provider's log can be joined with ours.
        let mut headers = Vec::new();
        propagated_headers(&mut |name, value| headers.push((name, value.to_owned())));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = match request.send_json(&question) {
            Ok(response) => response,
            Err(error) => return Err(AskError::Failed(self.transport_failure(&error))),
        };
        if response.status() != StatusCode::OK {
            let retry_after = retry_after(response.headers());
            let body = response.body_mut().with_config().limit(ERROR_BYTES_MAX).read_to_vec();
            let failure = self.refusal(response.status(), &body.unwrap_or_default(), retry_after);
            return Err(AskError::Failed(failure));
        }
        let bytes_max = texts.len() as u64 * (dimension as u64 * NUMBER_BYTES_MAX + 1024);
        let limit = bytes_max.max(ANSWER_BYTES_MIN);
        match response.body_mut().with_config().limit(limit).read_to_vec() {
            Ok(body) => self.read_answer(&body, texts.len(), dimension),
            Err(error) => Err(AskError::Failed(self.transport_failure(&error))),
        }
    }

    fn read_answer(
        &self,
        body: &[u8],
        text_count: usize,
        dimension: usize,
    ) -> Result<Vectors, AskError> {
        let bad = |message: String| {
            let cause = RemoteCause::BadAnswer;
            let message = self.without_key(&message);
            Err(AskError::Failed(Failure { cause, message, retry_after: None }))
        };
        let answer: Answer = match serde_json::from_slice(body) {
            Ok(answer) => answer,
            Err(error) => return bad(format!("the answer is not what the protocol says: {error}")),
        };
        let Some(items) = in_order(&answer.data) else {
            return bad("the answer repeats or leaves out an index".into());
        };
        self.vectors_of(&items, text_count, dimension).map_err(AskError::Unusable)
    }

    fn vectors_of(
        &self,
        items: &[&Item],
        text_count: usize,
        dimension: usize,
    ) -> Result<Vectors, EmbedError> {
        let model = || self.model.clone();
        if items.len() != text_count {
            let found = items.len();
            return Err(EmbedError::WrongCount { model: model(), expected: text_count, found });
        }
        let mut data = Vec::with_capacity(text_count * dimension);
        for (text_index, item) in items.iter().enumerate() {
            let found = item.embedding.len();
            if found != dimension {
                let model = model();
                return Err(EmbedError::WrongDimension { model, expected: dimension, found });
            }
            data.extend(item.embedding.iter().map(|number| number.unwrap_or(f64::NAN) as f32));
            if !data[text_index * dimension..].iter().all(|number| number.is_finite()) {
                return Err(EmbedError::NotFinite { model: model(), text_index });
            }
        }
        Vectors::from_data(&self.model, dimension, data)
    }

    fn refusal(&self, status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Failure {
        let cause = match status.as_u16() {
            408 | 504 => RemoteCause::Timeout,
            429 => RemoteCause::RateLimit,
            401 => RemoteCause::Authentication,
            403 => RemoteCause::PermissionDenied,
            404 => RemoteCause::NotFound,
            500..=599 => RemoteCause::ServerError,
            400..=499 => RemoteCause::BadRequest,
            _ => RemoteCause::BadAnswer,
        };
        let message = self.without_key(&message_of(body));
        Failure { cause, message: format!("status {status}: {message}"), retry_after }
    }

    fn transport_failure(&self, error: &ureq::Error) -> Failure {
        let cause = match error {
            ureq::Error::Timeout(_) => RemoteCause::Timeout,
            ureq::Error::BodyExceedsLimit(_) => RemoteCause::BadAnswer,
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => RemoteCause::BadRequest,
            _ => RemoteCause::Connection,
        };
        Failure { cause, message: self.without_key(&error.to_string()), retry_after: None }
    }

    /// `message` on one line, shortened, and without the key should it be in it.
    fn without_key(&self, message: &str) -> String {
        let hidden = match &self.key {
            Some(ApiKey(key)) => message.replace(key.as_str(), "(key)"),
            None => message.to_owned(),
        };
        let printable = hidden.chars().map(|c| if c.is_control() { ' ' } else { c });
        printable.take(MESSAGE_CHARS_MAX).collect()
    }
}

/// Items by their index; by their position when no item has one.
fn in_order(items: &[Item]) -> Option<Vec<&Item>> {
    if items.iter().all(|item| item.index.is_none()) {
        return Some(items.iter().collect());
    }
    let mut ordered = vec![None; items.len()];
    for item in items {
        let slot = ordered.get_mut(item.index?)?;
        if slot.replace(item).is_some() {
            return None;
        }
    }
    ordered.into_iter().collect()
}

/// The message of an error's body: OpenAI's `error.message`, else the body itself.
fn message_of(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| json["error"]["message"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

fn retry_after(headers: &ureq::http::HeaderMap) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?;
    parse_retry_after(value, SystemTime::now())
}

impl Classify for AskError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed(failure) => failure.cause.kind(),
            Self::Unusable(error) => error.kind(),
        }
    }

    fn verdict(&self) -> Verdict {
        let verdict = Verdict::failure(self.kind());
        match self {
            // The same question gets the same nonsense.
            Self::Failed(failure) if failure.cause == RemoteCause::BadAnswer => {
                verdict.without_retry()
            }
            Self::Failed(failure) => verdict.with_retry_after(failure.retry_after),
            Self::Unusable(_) => verdict.without_retry(),
        }
    }
}
