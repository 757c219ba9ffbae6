//! [`Pending`]: which passages still lack a refined vector.
//!
//! Invariants: `documents` holds exactly the documents of which some passage is not refined; of those,
//! `partly` holds the ones of which some passage is. A document that is refined in one go never
//! enters `partly`, so a million documents that wait cost one bit each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::passages::PASSAGES_PER_DOCUMENT_MAX;
use super::segment::Segment;
use crate::bitmap::Bitmap;
use crate::document::DocNumber;

/// The mark of a document's only row when it has no passage.
pub(crate) const NO_PASSAGE: u32 = u32::MAX;

/// A set of passages of one document.
type PassageSet = u128;
const _: () = assert!(PASSAGES_PER_DOCUMENT_MAX == PassageSet::BITS as usize);

/// A refined vector for a passage that is in the view.
#[derive(Clone, Debug, PartialEq)]
pub struct Refinement {
    /// The document.
    pub number: DocNumber,
    /// The index of the passage inside the document, as [`super::SemanticView::unrefined`] named it.
    pub passage: u32,
    /// The vector; all zeros when the model knows nothing of the passage, which is then not asked
    /// for again.
    pub vector: Vec<f32>,
}

/// A document that waits for refined vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrefined {
    /// The document.
    pub number: DocNumber,
    /// Its passages without a refined vector, each with its range of the body.
    pub passages: Vec<(u32, Range<u32>)>,
}

/// How far refinement has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Passages that have a refined vector.
    pub done: u64,
    /// Passages in the view. Those of removed documents count until a merge drops them.
    pub total: u64,
}

/// What waits. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Pending {
    documents: Bitmap,
    partly: Arc<BTreeMap<DocNumber, PassageSet>>,
    passages: u64,
}

impl Pending {
    /// Takes stock of opened segments.
    pub(crate) fn of(instant: &[Arc<Segment>], refining: &[Arc<Segment>]) -> Self {
        let mut pending = Self::default();
        for segment in instant {
            let mut stock = stock_of(segment);
            for refined in refining {
                count_refined(refined, &mut stock);
            }
            for Stock { number, passages, refined } in stock {
                if refined < passages {
                    pending.add(number, passages);
                }
                if (1..passages).contains(&refined) {
                    for segment in refining {
                        for row in segment.rows_of(number) {
                            pending.refine(number, segment.passage(row), passages);
                        }
                    }
                }
            }
        }
        pending
    }

    /// A document came in.
    pub(crate) fn add(&mut self, number: DocNumber, passages: u32) {
        if passages > 0 {
            self.documents.insert(number);
            self.passages += u64::from(passages);
        }
    }

    /// A passage of a document of `passages` passages was refined; answers whether it waited.
    pub(crate) fn refine(&mut self, number: DocNumber, passage: u32, passages: u32) -> bool {
        if passage >= passages || !self.waits(number, passage) {
            return false;
        }
        self.passages -= 1;
        if passages == 1 {
            self.documents.remove(number);
            return true;
        }
        let partly = Arc::make_mut(&mut self.partly);
        let set = partly.entry(number).or_default();
        *set |= 1 << passage;
        if set.count_ones() == passages {
            partly.remove(&number);
            self.documents.remove(number);
        }
        true
    }

    /// A document of `passages` passages was dropped.
    pub(crate) fn drop_document(&mut self, number: DocNumber, passages: u32) {
        if self.documents.remove(number) {
            let refined = match self.partly.contains_key(&number) {
                true => Arc::make_mut(&mut self.partly).remove(&number).map_or(0, u128::count_ones),
                false => 0,
            };
            self.passages -= u64::from(passages - refined);
        }
    }

    /// Whether the passage lacks its refined vector.
    #[inline]
    pub(crate) fn waits(&self, number: DocNumber, passage: u32) -> bool {
        self.documents.contains(number)
            && self
                .partly
                .get(&number)
                .is_none_or(|set| passage < PassageSet::BITS && set >> passage & 1 == 0)
    }

    /// Documents that wait, in rising order.
    pub(crate) fn documents(&self) -> impl Iterator<Item = DocNumber> + '_ {
        self.documents.iter()
    }

    /// How many passages wait.
    pub(crate) fn passages(&self) -> u64 {
        self.passages
    }
}

/// A document of a segment, how many passages it has, and how many of them are refined.
struct Stock {
    number: DocNumber,
    passages: u32,
    refined: u32,
}

fn stock_of(segment: &Segment) -> Vec<Stock> {
    let mut stock: Vec<Stock> = Vec::with_capacity(segment.documents());
    for row in 0..segment.rows() {
        let number = segment.number(row);
        let passages = u32::from(segment.passage(row) != NO_PASSAGE);
        match stock.last_mut() {
            Some(last) if last.number == number => last.passages += passages,
            _ => stock.push(Stock { number, passages, refined: 0 }),
        }
    }
    stock
}

/// Adds the refined passages in `refined` to a stock, both rising.
fn count_refined(refined: &Segment, stock: &mut [Stock]) {
    let Some(first) = stock.first() else { return };
    let mut row = refined.first_row_from(first.number, 0);
    let mut documents = stock.iter_mut().peekable();
    while row < refined.rows() {
        let number = refined.number(row);
        while documents.next_if(|stock| stock.number < number).is_some() {}
        match documents.peek_mut() {
            Some(stock) if stock.number == number => {
                stock.refined += 1;
                row += 1;
            }
            Some(stock) => row = refined.first_row_from(stock.number, row),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passage_waits_until_it_is_refined_once() {
        let mut pending = Pending::default();
        pending.add(3, 128);
        pending.add(5, 1);
        pending.add(6, 0);
        assert_eq!(pending.documents().collect::<Vec<_>>(), [3, 5]);
        for passage in (0..128).rev() {
            assert!(pending.waits(3, passage));
            assert!(pending.refine(3, passage, 128));
            assert!(!pending.refine(3, passage, 128));
        }
        assert!(!pending.refine(3, 128, 128) && !pending.refine(9, 0, 1));
        assert_eq!((pending.documents().collect::<Vec<_>>(), pending.passages()), (vec![5], 1));
    }

    #[test]
    fn a_dropped_document_no_longer_waits() {
        let mut pending = Pending::default();
        pending.add(1, 4);
        pending.add(2, 4);
        pending.refine(1, 2, 4);
        pending.drop_document(1, 4);
        pending.drop_document(7, 4);
        assert_eq!((pending.documents().collect::<Vec<_>>(), pending.passages()), (vec![2], 4));
    }
}
