//! Text to vectors.
//!
//! One trait, [`Embedder`], and four ways to fulfil it: a [static token table](StaticModel) that
//! embeds tens of thousands of passages a second, a [transformer](Transformer) run by `rten`, a
//! [remote provider](Remote) that speaks the OpenAI protocol, and a [hash](HashModel) for tests.
//! [`open`] turns a [`ModelChoice`] into embedders; a [`Pool`] runs them on a fixed number of
//! threads, queries first; a [`QueryCache`] remembers what was asked before.
//!
//! Everything here is synchronous. Two built-in models are compiled in with the default feature
//! `builtin`, so the crate works with no download and no file beside the binary.

mod address;
mod error;
mod identity;

mod embedder;

mod character;
mod identifier;
mod wordpiece;

mod half;
mod model_file;
mod safetensors;
mod tokenizer_file;

mod hash_model;
mod static_model;
mod transformer;

mod onnx_graph;

mod bert;

mod ggml;
mod gguf;

mod catalog;
mod checkpoint;
mod folder;

mod openai;
mod remote;

mod choice;

mod cache;
mod counters;
mod job;
mod measured;
mod pool;
mod queue;
mod worker;

pub use cache::{CacheCounters, QueryCache};
pub use catalog::BuiltIn;
pub use choice::{ModelChoice, Opened, RemoteChoice, open, open_within};
pub use counters::PoolCounters;
pub use embedder::{Embedder, Kind, Vectors};
pub use error::{EmbedError, RemoteCause, RemoteFailure};
pub use folder::{FolderModel, open_folder};
pub use hash_model::HashModel;
pub use identity::ModelIdentity;
pub use measured::measured;
pub use openai::ApiKey;
pub use pool::{Pool, PoolSettings, Ticket};
pub use remote::{Remote, RemoteSettings, SERVICE};
pub use static_model::StaticModel;
pub use transformer::Transformer;
pub use wordpiece::WordPiece;
