//! [`DocumentsDriven`]: the documents view under its driver.

use mainstay_search::bitmap::Bitmap;
use mainstay_search::documents::{DocumentChange, Documents};
use mainstay_search::view::{Addition, Merge, Merged, ViewError, ViewFigures};

use crate::driven::{Driven, Readers, RefusedSeq, number_of};
use crate::record::Change;

/// Drives the documents view, which alone consumes removals.
pub(crate) struct DocumentsDriven(pub(crate) Documents);

impl Driven for DocumentsDriven {
    fn apply(
        &mut self,
        changes: Vec<(u64, Change)>,
        through: u64,
    ) -> Result<Vec<RefusedSeq>, ViewError> {
        let changes = changes.into_iter().map(|(seq, change)| match change {
            Change::Put(document) => {
                DocumentChange::Put(Addition { number: number_of(seq), document })
            }
            Change::Delete(id) => DocumentChange::Delete { id },
        });
        let applied = self.0.apply(&changes.collect::<Vec<_>>(), through)?;
        let refused = applied.refused.into_iter();
        Ok(refused.map(|one| (u64::from(one.number), one.reason)).collect())
    }

    fn through(&self) -> u64 {
        self.0.through()
    }

    fn readers(&self) -> Readers {
        Readers::Documents(self.0.snapshot())
    }

    fn checkpoint(&mut self) -> Result<(), ViewError> {
        self.0.checkpoint()
    }

    fn plan_merge(&self, _living: &Bitmap) -> Option<Merge> {
        self.0.plan_merge()
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
