//! Documents, analysis, the four search methods, fusion and snippets: the pure floor of Mainstay.
//!
//! Nothing here knows a path, a clock, a network or an environment variable: files come in through
//! [`directory::Directory`], vectors come in ready made, time comes in as a [`request::Stop`] that
//! somebody else sets. A caller (crate `db`) drives it in two directions:
//!
//! - **Writes.** Each view implements [`view::View`]: it applies batches of [`view::Addition`]s in
//!   log order, publishes an immutable snapshot for readers, and now and then makes a checkpoint.
//!   Removal is not a view's business: every view speaks in [`document::DocNumber`]s, which are
//!   never reused, and the documents view keeps the one bitmap of the living.
//! - **Queries.** A snapshot implements [`view::Searcher`]: it answers a [`request::Request`] with
//!   document numbers and scores. [`fusion`] joins the answers of several methods.
//!
//! Reading order: the nouns first, then what is built from them.

pub mod bitmap;
pub mod directory;
pub mod document;
pub mod method;
pub mod request;
pub mod view;

pub mod analysis;
pub mod documents;

pub mod bm25;
pub mod full_text;
pub mod native;
pub mod semantic;

pub mod fusion;
pub mod relevance;
pub mod snippet;
