//! The `semantic` method: documents whose meaning is near that of the query.
//!
//! Text never comes in here, only vectors; [`passages()`] says which pieces of a document the caller
//! embeds. Reading order: [`passages()`] cuts, `quantize` stores a vector in a byte for each component,
//! `segment` is the table on disk and in memory, `view` feeds it, `searcher` answers, by `scan` or by
//! `graph`. `kernels` has the loops where the time goes. `docs/design/vector-index.md` has the
//! measurements behind the choices.

mod calibration;
mod graph;
mod graph_build;
mod kernels;
mod manifest;
mod merge;
mod nearest;
mod passages;
mod quantize;
mod refinement;
mod scan;
mod searcher;
mod segment;
mod segment_writer;
mod space;
mod tier;
mod view;

pub use kernels::DIMENSION_MAX;
pub use merge::SEGMENT_ROWS_MAX;
pub use passages::{
    PASSAGE_TOKENS_MAX, PASSAGES_PER_DOCUMENT_MAX, Passage, Passages, passages, text_to_embed,
};
pub use quantize::VectorError;
pub use refinement::{Progress, Refinement, Unrefined};
pub use searcher::{QueryVectorError, SemanticSearcher};
pub use space::{INSTANT, REFINING, Space, SpaceError, Spaces};
pub use view::{
    GRAPH_ROWS_MIN, Options, PassageEntry, SemanticFigures, SemanticItem, SemanticView,
};
