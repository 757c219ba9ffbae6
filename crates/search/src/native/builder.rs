//! [`SegmentBuilder`]: documents to one segment, without a hash table.
//!
//! A unit's distinct trigrams come out of a bit set; each becomes a pair (trigram, unit) of one
//! `u64`; at the end the pairs are sorted by two passes of a stable radix sort, which leaves the
//! units of each trigram in rising order.

use bytes::Bytes;

use super::segment::{Segment, SegmentWriter};
use super::signature::sign;
use super::trigram::{Trigram, TrigramSet};
use super::unit::{UNIT_BYTES, Unit, cut};
use crate::document::DocNumber;
use crate::view::ViewError;

/// Below this many pairs a comparison sort beats the radix sort's two histograms.
const RADIX_PAIRS_MIN: usize = 4096;
const RADIX_BITS: u32 = 12;
/// Room for so many pairs is kept between batches: 2 MiB.
const PAIRS_KEPT: usize = 256 << 10;

/// Collects documents. One is kept by the view and reused: its tables are larger than most batches.
pub(super) struct SegmentBuilder {
    set: TrigramSet,
    /// Trigram in the high half, unit in the low half.
    pairs: Vec<u64>,
    sorted: Vec<u64>,
    units: Vec<Unit>,
    numbers: Vec<DocNumber>,
    /// The signatures of all documents, one after the other, and where each ends.
    signatures: Vec<u8>,
    signature_ends: Vec<usize>,
    folded: Vec<u8>,
    /// The unit that still takes short documents.
    open: Option<Unit>,
    text_bytes: u64,
}

impl SegmentBuilder {
    pub(super) fn new() -> Self {
        Self {
            set: TrigramSet::new(),
            pairs: Vec::new(),
            sorted: Vec::new(),
            units: Vec::new(),
            numbers: Vec::new(),
            signatures: Vec::new(),
            signature_ends: Vec::new(),
            folded: Vec::new(),
            open: None,
            text_bytes: 0,
        }
    }

    /// Body text collected so far, in bytes.
    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// How many documents were collected so far.
    pub(super) fn documents(&self) -> usize {
        self.numbers.len()
    }

    /// Adds a document, numbered higher than the one before.
    pub(super) fn add(&mut self, number: DocNumber, title: &str, body: &str) {
        let document = self.numbers.len() as u32;
        self.numbers.push(number);
        self.text_bytes += body.len() as u64;
        if let Some(open) = self.open
            && open.bytes as usize + body.len() > UNIT_BYTES
        {
            self.close(open);
        }
        if body.len() <= UNIT_BYTES {
            let mut open = self.open.unwrap_or(Unit { document, offset: 0, line: 0, bytes: 0 });
            open.bytes += body.len() as u32;
            self.set.add(title);
            self.set.add(body);
            self.open = Some(open);
            sign([title, body], &mut self.folded, &mut self.signatures);
            self.signature_ends.push(self.signatures.len());
            return;
        }
        self.signature_ends.push(self.signatures.len());
        self.set.add(title);
        for (range, line) in cut(body) {
            let (offset, bytes) = (range.start as u32, range.len() as u32);
            self.set.add(&body[range]);
            self.close(Unit { document, offset, line, bytes });
        }
    }

    fn close(&mut self, unit: Unit) {
        let index = self.units.len() as u64;
        let pairs = &mut self.pairs;
        self.set.drain(|trigram| pairs.push(u64::from(trigram) << 32 | index));
        self.units.push(unit);
        self.open = None;
    }

    /// The collected documents as a segment; the builder is empty again.
    pub(super) fn finish(&mut self, name: &str) -> Result<Segment, ViewError> {
        if let Some(open) = self.open {
            self.close(open);
        }
        self.sort();
        let doing = || format!("build {name}");
        let blob = self.write().map_err(|source| ViewError::Io { doing: doing(), source })?;
        self.clear();
        Segment::open(name, Bytes::from(blob))
    }

    /// Forgets what was collected, after a failed batch.
    pub(super) fn clear(&mut self) {
        self.set.drain(|_| ());
        self.open = None;
        self.pairs.clear();
        self.units.clear();
        self.numbers.clear();
        self.signatures.clear();
        self.signature_ends.clear();
        self.text_bytes = 0;
    }

    /// Gives back memory that only a large batch needs.
    pub(super) fn shrink(&mut self) {
        self.pairs.shrink_to(PAIRS_KEPT);
        self.sorted.clear();
        self.sorted.shrink_to(PAIRS_KEPT);
    }

    fn write(&self) -> std::io::Result<Vec<u8>> {
        let out = Vec::with_capacity(self.pairs.len() * 2 + 1024);
        let mut writer = SegmentWriter::new(out, self.units.len() as u32)?;
        let mut units = Vec::new();
        for group in self.pairs.chunk_by(|a, b| a >> 32 == b >> 32) {
            units.clear();
            units.extend(group.iter().map(|&pair| pair as u32));
            writer.put((group[0] >> 32) as Trigram, &units)?;
        }
        let mut start = 0;
        for &end in &self.signature_ends {
            writer.sign(&self.signatures[start..end])?;
            start = end;
        }
        writer.finish(&self.units, &self.numbers)
    }

    fn sort(&mut self) {
        if self.pairs.len() < RADIX_PAIRS_MIN {
            self.pairs.sort_unstable();
            return;
        }
        self.sorted.resize(self.pairs.len(), 0);
        radix_pass(&self.pairs, &mut self.sorted, 32);
        radix_pass(&self.sorted, &mut self.pairs, 32 + RADIX_BITS);
    }
}

/// Distributes `from` into `to` by the 12 bits from `shift` on, keeping the order of equals.
fn radix_pass(from: &[u64], to: &mut [u64], shift: u32) {
    const BUCKETS: usize = 1 << RADIX_BITS;
    let bucket = |pair: u64| (pair >> shift) as usize & (BUCKETS - 1);
    let mut starts = vec![0usize; BUCKETS];
    for &pair in from {
        starts[bucket(pair)] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum - *start;
    }
    for &pair in from {
        let slot = &mut starts[bucket(pair)];
        to[*slot] = pair;
        *slot += 1;
    }
}
