//! [`Top`]: the best documents so far.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::document::DocNumber;

/// The most places that are reserved before documents fill them.
const RESERVED_MAX: usize = 1024;

/// The best `limit` documents by score, and among equal scores by lower number.
///
/// Documents must come in rising order of their numbers: then one whose score only equals the lowest
/// cannot enter, and [`Top::threshold`] alone decides.
pub(super) struct Top {
    limit: usize,
    /// The worst is on top.
    heap: BinaryHeap<(Reverse<u32>, DocNumber)>,
    threshold: u32,
}

impl Top {
    pub(super) fn new(limit: usize) -> Self {
        let heap = BinaryHeap::with_capacity(limit.min(RESERVED_MAX));
        let threshold = if limit == 0 { u32::MAX } else { 0 };
        Self { limit, heap, threshold }
    }

    /// The score that a document must pass to enter.
    #[inline]
    pub(super) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Adds a document whose score passes [`Top::threshold`].
    pub(super) fn push(&mut self, score: u32, number: DocNumber) {
        if self.heap.len() < self.limit {
            self.heap.push((Reverse(score), number));
        } else if let Some(mut worst) = self.heap.peek_mut() {
            *worst = (Reverse(score), number);
        }
        if self.heap.len() == self.limit
            && let Some(&(Reverse(score), _)) = self.heap.peek()
        {
            self.threshold = score;
        }
    }

    /// The documents, best first.
    pub(super) fn finish(self) -> Vec<(u32, DocNumber)> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|(Reverse(score), number)| (score, number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_best_and_prefers_lower_numbers_among_equals() {
        let mut top = Top::new(3);
        for (number, score) in [5, 9, 5, 7, 5, 9].into_iter().enumerate() {
            if score > top.threshold() {
                top.push(score, number as u32);
            }
        }
        assert_eq!(top.finish(), [(9, 1), (9, 5), (7, 3)]);
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing() {
        assert_eq!(Top::new(0).threshold(), u32::MAX);
        assert!(Top::new(0).finish().is_empty());
    }
}
