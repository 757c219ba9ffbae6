//! [`Part`]: one immutable tantivy index of one segment.
//!
//! Invariants: documents stand in rising order of their numbers; a part holds at least one document;
//! nothing in it changes, so it is shared between the view, its searchers and a running merge.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tantivy::columnar::ColumnValues;
use tantivy::directory::OwnedBytes;
use tantivy::fastfield::{AliveBitSet, write_alive_bitset};
use tantivy::indexer::merge_filtered_segments;
use tantivy::{BitSet, Index, ReloadPolicy, Searcher, Segment, SegmentReader, TantivyError};
use xxhash_rust::xxh3::xxh3_64;

use super::manifest::PartEntry;
use super::part_files::PartFiles;
use super::schema::{FIELDS, settings};
use super::words::tokenizers;
use crate::bitmap::Bitmap;
use crate::directory::Directory;
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::{Addition, ViewError};

/// tantivy sizes its hash table by this and grows it when it is too small; the table of a small
/// batch must not cost a millisecond to clear.
const TABLE_BYTES_MIN: usize = 1 << 20;
/// A table for a batch of the largest size; growing beyond it costs little then.
const TABLE_BYTES_MAX: usize = 16 << 20;

/// A part that can be searched.
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) files: PartFiles,
    pub(super) searcher: Searcher,
    pub(super) documents: u32,
    pub(super) first: DocNumber,
    pub(super) last: DocNumber,
    segment: Segment,
    numbers: Arc<dyn ColumnValues<u64>>,
}

impl Part {
    /// Writes a part from a batch, which is not empty and in rising order.
    pub(super) fn build(
        files: PartFiles,
        number: u32,
        items: &[Addition],
        text_bytes: usize,
    ) -> Result<Self, ViewError> {
        guarded("build a part", || {
            let table_bytes = text_bytes.clamp(TABLE_BYTES_MIN, TABLE_BYTES_MAX);
            let mut writer = Index::builder()
                .schema(FIELDS.schema.clone())
                .settings(settings())
                .tokenizers(tokenizers())
                .single_segment_index_writer(files.clone(), table_bytes)?;
            for item in items {
                writer.add_document(FIELDS.document(item))?;
            }
            Self::of(writer.finalize()?, files.clone(), number)
        })
    }

    /// Merges parts that follow each other. With `living`, leaves out what is removed; `None` when
    /// nothing is left.
    pub(super) fn merge(
        directory: Arc<dyn Directory>,
        number: u32,
        sources: &[Arc<Part>],
        living: Option<&Bitmap>,
        stop: &Stop,
    ) -> Result<Option<Self>, ViewError> {
        let mut segments = Vec::new();
        let mut filters = Vec::new();
        let mut left = 0;
        for source in sources {
            let (alive, filter) = source.alive(living)?;
            if alive > 0 {
                segments.push(source.segment.clone());
                filters.push(filter);
                left += alive;
            }
        }
        if left == 0 {
            return Ok(None);
        }
        let files = PartFiles::create(directory, number, stop.clone());
        guarded("merge parts", || {
            let index = merge_filtered_segments(&segments, settings(), filters, files.clone())?;
            Self::of(index, files.clone(), number)
        })
        .map(Some)
    }

    /// Opens a part that the manifest names. Lengths are checked; checksums are [`Part::verify`]'s.
    pub(super) fn open(
        directory: Arc<dyn Directory>,
        entry: &PartEntry,
    ) -> Result<Self, ViewError> {
        let files =
            PartFiles::existing(directory, entry.part, entry.meta.clone(), entry.files.clone());
        for (extension, sum) in &entry.files {
            let name = files.name(extension);
            let bytes = match files.read(extension) {
                Ok(contents) => contents.len() as u64,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(ViewError::damaged(name, "it is missing"));
                }
                Err(error) => return Err(ViewError::io(format!("open {name}"))(error)),
            };
            if bytes != sum.bytes {
                let reason = format!("it has {bytes} bytes instead of {}", sum.bytes);
                return Err(ViewError::damaged(name, reason));
            }
        }
        let name = files.name("*");
        let part =
            guarded("open a part", || Self::of(Index::open(files.clone())?, files, entry.part))
                .map_err(|error| as_damage(error, &name))?;
        if (part.documents, part.first, part.last) != (entry.documents, entry.first, entry.last) {
            return Err(ViewError::damaged(
                name,
                "it holds other documents than the manifest says",
            ));
        }
        Ok(part)
    }

    fn of(mut index: Index, files: PartFiles, number: u32) -> tantivy::Result<Self> {
        index.set_tokenizers(tokenizers());
        if index.schema() != FIELDS.schema {
            return Err(TantivyError::SchemaError("it has another schema".into()));
        }
        let segments = index.searchable_segments()?;
        let [segment] = &segments[..] else {
            return Err(TantivyError::InternalError("it has not exactly one segment".into()));
        };
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let searcher = reader.doc_store_cache_num_blocks(0).try_into()?.searcher();
        let [segment_reader] = searcher.segment_readers() else {
            return Err(TantivyError::InternalError("it has not exactly one segment".into()));
        };
        let numbers = segment_reader.fast_fields().u64("number")?.first_or_default_col(0);
        let documents = segment_reader.max_doc();
        if documents == 0 {
            return Err(TantivyError::InternalError("it holds no document".into()));
        }
        let (first, last) = (numbers.get_val(0) as u32, numbers.get_val(documents - 1) as u32);
        Ok(Self {
            number,
            files,
            documents,
            first,
            last,
            segment: segment.clone(),
            numbers,
            searcher,
        })
    }

    /// Its segment.
    pub(super) fn reader(&self) -> &SegmentReader {
        self.searcher.segment_reader(0)
    }

    /// The number of the document in this row.
    #[inline]
    pub(super) fn number_at(&self, row: u32) -> DocNumber {
        self.numbers.get_val(row) as DocNumber
    }

    /// How many documents live.
    pub(super) fn living(&self, living: &Bitmap) -> u64 {
        let count = living.count_range(self.first, self.last.saturating_add(1));
        count.min(u64::from(self.documents))
    }

    fn alive(&self, living: Option<&Bitmap>) -> Result<(u64, Option<AliveBitSet>), ViewError> {
        let Some(living) = living else { return Ok((u64::from(self.documents), None)) };
        let mut rows = BitSet::with_max_value(self.documents);
        let mut count = 0;
        for row in 0..self.documents {
            if living.contains(self.number_at(row)) {
                rows.insert(row);
                count += 1;
            }
        }
        let mut bytes = Vec::new();
        write_alive_bitset(&rows, &mut bytes).map_err(ViewError::io("list living rows"))?;
        Ok((count, Some(AliveBitSet::open(OwnedBytes::new(bytes)))))
    }

    /// Reads every file and compares its checksum.
    pub(super) fn verify(&self) -> Result<(), ViewError> {
        for (extension, sum) in self.files.files() {
            let name = self.files.name(&extension);
            let contents =
                self.files.read(&extension).map_err(ViewError::io(format!("read {name}")))?;
            if xxh3_64(&contents) != sum.checksum {
                return Err(ViewError::damaged(name, "its checksum does not fit its contents"));
            }
        }
        Ok(())
    }

    /// Its line in the manifest.
    pub(super) fn entry(&self) -> PartEntry {
        PartEntry {
            part: self.number,
            documents: self.documents,
            first: self.first,
            last: self.last,
            files: self.files.files(),
            meta: self.files.meta(),
        }
    }

    /// The same part under another number in another directory.
    pub(super) fn copy_to(
        &self,
        directory: Arc<dyn Directory>,
        number: u32,
    ) -> Result<Self, ViewError> {
        let files = self.files.copy_to(directory, number).map_err(ViewError::io("write a part"))?;
        guarded("open a part", || Self::of(Index::open(files.clone())?, files, number))
    }
}

/// Runs tantivy and turns its errors, and its panics on damaged bytes, into ours.
fn guarded<T>(doing: &str, work: impl FnOnce() -> tantivy::Result<T>) -> Result<T, ViewError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(view_error(doing, error)),
        Err(_) => Err(ViewError::Failed(format!("{doing}: tantivy panicked").into())),
    }
}

fn view_error(doing: &str, error: TantivyError) -> ViewError {
    use tantivy::directory::error::{OpenReadError, OpenWriteError};
    let io = match &error {
        TantivyError::IoError(source)
        | TantivyError::OpenReadError(OpenReadError::IoError { io_error: source, .. })
        | TantivyError::OpenWriteError(OpenWriteError::IoError { io_error: source, .. }) => {
            Some(std::io::Error::new(source.kind(), Arc::clone(source)))
        }
        _ => None,
    };
    match io {
        Some(source) => ViewError::Io { doing: doing.to_string(), source },
        None => ViewError::Failed(Box::new(error)),
    }
}

/// While opening, whatever tantivy cannot read is damage, unless the disk itself failed: every file
/// was read before, so an error without a reason of the system's is about what stands in it.
fn as_damage(error: ViewError, name: &str) -> ViewError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof, Unsupported};
    match error {
        ViewError::Io { source, .. }
            if matches!(
                source.kind(),
                InvalidData | InvalidInput | Other | UnexpectedEof | Unsupported
            ) =>
        {
            ViewError::damaged(name, source.to_string())
        }
        ViewError::Failed(source) => ViewError::damaged(name, source.to_string()),
        other => other,
    }
}
