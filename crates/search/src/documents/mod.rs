//! The documents view: what was stored, who lives, and the columns that filters, facets and sort
//! orders read.
//!
//! Like the search methods it consumes the log in order, but it also consumes removals: it alone
//! knows which [`crate::document::DocNumber`] an id has and which numbers live. New documents stand
//! in a head of rows in memory; the head is sealed into immutable segments of one format
//! in memory and in files; neighbouring segments are merged, which drops the dead.
//!
//! [`Documents`] is the writer's side, [`DocumentsSnapshot`] the readers'.

pub mod date;

mod damage;
mod little_endian;

mod block;
mod column;
mod column_writer;
mod dictionary;
mod field;
mod head;
mod id_filter;
mod manifest;
mod merge;
mod sections;
mod segment;
mod segment_writer;

mod filter;
mod filter_text;
mod path_glob;

mod facets;
mod snapshot;
mod sort;
mod view;

pub use facets::{FACET_VALUES_MAX, Facet, FacetValue};
pub use field::{FIELDS_MAX, FieldInfo, FieldType};
pub use filter::{FILTER_DEPTH_MAX, FILTER_PARTS_MAX, Filter};
pub use path_glob::GLOB_BYTES_MAX;
pub use snapshot::DocumentsSnapshot;
pub use sort::{SORT_KEYS_MAX, SortKey, Sorted};
pub use view::{Applied, DocumentChange, Documents};
