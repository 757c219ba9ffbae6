//! What can go wrong between a text and its vector.

use std::fmt;
use std::io;
use std::path::PathBuf;

use mainstay_resilience::{Classify, ErrorKind, Verdict};

use crate::identity::ModelIdentity;

/// Every failure of this crate; each variant names the thing that failed and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum EmbedError {
    /// A model name that is neither built in nor a path.
    UnknownModel {
        /// The name as given.
        found: String,
    },
    /// A built-in model was chosen in a build without the feature `builtin`.
    NotBuiltIn {
        /// Name of the model.
        model: &'static str,
    },
    /// A file or folder that a model needs does not exist.
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What was looked for there.
        wanted: &'static str,
    },
    /// A model file exists but cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A model file is larger than this program is willing to load.
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// A model file is truncated or contradicts itself.
    Damaged {
        /// The file or the built-in model.
        file: String,
        /// What is wrong, with the position or the name of the part.
        reason: String,
    },
    /// A model file is intact but not the one that was asked for.
    WrongHash {
        /// The file or the built-in model.
        file: String,
        /// The SHA-256 that was asked for, in hexadecimal.
        expected: String,
        /// The SHA-256 of what is there.
        found: String,
    },
    /// A model folder whose tokeniser is not BERT WordPiece.
    UnsupportedTokenizer {
        /// The tokeniser's file.
        file: String,
        /// What it asks for.
        found: String,
    },
    /// A model folder that asks for something this build cannot do.
    UnsupportedModel {
        /// The folder or file.
        file: String,
        /// What it asks for and what to do instead.
        reason: String,
    },
    /// A vector of another length than the model promised.
    WrongDimension {
        /// Name of the model.
        model: String,
        /// The promised dimension.
        expected: usize,
        /// The dimension that came.
        found: usize,
    },
    /// Another number of vectors than texts.
    WrongCount {
        /// Name of the model.
        model: String,
        /// Number of texts.
        expected: usize,
        /// Number of vectors.
        found: usize,
    },
    /// A vector holds NaN or an infinity.
    NotFinite {
        /// Name of the model.
        model: String,
        /// Position of the text in the request, from 0.
        text_index: usize,
    },
    /// The collection was embedded with another model than the one that is open.
    ModelMismatch {
        /// Name of the collection.
        collection: String,
        /// The model recorded in the collection.
        expected: Box<ModelIdentity>,
        /// The model that is open.
        found: Box<ModelIdentity>,
    },
    /// The runtime could not run the model on this input.
    Inference {
        /// Name of the model.
        model: String,
        /// What the runtime said.
        reason: String,
    },
    /// The model's code panicked; the worker went on.
    Panicked {
        /// Name of the model.
        model: String,
    },
    /// The deadline passed before the vector was there.
    Timeout {
        /// How long the caller waited.
        waited_ms: u64,
    },
    /// The queue is at its bound; nothing was queued.
    QueueFull {
        /// What is bounded: `queries`, `passages` or `passage bytes`.
        what: &'static str,
        /// How much is waiting.
        queued: usize,
        /// The bound.
        queued_max: usize,
    },
    /// The pool was shut down before the work was done.
    Closed,
    /// A setting out of its range.
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The environment variable that should hold the provider's key is not set.
    KeyMissing {
        /// Name of the variable.
        variable: String,
    },
    /// The remote provider refused, failed, or could not be reached.
    Remote(RemoteFailure),
}

/// A failure of the remote provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFailure {
    /// Scheme, host and port of the provider, without path or key.
    pub provider: String,
    /// What kind of failure it was after the last attempt.
    pub cause: RemoteCause,
    /// How many attempts were made.
    pub attempts: u32,
    /// The first part of what the provider or the transport said.
    pub message: String,
}

/// Why a remote call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteCause {
    /// No answer within the time allowed.
    Timeout,
    /// Name resolution, connection or TLS failed, or the connection broke.
    Connection,
    /// Status 429.
    RateLimit,
    /// Status 401.
    Authentication,
    /// Status 403.
    PermissionDenied,
    /// Status 404.
    NotFound,
    /// Another 4xx status.
    BadRequest,
    /// A 5xx status.
    ServerError,
    /// The answer is not what the protocol says.
    BadAnswer,
    /// Nothing was sent: the provider's breaker is open, or a limit of ours was reached.
    Refused,
}

impl RemoteCause {
    /// The place of the cause in the taxonomy of everything external.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Timeout => ErrorKind::Timeout,
            Self::Connection => ErrorKind::Connection,
            Self::RateLimit => ErrorKind::RateLimit,
            Self::Authentication => ErrorKind::Authentication,
            Self::PermissionDenied => ErrorKind::PermissionDenied,
            Self::NotFound => ErrorKind::NotFound,
            Self::BadRequest => ErrorKind::BadRequest,
            Self::ServerError => ErrorKind::ServerError,
            Self::BadAnswer | Self::Refused => ErrorKind::Unknown,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Timeout => "raise the timeout or check the provider's load",
            Self::Connection => "check the URL and the network",
            Self::RateLimit => "lower the rate or raise the provider's limit",
            Self::Authentication => "check the key",
            Self::PermissionDenied => "the key may not use this model",
            Self::NotFound => "check the URL and the model name",
            Self::BadRequest => "the provider does not accept this request",
            Self::ServerError => "the provider is failing; it is retried later",
            Self::BadAnswer => "the URL may not be an OpenAI-compatible embeddings endpoint",
            Self::Refused => "it is tried again by itself when the provider had time to recover",
        }
    }
}

impl fmt::Display for EmbedError {
    // Long because there is one arm a variant: cut in two, the compiler would no longer find a
    // variant that was forgotten.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel { found } => write!(
                f,
                "unknown model {found:?}: use auto, static, minilm, or the path of a model folder \
                 (with a slash in it)"
            ),
            Self::NotBuiltIn { model } => write!(
                f,
                "model {model} is not part of this build: build with the feature `builtin` or \
                 choose a model folder"
            ),
            Self::Missing { path, wanted } => {
                write!(f, "no {wanted} at {}: check the model path", path.display())
            }
            Self::Unreadable { path, source } => {
                write!(f, "cannot read model file {}: {source}", path.display())
            }
            Self::TooLarge { path, bytes, bytes_max } => write!(
                f,
                "model file {} has {bytes} bytes, more than the {bytes_max} allowed: choose a \
                 smaller model",
                path.display()
            ),
            Self::Damaged { file, reason } => {
                write!(f, "model file {file} is damaged: {reason}: fetch it again")
            }
            Self::WrongHash { file, expected, found } => write!(
                f,
                "model file {file} has SHA-256 {found} instead of {expected}: fetch it again"
            ),
            Self::UnsupportedTokenizer { file, found } => write!(
                f,
                "tokeniser {file} asks for {found}, but only BERT WordPiece is supported: choose \
                 a BERT-family model or a remote provider"
            ),
            Self::UnsupportedModel { file, reason } => write!(f, "model {file}: {reason}"),
            Self::WrongDimension { model, expected, found } => write!(
                f,
                "model {model} gave vectors of {found} dimensions instead of {expected}: correct \
                 the dimension in the model's settings"
            ),
            Self::WrongCount { model, expected, found } => {
                write!(f, "model {model} gave {found} vectors for {expected} texts")
            }
            Self::NotFinite { model, text_index } => write!(
                f,
                "model {model} gave a vector with NaN or infinity for text {text_index}: the \
                 vector was refused"
            ),
            Self::ModelMismatch { collection, expected, found } => write!(
                f,
                "collection {collection:?} was embedded with {expected}, but {found} is open: \
                 open the recorded model again, or re-embed with `mainstay rebuild --method \
                 semantic --collection {collection}`"
            ),
            Self::Inference { model, reason } => write!(f, "model {model} failed: {reason}"),
            Self::Panicked { model } => {
                write!(f, "model {model} panicked on this input: please report it")
            }
            Self::Timeout { waited_ms } => {
                write!(f, "no vector within {waited_ms} ms: allow more time or embed less at once")
            }
            Self::QueueFull { what, queued, queued_max } => write!(
                f,
                "embedding queue is full with {queued} of {queued_max} {what}: try again later"
            ),
            Self::Closed => write!(f, "the embedding pool was shut down"),
            Self::Setting { name, value, allowed } => {
                write!(f, "setting {name} is {value}, but {allowed} is allowed")
            }
            Self::KeyMissing { variable } => write!(
                f,
                "environment variable {variable} is not set: put the provider's key into it"
            ),
            Self::Remote(failure) => write!(f, "{failure}"),
        }
    }
}

impl fmt::Display for RemoteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { provider, cause, attempts, message } = self;
        write!(
            f,
            "embedding provider {provider} failed after {attempts} attempts ({message}): {}",
            cause.hint()
        )
    }
}

impl std::error::Error for RemoteFailure {}

impl std::error::Error for EmbedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Classify for EmbedError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Remote(failure) => failure.cause.kind(),
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::QueueFull { .. } => ErrorKind::RateLimit,
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            Self::Unreadable { .. } => ErrorKind::Unknown,
            Self::Inference { .. } | Self::Panicked { .. } | Self::Closed => ErrorKind::Unknown,
            _ => ErrorKind::BadRequest,
        }
    }

    fn verdict(&self) -> Verdict {
        let verdict = Verdict::failure(self.kind());
        match self {
            // The attempts that make sense were made where the provider was called.
            Self::Remote(_) | Self::Closed => verdict.without_retry(),
            _ => verdict,
        }
    }
}
