//! A folder on disk as documents: find files, read them as text, notice what changed.
//!
//! - [`walk`] finds files as ripgrep does and reports what it cannot read;
//! - [`decode`] makes text of bytes and tells binary files apart;
//! - [`extract`] takes title and text out of Markdown, HTML, PDF and NDJSON;
//! - [`language`] names the language of a file;
//! - [`state`] remembers what was indexed, so that a second run finds the difference;
//! - [`watch`] waits for changes.
//!
//! The one place besides storage that reads the disk: it reads the user's files, never ours.

pub(crate) mod decode;
pub(crate) mod extract;
pub(crate) mod language;
pub(crate) mod state;
pub(crate) mod walk;
pub(crate) mod watch;

#[cfg(test)]
mod tests;
