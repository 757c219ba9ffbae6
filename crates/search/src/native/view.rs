//! [`NativeView`]: the trigram index as a view of the log.
//!
//! Invariants:
//!
//! 1. `parts` are in order of document number and their number ranges do not overlap; only
//!    neighbours are merged.
//! 2. A part is immutable. Readers hold their own list of parts, so nothing here disturbs them.
//! 3. Files that the last written manifest names are removed only after a manifest without them is
//!    durable. Files that no manifest names are removed when the view is opened.
//! 4. The newest parts that are all below [`Sizes::inline_bytes_max`] are merged during `apply` only;
//!    those before them by planned merges only. So a planned merge always finds its sources again.

use std::io::BufWriter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::builder::SegmentBuilder;
use super::manifest::{MANIFEST, Manifest};
use super::merge::merge;
use super::search::Snapshot;
use super::segment::Segment;
use crate::bitmap::Bitmap;
use crate::directory::{Directory, write_file};
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::{Addition, Merge, Merged, Refused, Searcher, View, ViewError, ViewFigures};

/// Segments of one size class that are merged into one; also how many of them a query may meet.
const MERGE_FACTOR: usize = 8;
/// The most segments merged at once, so that a merge needs few open lists.
const SOURCES_MAX: usize = 64;
/// Size of the smallest class of segments, in bytes; each further class is [`MERGE_FACTOR`] times larger.
const TIER_BYTES: u64 = 8 << 10;
/// Segments are not merged beyond this size, in bytes: a merge has to end some day.
const MERGED_BYTES_MAX: u64 = 8 << 30;
/// A segment with this share of removed documents (one in so many) is rewritten without them.
const REMOVED_SHARE: u64 = 3;

/// When segments are finished and merged. The defaults suit any corpus; tests make them small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Body text after which a batch goes on in another segment, in bytes; default 16 MiB. Bounds
    /// the builder's memory to about eight times this.
    pub segment_text_bytes: u64,
    /// Segments below this size, in bytes, are merged while applying, larger ones off-thread;
    /// default 1 MiB, of which eight together take some tens of milliseconds.
    pub inline_bytes_max: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { segment_text_bytes: 16 << 20, inline_bytes_max: 1 << 20 }
    }
}

/// One segment and its id.
#[derive(Clone)]
struct Part {
    id: u64,
    segment: Arc<Segment>,
    /// Whether it stands in a finished file.
    durable: bool,
}

/// The `native` view.
pub struct NativeView {
    directory: Arc<dyn Directory>,
    sizes: Sizes,
    parts: Vec<Part>,
    through: u64,
    /// Shared with running merges, which name their files by it.
    next_id: Arc<AtomicU64>,
    builder: SegmentBuilder,
    /// Ids of files that no longer matter once the next manifest is written.
    garbage: Vec<u64>,
    /// Whether the last manifest written says the same as this view.
    clean: bool,
}

fn file_name(id: u64) -> String {
    format!("segment-{id:08}")
}

fn id_of(file: &str) -> Option<u64> {
    file.strip_prefix("segment-")?.parse().ok()
}

impl NativeView {
    /// Opens the view that the last checkpoint left in `directory`, or a new one.
    ///
    /// Reads only the tables at the end of each file; posting lists are checked when they are read.
    /// Errors: [`ViewError::Damaged`] and [`ViewError::FutureFormat`] as in the contract of views.
    pub fn open(directory: Arc<dyn Directory>) -> Result<Self, ViewError> {
        Self::open_with(directory, Sizes::default())
    }

    /// [`NativeView::open`] with other sizes.
    pub fn open_with(directory: Arc<dyn Directory>, sizes: Sizes) -> Result<Self, ViewError> {
        let files = directory.list().map_err(ViewError::io("list the files of the native view"))?;
        let manifest = if files.iter().any(|file| file == MANIFEST) {
            let read = directory.open(MANIFEST);
            Manifest::from_bytes(&read.map_err(ViewError::io("read the manifest"))?)?
        } else {
            Manifest::default()
        };
        for file in files {
            if id_of(&file).is_some_and(|id| !manifest.ids.contains(&id)) {
                let doing = format!("remove the unused file {file}");
                directory.remove(&file).map_err(ViewError::io(doing))?;
            }
        }
        let mut parts = Vec::with_capacity(manifest.ids.len());
        for &id in &manifest.ids {
            let segment = Arc::new(open_file(directory.as_ref(), id)?);
            parts.push(Part { id, segment, durable: true });
        }
        check_ranges(&parts)?;
        Ok(Self {
            directory,
            sizes,
            parts,
            through: manifest.through,
            next_id: Arc::new(AtomicU64::new(manifest.next_id)),
            builder: SegmentBuilder::new(),
            garbage: Vec::new(),
            clean: true,
        })
    }

    /// The state as readers may see it, with [`Snapshot::enumerate`] besides the ranked search.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let segments: Vec<_> = self.parts.iter().map(|part| Arc::clone(&part.segment)).collect();
        Arc::new(Snapshot::new(&segments))
    }

    fn last_number(parts: &[Part]) -> Option<DocNumber> {
        parts.last().and_then(|part| part.segment.numbers().last())
    }

    fn finish_segment(&mut self, parts: &mut Vec<Part>) -> Result<(), ViewError> {
        if self.builder.documents() == 0 {
            return Ok(());
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let segment = Arc::new(self.builder.finish(&file_name(id))?);
        parts.push(Part { id, segment, durable: false });
        self.merge_inline(parts)
    }

    /// Merges the newest small segments while there are too many of a class.
    fn merge_inline(&self, parts: &mut Vec<Part>) -> Result<(), ViewError> {
        while let Some(start) = crowded_tail(parts, self.sizes.inline_bytes_max) {
            self.merge_tail(parts, start)?;
        }
        Ok(())
    }

    fn merge_tail(&self, parts: &mut Vec<Part>, start: usize) -> Result<(), ViewError> {
        let sources: Vec<&Segment> = parts[start..].iter().map(|part| &*part.segment).collect();
        let blob = merge(&sources, None, Vec::new(), &Stop::new())?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let segment = Arc::new(Segment::open(&file_name(id), Bytes::from(blob))?);
        parts.truncate(start);
        parts.push(Part { id, segment, durable: false });
        Ok(())
    }

    /// Puts `parts` in place; durable files that are no longer among them become garbage.
    fn replace_parts(&mut self, parts: Vec<Part>) {
        for old in &self.parts {
            if old.durable && !parts.iter().any(|part| part.id == old.id) {
                self.garbage.push(old.id);
            }
        }
        self.parts = parts;
        self.clean = false;
    }

    fn write_part(&self, part: &Part) -> Result<Part, ViewError> {
        let name = file_name(part.id);
        let mut file = self
            .directory
            .create(&name)
            .map_err(ViewError::io(format!("create the file {name}")))?;
        let written = part.segment.write_to(&mut file).and_then(|()| file.finish());
        written.map_err(ViewError::io(format!("write the file {name}")))?;
        let segment = Arc::new(open_file(self.directory.as_ref(), part.id)?);
        Ok(Part { id: part.id, segment, durable: true })
    }
}

fn open_file(directory: &dyn Directory, id: u64) -> Result<Segment, ViewError> {
    let name = file_name(id);
    let blob = match directory.open(&name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ViewError::damaged(name, "it is missing, but the manifest names it"));
        }
        opened => opened.map_err(ViewError::io(format!("open the file {name}")))?,
    };
    Segment::open(&name, blob)
}

fn check_ranges(parts: &[Part]) -> Result<(), ViewError> {
    let mut last = None;
    for part in parts {
        let mut numbers = part.segment.numbers();
        if let (Some(before), Some(first)) = (last, numbers.next())
            && before >= first
        {
            return Err(ViewError::damaged(part.segment.name(), "its documents overlap another's"));
        }
        last = part.segment.numbers().last().or(last);
    }
    Ok(())
}

/// The size class of a segment.
fn tier(bytes: u64) -> u32 {
    (bytes / TIER_BYTES).max(1).ilog(MERGE_FACTOR as u64)
}

/// Where the newest small segments begin that should be one.
fn crowded_tail(parts: &[Part], inline_bytes_max: u64) -> Option<usize> {
    let small = |part: &&Part| part.segment.bytes() < inline_bytes_max;
    (0..=tier(inline_bytes_max)).find_map(|class| {
        let run = parts
            .iter()
            .rev()
            .take_while(small)
            .take_while(|part| tier(part.segment.bytes()) <= class)
            .count();
        (run >= MERGE_FACTOR).then(|| parts.len() - run)
    })
}

/// The neighbours that a planned merge should join, if any: never the newest small segments.
fn planned_run(
    parts: &[Part],
    living: &Bitmap,
    inline_bytes_max: u64,
) -> Option<std::ops::Range<usize>> {
    let large = |part: &Part| part.segment.bytes() >= inline_bytes_max;
    let parts = &parts[..parts.iter().rposition(large)? + 1];
    for class in 0..=tier(MERGED_BYTES_MAX) {
        let mut start = 0;
        let fits = |part: &Part| tier(part.segment.bytes()) <= class;
        for run in parts.chunk_by(|a, b| fits(a) && fits(b)) {
            let mut bytes = 0;
            let joined = run.iter().take(SOURCES_MAX).take_while(|part| {
                bytes += part.segment.bytes();
                bytes <= MERGED_BYTES_MAX
            });
            let count = joined.count();
            if count >= MERGE_FACTOR {
                return Some(start..start + count);
            }
            start += run.len();
        }
    }
    let wasteful = |part: &Part| {
        let documents = u64::from(part.segment.document_count());
        let alive = part.segment.numbers().filter(|&number| living.contains(number)).count() as u64;
        (documents - alive) * REMOVED_SHARE >= documents
    };
    parts.iter().position(wasteful).map(|at| at..at + 1)
}

/// A merged segment on its way from the merging thread to `install`.
struct Replacement {
    sources: Vec<u64>,
    part: Part,
}

impl View for NativeView {
    type Item = Addition;

    fn apply(&mut self, items: &[Addition], through: u64) -> Result<Vec<Refused>, ViewError> {
        let mut refused = Vec::new();
        let mut parts = self.parts.clone();
        let mut last = Self::last_number(&parts);
        self.builder.clear();
        for Addition { number, document } in items {
            let reason = if last.is_some_and(|last| *number <= last) {
                format!("its number {number} does not rise above those applied before")
            } else if document.body.len() + document.title.len() > u32::MAX as usize {
                "its text is longer than 4 GiB".to_string()
            } else {
                last = Some(*number);
                self.builder.add(*number, &document.title, &document.body);
                if self.builder.text_bytes() >= self.sizes.segment_text_bytes {
                    self.finish_segment(&mut parts)?;
                }
                continue;
            };
            refused.push(Refused { number: *number, reason });
        }
        self.finish_segment(&mut parts)?;
        self.builder.shrink();
        self.replace_parts(parts);
        self.through = self.through.max(through);
        Ok(refused)
    }

    fn through(&self) -> u64 {
        self.through
    }

    fn searcher(&self) -> Arc<dyn Searcher> {
        self.snapshot()
    }

    fn checkpoint(&mut self) -> Result<(), ViewError> {
        if self.clean {
            return Ok(());
        }
        let mut parts = self.parts.clone();
        let inline_bytes_max = self.sizes.inline_bytes_max;
        let unwritten = |part: &&Part| !part.durable && part.segment.bytes() < inline_bytes_max;
        let tail = parts.iter().rev().take_while(unwritten).count();
        if tail > 1 {
            // One file instead of several, each with its own fsync.
            let start = parts.len() - tail;
            self.merge_tail(&mut parts, start)?;
        }
        for part in &mut parts {
            if !part.durable {
                *part = self.write_part(part)?;
            }
        }
        self.replace_parts(parts);
        let manifest = Manifest {
            through: self.through,
            next_id: self.next_id.load(Ordering::Relaxed),
            ids: self.parts.iter().map(|part| part.id).collect(),
        };
        write_file(self.directory.as_ref(), MANIFEST, &manifest.to_bytes())
            .map_err(ViewError::io("write the manifest"))?;
        self.clean = true;
        // A file that cannot be removed now costs space until the view is opened again.
        let directory = &self.directory;
        self.garbage.retain(|&id| directory.remove(&file_name(id)).is_err());
        Ok(())
    }

    fn plan_merge(&self, living: &Bitmap) -> Option<Merge> {
        let run = planned_run(&self.parts, living, self.sizes.inline_bytes_max)?;
        let chosen = self.parts[run].to_vec();
        let bytes = chosen.iter().map(|part| part.segment.bytes()).sum();
        let directory = Arc::clone(&self.directory);
        let next_id = Arc::clone(&self.next_id);
        let living = living.clone();
        let run = move |stop: &Stop| -> Result<Merged, ViewError> {
            let id = next_id.fetch_add(1, Ordering::Relaxed);
            let name = file_name(id);
            let failed = || ViewError::io(format!("write the merged file {name}"));
            let file = directory.create(&name).map_err(failed())?;
            let sources: Vec<&Segment> = chosen.iter().map(|part| &*part.segment).collect();
            let out = BufWriter::with_capacity(1 << 20, file);
            let out = merge(&sources, Some(&living), out, stop)?;
            let file = out.into_inner().map_err(|error| failed()(error.into_error()))?;
            file.finish().map_err(failed())?;
            let segment = Arc::new(open_file(directory.as_ref(), id)?);
            let sources = chosen.iter().map(|part| part.id).collect();
            Ok(Box::new(Replacement { sources, part: Part { id, segment, durable: true } }))
        };
        Some(Merge { bytes, run: Box::new(run) })
    }

    fn install(&mut self, merged: Merged) -> Result<(), ViewError> {
        let Ok(replacement) = merged.downcast::<Replacement>() else {
            return Err(ViewError::Failed("the merge belongs to another kind of view".into()));
        };
        let Replacement { sources, part } = *replacement;
        let mut parts = self.parts.clone();
        let start = parts.iter().position(|part| Some(&part.id) == sources.first());
        let found = start.filter(|&start| {
            let ids = parts[start..].iter().map(|part| part.id).take(sources.len());
            ids.eq(sources.iter().copied())
        });
        let Some(start) = found else {
            self.garbage.push(part.id);
            return Err(ViewError::Failed(
                "the merge belongs to an earlier state of the view".into(),
            ));
        };
        let empty = part.segment.document_count() == 0;
        if empty {
            self.garbage.push(part.id);
        }
        parts.splice(start..start + sources.len(), (!empty).then_some(part));
        self.replace_parts(parts);
        Ok(())
    }

    fn numbers(&self) -> Result<Bitmap, ViewError> {
        Ok(self.parts.iter().flat_map(|part| part.segment.numbers()).collect())
    }

    fn figures(&self) -> ViewFigures {
        let bytes = |durable: bool| {
            let parts = self.parts.iter().filter(move |part| part.durable == durable);
            parts.map(|part| part.segment.bytes()).sum()
        };
        ViewFigures {
            documents: self.parts.iter().map(|part| u64::from(part.segment.document_count())).sum(),
            disk_bytes: bytes(true),
            memory_bytes: bytes(false),
            segments: self.parts.len() as u64,
        }
    }
}
