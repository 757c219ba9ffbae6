//! [`Cursor`]: a place in the postings of one query term in one segment.
//!
//! A cursor only moves forward. Moving has two steps: [`Cursor::skip`] finds the block by metadata
//! alone, [`Cursor::load`] decodes it. Frequencies are decoded when the first score of a block is asked.

use super::list::{Block, List, ListDamage};
use super::packing::BLOCK;
use super::scoring::{Bounds, Norms};

/// How many rows of metadata are read for the bound of one window: beyond, the bound of the list serves.
const ROWS_MAX: usize = 16;

/// Says that a cursor has passed its last posting.
pub(super) const END: u32 = u32::MAX;

/// What scores need besides the postings.
#[derive(Clone, Copy)]
pub(super) struct Scales<'a> {
    pub(super) norms: &'a Norms,
    /// Length codes of the segment's documents.
    pub(super) lengths: &'a [u8],
    pub(super) bounds: Bounds<'a>,
}

pub(super) struct Cursor<'a> {
    /// The weight of the term in the query, in whole units.
    weight: f32,
    scales: Scales<'a>,
    /// `None` for a single posting, which is in `block` from the start.
    list: Option<List<'a>>,
    blocks: usize,
    /// The block at hand.
    at: usize,
    last_document: u32,
    block_bound: u32,
    state: Loaded,
    block: Block,
    /// The place in `block`.
    place: usize,
    /// The greatest score of the whole list.
    pub(super) list_bound: u32,
    pub(super) postings: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    No,
    Documents,
    All,
}

impl<'a> Cursor<'a> {
    /// A cursor before the first posting of a list.
    pub(super) fn of_list(
        list: List<'a>,
        postings: u32,
        weight: f32,
        scales: Scales<'a>,
    ) -> Result<Self, ListDamage> {
        let mut cursor = Self::empty(weight, scales);
        cursor.postings = postings;
        cursor.blocks = list.blocks();
        cursor.list = Some(list);
        if list.is_short() {
            list.documents(0, &mut cursor.block)?;
            cursor.hold_all();
        } else {
            cursor.list_bound = scales.bounds.bound(weight, list.peak);
            cursor.enter(0);
        }
        Ok(cursor)
    }

    /// A cursor before a single posting; `document` is below the segment's count.
    pub(super) fn of_single(
        document: u32,
        frequency: u32,
        weight: f32,
        scales: Scales<'a>,
    ) -> Self {
        let mut cursor = Self::empty(weight, scales);
        cursor.block.documents[0] = document;
        cursor.block.frequencies[0] = frequency;
        cursor.block.length = 1;
        cursor.hold_all();
        cursor
    }

    fn empty(weight: f32, scales: Scales<'a>) -> Self {
        Self {
            weight,
            scales,
            list: None,
            blocks: 1,
            at: 0,
            last_document: 0,
            block_bound: 0,
            state: Loaded::No,
            block: Block::new(),
            place: 0,
            list_bound: 0,
            postings: 1,
        }
    }

    /// All postings are in `block`: their greatest score is known exactly.
    fn hold_all(&mut self) {
        self.state = Loaded::All;
        self.last_document = self.block.documents[self.block.length - 1];
        let scores = (0..self.block.length).map(|place| self.score(place));
        self.block_bound = scores.max().unwrap_or(0);
        self.list_bound = self.block_bound;
    }

    fn enter(&mut self, block: usize) {
        self.at = block;
        self.state = Loaded::No;
        self.place = 0;
        match self.list {
            Some(list) if block < self.blocks => {
                let row = list.row(block);
                self.last_document = row.last_document;
                self.block_bound = self.scales.bounds.bound(self.weight, row.peak);
            }
            _ => {
                self.last_document = END;
                self.block_bound = 0;
            }
        }
    }

    /// Passes blocks whose bound is at most `least`, and answers where the block then at hand begins.
    pub(super) fn skip_blocks(&mut self, least: u32) -> u32 {
        let Some(list) = self.list.filter(|list| !list.is_short()) else { return 0 };
        while self.at < self.blocks && self.block_bound <= least {
            self.enter(self.at + 1);
        }
        match self.at.checked_sub(1) {
            Some(before) => list.last_document(before).saturating_add(1),
            None => 0,
        }
    }

    /// Whether all postings are passed.
    #[inline]
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.blocks
    }

    /// The last document of the block at hand; [`END`] at the end.
    #[inline]
    pub(super) fn block_end(&self) -> u32 {
        self.last_document
    }

    /// Moves to the block that could hold `document` or else one behind it.
    #[inline]
    pub(super) fn skip(&mut self, document: u32) {
        if self.last_document < document {
            self.skip_far(document);
        }
    }

    fn skip_far(&mut self, document: u32) {
        let Some(list) = self.list.filter(|list| !list.is_short()) else {
            return self.enter(self.blocks);
        };
        // The next block is the likeliest; then strides that double, and a search inside the last.
        let (mut low, mut stride) = (self.at + 1, 1);
        while low + stride < self.blocks && list.last_document(low + stride - 1) < document {
            low += stride;
            stride *= 2;
        }
        let mut high = (low + stride).min(self.blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            if list.last_document(middle) < document { low = middle + 1 } else { high = middle }
        }
        self.enter(low);
    }

    /// The greatest score among documents from `low` to before `high`, by metadata alone.
    #[inline]
    pub(super) fn bound_within(&mut self, low: u32, high: u32) -> u32 {
        self.skip(low);
        if self.last_document >= high.saturating_sub(1) {
            return self.block_bound_before(high);
        }
        let (mut greatest, mut block) = (self.block_bound, self.at + 1);
        if let Some(list) = self.list.filter(|list| !list.is_short()) {
            while block < self.blocks && list.last_document(block - 1) < high - 1 {
                if block - self.at > ROWS_MAX {
                    return self.list_bound;
                }
                let row = list.row(block);
                greatest = greatest.max(self.scales.bounds.bound(self.weight, row.peak));
                block += 1;
            }
        }
        greatest
    }

    /// The bound of the block at hand, or 0 when it is known to begin at or behind `high`.
    #[inline]
    fn block_bound_before(&self, high: u32) -> u32 {
        let is_decoded = self.state != Loaded::No && self.place < self.block.length;
        if is_decoded && self.block.documents[self.place] >= high {
            return 0;
        }
        let before = self.at.checked_sub(1).and_then(|before| {
            self.list.filter(|list| !list.is_short()).map(|list| list.last_document(before))
        });
        match before {
            Some(before) if before.saturating_add(1) >= high => 0,
            _ => self.block_bound,
        }
    }

    fn load(&mut self) -> Result<(), ListDamage> {
        if self.state == Loaded::No
            && let Some(list) = &self.list
        {
            list.documents(self.at, &mut self.block)?;
            self.state = Loaded::Documents;
        }
        Ok(())
    }

    fn load_all(&mut self) -> Result<(), ListDamage> {
        self.load()?;
        if self.state == Loaded::Documents
            && let Some(list) = &self.list
        {
            list.frequencies(self.at, &mut self.block)?;
            self.state = Loaded::All;
        }
        Ok(())
    }

    #[inline]
    fn score(&self, place: usize) -> u32 {
        let code = self.scales.lengths[self.block.documents[place] as usize];
        self.scales.norms.score(self.weight, self.block.frequencies[place], code)
    }

    /// The score of `document`; `None` when the term is not in it. Documents rise from call to call.
    #[inline]
    pub(super) fn score_of(&mut self, document: u32) -> Result<Option<u32>, ListDamage> {
        self.skip(document);
        if self.is_at_end() {
            return Ok(None);
        }
        self.load()?;
        self.place = self.seek(document);
        if self.block.documents[self.place] != document {
            return Ok(None);
        }
        self.load_all()?;
        Ok(Some(self.score(self.place)))
    }

    /// The place in the loaded block of the first document from `document` on; there is one.
    #[inline]
    fn seek(&self, document: u32) -> usize {
        let documents = &self.block.documents[self.place..self.block.length];
        // Neighbouring candidates often fall on neighbouring postings.
        if let Some(near) = documents.iter().take(4).position(|&found| found >= document) {
            return self.place + near;
        }
        let place = self.place + documents.partition_point(|&found| found < document);
        place.min(self.block.length - 1)
    }

    /// The documents and scores from `low` to before `high`, in order; moves behind them.
    #[inline]
    pub(super) fn scores_within(
        &mut self,
        low: u32,
        high: u32,
        visit: &mut impl FnMut(u32, u32) -> Result<(), ListDamage>,
    ) -> Result<(), ListDamage> {
        self.skip(low);
        while !self.is_at_end() {
            self.load()?;
            let documents = &self.block.documents[self.place..self.block.length];
            let start = self.place + documents.partition_point(|&document| document < low);
            let end = if self.last_document < high {
                self.block.length
            } else {
                self.place + documents.partition_point(|&document| document < high)
            };
            if start < end {
                self.load_all()?;
                for place in start..end {
                    visit(self.block.documents[place], self.score(place))?;
                }
            }
            if self.last_document >= high {
                self.place = end;
                return Ok(());
            }
            self.enter(self.at + 1);
        }
        Ok(())
    }
}

const _: () = assert!(BLOCK == 128, "rows and places are laid out for blocks of 128");
