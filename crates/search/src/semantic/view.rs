//! [`SemanticView`]: documents' vectors, fed by the log, refined behind it.
//!
//! Invariants:
//!
//! - the instant tier has at least one row for each document held, all in one segment; it is also
//!   the table of passages, so it has rows even where there is no instant model;
//! - the refining tier has rows only for passages of the instant tier, at most one for each;
//! - files named by the manifest exist; files it does not name are removed at the next opening, and
//!   files it no longer needs after it was written.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::kernels::Kernels;
use super::manifest::{MANIFEST, Manifest};
use super::merge::{self, MergedSegment, Plan};
use super::passages::PASSAGES_PER_DOCUMENT_MAX;
use super::quantize::{VectorError, quantize_row};
use super::refinement::{NO_PASSAGE, Pending, Progress, Refinement, Unrefined};
use super::searcher::SemanticSearcher;
use super::segment::{Row, Segment};
use super::segment_writer::{Gathered, Rows};
use super::space::{INSTANT, REFINING, SpaceError, Spaces};
use super::tier::{HEAD_ROWS_MAX, Tier};
use crate::bitmap::Bitmap;
use crate::directory::{Directory, write_file};
use crate::document::DocNumber;
use crate::view::{Merge, Merged, Refused, Searcher, View, ViewError, ViewFigures};

/// From this many rows on a merged segment gets a graph: below, a scan of its sign bits is as quick.
/// Measured; see `docs/design/vector-index.md`.
pub const GRAPH_ROWS_MIN: usize = 200_000;

/// How a view works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// From how many rows on a merged segment gets a graph; default [`GRAPH_ROWS_MIN`].
    pub graph_rows_min: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { graph_rows_min: GRAPH_ROWS_MIN }
    }
}

/// One passage of a document that enters the view.
#[derive(Clone, Debug, PartialEq)]
pub struct PassageEntry {
    /// Where it stands in the body.
    pub range: std::ops::Range<u32>,
    /// Its vector in the instant space; `None`, or all zeros, when the collection has no instant model
    /// or the model knows nothing of the text.
    pub vector: Option<Vec<f32>>,
}

/// A document that enters the view.
#[derive(Clone, Debug, PartialEq)]
pub struct SemanticItem {
    /// Its number: higher than every number applied before.
    pub number: DocNumber,
    /// Its passages as [`super::passages()`] cut them, at most [`PASSAGES_PER_DOCUMENT_MAX`]; may be empty.
    pub passages: Vec<PassageEntry>,
    /// What [`super::Passages::bytes_left_out`] said.
    pub bytes_left_out: u32,
}

/// What [`ViewFigures`] has no place for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SemanticFigures {
    /// How far refinement has come.
    pub progress: Progress,
    /// Documents, since the view was built, of which a part is beyond the bound of passages.
    pub documents_cut: u64,
    /// The instructions that vectors are compared with: `scalar`, `avx2`, `avx512` or `neon`.
    pub kernels: &'static str,
}

/// The `semantic` view.
pub struct SemanticView {
    directory: Arc<dyn Directory>,
    spaces: Spaces,
    options: Options,
    tiers: [Tier; 2],
    /// Documents held.
    numbers: Bitmap,
    documents: u64,
    pending: Pending,
    /// Passages held, without the marks of documents that have none.
    passages: u64,
    documents_cut: u64,
    through: u64,
    next_file: AtomicU64,
    /// Files that the next manifest no longer needs.
    obsolete: Vec<String>,
}

impl SemanticView {
    /// Opens the view in a directory, or starts a new one when there is no manifest. The stored
    /// vectors must be of the same `spaces`; else [`ViewError::Failed`] with [`SpaceError::Mismatch`].
    pub fn open(
        directory: Arc<dyn Directory>,
        spaces: Spaces,
        options: Options,
    ) -> Result<Self, ViewError> {
        let unfit = |error: SpaceError| ViewError::Failed(Box::new(error));
        spaces.check().map_err(unfit)?;
        let manifest = match directory.open(MANIFEST) {
            Ok(bytes) => Manifest::decode(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Manifest {
                through: 0,
                next_file: 0,
                documents_cut: 0,
                spaces: spaces.clone(),
                files: Default::default(),
            },
            Err(error) => return Err(ViewError::io("open the manifest of vectors")(error)),
        };
        if manifest.spaces != spaces {
            let (stored, asked) = (Box::new(manifest.spaces), Box::new(spaces));
            return Err(unfit(SpaceError::Mismatch { stored, asked }));
        }
        remove_orphans(&*directory, &manifest)?;
        let dimensions = spaces.dimensions();
        let mut tiers = [INSTANT, REFINING].map(|index| Tier {
            index,
            dimension: dimensions[index],
            files: Vec::new(),
            head: Vec::new(),
        });
        for (tier, files) in tiers.iter_mut().zip(&manifest.files) {
            for file in files {
                tier.files.push(Arc::new(open_segment(&*directory, file, tier.dimension)?));
            }
        }
        let mut view = Self {
            directory,
            spaces,
            options,
            tiers,
            numbers: Bitmap::new(),
            documents: 0,
            pending: Pending::default(),
            passages: 0,
            documents_cut: manifest.documents_cut,
            through: manifest.through,
            next_file: AtomicU64::new(manifest.next_file),
            obsolete: Vec::new(),
        };
        view.take_stock();
        Ok(view)
    }

    fn take_stock(&mut self) {
        for segment in &self.tiers[INSTANT].files {
            self.documents += segment.documents() as u64;
            for row in 0..segment.rows() {
                self.numbers.insert(segment.number(row));
                self.passages += u64::from(segment.passage(row) != NO_PASSAGE);
            }
        }
        if self.spaces.refining.is_some() {
            self.pending = Pending::of(&self.tiers[INSTANT].files, &self.tiers[REFINING].files);
        }
    }

    /// Adds refined vectors for passages in the view, in any order; they are durable with the next
    /// checkpoint, and what was not checkpointed is asked for again. Passages that are refined
    /// already or no longer here are passed over. Answers how many were new.
    ///
    /// A vector that is not finite or of another dimension refuses the whole batch
    /// ([`ViewError::Failed`] with [`VectorError`]), and so does a collection without a refining space.
    pub fn refine(&mut self, batch: &[Refinement]) -> Result<usize, ViewError> {
        if self.spaces.refining.is_none() {
            return Err(ViewError::Failed("the collection has no refining model".into()));
        }
        self.make_room(REFINING, batch.len())?;
        let dimension = self.tiers[REFINING].dimension;
        let mut rows = Gathered::new(dimension);
        let mut pending = self.pending.clone();
        let mut components = Vec::with_capacity(dimension);
        for Refinement { number, passage, vector } in batch {
            let scale = quantize(Some(vector), dimension, &mut components)
                .map_err(|error| ViewError::Failed(Box::new(error)))?;
            if !pending.waits(*number, *passage) {
                continue;
            }
            let Some((segment, at)) = self.tiers[INSTANT].rows_of(*number) else { continue };
            if !pending.refine(*number, *passage, at.len() as u32) {
                continue;
            }
            let range = segment.range(at.start + *passage as usize);
            let (number, passage, components) = (*number, *passage, &components[..]);
            rows.push(Row {
                number,
                passage,
                start: range.start,
                end: range.end,
                scale,
                components,
            });
        }
        if rows.len() > 0 {
            rows.sort();
            self.tiers[REFINING].push(&rows)?;
        }
        self.pending = pending;
        Ok(rows.len())
    }

    /// Documents with passages that lack a refined vector, the oldest first: whole documents, until
    /// `limit` passages are reached. Cheap however many wait. Empty without a refining space.
    pub fn unrefined(&self, limit: usize, living: &Bitmap) -> Vec<Unrefined> {
        let mut found = Vec::new();
        let mut count = 0;
        for number in self.pending.documents().filter(|&number| living.contains(number)) {
            if count >= limit {
                break;
            }
            let Some((segment, rows)) = self.tiers[INSTANT].rows_of(number) else { continue };
            let passages: Vec<_> = rows
                .map(|row| (segment.passage(row), segment.range(row)))
                .filter(|&(passage, _)| self.pending.waits(number, passage))
                .collect();
            count += passages.len();
            found.push(Unrefined { number, passages });
        }
        found
    }

    /// How far refinement has come; all done without a refining space.
    pub fn refined(&self) -> Progress {
        Progress { done: self.passages - self.pending.passages(), total: self.passages }
    }

    /// What [`View::figures`] has no place for.
    pub fn semantic_figures(&self) -> SemanticFigures {
        SemanticFigures {
            progress: self.refined(),
            documents_cut: self.documents_cut,
            kernels: Kernels::detected().name,
        }
    }

    /// As [`View::searcher`], with the probes of a [`SemanticSearcher`].
    pub fn snapshot(&self) -> Arc<SemanticSearcher> {
        Arc::new(SemanticSearcher {
            spaces: self.spaces.clone(),
            tiers: [self.tiers[INSTANT].segments(), self.tiers[REFINING].segments()],
            pending: self.pending.clone(),
            kernels: Kernels::detected(),
        })
    }

    /// Writes the head of a tier into a file when `more` rows would make it too large.
    fn make_room(&mut self, tier: usize, more: usize) -> Result<(), ViewError> {
        let held = self.tiers[tier].head_rows();
        if held > 0 && held + more > HEAD_ROWS_MAX { self.seal(tier) } else { Ok(()) }
    }

    fn seal(&mut self, tier: usize) -> Result<(), ViewError> {
        let name = self.next_name(tier);
        self.tiers[tier].seal(&*self.directory, &name)
    }

    fn next_name(&self, tier: usize) -> String {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        format!("vectors-{tier}-{number:010}.seg")
    }

    /// The rows of a document, or why it can never be applied.
    fn gather(&self, item: &SemanticItem, rows: &mut Gathered) -> Result<(), String> {
        let (number, count) = (item.number, item.passages.len());
        if count > PASSAGES_PER_DOCUMENT_MAX {
            return Err(format!(
                "has {count} passages, the bound is {PASSAGES_PER_DOCUMENT_MAX}; split the document"
            ));
        }
        let dimension = self.tiers[INSTANT].dimension;
        let mut vectors = Vec::with_capacity(count * dimension);
        let mut scales = Vec::with_capacity(count);
        let mut components = Vec::with_capacity(dimension);
        for PassageEntry { range, vector } in &item.passages {
            if range.start > range.end {
                return Err(format!("has a passage that ends before it starts, {range:?}"));
            }
            let scale = quantize(vector.as_deref(), dimension, &mut components);
            scales.push(scale.map_err(|error| error.to_string())?);
            vectors.extend_from_slice(&components);
        }
        for (index, (entry, &scale)) in item.passages.iter().zip(&scales).enumerate() {
            let std::ops::Range { start, end } = entry.range;
            let components = &vectors[index * dimension..(index + 1) * dimension];
            rows.push(Row { number, passage: index as u32, start, end, scale, components });
        }
        if count == 0 {
            let passage = NO_PASSAGE;
            rows.push(Row { number, passage, start: 0, end: 0, scale: 0.0, components: &[] });
        }
        Ok(())
    }
}

/// Fills `components` with a vector's; zeros, and a scale of 0, when there is none.
fn quantize(
    vector: Option<&[f32]>,
    dimension: usize,
    components: &mut Vec<u8>,
) -> Result<f32, VectorError> {
    components.clear();
    let scale = match vector {
        Some(vector) => quantize_row(vector, dimension, components),
        None => Err(VectorError::ZeroLength),
    };
    match scale {
        Err(VectorError::ZeroLength) => {
            components.resize(dimension, 0);
            Ok(0.0)
        }
        scale => scale,
    }
}

impl View for SemanticView {
    type Item = SemanticItem;

    fn apply(&mut self, items: &[SemanticItem], through: u64) -> Result<Vec<Refused>, ViewError> {
        let count = items.iter().map(|item| item.passages.len().max(1)).sum();
        self.make_room(INSTANT, count)?;
        let mut rows = Gathered::new(self.tiers[INSTANT].dimension);
        let mut refused = Vec::new();
        let mut taken: Vec<&SemanticItem> = Vec::with_capacity(items.len());
        for item in items.iter().filter(|item| !self.numbers.contains(item.number)) {
            let rises = taken.last().is_none_or(|last| last.number < item.number);
            let order = || Err("does not have a higher number than the one before".to_string());
            match if rises { self.gather(item, &mut rows) } else { order() } {
                Ok(()) => taken.push(item),
                Err(reason) => refused.push(Refused { number: item.number, reason }),
            }
        }
        if rows.len() > 0 {
            self.tiers[INSTANT].push(&rows)?;
        }
        for item in taken {
            self.numbers.insert(item.number);
            self.documents += 1;
            self.passages += item.passages.len() as u64;
            self.documents_cut += u64::from(item.bytes_left_out > 0);
            if self.spaces.refining.is_some() {
                self.pending.add(item.number, item.passages.len() as u32);
            }
        }
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
        for tier in [INSTANT, REFINING] {
            if !self.tiers[tier].head.is_empty() {
                self.seal(tier)?;
            }
        }
        let names = |tier: &Tier| tier.files.iter().map(|file| file.name().to_string()).collect();
        let manifest = Manifest {
            through: self.through,
            next_file: self.next_file.load(Ordering::Relaxed),
            documents_cut: self.documents_cut,
            spaces: self.spaces.clone(),
            files: self.tiers.each_ref().map(names),
        };
        write_file(&*self.directory, MANIFEST, &manifest.encode())
            .map_err(ViewError::io("write the manifest of vectors"))?;
        // The checkpoint stands: a file that cannot be removed now is removed at the next opening.
        self.obsolete.retain(|file| self.directory.remove(file).is_err());
        Ok(())
    }

    fn plan_merge(&self, living: &Bitmap) -> Option<Merge> {
        // Refined vectors follow the table of passages, so that a removed document does not wait anew.
        let keeps = [living, &self.numbers];
        let (tier, keep, sources) = self.tiers.iter().zip(keeps).find_map(|(tier, keep)| {
            merge::choose(tier, keep).map(|sources| (tier, keep, sources))
        })?;
        let plan = Plan {
            directory: Arc::clone(&self.directory),
            tier: tier.index,
            dimension: tier.dimension,
            sources,
            keep: keep.clone(),
            name: self.next_name(tier.index),
            graph_rows_min: self.options.graph_rows_min,
        };
        let bytes = plan.bytes();
        Some(Merge { bytes, run: Box::new(move |stop| Ok(Box::new(plan.run(stop)?) as Merged)) })
    }

    fn install(&mut self, merged: Merged) -> Result<(), ViewError> {
        let foreign = || ViewError::Failed("the merge is not one of this view's segments".into());
        let merged = merged.downcast::<MergedSegment>().map_err(|_| foreign())?;
        let MergedSegment { tier: index, sources, segment, dropped } = *merged;
        let files = &mut self.tiers[index].files;
        let is_source =
            |file: &Arc<Segment>| sources.iter().any(|source| Arc::ptr_eq(source, file));
        let first = files.iter().position(is_source);
        let held = files.iter().filter(|file| is_source(file)).count();
        let Some(first) = first.filter(|_| held == sources.len()) else { return Err(foreign()) };
        files.retain(|file| !is_source(file));
        files.splice(first..first, segment);
        self.obsolete.extend(sources.iter().map(|source| source.name().to_string()));
        if index == INSTANT {
            for (number, passages) in dropped {
                if self.numbers.remove(number) {
                    self.documents -= 1;
                    self.passages -= u64::from(passages);
                    self.pending.drop_document(number, passages);
                }
            }
        }
        Ok(())
    }

    /// Compares the checksums of all files on the way.
    fn numbers(&self) -> Result<Bitmap, ViewError> {
        self.tiers.iter().flat_map(Tier::segments).try_for_each(|segment| segment.verify())?;
        Ok(self.numbers.clone())
    }

    fn figures(&self) -> ViewFigures {
        let sum = |segments: fn(&Tier) -> &Vec<Arc<Segment>>| -> u64 {
            self.tiers.iter().flat_map(segments).map(|segment| segment.bytes()).sum()
        };
        let segments =
            self.tiers.iter().map(|tier| tier.files.len() + tier.head.len()).sum::<usize>();
        ViewFigures {
            documents: self.documents,
            disk_bytes: sum(|tier| &tier.files),
            memory_bytes: sum(|tier| &tier.head),
            segments: segments as u64,
        }
    }
}

fn open_segment(
    directory: &dyn Directory,
    file: &str,
    dimension: usize,
) -> Result<Segment, ViewError> {
    let contents = directory.open(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ViewError::damaged(file, "it is missing"),
        _ => ViewError::io(format!("open {file}"))(error),
    })?;
    let segment = Segment::open(file, &contents)?;
    match segment.dimension() == dimension {
        true => Ok(segment),
        false => Err(ViewError::damaged(file, "its dimension is not that of its space")),
    }
}

/// Removes what a checkpoint or merge that did not come to its end has left.
fn remove_orphans(directory: &dyn Directory, manifest: &Manifest) -> Result<(), ViewError> {
    let doing = "remove unfinished files of vectors";
    for file in directory.list().map_err(ViewError::io(doing))? {
        let known = file == MANIFEST || manifest.files.iter().flatten().any(|named| *named == file);
        if !known {
            directory.remove(&file).map_err(ViewError::io(doing))?;
        }
    }
    Ok(())
}
