//! One data directory: open, write, search, checkpoint, rebuild, verify. The middle boundary,
//! without sockets, where most tests stand.
//!
//! [`Db`] holds [`Collection`]s. A collection is a write-ahead log and five views of it: the stored
//! documents and the four search methods. A write is acknowledged when its record is durable in the
//! log; each view follows behind, driven by a thread of its own, and can be thrown away and rebuilt.
//!
//! Reading order: `collection` is the way of a write, `driver` carries records into views, `query`
//! is the way of a query, `hits` makes its answer; `rebuild`, `compact`, `refine` and `verify` are
//! the upkeep.
//!
//! ```no_run
//! # fn main() -> Result<(), mainstay_db::DbError> {
//! use mainstay_db::{Db, Document, Options, SearchRequest};
//!
//! let db = Db::open("data".as_ref(), Options::default())?;
//! let docs = db.collection_or_create("docs", Default::default())?;
//! docs.put(vec![Document { id: "1".into(), body: "a mainstay is a rope".into(), ..Document::default() }])?;
//! let answer = docs.search(&SearchRequest::new("rope"))?;
//! # Ok(()) }
//! ```

mod background;
mod collection;
mod compact;
mod database;
mod documents;
mod driven;
mod driver;
mod embedding;
mod engine;
mod error;
mod files;
mod hits;
mod lanes;
mod large_records;
mod maintenance;
mod open_view;
mod options;
mod panics;
mod priority;
mod probe;
mod query;
mod question;
mod rebuild;
mod record;
mod refine;
mod resting;
mod runtime;
pub mod search_answer;
mod search_figures;
pub mod search_request;
mod semantic;
mod set_aside;
mod settings;
mod slot;
mod state_files;
mod stopper;
mod verify;

pub use collection::{Collection, CollectionStatus, ViewStatus, Written};
pub use database::{COLLECTION_DEFAULT, COLLECTIONS_MAX, Db};
pub use error::DbError;
pub use lanes::LaneFigures;
pub use options::Options;
pub use panics::panic_message;
pub use priority::yield_to_requests;
pub use query::RankedLists;
pub use resting::{Resting, Seat};
pub use runtime::RuntimeFigures;
pub use search_answer::{SearchAnswer, SearchHit};
pub use search_request::{Fusion, SearchRequest, Service};
pub use set_aside::{SET_ASIDE_MAX, SetAsideEntry};
pub use slot::ViewState;
pub use state_files::StateFiles;
pub use verify::{VerifyReport, ViewReport};

/// The disk, as whoever stands between it and the database sees it.
pub mod file_system {
    pub use bytes::Bytes;
    pub use mainstay_storage::RealFs;
    pub use mainstay_storage::fs::{FileHandle, FileSystem, Listed, LockError, LockGuard};
}

/// The longest line of NDJSON that can hold a valid document: a body in which every byte is escaped
/// (six bytes for one), and room for the rest.
pub const DOCUMENT_LINE_BYTES_MAX: usize =
    6 * mainstay_search::document::BODY_BYTES_MAX + (1 << 20);

// What callers need of the floors below, so that they need not name them.
pub use mainstay_embed::{CacheCounters, ModelChoice, ModelIdentity, PoolCounters};
pub use mainstay_resilience::{
    Criticality, Dependency, DependencyKind, InjectedFault, Pipelines, State as BreakerState,
};
pub use mainstay_search::document::{Document, Invalid, Value};
pub use mainstay_search::documents::{Filter, SortKey, date};
pub use mainstay_search::fusion::{self, Weights};
pub use mainstay_search::method::Method;
pub use mainstay_search::relevance;
pub use mainstay_search::request::{Case, MethodAnswer, Pattern, SearchError, Syntax};
pub use mainstay_storage::LogOptions;
