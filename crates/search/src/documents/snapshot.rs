//! [`DocumentsSnapshot`]: the stored documents as readers see them, at one moment.
//!
//! Invariants: it never changes; segments and head hold disjoint, rising ranges of numbers, the head
//! the highest; of the documents with one id at most one is living.

use std::ops::ControlFlow;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::block::OpenBlock;
use super::damage::Damage;
use super::dictionary::{BROKEN, Cursor};
use super::field::{FieldInfo, Fields};
use super::filter::{Check, Filter, Numbers};
use super::head::Head;
use super::segment::Segment;
use crate::bitmap::Bitmap;
use crate::document::{DecodeError, DocNumber, Document, EncodedDocument};
use crate::request::{SearchError, Text, Texts};

/// The stored documents at one moment. Shared between threads.
#[derive(Clone, Default)]
pub struct DocumentsSnapshot {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) head: Head,
    pub(super) living: Bitmap,
    pub(super) count: u64,
    pub(super) through: u64,
    pub(super) fields: Arc<Fields>,
}

impl DocumentsSnapshot {
    /// The numbers of all living documents.
    pub fn living(&self) -> &Bitmap {
        &self.living
    }

    /// How many documents live.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The log sequence number up to which this state has read.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// The fields that filters, facets and sort orders may use: the built-in ones, then attributes
    /// by name.
    pub fn fields(&self) -> Vec<FieldInfo> {
        self.fields.infos()
    }

    /// The number of the living document with this id.
    pub fn number_of(&self, id: &str) -> Result<Option<DocNumber>, SearchError> {
        Ok(self.find(id, xxh3_64(id.as_bytes()), &self.living)?)
    }

    pub(super) fn find(
        &self,
        id: &str,
        hash: u64,
        living: &Bitmap,
    ) -> Result<Option<DocNumber>, Damage> {
        if let Some(number) = self.head.find(id, hash, living) {
            return Ok(Some(number));
        }
        for segment in self.segments.iter().rev() {
            if let Some(number) = segment.find(id, hash)?.filter(|&n| living.contains(n)) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The index of the segment whose range of numbers could hold this one.
    pub(super) fn segment_index(&self, number: DocNumber) -> usize {
        self.segments.partition_point(|segment| segment.meta().last < number)
    }

    /// The living document with this number.
    pub fn get(&self, number: DocNumber) -> Result<Option<Document>, SearchError> {
        if !self.living.contains(number) {
            return Ok(None);
        }
        if let Some(document) = self.head.get(number) {
            return Ok(Some(document.clone()));
        }
        let Some(segment) = self.segments.get(self.segment_index(number)) else {
            return Ok(None);
        };
        let Some(ordinal) = segment.ordinal(number)? else {
            return Ok(None);
        };
        let mut open = OpenBlock::default();
        let encoded = segment.blocks()?.document(ordinal, &mut open)?;
        let document = Document::decode(encoded).map_err(|error| undecodable(segment, &error))?;
        Ok(Some(document))
    }

    /// The living document with this id.
    pub fn get_by_id(&self, id: &str) -> Result<Option<Document>, SearchError> {
        match self.number_of(id)? {
            Some(number) => self.get(number),
            None => Ok(None),
        }
    }

    /// Up to `limit` living documents in order of id, the first one behind `after`.
    pub fn list(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, DocNumber)>, SearchError> {
        let wanted = |id: &str| after.is_none_or(|after| id > after);
        let mut page: Vec<(String, DocNumber)> = self
            .head
            .iter()
            .filter(|d| self.living.contains(d.number) && wanted(&d.document.id))
            .map(|d| (d.document.id.clone(), d.number))
            .collect();
        page.sort_unstable();
        page.truncate(limit);
        let mut walks = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            walks.push(IdWalk::open(segment, after.unwrap_or(""), &self.living)?);
        }
        let mut taken = 0;
        while taken < limit {
            let first = walks.iter_mut().filter(|walk| walk.id.is_some());
            let Some(first) = first.min_by(|a, b| a.id.cmp(&b.id)) else {
                break;
            };
            if let Some(found) = first.take()?.filter(|(id, _)| wanted(id)) {
                page.push(found);
                taken += 1;
            }
        }
        page.sort_unstable();
        page.truncate(limit);
        Ok(page)
    }

    /// The living documents that a filter lets pass.
    pub fn filter(&self, filter: &Filter) -> Result<Bitmap, SearchError> {
        let check = Check::new(filter, &self.fields)?;
        let segments_end = self.segments.last().map_or(0, |segment| segment.meta().last);
        let end = self.head.last().unwrap_or(segments_end);
        let mut numbers = Numbers::below(end.saturating_add(1));
        for segment in &self.segments {
            numbers.add(segment, &check.select(segment)?)?;
        }
        for row in self.head.iter().filter(|row| self.living.contains(row.number)) {
            if check.matches(&row.document) {
                numbers.insert(row.number);
            }
        }
        let mut found = Bitmap::from_bytes(&numbers.into_bytes())
            .expect("the bytes are as long as whole chunks");
        found.intersect(&self.living);
        Ok(found)
    }

    /// Reads every file and compares every checksum, then that every living document is stored.
    pub fn verify(&self) -> Result<(), SearchError> {
        let mut held = Bitmap::new();
        for segment in &self.segments {
            segment.verify()?;
            for number in segment.each_number()? {
                held.insert(number);
            }
        }
        for row in self.head.iter() {
            held.insert(row.number);
        }
        let mut lost = self.living.clone();
        lost.subtract(&held);
        match lost.iter().next() {
            None => Ok(()),
            Some(number) => Err(SearchError::damaged(
                "manifest",
                format!("{} living documents are not stored, the first is {number}", lost.len()),
            )),
        }
    }
}

fn undecodable(segment: &Segment, error: &DecodeError) -> Damage {
    segment.damage(&error.to_string())
}

/// A walk over the living documents of a segment in order of id.
struct IdWalk<'a> {
    segment: &'a Segment,
    living: &'a Bitmap,
    cursor: Cursor<'a>,
    rank: u32,
    /// The next one; `None` at the end.
    id: Option<(String, DocNumber)>,
}

impl<'a> IdWalk<'a> {
    fn open(segment: &'a Segment, from: &str, living: &'a Bitmap) -> Result<Self, Damage> {
        let broken = || segment.damage(BROKEN);
        let ids = segment.ids()?;
        let rank = ids.lower_bound(from.as_bytes()).ok_or_else(broken)?;
        let cursor = ids.from(rank).ok_or_else(broken)?;
        let mut walk = Self { segment, living, cursor, rank, id: None };
        walk.step()?;
        Ok(walk)
    }

    fn step(&mut self) -> Result<(), Damage> {
        self.id = None;
        while self.rank < self.segment.meta().documents {
            let id = self.cursor.next().ok_or_else(|| self.segment.damage(BROKEN))?;
            let number = self.segment.number(self.segment.ordinal_of_id(self.rank)?)?;
            self.rank += 1;
            if self.living.contains(number) {
                let id = std::str::from_utf8(id).map_err(|_| self.segment.damage(BROKEN))?;
                self.id = Some((id.to_string(), number));
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<(String, DocNumber)>, Damage> {
        let found = self.id.take();
        self.step()?;
        Ok(found)
    }
}

impl Texts for DocumentsSnapshot {
    fn visit(
        &self,
        numbers: &[DocNumber],
        visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        let mut rest = numbers;
        let mut open = OpenBlock::default();
        while let Some(&number) = rest.first() {
            let segment = self.segments.get(self.segment_index(number));
            let end = segment.map_or(rest.len(), |segment| {
                rest.partition_point(|&number| number <= segment.meta().last)
            });
            // Numbers that do not rise are still answered, one at a time.
            let (here, later) = rest.split_at(end.max(1));
            rest = later;
            let flow = match segment {
                Some(segment) => {
                    open = OpenBlock::reuse(open);
                    visit_segment(segment, here, &mut open, visit)?
                }
                None => self.visit_head(here, visit),
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl DocumentsSnapshot {
    fn visit_head(
        &self,
        numbers: &[DocNumber],
        visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for &number in numbers {
            if let Some(document) = self.head.get(number) {
                let Document { title, path, language, body, .. } = document;
                visit(number, Text { title, path, language, body })?;
            }
        }
        ControlFlow::Continue(())
    }
}

fn visit_segment(
    segment: &Segment,
    numbers: &[DocNumber],
    open: &mut OpenBlock,
    visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Damage> {
    let blocks = segment.blocks()?;
    for &number in numbers {
        let Some(ordinal) = segment.ordinal(number)? else {
            continue;
        };
        let encoded = blocks.document(ordinal, open)?;
        let EncodedDocument { title, path, language, body, .. } =
            EncodedDocument::read(encoded).map_err(|error| undecodable(segment, &error))?;
        if visit(number, Text { title, path, language, body }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
