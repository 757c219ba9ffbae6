//! The documents view: what was stored, who lives, and the columns that filters, facets and sort
//! orders read.
//!
//! Like the search methods it consumes the log in order, but it also consumes removals: it alone
//! knows which [`crate::document::DocNumber`] an id has and which numbers live. New documents stand
//! in a head of rows in memory; the head is sealed into immutable segments of one format
//! in memory and in files; neighbouring segments are merged, which drops the dead.
//!
//! [`Documents`] is the writer's side, [`DocumentsSnapshot`] the readers'.

mod damage;
mod little_endian;

mod block;
mod dictionary;
mod field;
mod head;
mod id_filter;
mod manifest;
mod sections;
mod segment;
mod segment_writer;

mod snapshot;
mod view;

pub use field::{FIELDS_MAX, FieldInfo, FieldType};
pub use snapshot::DocumentsSnapshot;
pub use view::{Applied, DocumentChange, Documents};
