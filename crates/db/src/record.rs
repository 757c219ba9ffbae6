//! [`Change`]: what one log record says, and its binary form.
//!
//! A document's number is the sequence number of the record that put it. Sequence numbers are dense,
//! rise in log order, are kept by compaction and are never reused, so numbers need no bookkeeping
//! of their own and can never disagree with the log.

use std::fmt;

use mainstay_search::document::{DecodeError, DocNumber, Document};

/// The last sequence number that is also a document number.
pub(crate) const SEQ_MAX: u64 = DocNumber::MAX as u64 - 1;

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// What one record of the log says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// A document is stored; one of the same id is replaced.
    Put(Document),
    /// The document of this id is removed; nothing happens when there is none.
    Delete(String),
}

impl Change {
    /// The record's kind and payload.
    pub(crate) fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Change::Put(document) => {
                let mut payload = Vec::with_capacity(document.body.len() + 256);
                document.encode(&mut payload);
                (PUT, payload)
            }
            Change::Delete(id) => (DELETE, id.clone().into_bytes()),
        }
    }

    /// Reads a record.
    pub(crate) fn decode(kind: u8, payload: &[u8]) -> Result<Self, RecordError> {
        match kind {
            PUT => Document::decode(payload).map(Change::Put).map_err(RecordError::Document),
            DELETE => match std::str::from_utf8(payload) {
                Ok(id) => Ok(Change::Delete(id.to_string())),
                Err(_) => Err(RecordError::Id),
            },
            _ => Err(RecordError::Kind(kind)),
        }
    }
}

/// A record that cannot be read although its checksum is right: written by another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// Its document.
    Document(DecodeError),
    /// Its id is not UTF-8.
    Id,
    /// Its kind is not known.
    Kind(u8),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(error) => error.fmt(f),
            Self::Id => f.write_str("record names an id that is not UTF-8"),
            Self::Kind(kind) => write!(
                f,
                "record is of kind {kind}, which this version does not know; use the version that wrote it"
            ),
        }
    }
}

impl std::error::Error for RecordError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_change_survive_the_log() {
        let put = Change::Put(Document { id: "a".into(), body: "b".into(), ..Document::default() });
        for change in [put, Change::Delete("ü".into())] {
            let (kind, payload) = change.encode();
            assert_eq!(Change::decode(kind, &payload), Ok(change));
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error_that_names_it() {
        assert_eq!(Change::decode(9, b""), Err(RecordError::Kind(9)));
        assert_eq!(Change::decode(DELETE, b"\xff"), Err(RecordError::Id));
    }
}
