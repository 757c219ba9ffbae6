//! [`Segment`]: an immutable table of passages and their vectors in one space.
//!
//! The bytes are the same in memory and in a file, and are searched in place. Layout, little-endian:
//!
//! ```text
//! magic 8 · version u32 · dimension u32 · rows u64 · padding to 64
//! column after column, each at a multiple of 64 bytes:
//!   documents u32 · passages u32 · starts u32 · ends u32 · scales f32     (keys)
//!   components, `dimension` bytes a row · sign bits, in blocks of 8 rows   (vectors)
//!   links of the graph, level 0 · links of the levels above                (may be empty)
//! for each column: offset u64 · length u64 · xxh3 u64
//! xxh3 of header and table u64 · length of the file u64 · magic 8
//! ```
//!
//! Invariants: rows rise by (document, passage); a scale is finite and not negative, and 0 where
//! the model knows nothing of the passage. Keys are checked when a segment is opened; vectors are
//! not, so that opening reads a twentieth of the file: any bytes are valid components and signs,
//! links are checked as they are followed, and [`Segment::verify`] compares the checksums.

use std::ops::Range;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::graph::Graph;
use super::kernels::{BLOCK_ROWS, DIMENSION_MAX, block_bytes};
use super::passages::PASSAGES_PER_DOCUMENT_MAX;
use super::refinement::NO_PASSAGE;
use crate::document::DocNumber;
use crate::view::ViewError;

pub(super) const MAGIC: [u8; 8] = *b"MSTYvec\n";
pub(super) const VERSION: u32 = 1;
pub(super) const ALIGNMENT: usize = 64;
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const COLUMNS: usize = 9;
const TABLE_BYTES: usize = COLUMNS * 24;
const TRAILER_BYTES: usize = 24;
/// How many columns hold keys.
const KEY_COLUMNS: usize = 5;

/// Which column.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Documents,
    Passages,
    Starts,
    Ends,
    Scales,
    Components,
    Signs,
    Links,
    Upper,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row<'a> {
    pub(crate) number: DocNumber,
    pub(crate) passage: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) scale: f32,
    pub(crate) components: &'a [u8],
}

/// An open segment. Cheap to clone: columns are slices of one buffer.
#[derive(Clone)]
pub(crate) struct Segment {
    name: String,
    rows: usize,
    dimension: usize,
    bytes: u64,
    columns: [Bytes; COLUMNS],
    checksums: [u64; COLUMNS],
    graph: Option<Graph>,
    documents: usize,
    /// Whether every row has a vector.
    dense: bool,
}

impl Segment {
    /// Reads what `segment_writer` wrote. `name` is for messages.
    pub(crate) fn open(name: &str, file: &Bytes) -> Result<Self, ViewError> {
        let damaged = |reason: &str| ViewError::damaged(name, reason);
        if file.len() < HEADER_BYTES + TABLE_BYTES + TRAILER_BYTES {
            return Err(damaged("it is shorter than a segment can be"));
        }
        if file[..8] != MAGIC {
            return Err(damaged("it does not begin as a segment of vectors"));
        }
        let found = u32_at(file, 8);
        if found > VERSION {
            let file = name.to_string();
            return Err(ViewError::FutureFormat { file, found, supported: VERSION });
        }
        let table = file.len() - TRAILER_BYTES - TABLE_BYTES;
        let trailer = file.len() - TRAILER_BYTES;
        if file[trailer + 16..] != MAGIC || u64_at(file, trailer + 8) != file.len() as u64 {
            return Err(damaged("its end is missing"));
        }
        if footer_checksum(&file[..HEADER_BYTES], &file[table..trailer]) != u64_at(file, trailer) {
            return Err(damaged("its table of columns fails its checksum"));
        }
        let dimension = u32_at(file, 12) as usize;
        let rows = usize::try_from(u64_at(file, 16)).unwrap_or(usize::MAX);
        if dimension > DIMENSION_MAX || rows > super::merge::SEGMENT_ROWS_MAX {
            return Err(damaged("its dimension or number of rows is beyond the bounds"));
        }
        let mut columns = [const { Bytes::new() }; COLUMNS];
        let mut checksums = [0; COLUMNS];
        for (index, column) in columns.iter_mut().enumerate() {
            let entry = table + index * 24;
            let (offset, length) = (u64_at(file, entry), u64_at(file, entry + 8));
            let end = offset.checked_add(length).filter(|&end| end <= table as u64);
            let end = end.ok_or_else(|| damaged("a column lies outside the file"))?;
            *column = file.slice(offset as usize..end as usize);
            checksums[index] = u64_at(file, entry + 16);
        }
        let mut segment = Self {
            name: name.to_string(),
            rows,
            dimension,
            bytes: file.len() as u64,
            columns,
            checksums,
            graph: None,
            documents: 0,
            dense: true,
        };
        segment.check_shape()?;
        segment.check_keys()?;
        let column = |column: Column| segment.columns[column as usize].clone();
        segment.graph = Graph::open(column(Column::Links), column(Column::Upper), rows)
            .map_err(|reason| ViewError::damaged(name, reason))?;
        Ok(segment)
    }

    fn check_shape(&self) -> Result<(), ViewError> {
        let (rows, dimension) = (self.rows, self.dimension);
        let vectors = [rows * dimension, rows.div_ceil(BLOCK_ROWS) * block_bytes(dimension)];
        let expected = [[rows * 4; KEY_COLUMNS].as_slice(), &vectors].concat();
        if self.columns.iter().zip(expected).any(|(column, bytes)| column.len() != bytes) {
            return Err(self.damaged("a column does not have the length of its rows"));
        }
        Ok(())
    }

    fn check_keys(&mut self) -> Result<(), ViewError> {
        for index in 0..KEY_COLUMNS {
            self.check_column(index)?;
        }
        let mut last = None;
        for row in 0..self.rows {
            let key = (self.number(row), self.passage(row));
            if last.is_some_and(|last| last >= key) {
                return Err(self.damaged("its rows do not rise"));
            }
            self.documents += usize::from(last.is_none_or(|(number, _)| number != key.0));
            last = Some(key);
            if key.1 >= PASSAGES_PER_DOCUMENT_MAX as u32 && key.1 != NO_PASSAGE {
                return Err(self.damaged("a passage is beyond the bound"));
            }
            let scale = self.scale(row);
            if !scale.is_finite() || scale < 0.0 {
                return Err(self.damaged("a scale is negative or not finite"));
            }
            self.dense &= scale > 0.0;
        }
        Ok(())
    }

    fn check_column(&self, index: usize) -> Result<(), ViewError> {
        if xxh3_64(&self.columns[index]) == self.checksums[index] {
            return Ok(());
        }
        Err(self.damaged(&format!("column {index} fails its checksum")))
    }

    /// Compares every checksum. Reads the whole file.
    pub(crate) fn verify(&self) -> Result<(), ViewError> {
        (0..COLUMNS).try_for_each(|index| self.check_column(index))
    }

    fn damaged(&self, reason: &str) -> ViewError {
        ViewError::damaged(&self.name, reason)
    }

    /// The name of its file, or a description while it is in memory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many passages it holds.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// How many documents it holds.
    pub(crate) fn documents(&self) -> usize {
        self.documents
    }

    /// The length of its file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its vectors' dimension; 0 for a table of passages without vectors.
    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    /// The graph over its vectors, when it is large enough to have one.
    pub(crate) fn graph(&self) -> Option<&Graph> {
        self.graph.as_ref()
    }

    /// Whether every row has a vector.
    pub(crate) fn is_dense(&self) -> bool {
        self.dense
    }

    /// The document of a row.
    #[inline]
    pub(crate) fn number(&self, row: usize) -> DocNumber {
        self.key(Column::Documents, row)
    }

    /// The index of a row's passage inside its document.
    #[inline]
    pub(crate) fn passage(&self, row: usize) -> u32 {
        self.key(Column::Passages, row)
    }

    /// Where a row's passage stands in the body.
    pub(crate) fn range(&self, row: usize) -> Range<u32> {
        self.key(Column::Starts, row)..self.key(Column::Ends, row)
    }

    /// What one step of a component is worth; 0 for a row without a vector.
    #[inline]
    pub(crate) fn scale(&self, row: usize) -> f32 {
        f32::from_bits(self.key(Column::Scales, row))
    }

    /// The int8 components of a row.
    #[inline]
    pub(crate) fn components(&self, row: usize) -> &[u8] {
        let at = row * self.dimension;
        &self.columns[Column::Components as usize][at..at + self.dimension]
    }

    /// The sign bits of all rows, in blocks.
    pub(crate) fn signs(&self) -> &[u8] {
        &self.columns[Column::Signs as usize]
    }

    /// A whole row.
    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        let Range { start, end } = self.range(row);
        Row {
            number: self.number(row),
            passage: self.passage(row),
            start,
            end,
            scale: self.scale(row),
            components: self.components(row),
        }
    }

    #[inline]
    fn key(&self, column: Column, row: usize) -> u32 {
        u32_at(&self.columns[column as usize], row * 4)
    }

    /// The rows of a document; empty when it is not here.
    pub(crate) fn rows_of(&self, number: DocNumber) -> Range<usize> {
        let start = self.first_row_from(number, 0);
        let mut end = start;
        while end < self.rows && self.number(end) == number {
            end += 1;
        }
        start..end
    }

    /// The first row at or behind `from` whose document is `number` or higher.
    pub(crate) fn first_row_from(&self, number: DocNumber, from: usize) -> usize {
        let (mut low, mut high) = (from.min(self.rows), self.rows);
        // Callers mostly go on a little way: doubling steps find the end of a short search.
        let mut step = 1;
        while low + step < high {
            if self.number(low + step) >= number {
                high = low + step;
                break;
            }
            low += step;
            step *= 2;
        }
        while low < high {
            let middle = low.midpoint(high);
            if self.number(middle) < number {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The row of a passage.
    pub(crate) fn find(&self, number: DocNumber, passage: u32) -> Option<usize> {
        self.rows_of(number).find(|&row| self.passage(row) == passage)
    }

    /// The lowest and the highest document.
    pub(crate) fn bounds(&self) -> Option<(DocNumber, DocNumber)> {
        (self.rows > 0).then(|| (self.number(0), self.number(self.rows - 1)))
    }
}

/// The checksum over header and table of columns.
pub(super) fn footer_checksum(header: &[u8], table: &[u8]) -> u64 {
    xxh3_64(&[header, table].concat())
}

/// Four bytes as a number; 0 beyond the end, which callers exclude by checking lengths first.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u32::from_le_bytes(*raw))
}

/// Eight bytes as a number; 0 beyond the end.
#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u64::from_le_bytes(*raw))
}
