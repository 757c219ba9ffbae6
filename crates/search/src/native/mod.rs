//! The `native` method: where exactly does this string or regular expression stand.
//!
//! A trigram index over folded text leaves few candidates; the regex engine that ripgrep uses then
//! searches their stored text. Answers equal ripgrep's, line for line, which the tests check against
//! the real program. docs/design/native.md tells the measurements behind the choices.
//!
//! Reading order: [`pattern`] gives a query ripgrep's meaning, [`plan`] asks which trigrams its
//! matches need, [`candidates`] intersects them, [`matcher`] finds lines, [`search`] ties these
//! together with threads and [`score`]; below lie [`unit`](mod@unit), [`trigram`], [`fold`], [`postings`],
//! [`segment`], [`builder`], [`merge`]; [`view`] is the whole as a view of the log.

mod builder;
mod candidates;
mod fold;
mod literal;
mod manifest;
mod matcher;
mod merge;
mod pattern;
mod plan;
mod postings;
mod score;
mod search;
mod segment;
mod sieve;
mod signature;
mod trigram;
mod unit;
mod view;
mod workers;

pub use matcher::{
    ContextLine, LineLimits, LineMatch, Matcher, REGEX_BYTES_MAX, Scratch, with_context,
};
pub use pattern::{CLASSES_MAX, NEST_MAX};
pub use search::{DocumentLines, EnumeratedLine, Enumeration, Snapshot};
pub use view::{NativeView, Sizes};
