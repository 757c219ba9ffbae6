//! [`Head`]: the newest documents, as rows in memory, until they are sealed into a segment.
//!
//! Invariants: chunks hold rising, disjoint ranges of numbers and are never changed, only replaced,
//! so a snapshot is a copy of the list. A new chunk swallows smaller neighbours as in binary
//! counting: there are about log2(documents) chunks, and a document moves that often.

use std::sync::Arc;

use crate::bitmap::Bitmap;
use crate::document::{DocNumber, Document};

/// Documents in the head before it is sealed: filters look at its rows one by one (about 100 ns
/// each), which must stay a small part of a query's time.
pub(super) const HEAD_DOCUMENTS_MAX: usize = 4096;
/// Bytes in the head before it is sealed: sealing compresses them (about 500 MB/s) while the writer
/// waits.
pub(super) const HEAD_BYTES_MAX: usize = 4 << 20;

/// One document of the head.
pub(super) struct HeadDocument {
    pub(super) number: DocNumber,
    pub(super) hash: u64,
    pub(super) document: Document,
}

impl HeadDocument {
    fn bytes(&self) -> usize {
        let document = &self.document;
        let tags: usize = document.tags.iter().map(|tag| tag.len() + 24).sum();
        let attributes: usize = document.attributes.keys().map(|name| name.len() + 80).sum();
        let texts = [&document.id, &document.title, &document.path, &document.language];
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        size_of::<Self>() + texts + document.body.len() + tags + attributes
    }
}

/// Some documents with rising numbers.
pub(super) struct HeadChunk {
    documents: Vec<Arc<HeadDocument>>,
    /// Hash of the id and place in `documents`, sorted.
    by_hash: Vec<(u64, u32)>,
    bytes: usize,
}

impl HeadChunk {
    fn new(documents: Vec<Arc<HeadDocument>>) -> Self {
        let bytes = documents.iter().map(|document| document.bytes()).sum();
        let mut by_hash: Vec<_> =
            documents.iter().enumerate().map(|(at, document)| (document.hash, at as u32)).collect();
        by_hash.sort_unstable();
        Self { documents, by_hash, bytes }
    }

    fn join(older: &Self, newer: &Self) -> Self {
        let moved = older.documents.len() as u32;
        let mut by_hash = Vec::with_capacity(older.by_hash.len() + newer.by_hash.len());
        by_hash.extend_from_slice(&older.by_hash);
        by_hash.extend(newer.by_hash.iter().map(|&(hash, at)| (hash, at + moved)));
        by_hash.sort(); // two sorted runs: the stable sort merges them in one pass
        let documents = older.documents.iter().chain(&newer.documents).cloned().collect();
        Self { documents, by_hash, bytes: older.bytes + newer.bytes }
    }

    fn last(&self) -> DocNumber {
        self.documents.last().map_or(0, |document| document.number)
    }
}

/// The chunks, oldest first. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Head {
    chunks: Vec<Arc<HeadChunk>>,
}

impl Head {
    /// Adds documents whose numbers are higher than all before.
    pub(super) fn push(&mut self, documents: Vec<Arc<HeadDocument>>) {
        if documents.is_empty() {
            return;
        }
        let mut chunk = Arc::new(HeadChunk::new(documents));
        while let Some(last) =
            self.chunks.pop_if(|last| last.documents.len() < 2 * chunk.documents.len())
        {
            chunk = Arc::new(HeadChunk::join(&last, &chunk));
        }
        self.chunks.push(chunk);
    }

    /// How many documents there are, dead ones included.
    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.documents.len()).sum()
    }

    /// The highest number.
    pub(super) fn last(&self) -> Option<DocNumber> {
        self.chunks.last().map(|chunk| chunk.last())
    }

    /// The memory taken.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// Every document, in order of number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &HeadDocument> {
        self.chunks.iter().flat_map(|chunk| &chunk.documents).map(Arc::as_ref)
    }

    /// The living document with this id.
    pub(super) fn find(&self, id: &str, hash: u64, living: &Bitmap) -> Option<DocNumber> {
        self.chunks.iter().rev().find_map(|chunk| {
            let start = chunk.by_hash.partition_point(|&(other, _)| other < hash);
            let equal = chunk.by_hash[start..].iter().take_while(|&&(other, _)| other == hash);
            equal
                .map(|&(_, at)| &chunk.documents[at as usize])
                .find(|found| living.contains(found.number) && found.document.id == id)
                .map(|found| found.number)
        })
    }

    /// The document with this number, dead or alive.
    pub(super) fn get(&self, number: DocNumber) -> Option<&Document> {
        let chunk = self.chunks.partition_point(|chunk| chunk.last() < number);
        let documents = &self.chunks.get(chunk)?.documents;
        let at = documents.binary_search_by_key(&number, |document| document.number).ok()?;
        Some(&documents[at].document)
    }
}
