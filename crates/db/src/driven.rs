//! [`Driven`]: what the driver sees of a view, whichever it is.

use std::fmt;
use std::sync::Arc;

use mainstay_search::bitmap::Bitmap;
use mainstay_search::document::DocNumber;
use mainstay_search::documents::DocumentsSnapshot;
use mainstay_search::method::Method;
use mainstay_search::semantic::{Refinement, Unrefined};
use mainstay_search::view::{Addition, Merge, Merged, Searcher, View, ViewError, ViewFigures};

use crate::record::Change;

/// Which view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewKind {
    /// The stored documents.
    Documents,
    /// The index of a search method.
    Method(Method),
}

impl ViewKind {
    /// Every view, documents first: the others read what it publishes.
    pub(crate) const ALL: [ViewKind; 5] = [
        ViewKind::Documents,
        ViewKind::Method(Method::Bm25),
        ViewKind::Method(Method::Tantivy),
        ViewKind::Method(Method::Native),
        ViewKind::Method(Method::Semantic),
    ];

    /// `documents` or the method's name: folder names, thread names, reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            ViewKind::Documents => "documents",
            ViewKind::Method(method) => method.name(),
        }
    }

    /// The view's place in [`ViewKind::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            ViewKind::Documents => 0,
            ViewKind::Method(method) => 1 + method as usize,
        }
    }
}

impl fmt::Display for ViewKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a view gives to readers.
#[derive(Clone)]
pub(crate) enum Readers {
    /// From the documents view.
    Documents(Arc<DocumentsSnapshot>),
    /// From a method's view.
    Method(Arc<dyn Searcher>),
}

/// A record that the view refused for good, and why.
pub(crate) type RefusedSeq = (u64, String);

/// A view as the driver sees it: it consumes log records and gives readers.
pub(crate) trait Driven: Send {
    /// Applies records in order and moves to `through`. See [`View::apply`].
    fn apply(
        &mut self,
        changes: Vec<(u64, Change)>,
        through: u64,
    ) -> Result<Vec<RefusedSeq>, ViewError>;
    /// Up to where records are applied.
    fn through(&self) -> u64;
    /// The present state for readers.
    fn readers(&self) -> Readers;
    /// See [`View::checkpoint`].
    fn checkpoint(&mut self) -> Result<(), ViewError>;
    /// See [`View::plan_merge`].
    fn plan_merge(&self, living: &Bitmap) -> Option<Merge>;
    /// See [`View::install`].
    fn install(&mut self, merged: Merged) -> Result<(), ViewError>;
    /// See [`View::numbers`].
    fn numbers(&self) -> Result<Bitmap, ViewError>;
    /// See [`View::figures`].
    fn figures(&self) -> ViewFigures;
    /// Passages with a refined vector, and passages in all; `None` where nothing is refined.
    fn refined(&self) -> Option<(u64, u64)> {
        None
    }
    /// Passages that wait for the refining model, about `limit` of them; none where nothing is
    /// refined.
    fn unrefined(&self, _limit: usize, _living: &Bitmap) -> Vec<Unrefined> {
        Vec::new()
    }
    /// Takes vectors of the refining model; answers how many.
    fn refine(&mut self, _batch: &[Refinement]) -> Result<usize, ViewError> {
        Ok(0)
    }
}

/// The number of the document that the record with this sequence number put.
pub(crate) fn number_of(seq: u64) -> DocNumber {
    DocNumber::try_from(seq).expect("the write path refuses sequence numbers beyond SEQ_MAX")
}

/// The additions among changes.
pub(crate) fn additions(changes: Vec<(u64, Change)>) -> Vec<Addition> {
    let puts = changes.into_iter().filter_map(|(seq, change)| match change {
        Change::Put(document) => Some(Addition { number: number_of(seq), document }),
        Change::Delete(_) => None,
    });
    puts.collect()
}

/// Drives the view of a method that consumes plain additions.
pub(crate) struct MethodDriven<V>(pub(crate) V);

impl<V: View<Item = Addition>> Driven for MethodDriven<V> {
    fn apply(
        &mut self,
        changes: Vec<(u64, Change)>,
        through: u64,
    ) -> Result<Vec<RefusedSeq>, ViewError> {
        let refused = self.0.apply(&additions(changes), through)?;
        Ok(refused.into_iter().map(|one| (u64::from(one.number), one.reason)).collect())
    }

    fn through(&self) -> u64 {
        self.0.through()
    }

    fn readers(&self) -> Readers {
        Readers::Method(self.0.searcher())
    }

    fn checkpoint(&mut self) -> Result<(), ViewError> {
        self.0.checkpoint()
    }

    fn plan_merge(&self, living: &Bitmap) -> Option<Merge> {
        self.0.plan_merge(living)
    }

    fn install(&mut self, merged: Merged) -> Result<(), ViewError> {
        self.0.install(merged)
    }

    fn numbers(&self) -> Result<Bitmap, ViewError> {
        self.0.numbers()
    }

    fn figures(&self) -> ViewFigures {
        self.0.figures()
    }
}
