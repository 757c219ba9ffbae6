//! [`FullTextView`]: the list of parts.
//!
//! Invariants:
//! - `disk`, then `memory`, are in rising order of document numbers; a merge takes parts that follow
//!   each other, so the order stays, and equal scores come out in order of number.
//! - What was applied is visible at once: every batch becomes a part in memory, and small parts in
//!   memory are merged so that their number grows with the logarithm of the documents.
//! - A file on disk that the durable manifest names is removed only after a manifest without it is
//!   durable. After a crash the manifest's files are all there; others are left-overs and go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::manifest::{MANIFEST, Manifest};
use super::part::Part;
use super::part_files::{PartFiles, file_name, part_of};
use super::searcher::FullTextSearcher;
use crate::bitmap::Bitmap;
use crate::directory::memory::MemoryDirectory;
use crate::directory::{Directory, write_file};
use crate::request::Stop;
use crate::view::{Addition, Merge, Merged, Refused, Searcher, View, ViewError, ViewFigures};

/// The most text that becomes one part in memory: tantivy needs about three times that while it
/// builds, so a batch stays below 32 MiB (one document of the largest size stays below 128 MiB).
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Parts in memory beyond this are written down without waiting for a checkpoint.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// This many neighbours of one level become one part: every document is merged about
/// log8(n / batch) times, and a query looks into at most 8 parts a level.
const MERGE_FACTOR: usize = 8;
/// Parts smaller than this are of level 0.
const LEVEL_BYTES: u64 = 64 << 10;
/// Larger parts are merged no more, unless to drop removed documents: 4 GiB is read and written in
/// about half a minute.
const MERGED_BYTES_MAX: u64 = 4 << 30;
/// A part with a larger share of removed documents is rewritten, in percent.
const REMOVED_PERCENT_MAX: u64 = 25;

/// The view of the `tantivy` method.
pub struct FullTextView {
    directory: Arc<dyn Directory>,
    disk: Vec<Arc<Part>>,
    memory: Vec<Arc<Part>>,
    through: u64,
    /// The number of the next part; shared with the merges that are planned.
    next_part: Arc<AtomicU32>,
    searcher: Arc<FullTextSearcher>,
    /// Parts whose files the durable manifest may still name.
    replaced: BTreeSet<u32>,
    /// What the durable manifest says.
    durable: Option<Manifest>,
}

impl FullTextView {
    /// Opens the view in its directory, empty when the directory is; removes left-overs of a crash.
    pub fn open(directory: Arc<dyn Directory>) -> Result<Self, ViewError> {
        let names = directory.list().map_err(ViewError::io("list the full-text files"))?;
        let durable = match names.iter().any(|name| name == MANIFEST) {
            true => {
                let bytes = directory.open(MANIFEST).map_err(ViewError::io("read manifest"))?;
                Some(Manifest::decode(&bytes)?)
            }
            false => None,
        };
        let manifest = durable.clone().unwrap_or_default();
        let mut disk = Vec::new();
        for entry in &manifest.parts {
            disk.push(Arc::new(Part::open(Arc::clone(&directory), entry)?));
        }
        if !disk.windows(2).all(|pair| pair[0].last < pair[1].first) {
            return Err(ViewError::damaged(MANIFEST, "its parts are out of order"));
        }
        let mut next_part = manifest.next_part;
        for name in &names {
            let Some(part) = part_of(name) else { continue };
            next_part = next_part.max(part.saturating_add(1));
            if !manifest.parts.iter().any(|entry| entry.part == part) {
                directory.remove(name).map_err(ViewError::io(format!("remove {name}")))?;
            }
        }
        let mut view = Self {
            directory,
            disk,
            memory: Vec::new(),
            through: manifest.through,
            next_part: Arc::new(AtomicU32::new(next_part)),
            searcher: Arc::new(FullTextSearcher::new(Vec::new())),
            replaced: BTreeSet::new(),
            durable,
        };
        view.publish();
        Ok(view)
    }

    fn publish(&mut self) {
        let parts = self.disk.iter().chain(&self.memory).map(Arc::clone).collect();
        self.searcher = Arc::new(FullTextSearcher::new(parts));
    }

    fn take_number(&self) -> u32 {
        self.next_part.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes parts in memory of a batch. A document on which tantivy fails alone is refused.
    fn build(
        &self,
        items: &[Addition],
        parts: &mut Vec<Arc<Part>>,
        refused: &mut Vec<Refused>,
    ) -> Result<(), ViewError> {
        let text_bytes = items.iter().map(text_bytes).sum();
        if items.len() > 1 && text_bytes > BATCH_BYTES_MAX {
            let (left, right) = items.split_at(items.len() / 2);
            self.build(left, parts, refused)?;
            return self.build(right, parts, refused);
        }
        let number = self.take_number();
        let directory = Arc::new(MemoryDirectory::new());
        let files = PartFiles::create(directory, number, Stop::new());
        match Part::build(files, number, items, text_bytes) {
            Ok(part) => parts.push(Arc::new(part)),
            Err(ViewError::Failed(_)) if items.len() > 1 => {
                let (left, right) = items.split_at(items.len() / 2);
                self.build(left, parts, refused)?;
                self.build(right, parts, refused)?;
            }
            Err(ViewError::Failed(source)) => {
                refused.push(Refused { number: items[0].number, reason: source.to_string() });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Merges the newest parts in memory as long as enough of them are of one level or below.
    fn settle(&self, memory: &mut Vec<Arc<Part>>) -> Result<(), ViewError> {
        while let Some(newest) = memory.last() {
            let top = level(newest);
            let run = memory.iter().rev().take_while(|part| level(part) <= top).count();
            if run < MERGE_FACTOR {
                return Ok(());
            }
            let sources = memory.split_off(memory.len() - run);
            let directory = Arc::new(MemoryDirectory::new());
            let merged = Part::merge(directory, self.take_number(), &sources, None, &Stop::new())?;
            memory.extend(merged.map(Arc::new));
        }
        Ok(())
    }

    /// Writes parts in memory down as one part on disk.
    fn write_down(&self, memory: &[Arc<Part>]) -> Result<Option<Arc<Part>>, ViewError> {
        let directory = Arc::clone(&self.directory);
        let part = match memory {
            [] => None,
            [one] => Some(one.copy_to(directory, self.take_number())?),
            many => Part::merge(directory, self.take_number(), many, None, &Stop::new())?,
        };
        Ok(part.map(Arc::new))
    }

    fn remove_replaced(&mut self) {
        let directory = &self.directory;
        let Ok(names) = directory.list() else { return };
        // A file that cannot be removed now is tried again at the next checkpoint or opening.
        self.replaced.retain(|&part| {
            names
                .iter()
                .filter(|name| part_of(name) == Some(part))
                .any(|name| directory.remove(name).is_err())
        });
    }
}

impl View for FullTextView {
    type Item = Addition;

    fn apply(&mut self, items: &[Addition], through: u64) -> Result<Vec<Refused>, ViewError> {
        let mut refused = Vec::new();
        if !items.is_empty() {
            let mut memory = self.memory.clone();
            self.build(items, &mut memory, &mut refused)?;
            self.settle(&mut memory)?;
            if memory.iter().map(|part| part.files.bytes()).sum::<u64>() > MEMORY_BYTES_MAX {
                self.disk.extend(self.write_down(&memory)?);
                memory.clear();
            }
            self.memory = memory;
            self.publish();
        }
        self.through = self.through.max(through);
        Ok(refused)
    }

    fn through(&self) -> u64 {
        self.through
    }

    fn searcher(&self) -> Arc<dyn Searcher> {
        Arc::clone(&self.searcher) as Arc<dyn Searcher>
    }

    fn checkpoint(&mut self) -> Result<(), ViewError> {
        if let Some(part) = self.write_down(&self.memory)? {
            self.disk.push(part);
            self.memory.clear();
            self.publish();
        }
        let manifest = Manifest {
            through: self.through,
            next_part: self.next_part.load(Ordering::Relaxed),
            parts: self.disk.iter().map(|part| part.entry()).collect(),
        };
        if self.durable.as_ref() != Some(&manifest) {
            write_file(self.directory.as_ref(), MANIFEST, &manifest.encode())
                .map_err(ViewError::io("write manifest"))?;
            self.durable = Some(manifest);
        }
        self.remove_replaced();
        Ok(())
    }

    fn plan_merge(&self, living: &Bitmap) -> Option<Merge> {
        let range = choose(&self.disk, living)?;
        let sources = self.disk[range].to_vec();
        let bytes = sources.iter().map(|part| part.files.bytes()).sum();
        let directory = Arc::clone(&self.directory);
        let (number, living) = (self.take_number(), living.clone());
        let run = move |stop: &Stop| {
            let result = Part::merge(Arc::clone(&directory), number, &sources, Some(&living), stop);
            let part = match result {
                Ok(part) => part.map(Arc::new),
                Err(error) => {
                    remove_part(directory.as_ref(), number);
                    return Err(if stop.is_set() { interrupted() } else { error });
                }
            };
            let sources = sources.iter().map(|part| part.number).collect();
            Ok(Box::new(Replacement { sources, part }) as Merged)
        };
        Some(Merge { bytes, run: Box::new(run) })
    }

    fn install(&mut self, merged: Merged) -> Result<(), ViewError> {
        let Ok(replacement) = merged.downcast::<Replacement>() else {
            return Err(ViewError::Failed("the merge is another view's".into()));
        };
        let Replacement { sources, part } = *replacement;
        let numbers: Vec<u32> = self.disk.iter().map(|part| part.number).collect();
        let Some(at) = numbers.windows(sources.len().max(1)).position(|window| window == sources)
        else {
            self.replaced.extend(part.map(|part| part.number));
            return Err(ViewError::Failed("the merged parts are no longer there".into()));
        };
        self.disk.splice(at..at + sources.len(), part);
        self.replaced.extend(sources);
        self.publish();
        Ok(())
    }

    /// Also compares the checksum of every file, which opening does not, to open quickly.
    fn numbers(&self) -> Result<Bitmap, ViewError> {
        let mut numbers = Bitmap::new();
        for part in self.disk.iter().chain(&self.memory) {
            part.verify()?;
            for row in 0..part.documents {
                numbers.insert(part.number_at(row));
            }
        }
        Ok(numbers)
    }

    fn figures(&self) -> ViewFigures {
        let bytes = |parts: &[Arc<Part>]| parts.iter().map(|part| part.files.bytes()).sum();
        let parts = || self.disk.iter().chain(&self.memory);
        ViewFigures {
            documents: parts().map(|part| u64::from(part.documents)).sum(),
            disk_bytes: bytes(&self.disk),
            memory_bytes: bytes(&self.memory),
            segments: parts().count() as u64,
        }
    }
}

/// What a merge made.
struct Replacement {
    sources: Vec<u32>,
    part: Option<Arc<Part>>,
}

fn text_bytes(item: &Addition) -> usize {
    let document = &item.document;
    document.body.len() + document.title.len() + document.path.len() + document.id.len()
}

/// 0 below [`LEVEL_BYTES`], one more for each factor of [`MERGE_FACTOR`].
fn level(part: &Part) -> u32 {
    (part.files.bytes() / LEVEL_BYTES).checked_ilog(MERGE_FACTOR as u64).map_or(0, |log| log + 1)
}

/// The parts that should become one: the smallest level with enough neighbours, else the part with
/// the largest share of removed documents when that is large.
fn choose(disk: &[Arc<Part>], living: &Bitmap) -> Option<std::ops::Range<usize>> {
    let levels: Vec<u32> = disk.iter().map(|part| level(part)).collect();
    let highest = MERGED_BYTES_MAX.checked_div(LEVEL_BYTES)?.checked_ilog(MERGE_FACTOR as u64)?;
    for top in 0..=highest {
        let mut start = 0;
        for end in 1..=disk.len() {
            if levels[end - 1] > top {
                start = end;
            } else if end - start == MERGE_FACTOR {
                return Some(start..end);
            }
        }
    }
    let removed_percent = |part: &Part| {
        let documents = u64::from(part.documents);
        (documents - part.living(living)) * 100 / documents.max(1)
    };
    let shares = disk.iter().map(|part| removed_percent(part));
    let (at, share) = shares.enumerate().max_by_key(|&(_, share)| share)?;
    (share > REMOVED_PERCENT_MAX).then_some(at..at + 1)
}

fn interrupted() -> ViewError {
    let source = std::io::Error::new(std::io::ErrorKind::Interrupted, "asked to stop");
    ViewError::Io { doing: "merge parts".to_string(), source }
}

/// Removes what a failed merge left; whatever stays goes at the next opening.
fn remove_part(directory: &dyn Directory, part: u32) {
    for extension in ["idx", "pos", "term", "store", "fast", "fieldnorm"] {
        let name = file_name(part, extension);
        if directory.open(&name).is_ok() {
            let _ = directory.remove(&name);
        }
    }
}
