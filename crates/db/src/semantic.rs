//! [`SemanticDriven`]: the semantic view under its driver: cuts passages, embeds them with the
//! instant model, and takes the refining model's vectors later.

use std::sync::Arc;

use mainstay_embed::{Kind, ModelIdentity, measured};
use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::Directory;
use mainstay_search::semantic::{
    Options, PassageEntry, Refinement, SemanticItem, SemanticView, Space, Spaces, Unrefined,
    passages,
};
use mainstay_search::view::{Addition, Merge, Merged, View, ViewError, ViewFigures};

use crate::driven::{Driven, Readers, RefusedSeq, additions};
use crate::embedding::Embedding;
use crate::record::Change;

/// Drives the semantic view.
pub(crate) struct SemanticDriven {
    view: SemanticView,
    embedding: Arc<Embedding>,
    refines: bool,
}

impl SemanticDriven {
    /// Opens the view for the models of its collection.
    pub(crate) fn open(
        files: Arc<dyn Directory>,
        embedding: Arc<Embedding>,
    ) -> Result<Self, ViewError> {
        let [instant, refining] = embedding.identities().map(|identity| identity.map(space));
        let refines = refining.is_some();
        let view = SemanticView::open(files, Spaces { instant, refining }, Options::default())?;
        Ok(Self { view, embedding, refines })
    }

    fn item(&self, addition: &Addition) -> Result<SemanticItem, ViewError> {
        let cut = passages(&addition.document);
        let mut vectors = Vec::new();
        if let Some(model) = &self.embedding.first {
            let texts: Vec<&str> = cut.passages.iter().map(|p| p.text_to_embed.as_ref()).collect();
            let embed = || model.embed(&texts, Kind::Passage);
            let embedded = measured(&**model, Kind::Passage, texts.len(), embed);
            let embedded = embedded.map_err(embedding_failed)?;
            vectors = embedded.iter().map(<[f32]>::to_vec).collect();
        }
        let mut vectors = vectors.into_iter();
        let entries = cut
            .passages
            .into_iter()
            .map(|passage| PassageEntry { range: passage.range, vector: vectors.next() });
        Ok(SemanticItem {
            number: addition.number,
            passages: entries.collect(),
            bytes_left_out: cut.bytes_left_out,
        })
    }
}

/// Retried like a failing disk: it may pass, and it is no fault of the record.
fn embedding_failed(error: impl std::error::Error + Send + Sync + 'static) -> ViewError {
    ViewError::Io { doing: "embed passages".into(), source: std::io::Error::other(error) }
}

fn space(identity: ModelIdentity) -> Space {
    Space { dimension: identity.dimension, model: format!("{} {}", identity.name, identity.sha256) }
}

impl Driven for SemanticDriven {
    fn apply(
        &mut self,
        changes: Vec<(u64, Change)>,
        through: u64,
    ) -> Result<Vec<RefusedSeq>, ViewError> {
        if let Some(reason) = &self.embedding.fault {
            let source = std::io::Error::other(reason.clone());
            return Err(ViewError::Io { doing: "embed passages".into(), source });
        }
        let items = additions(changes);
        let items: Result<Vec<_>, _> = items.iter().map(|addition| self.item(addition)).collect();
        let refused = self.view.apply(&items?, through)?;
        Ok(refused.into_iter().map(|one| (u64::from(one.number), one.reason)).collect())
    }

    fn through(&self) -> u64 {
        self.view.through()
    }

    fn readers(&self) -> Readers {
        Readers::Method(self.view.searcher())
    }

    fn checkpoint(&mut self) -> Result<(), ViewError> {
        self.view.checkpoint()
    }

    fn plan_merge(&self, living: &Bitmap) -> Option<Merge> {
        self.view.plan_merge(living)
    }

    fn install(&mut self, merged: Merged) -> Result<(), ViewError> {
        self.view.install(merged)
    }

    fn numbers(&self) -> Result<Bitmap, ViewError> {
        self.view.numbers()
    }

    fn figures(&self) -> ViewFigures {
        self.view.figures()
    }

    fn refined(&self) -> Option<(u64, u64)> {
        let progress = self.view.refined();
        self.refines.then_some((progress.done, progress.total))
    }

    fn unrefined(&self, limit: usize, living: &Bitmap) -> Vec<Unrefined> {
        self.view.unrefined(limit, living)
    }

    fn refine(&mut self, batch: &[Refinement]) -> Result<usize, ViewError> {
        self.view.refine(batch)
    }
}
