//! [`Documents`]: the writer's side of the stored documents.
//!
//! Invariants: `current` is what the next snapshot shows and is replaced only when a whole batch,
//! seal or merge is ready; numbers rise in log order and are never reused; files are removed only
//! after a manifest that does not name them is durable, so a crash at any moment leaves a manifest
//! whose files are all there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::damage::Damage;
use super::field::{FIELDS_MAX, FieldType, Fields};
use super::head::{HEAD_BYTES_MAX, HEAD_DOCUMENTS_MAX, Head, HeadDocument};
use super::manifest::{MANIFEST, Manifest, SegmentEntry};
use super::merge::{self, INLINE_BYTES_MAX, MergedSegment, Weighed};
use super::segment::{Place, Segment, file_name, id_of_file};
use super::segment_writer::SegmentWriter;
use super::snapshot::DocumentsSnapshot;
use crate::bitmap::Bitmap;
use crate::directory::{Directory, write_file};
use crate::document::{DocNumber, Document};
use crate::request::Stop;
use crate::view::{Addition, Merge, Merged, Refused, ViewError, ViewFigures};

/// One step of the log, as the documents view consumes it.
#[derive(Clone, Debug, PartialEq)]
pub enum DocumentChange {
    /// Stores a document. When its id lives under another number, that number dies.
    Put(Addition),
    /// Removes the document with this id, if there is one.
    Delete {
        /// The user's key.
        id: String,
    },
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Numbers that died, in that order; also those that the same batch had added.
    pub removed: Vec<DocNumber>,
    /// Documents that can never be stored; an older version of theirs lives on.
    pub refused: Vec<Refused>,
}

/// The documents view. One writer; readers hold snapshots.
pub struct Documents {
    directory: Arc<dyn Directory>,
    current: DocumentsSnapshot,
    /// The lowest number that may be added.
    next_number: DocNumber,
    /// The next segment id; merges take one while the view goes on.
    next_segment: AtomicU64,
    /// Dead documents in each segment, by its id.
    dead: HashMap<u64, u32>,
    /// Files that no longer belong to the view but that the last manifest may name.
    retired: Vec<u64>,
}

impl Documents {
    /// Opens the view at its last checkpoint; an empty directory is a new view. Reads the manifest
    /// and the frames of segments, not their contents. Leftover files of a crash are removed.
    pub fn open(directory: Arc<dyn Directory>) -> Result<Self, ViewError> {
        let names = directory.list().map_err(ViewError::io("list the files of documents"))?;
        let manifest = if names.iter().any(|name| name == MANIFEST) {
            let bytes = directory.open(MANIFEST).map_err(ViewError::io("open the manifest"))?;
            Manifest::parse(&bytes)?
        } else {
            Manifest::empty()
        };
        let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(manifest.segments.len());
        for entry in &manifest.segments {
            let segment = open_file(directory.as_ref(), entry.id)?;
            entry.check(&segment)?;
            if segments.last().is_some_and(|last| last.meta().last >= segment.meta().first) {
                return Err(segment.damage("it does not stand behind the one before").into());
            }
            segments.push(Arc::new(segment));
        }
        let listed = |id: u64| manifest.segments.iter().any(|entry| entry.id == id);
        for name in &names {
            if id_of_file(name).is_some_and(|id| !listed(id)) {
                directory.remove(name).map_err(ViewError::io(format!("remove leftover {name}")))?;
            }
        }
        let mut dead = HashMap::new();
        for segment in &segments {
            dead.insert(segment.id(), count_dead(segment, &manifest.living)?);
        }
        let current = DocumentsSnapshot {
            segments,
            head: Head::default(),
            living: manifest.living,
            count: manifest.count,
            through: manifest.through,
            fields: Arc::new(manifest.fields),
        };
        Ok(Self {
            directory,
            current,
            next_number: manifest.next_number,
            next_segment: AtomicU64::new(manifest.next_segment),
            dead,
            retired: Vec::new(),
        })
    }

    /// Applies a batch in order and moves [`Documents::through`] to `through`, which may be beyond
    /// the last change or come with no change at all. Documents that can never be stored are left
    /// out and answered; after any other failure the view is as it was and may be asked again.
    pub fn apply(
        &mut self,
        changes: &[DocumentChange],
        through: u64,
    ) -> Result<Applied, ViewError> {
        if through < self.current.through {
            let message = format!(
                "a batch through {through} comes after one through {}; apply the log in order",
                self.current.through
            );
            return Err(ViewError::Bound { message });
        }
        let mut batch = Batch::new(&self.current, self.next_number);
        for change in changes {
            match change {
                DocumentChange::Put(addition) => batch.put(addition)?,
                DocumentChange::Delete { id } => batch.remove(id)?,
            }
        }
        let Batch { living, count, next_number, fields, added, applied, .. } = batch;
        self.next_number = next_number;
        let current = &mut self.current;
        (current.living, current.count, current.through) = (living, count, through);
        if let Some(fields) = fields {
            current.fields = Arc::new(fields);
        }
        current.head.push(added);
        for &number in &applied.removed {
            if let Some(segment) = current.segments.get(current.segment_index(number)) {
                *self.dead.entry(segment.id()).or_default() += 1;
            }
        }
        if current.head.len() >= HEAD_DOCUMENTS_MAX || current.head.bytes() >= HEAD_BYTES_MAX {
            self.seal()?;
            self.merge_small()?;
        }
        Ok(applied)
    }

    /// The log sequence number up to which everything is applied; 0 for a new view.
    pub fn through(&self) -> u64 {
        self.current.through
    }

    /// The state as readers may see it. Cheap; called after every batch.
    pub fn snapshot(&self) -> Arc<DocumentsSnapshot> {
        Arc::new(self.current.clone())
    }

    /// The next merge that would pay, if any. It runs on another thread while this view goes on
    /// applying; one at a time. Small merges are not planned: the view does them itself.
    pub fn plan_merge(&self) -> Option<Merge> {
        let range = merge::choose(&self.weighed())?;
        let sources = self.current.segments[range].to_vec();
        let bytes = sources.iter().map(|source| source.sections().len() as u64).sum();
        let living = self.current.living.clone();
        let directory = Arc::clone(&self.directory);
        let id = self.next_segment.fetch_add(1, Ordering::Relaxed);
        let run = move |stop: &Stop| -> Result<Merged, ViewError> {
            merge::merge_to_file(directory.as_ref(), id, &sources, &living, stop)
                .map(|merged| Box::new(merged) as Merged)
        };
        Some(Merge { bytes, run: Box::new(run) })
    }

    /// Puts the result of a planned merge in place of its sources, or drops it when they are gone.
    pub fn install(&mut self, merged: Merged) -> Result<(), ViewError> {
        match merged.downcast::<MergedSegment>() {
            Ok(merged) => self.replace(*merged),
            Err(_) => Err(ViewError::Failed("this merge was planned by another view".into())),
        }
    }

    fn replace(&mut self, merged: MergedSegment) -> Result<(), ViewError> {
        let MergedSegment { sources, segment } = merged;
        let segments = &mut self.current.segments;
        let start = segments.iter().position(|s| Some(&s.id()) == sources.first());
        let range = start.map(|start| start..start + sources.len()).filter(|range| {
            let ids = segments.get(range.clone()).unwrap_or_default().iter().map(|s| s.id());
            ids.eq(sources.iter().copied())
        });
        let Some(range) = range else {
            self.retired.extend(segment.filter(|s| s.place() == Place::File).map(|s| s.id()));
            return Ok(());
        };
        if let Some(segment) = &segment {
            self.dead.insert(segment.id(), count_dead(segment, &self.current.living)?);
        }
        for source in segments.splice(range, segment.map(Arc::new)) {
            self.dead.remove(&source.id());
            if source.place() == Place::File {
                self.retired.push(source.id());
            }
        }
        Ok(())
    }

    fn weighed(&self) -> Vec<Weighed> {
        let weigh = |segment: &Arc<Segment>| Weighed {
            bytes: segment.sections().len() as u64,
            documents: segment.meta().documents,
            dead: self.dead.get(&segment.id()).copied().unwrap_or(0),
        };
        self.current.segments.iter().map(weigh).collect()
    }

    /// Does the merges that are too small for another thread.
    fn merge_small(&mut self) -> Result<(), ViewError> {
        loop {
            let weighed = self.weighed();
            let Some(range) = merge::choose(&weighed) else {
                return Ok(());
            };
            let bytes: u64 = weighed[range.clone()].iter().map(|segment| segment.bytes).sum();
            if bytes > INLINE_BYTES_MAX {
                return Ok(());
            }
            let id = self.next_segment.fetch_add(1, Ordering::Relaxed);
            let sources = &self.current.segments[range];
            let merged = merge::merge_in_memory(id, sources, &self.current.living)?;
            self.replace(merged)?;
        }
    }

    /// Makes all that was applied durable.
    pub fn checkpoint(&mut self) -> Result<(), ViewError> {
        self.seal()?;
        self.merge_small()?;
        for at in 0..self.current.segments.len() {
            let segment = &self.current.segments[at];
            if segment.place() == Place::Memory {
                let id = segment.id();
                write_file(self.directory.as_ref(), &file_name(id), segment.sections().bytes())
                    .map_err(ViewError::io(format!("write {}", file_name(id))))?;
                let segment = open_file(self.directory.as_ref(), id)?;
                self.current.segments[at] = Arc::new(segment);
            }
        }
        let current = &self.current;
        let manifest = Manifest {
            through: current.through,
            count: current.count,
            next_segment: self.next_segment.load(Ordering::Relaxed),
            next_number: self.next_number,
            segments: current.segments.iter().map(|s| SegmentEntry::of(s)).collect(),
            fields: current.fields.as_ref().clone(),
            living: current.living.clone(),
        };
        write_file(self.directory.as_ref(), MANIFEST, &manifest.to_bytes())
            .map_err(ViewError::io("write the manifest"))?;
        while let Some(&id) = self.retired.last() {
            let name = file_name(id);
            self.directory.remove(&name).map_err(ViewError::io(format!("remove {name}")))?;
            self.retired.pop();
        }
        Ok(())
    }

    /// Every document number the view holds, dead ones that no merge has dropped included.
    pub fn numbers(&self) -> Result<Bitmap, ViewError> {
        let mut numbers = Bitmap::new();
        for segment in &self.current.segments {
            for number in segment.each_number()? {
                numbers.insert(number);
            }
        }
        for row in self.current.head.iter() {
            numbers.insert(row.number);
        }
        Ok(numbers)
    }

    /// What it costs.
    pub fn figures(&self) -> ViewFigures {
        let current = &self.current;
        let mut figures = ViewFigures {
            documents: current.head.len() as u64,
            memory_bytes: current.head.bytes() as u64,
            segments: current.segments.len() as u64 + u64::from(current.head.len() > 0),
            ..ViewFigures::default()
        };
        for segment in &current.segments {
            figures.documents += u64::from(segment.meta().documents);
            let bytes = segment.sections().len() as u64;
            match segment.place() {
                Place::Memory => figures.memory_bytes += bytes,
                Place::File => figures.disk_bytes += bytes,
            }
        }
        figures
    }

    /// Turns the living rows of the head into a segment in memory.
    fn seal(&mut self) -> Result<(), ViewError> {
        let mut encoded = Vec::new();
        let mut writer = SegmentWriter::new(Vec::new()).map_err(ViewError::io("seal the head"))?;
        for row in self.current.head.iter().filter(|row| self.current.living.contains(row.number)) {
            encoded.clear();
            row.document.encode(&mut encoded);
            writer.push(row.number, &encoded).map_err(ViewError::io("seal the head"))?;
        }
        if writer.documents() > 0 {
            let bytes = writer.finish().map_err(ViewError::io("seal the head"))?;
            let id = self.next_segment.fetch_add(1, Ordering::Relaxed);
            let segment = Segment::open(id, Place::Memory, Bytes::from(bytes))?;
            self.dead.insert(id, 0);
            self.current.segments.push(Arc::new(segment));
        }
        self.current.head = Head::default();
        Ok(())
    }
}

fn count_dead(segment: &Segment, living: &Bitmap) -> Result<u32, ViewError> {
    Ok(segment.each_number()?.filter(|&number| !living.contains(number)).count() as u32)
}

fn open_file(directory: &dyn Directory, id: u64) -> Result<Segment, ViewError> {
    let name = file_name(id);
    match directory.open(&name) {
        Ok(bytes) => Segment::open(id, Place::File, bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(ViewError::damaged(name, "it is missing"))
        }
        Err(error) => Err(ViewError::io(format!("open {name}"))(error)),
    }
}

/// A batch on its way: nothing of it is seen before all of it is ready.
struct Batch<'a> {
    before: &'a DocumentsSnapshot,
    living: Bitmap,
    count: u64,
    next_number: DocNumber,
    /// A changed copy, once there is a new field.
    fields: Option<Fields>,
    added: Vec<Arc<HeadDocument>>,
    added_by_id: HashMap<&'a str, DocNumber>,
    applied: Applied,
}

impl<'a> Batch<'a> {
    fn new(before: &'a DocumentsSnapshot, next_number: DocNumber) -> Self {
        Self {
            before,
            living: before.living.clone(),
            count: before.count,
            next_number,
            fields: None,
            added: Vec::new(),
            added_by_id: HashMap::new(),
            applied: Applied::default(),
        }
    }

    fn put(&mut self, addition: &'a Addition) -> Result<(), Damage> {
        let Addition { number, document } = addition;
        if let Err(reason) = self.admit(*number, document) {
            self.applied.refused.push(Refused { number: *number, reason });
            return Ok(());
        }
        let hash = xxh3_64(document.id.as_bytes());
        self.kill(&document.id, hash)?;
        self.learn_fields(document);
        self.next_number = number + 1;
        self.living.insert(*number);
        self.count += 1;
        self.added_by_id.insert(&document.id, *number);
        let document = document.clone();
        self.added.push(Arc::new(HeadDocument { number: *number, hash, document }));
        Ok(())
    }

    fn remove(&mut self, id: &str) -> Result<(), Damage> {
        self.kill(id, xxh3_64(id.as_bytes()))
    }

    /// Why a document can never be stored, if so.
    fn admit(&self, number: DocNumber, document: &Document) -> Result<(), String> {
        if number < self.next_number || number == DocNumber::MAX {
            return Err(format!(
                "document number {number} is not above all before; the next is {}",
                self.next_number
            ));
        }
        document.validate().map_err(|faults| {
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        })?;
        let fields = self.fields.as_ref().unwrap_or(&self.before.fields);
        let new = document.attributes.keys().filter(|name| !fields.has_name(name)).count();
        if fields.len() + new > FIELDS_MAX {
            return Err(format!(
                "its attributes would make {} different names in the collection, the bound is \
                 {FIELDS_MAX}; use fewer names and put what varies into values",
                fields.len() + new
            ));
        }
        Ok(())
    }

    fn learn_fields(&mut self, document: &Document) {
        for (name, value) in &document.attributes {
            let one = FieldType::of(value);
            if self.fields.as_ref().unwrap_or(&self.before.fields).lacks(name, one) {
                let fields = self.fields.get_or_insert_with(|| self.before.fields.as_ref().clone());
                fields.add(name, one);
            }
        }
    }

    /// Ends the life of the document with this id, if there is one.
    fn kill(&mut self, id: &str, hash: u64) -> Result<(), Damage> {
        let number = match self.added_by_id.remove(id) {
            Some(number) => Some(number),
            None => self.before.find(id, hash, &self.living)?,
        };
        if let Some(number) = number {
            self.living.remove(number);
            self.count -= 1;
            self.applied.removed.push(number);
        }
        Ok(())
    }
}
