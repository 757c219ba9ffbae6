//! What the nodes of a cluster know of each other and share: SQLite in the data directory by
//! default, PostgreSQL when several nodes share it.
//!
//! | module | holds |
//! |---|---|
//! | [`state`](crate::Piece) | small named pieces with a version: API keys and flags; changed only by who has seen the newest |
//! | [`nodes`](crate::Node) | who is there: address, version, last sign of life |
//! | [`collections`](crate::CollectionReport) | what each node holds: model, settings, documents |
//! | [`leases`](crate::Lease) | who may do what only one may do, with fencing tokens |
//! | [`audit`](crate::AuditRow) | who changed what, of all nodes |
//!
//! A call goes `Catalogue` → pipeline `catalogue` (limit, retry, breaker) → `pool` (a connection,
//! measured, and thrown away if the call did not end) → `database` (one statement, or several in one
//! transaction, the same for both). What PostgreSQL is asked within a request names it, by a `comment`.
//!
//! Every call may be made twice with the effect of one, because a retry cannot know whether the
//! attempt before it was lost on the way there or on the way back.
//!
//! This crate is async, as an exception: the pool is, and callers wait for a network. Nothing in it
//! belongs into a request that searches: who needs what is in here keeps a copy.
#![forbid(unsafe_code)]

mod audit;
mod catalogue;
mod collections;
mod comment;
mod config;
mod database;
mod error;
mod fault;
mod leases;
mod location;
mod migration;
mod nodes;
mod pool;
mod schema;
mod state;

pub use audit::AuditRow;
pub use catalogue::{Catalogue, SERVICE};
pub use collections::{COLLECTIONS_MAX, CollectionReport, CollectionRow};
pub use config::PoolConfig;
pub use error::CatalogueError;
pub use leases::Lease;
pub use location::{Location, LocationError};
pub use nodes::{Node, NodeReport};
pub use pool::PoolFigures;
pub use schema::SCHEMA_VERSION;
pub use state::{PIECE_BYTES_MAX, Piece};
