//! [`write_segment`]: rows in, the bytes of a segment out, column after column.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::graph_build::{self, Links};
use super::kernels::{BLOCK_ROWS, block_bytes};
use super::quantize::sign_block;
use super::segment::{
    ALIGNMENT, COLUMNS, HEADER_BYTES, MAGIC, Row, Segment, VERSION, footer_checksum,
};
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::ViewError;

/// How many rows are written between two looks at the stop flag.
const ROWS_PER_STOP_CHECK: usize = 4096;

/// Rows in rising order of (document, passage).
pub(crate) trait Rows {
    /// How many.
    fn len(&self) -> usize;
    /// One of them, by index below [`Rows::len`].
    fn row(&self, index: usize) -> Row<'_>;
}

/// Rows gathered in memory.
#[derive(Default)]
pub(crate) struct Gathered {
    dimension: usize,
    keys: Vec<(DocNumber, u32, u32, u32, f32)>,
    components: Vec<u8>,
    /// The order of the keys, once sorted.
    order: Vec<u32>,
}

impl Gathered {
    pub(crate) fn new(dimension: usize) -> Self {
        Self { dimension, ..Self::default() }
    }

    /// Adds a row. `components` is empty for one without a vector.
    pub(crate) fn push(&mut self, row: Row<'_>) {
        self.order.push(self.keys.len() as u32);
        self.keys.push((row.number, row.passage, row.start, row.end, row.scale));
        self.components.extend_from_slice(row.components);
        self.components.resize(self.keys.len() * self.dimension, 0);
    }

    /// Brings the rows into order.
    pub(crate) fn sort(&mut self) {
        let keys = &self.keys;
        self.order.sort_unstable_by_key(|&at| (keys[at as usize].0, keys[at as usize].1));
    }
}

impl Rows for Gathered {
    fn len(&self) -> usize {
        self.keys.len()
    }

    fn row(&self, index: usize) -> Row<'_> {
        let at = self.order[index] as usize;
        let (number, passage, start, end, scale) = self.keys[at];
        let components = &self.components[at * self.dimension..(at + 1) * self.dimension];
        Row { number, passage, start, end, scale, components }
    }
}

/// The rows of several segments that a filter keeps, in order.
pub(crate) struct Joined {
    sources: Vec<Arc<Segment>>,
    /// (source, row)
    rows: Vec<(u16, u32)>,
}

impl Joined {
    /// Joins at most 65,536 segments.
    pub(crate) fn new(sources: Vec<Arc<Segment>>, keep: impl Fn(DocNumber) -> bool) -> Self {
        let mut keys = Vec::new();
        for (source, segment) in sources.iter().enumerate() {
            let mut last = (None, false);
            for row in 0..segment.rows() {
                let number = segment.number(row);
                if last.0 != Some(number) {
                    last = (Some(number), keep(number));
                }
                if last.1 {
                    keys.push((number, segment.passage(row), source as u16, row as u32));
                }
            }
        }
        // Segments mostly follow each other: the sort finds sorted runs.
        keys.sort();
        keys.dedup_by_key(|&mut (number, passage, ..)| (number, passage));
        let rows = keys.into_iter().map(|(.., source, row)| (source, row)).collect();
        Self { sources, rows }
    }
}

impl Rows for Joined {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn row(&self, index: usize) -> Row<'_> {
        let (source, row) = self.rows[index];
        self.sources[usize::from(source)].row(row as usize)
    }
}

/// Writes a segment; `with_graph` builds the graph over its vectors first. Ends early with
/// [`io::ErrorKind::Interrupted`] when `stop` is set.
pub(crate) fn write_segment(
    rows: &dyn Rows,
    dimension: usize,
    with_graph: bool,
    stop: &Stop,
    out: &mut dyn Write,
) -> io::Result<()> {
    let links = match with_graph {
        true => graph_build::build(rows, graph_build::Effort::default(), stop)?,
        false => Links::default(),
    };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((dimension as u32).to_le_bytes());
    header.extend((rows.len() as u64).to_le_bytes());
    header.resize(HEADER_BYTES, 0);
    out.write_all(&header)?;
    let mut columns = ColumnWriter { out, at: HEADER_BYTES, table: Vec::new(), stop };
    columns.each_row(rows, |row, part| part.extend(row.number.to_le_bytes()))?;
    columns.each_row(rows, |row, part| part.extend(row.passage.to_le_bytes()))?;
    columns.each_row(rows, |row, part| part.extend(row.start.to_le_bytes()))?;
    columns.each_row(rows, |row, part| part.extend(row.end.to_le_bytes()))?;
    columns.each_row(rows, |row, part| part.extend(row.scale.to_le_bytes()))?;
    columns.each_row(rows, |row, part| part.extend(row.components))?;
    columns.signs(rows, dimension)?;
    columns.whole(&links.ground)?;
    columns.whole(&links.upper)?;
    let (mut at, table) = (columns.at, columns.table);
    debug_assert_eq!(table.len(), COLUMNS * 24);
    at += table.len() + 24;
    out.write_all(&table)?;
    out.write_all(&footer_checksum(&header, &table).to_le_bytes())?;
    out.write_all(&(at as u64).to_le_bytes())?;
    out.write_all(&MAGIC)
}

/// A segment without a graph, in memory.
pub(crate) fn segment_in_memory(rows: &dyn Rows, dimension: usize) -> Result<Segment, ViewError> {
    let bytes_per_row = 20 + dimension + dimension.div_ceil(8);
    let mut file = Vec::with_capacity(rows.len() * bytes_per_row + 2048);
    write_segment(rows, dimension, false, &Stop::new(), &mut file)
        .map_err(ViewError::io("write vectors into memory"))?;
    Segment::open("vectors in memory", &Bytes::from(file))
}

struct ColumnWriter<'a> {
    out: &'a mut dyn Write,
    at: usize,
    table: Vec<u8>,
    stop: &'a Stop,
}

impl ColumnWriter<'_> {
    fn each_row(
        &mut self,
        rows: &dyn Rows,
        write: impl Fn(Row<'_>, &mut Vec<u8>),
    ) -> io::Result<()> {
        let mut next = 0;
        self.parts(|part| {
            let end = rows.len().min(next + ROWS_PER_STOP_CHECK);
            (next..end).for_each(|index| write(rows.row(index), part));
            next = end;
            end < rows.len()
        })
    }

    fn signs(&mut self, rows: &dyn Rows, dimension: usize) -> io::Result<()> {
        let block = block_bytes(dimension);
        let mut next = 0;
        self.parts(|part| {
            let end = rows.len().min(next + ROWS_PER_STOP_CHECK);
            for first in (next..end).step_by(BLOCK_ROWS) {
                let at = part.len();
                part.resize(at + block, 0);
                let lanes = first..end.min(first + BLOCK_ROWS);
                sign_block(lanes.map(|index| rows.row(index).components), &mut part[at..]);
            }
            next = end;
            end < rows.len()
        })
    }

    fn whole(&mut self, column: &[u8]) -> io::Result<()> {
        self.parts(|part| {
            part.extend_from_slice(column);
            false
        })
    }

    /// Writes one column in parts: `next` fills an empty part and says whether there is more.
    fn parts(&mut self, mut next: impl FnMut(&mut Vec<u8>) -> bool) -> io::Result<()> {
        let mut checksum = Xxh3::new();
        let start = self.at;
        let mut part = Vec::new();
        let mut more = true;
        while more {
            check_stop(self.stop)?;
            part.clear();
            more = next(&mut part);
            checksum.update(&part);
            self.out.write_all(&part)?;
            self.at += part.len();
        }
        for value in [start as u64, (self.at - start) as u64, checksum.digest()] {
            self.table.extend(value.to_le_bytes());
        }
        let padding = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.out.write_all(&[0; ALIGNMENT][..padding])?;
        self.at += padding;
        Ok(())
    }
}

/// An error of kind [`io::ErrorKind::Interrupted`] when the flag is set.
pub(crate) fn check_stop(stop: &Stop) -> io::Result<()> {
    match stop.is_set() {
        true => Err(io::Error::new(io::ErrorKind::Interrupted, "asked to stop")),
        false => Ok(()),
    }
}
