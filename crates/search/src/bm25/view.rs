//! [`Bm25View`]: the view that the log's driver feeds.
//!
//! Invariants: segments stand in rising order of their document numbers; those in files come before
//! those in memory; the manifest names exactly the files. Every batch becomes a segment in memory. When
//! [`MERGE_SEGMENTS`] neighbours of one size have come together they are merged, those in memory at
//! once, those in files by a planned merge, so their number grows with the logarithm of the documents.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::indexer::Indexer;
use super::manifest::{MANIFEST, Manifest, file_name};
use super::merge::merge;
use super::searcher::Bm25Searcher;
use super::segment::Segment;
use crate::analysis::Chain;
use crate::bitmap::Bitmap;
use crate::directory::{Directory, FileWriter, write_file};
use crate::document::DocNumber;
use crate::request::Stop;
use crate::view::{Addition, Merge, Merged, Refused, Searcher, View, ViewError, ViewFigures};

/// How many neighbours of one size are merged. Eight means that a posting is rewritten about once for
/// each factor of eight in size, and that a query looks into at most seven segments of each size.
const MERGE_SEGMENTS: usize = 8;
/// Segments below this many bytes count as one size.
const SIZE_STEP_BYTES: u64 = 32 << 10;
/// The greatest sum of bytes that `apply` merges itself: about 20 ms of work.
const INLINE_MERGE_BYTES_MAX: u64 = 4 << 20;
/// The text that goes into one segment, so that the memory of indexing stays bounded whatever the batch.
const BATCH_TEXT_BYTES_MAX: usize = 16 << 20;
/// A file is rewritten alone when this many percent of its documents are gone.
const GONE_PERCENT: u64 = 30;
/// No file is looked at for that before this many percent of all documents are gone.
const GONE_PERCENT_OF_ALL: u64 = 10;

/// BM25F as a view of the log.
pub struct Bm25View {
    directory: Arc<dyn Directory>,
    chain: Chain,
    indexer: Indexer,
    parts: Vec<Part>,
    through: u64,
    /// What the manifest on disk says.
    saved: Option<Manifest>,
    /// The number of the next file; planned merges take theirs while `&self` is shared.
    next_file: AtomicU64,
}

#[derive(Clone)]
struct Part {
    segment: Arc<Segment>,
    /// The number of its file; `None` while it is in memory only.
    file: Option<u64>,
}

/// What a planned merge made.
struct MergedFile {
    sources: Vec<u64>,
    /// The new segment; `None` when no document was left.
    part: Option<Part>,
}

impl Bm25View {
    /// Opens the view in `directory`, new when nothing is there. Reads dictionaries once to check them;
    /// postings are read when queries need them.
    ///
    /// # Errors
    /// [`ViewError::Damaged`] and [`ViewError::FutureFormat`] as the contract says; also `Damaged` when
    /// the text was analysed by another version of the chain, because the remedy is the same.
    pub fn open(directory: Arc<dyn Directory>) -> Result<Self, ViewError> {
        Self::open_with(directory, Chain::DEFAULT)
    }

    /// Opens the view with a chain of its own; for measuring what the steps of the chain are worth.
    pub fn open_with(directory: Arc<dyn Directory>, chain: Chain) -> Result<Self, ViewError> {
        let names = directory.list().map_err(ViewError::io("list the files of bm25"))?;
        let mut view = Self {
            directory,
            chain,
            indexer: Indexer::new(chain),
            parts: Vec::new(),
            through: 0,
            saved: None,
            next_file: AtomicU64::new(0),
        };
        if names.iter().any(|name| name == MANIFEST) {
            let bytes = view.directory.open(MANIFEST);
            let bytes = bytes.map_err(ViewError::io("open the manifest of bm25"))?;
            view.load(Manifest::decode(&bytes)?)?;
        }
        let wanted: Vec<String> =
            view.parts.iter().map(|part| part.segment.name().into()).collect();
        for name in names.iter().filter(|name| *name != MANIFEST && !wanted.contains(name)) {
            view.directory
                .remove(name)
                .map_err(ViewError::io(format!("remove left-over {name}")))?;
        }
        Ok(view)
    }

    fn load(&mut self, manifest: Manifest) -> Result<(), ViewError> {
        if manifest.chain != self.chain.code() {
            return Err(ViewError::damaged(
                MANIFEST,
                "its text was analysed in another way than this program does",
            ));
        }
        let mut last = None;
        for &(file, bytes) in &manifest.files {
            let part = self.open_file(file)?;
            let segment = &part.segment;
            if segment.bytes().len() as u64 != bytes {
                return Err(ViewError::damaged(segment.name(), "its length is not as recorded"));
            }
            if segment.documents() == 0 || last.is_some_and(|last| segment.number(0) <= last) {
                return Err(ViewError::damaged(segment.name(), "its documents are out of order"));
            }
            last = Some(segment.number(segment.documents() - 1));
            self.parts.push(part);
        }
        self.through = manifest.through;
        self.next_file = AtomicU64::new(manifest.next_file);
        self.saved = Some(manifest);
        Ok(())
    }

    fn open_file(&self, file: u64) -> Result<Part, ViewError> {
        let name = file_name(file);
        let bytes = self.directory.open(&name).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ViewError::damaged(&name, "it is missing"),
            _ => ViewError::io(format!("open {name}"))(source),
        })?;
        let segment = Arc::new(Segment::open(&name, bytes, self.chain.code())?);
        Ok(Part { segment, file: Some(file) })
    }

    /// Checks every byte of every file, the postings included, which opening leaves out.
    pub fn verify(&self) -> Result<(), ViewError> {
        self.parts.iter().try_for_each(|part| part.segment.verify())
    }

    /// The highest document number held.
    fn last_number(&self) -> Option<DocNumber> {
        let segment = &self.parts.last()?.segment;
        Some(segment.number(segment.documents().checked_sub(1)?))
    }

    fn memory_part(&self, bytes: Vec<u8>) -> Result<Part, ViewError> {
        let segment = Segment::parse("in memory", Bytes::from(bytes), self.chain.code())?;
        Ok(Part { segment: Arc::new(segment), file: None })
    }

    /// The first of the parts that are in memory.
    fn memory_start(&self) -> usize {
        self.parts.partition_point(|part| part.file.is_some())
    }

    fn merge_in_memory(&mut self) -> Result<(), ViewError> {
        loop {
            let start = self.memory_start();
            let sizes = self.parts[start..].iter().map(|part| part.segment.bytes().len() as u64);
            let sizes: Vec<u64> = sizes.collect();
            let Some(run) = run_to_merge(&sizes, INLINE_MERGE_BYTES_MAX) else { return Ok(()) };
            let run = start + run.start..start + run.end;
            let sources: Vec<Arc<Segment>> =
                self.parts[run.clone()].iter().map(|part| Arc::clone(&part.segment)).collect();
            let merged = merge(&sources, None, &Stop::new(), self.chain.code(), Vec::new())?;
            let part = merged.map(|bytes| self.memory_part(bytes)).transpose()?;
            self.parts.splice(run, part);
        }
    }

    /// The files that a merge would pay for: many of one size, or one with many documents gone.
    fn run_of_files(&self, living: &Bitmap) -> Option<Range<usize>> {
        let files = &self.parts[..self.memory_start()];
        let sizes: Vec<u64> = files.iter().map(|part| part.segment.bytes().len() as u64).collect();
        if let Some(run) = run_to_merge(&sizes, u64::MAX) {
            return Some(run);
        }
        // A quick look first: counting what is gone from each file reads as many bits as it has documents.
        let held = self.parts.iter().map(|part| u64::from(part.segment.documents())).sum::<u64>();
        let gone_at_least = held.saturating_sub(living.len());
        if gone_at_least * 100 < held * GONE_PERCENT_OF_ALL || gone_at_least == 0 {
            return None;
        }
        files.iter().enumerate().find_map(|(at, part)| {
            let segment = &part.segment;
            let numbers = (0..segment.documents()).map(|ordinal| segment.number(ordinal));
            let gone = numbers.filter(|&number| !living.contains(number)).count() as u64;
            (gone * 100 >= u64::from(segment.documents()) * GONE_PERCENT).then_some(at..at + 1)
        })
    }

    fn manifest(&self, parts: &[Part]) -> Manifest {
        let files =
            parts.iter().filter_map(|part| Some((part.file?, part.segment.bytes().len() as u64)));
        Manifest {
            chain: self.chain.code(),
            through: self.through,
            next_file: self.next_file.load(Ordering::Relaxed),
            files: files.collect(),
        }
    }

    fn save(&mut self, manifest: Manifest) -> Result<(), ViewError> {
        write_file(self.directory.as_ref(), MANIFEST, &manifest.encode())
            .map_err(ViewError::io("write the manifest of bm25"))?;
        self.saved = Some(manifest);
        Ok(())
    }
}

/// Cuts a batch where its text passes [`BATCH_TEXT_BYTES_MAX`].
fn batches<'a>(items: &'a [&'a Addition]) -> impl Iterator<Item = &'a [&'a Addition]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut text_bytes = 0;
        let fitting = rest.iter().take_while(|item| {
            text_bytes += item.document.body.len();
            text_bytes <= BATCH_TEXT_BYTES_MAX
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Neighbours to merge: the first [`MERGE_SEGMENTS`] of one size or smaller that stand together.
fn run_to_merge(sizes: &[u64], bytes_max: u64) -> Option<Range<usize>> {
    let step = |bytes: u64| (bytes / SIZE_STEP_BYTES).max(1).ilog(MERGE_SEGMENTS as u64);
    let highest = sizes.iter().copied().map(step).max()?;
    (0..=highest).find_map(|limit| {
        let mut run = 0..0;
        for (at, &bytes) in sizes.iter().enumerate() {
            run = if step(bytes) <= limit { run.start..at + 1 } else { at + 1..at + 1 };
            let bytes: u64 = sizes[run.clone()].iter().sum();
            if run.len() >= MERGE_SEGMENTS {
                return (bytes <= bytes_max).then_some(run);
            }
        }
        None
    })
}

/// A file as [`merge`] writes into it, so that nothing is created when nothing is left to write.
struct LazyFile {
    directory: Arc<dyn Directory>,
    name: String,
    file: Option<Box<dyn FileWriter>>,
}

impl LazyFile {
    fn finish(self) -> std::io::Result<()> {
        self.file.map_or(Ok(()), |file| file.finish())
    }
}

impl Write for LazyFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(self.directory.create(&self.name)?),
        };
        file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush())
    }
}

/// Merges `sources` into a file; `None` when no document was left.
fn merge_to_file(
    directory: &Arc<dyn Directory>,
    sources: &[Arc<Segment>],
    living: Option<&Bitmap>,
    stop: &Stop,
    chain: u32,
    file: u64,
) -> Result<Option<Part>, ViewError> {
    let name = file_name(file);
    let out = LazyFile { directory: Arc::clone(directory), name: name.clone(), file: None };
    let Some(out) = merge(sources, living, stop, chain, out)? else { return Ok(None) };
    out.finish().map_err(ViewError::io(format!("write {name}")))?;
    let bytes = directory.open(&name).map_err(ViewError::io(format!("open {name}")))?;
    let segment = Arc::new(Segment::parse(&name, bytes, chain)?);
    Ok(Some(Part { segment, file: Some(file) }))
}

impl View for Bm25View {
    type Item = Addition;

    fn apply(&mut self, items: &[Addition], through: u64) -> Result<Vec<Refused>, ViewError> {
        let mut last = self.last_number();
        let (mut accepted, mut refused) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items {
            if last.is_some_and(|last| item.number <= last) {
                let reason = "its number does not rise above those applied before".to_string();
                refused.push(Refused { number: item.number, reason });
            } else {
                last = Some(item.number);
                accepted.push(item);
            }
        }
        let mut added = Vec::new();
        for batch in batches(&accepted) {
            let bytes = self.indexer.segment(batch).map_err(ViewError::io("index a batch"))?;
            added.push(self.memory_part(bytes)?);
        }
        self.parts.append(&mut added);
        self.through = through;
        self.merge_in_memory()?;
        Ok(refused)
    }

    fn through(&self) -> u64 {
        self.through
    }

    fn searcher(&self) -> Arc<dyn Searcher> {
        let segments = self.parts.iter().map(|part| Arc::clone(&part.segment)).collect();
        Arc::new(Bm25Searcher::new(segments, self.chain))
    }

    fn checkpoint(&mut self) -> Result<(), ViewError> {
        let start = self.memory_start();
        let sources: Vec<Arc<Segment>> =
            self.parts[start..].iter().map(|part| Arc::clone(&part.segment)).collect();
        let mut parts = self.parts[..start].to_vec();
        if !sources.is_empty() {
            let (code, stop) = (self.chain.code(), Stop::new());
            let file = self.next_file.fetch_add(1, Ordering::Relaxed);
            parts.extend(merge_to_file(&self.directory, &sources, None, &stop, code, file)?);
        }
        let manifest = self.manifest(&parts);
        if self.saved.as_ref() != Some(&manifest) {
            self.save(manifest)?;
        }
        self.parts = parts;
        Ok(())
    }

    fn plan_merge(&self, living: &Bitmap) -> Option<Merge> {
        let run = self.run_of_files(living)?;
        let sources: Vec<Part> = self.parts[run].to_vec();
        let segments: Vec<Arc<Segment>> =
            sources.iter().map(|part| Arc::clone(&part.segment)).collect();
        let bytes = segments.iter().map(|segment| segment.bytes().len() as u64).sum();
        let file = self.next_file.fetch_add(1, Ordering::Relaxed);
        let (directory, living, chain) =
            (Arc::clone(&self.directory), living.clone(), self.chain.code());
        let run = move |stop: &Stop| {
            let part = merge_to_file(&directory, &segments, Some(&living), stop, chain, file)?;
            let sources = sources.iter().filter_map(|part| part.file).collect();
            Ok(Box::new(MergedFile { sources, part }) as Merged)
        };
        Some(Merge { bytes, run: Box::new(run) })
    }

    fn install(&mut self, merged: Merged) -> Result<(), ViewError> {
        let foreign = || ViewError::Bound {
            message: "the merge was planned by another view or installed before; plan it anew"
                .into(),
        };
        let merged = merged.downcast::<MergedFile>().map_err(|_| foreign())?;
        let is_first =
            |part: &Part| part.file.is_some() && part.file == merged.sources.first().copied();
        let start = self.parts.iter().position(is_first).ok_or_else(foreign)?;
        let end = start + merged.sources.len();
        let replaced = self.parts.get(start..end).ok_or_else(foreign)?;
        if !replaced.iter().map(|part| part.file).eq(merged.sources.iter().copied().map(Some)) {
            return Err(foreign());
        }
        let mut parts = self.parts.clone();
        parts.splice(start..end, merged.part);
        let mut manifest = self.manifest(&parts);
        // What is only in memory is not saved by this.
        manifest.through = self.saved.as_ref().map_or(0, |saved| saved.through);
        self.save(manifest)?;
        self.parts = parts;
        for &file in &merged.sources {
            // A file that stays behind is removed at the next opening.
            let _ = self.directory.remove(&file_name(file));
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Bitmap, ViewError> {
        let mut numbers = Bitmap::new();
        for part in &self.parts {
            for ordinal in 0..part.segment.documents() {
                numbers.insert(part.segment.number(ordinal));
            }
        }
        Ok(numbers)
    }

    fn figures(&self) -> ViewFigures {
        let mut figures = ViewFigures { segments: self.parts.len() as u64, ..Default::default() };
        for part in &self.parts {
            let bytes = part.segment.bytes().len() as u64;
            figures.documents += u64::from(part.segment.documents());
            match part.file {
                Some(_) => figures.disk_bytes += bytes,
                None => figures.memory_bytes += bytes + size_of::<Segment>() as u64,
            }
        }
        figures
    }
}
