//! The `tantivy` method: the full query language over a tantivy index.
//!
//! These are the only files that name the tantivy crate. tantivy's own writer is not used: it owns
//! threads, locks and files, and none of that fits a view. Instead
//!
//! - [`words`] cuts text into tokens, the same way for documents and queries;
//! - [`schema`] maps a [`crate::document::Document`] to tantivy's fields;
//! - [`part_files`] lets tantivy reach files only through [`crate::directory::Directory`];
//! - [`part`] is one immutable index of one segment: built from a batch, or merged from others;
//! - [`manifest`] says which parts are durable and how far they reach in the log;
//! - [`view`] is the list of parts: it applies, checkpoints and merges;
//! - [`grammar`] and [`language`] turn a query into tantivy's query, [`bounds`] types its ranges,
//!   [`expansion`] finds the words of a pattern, [`steady`] may be excluded;
//! - [`searcher`] runs it over all parts with statistics of the whole.
//!
//! # The query language
//!
//! | form | meaning |
//! |---|---|
//! | `word other` | either word, best first; words are stemmed (English) and compared without case and accents |
//! | `+must -not`, `a AND b OR NOT c`, `(a b)` | boolean |
//! | `"exact phrase"`, `"with gaps"~3`, `"begins wi"*` | phrases: not stemmed; slop; prefix of the last word |
//! | `pre*`, `p*x` | words by pattern |
//! | `word~`, `word~2` | words within edit distance 1 or 2 |
//! | `/re[gx]+/` after a field | words that match a regular expression whole |
//! | `title:word`, `path:(a b)` | one field of `id`, `title`, `body`, `path`, `language`, `tags`, `attributes.NAME` |
//! | `attributes.price:[1 TO 5}`, `attributes.at:>=2024-01-01T00:00:00Z` | ranges |
//! | `tags: IN [a b]` | sets |
//! | `title:*`, `*` | documents that have the field; all documents |
//! | `word^2` | weight |
//!
//! A backslash takes a special character literally. A word in code is found whole and by its parts:
//! `parseHttpRequest`, `parse_http_request`, `http request`.

mod bounds;
mod expansion;
mod grammar;
mod language;
mod manifest;
mod part;
mod part_files;
mod schema;
mod searcher;
mod steady;
mod view;
mod words;

pub use searcher::FullTextSearcher;
pub use view::FullTextView;
