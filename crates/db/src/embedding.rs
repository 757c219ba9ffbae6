//! [`Embedding`]: the models of one collection, and how a query becomes vectors.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use mainstay_embed::{Embedder, Kind, ModelIdentity, Pool, measured};
use mainstay_search::request::QueryVector;

use crate::error::DbError;
use crate::runtime::Runtime;
use crate::settings::Settings;

/// The space of the instant model.
pub(crate) const SPACE_FIRST: usize = 0;
/// The space of the refining model.
pub(crate) const SPACE_REFINED: usize = 1;

/// The models of one collection. A model that cannot be used is no reason not to open the
/// collection: the other methods need none, and `semantic` says what is wrong.
pub(crate) struct Embedding {
    /// Embeds every passage at once as it arrives.
    pub(crate) first: Option<Arc<dyn Embedder>>,
    /// Fills in better vectors in the background, and embeds queries.
    pub(crate) refined: Option<Arc<dyn Embedder>>,
    /// Why the collection's model cannot be used.
    pub(crate) fault: Option<String>,
    /// What is recorded, or would be.
    spaces: [Option<ModelIdentity>; 2],
    pub(crate) pool: Arc<Pool>,
}

/// A query as vectors.
#[derive(Debug, Default)]
pub(crate) struct EmbeddedQuery {
    pub(crate) vectors: Vec<QueryVector>,
    /// What is missing and why.
    pub(crate) note: Option<String>,
}

impl Embedding {
    /// Opens the models of a collection and compares them with what is recorded.
    pub(crate) fn open(runtime: &Runtime, settings: &Settings) -> Self {
        let opened = Self::configured(runtime, settings);
        let recorded = settings.spaces.clone();
        if recorded == [None, None] || opened.fault.is_some() {
            return Self {
                spaces: if recorded == [None, None] { opened.spaces } else { recorded },
                ..opened
            };
        }
        let mut fault = None;
        for (now, recorded) in opened.spaces.iter().zip(&recorded) {
            match (now, recorded) {
                (Some(now), Some(recorded)) => {
                    if let Err(error) = now.require(recorded, &settings.name) {
                        fault = Some(error.to_string());
                    }
                }
                (None, None) => {}
                _ => {
                    fault = Some(format!(
                        "the vectors were made by other models than \"{}\"; \
                         run `mainstay rebuild --method semantic` to embed anew",
                        settings.model
                    ));
                }
            }
        }
        if fault.is_some() {
            return Self { first: None, refined: None, fault, spaces: recorded, pool: opened.pool };
        }
        opened
    }

    /// The models that the settings name now, whatever made the vectors; for a rebuild.
    pub(crate) fn for_rebuild(
        runtime: &Runtime,
        settings: &Settings,
    ) -> Result<Arc<Self>, DbError> {
        let opened = Self::configured(runtime, settings);
        match opened.fault {
            Some(reason) => Err(DbError::Bound { message: reason }),
            None => Ok(Arc::new(opened)),
        }
    }

    fn configured(runtime: &Runtime, settings: &Settings) -> Self {
        match runtime.models(&settings.model) {
            Ok((opened, pool)) => {
                let identity = |model: &Option<Arc<dyn Embedder>>| {
                    model.as_ref().map(|m| m.identity().clone())
                };
                Self {
                    spaces: [identity(&opened.first), identity(&opened.refined)],
                    first: opened.first,
                    refined: opened.refined,
                    fault: None,
                    pool,
                }
            }
            Err(error) => Self {
                first: None,
                refined: None,
                fault: Some(error.to_string()),
                spaces: settings.spaces.clone(),
                pool: runtime.pool(),
            },
        }
    }

    /// The identities of both spaces, as they are recorded beside the vectors.
    pub(crate) fn identities(&self) -> [Option<ModelIdentity>; 2] {
        self.spaces.clone()
    }

    /// How much of a query the model that embeds it knows; 1 without a model.
    pub(crate) fn known_share(&self, text: &str) -> f32 {
        self.refined.as_ref().or(self.first.as_ref()).map_or(1.0, |model| model.known_share(text))
    }

    /// Embeds a query for every space that can be asked. The instant model takes microseconds and
    /// runs here; the refining one waits for its turn in the pool, until the deadline. `from_cache`
    /// says whether a remembered vector will do.
    pub(crate) fn embed_query(
        &self,
        text: &str,
        deadline: Instant,
        refine: bool,
        from_cache: bool,
    ) -> EmbeddedQuery {
        let mut query = EmbeddedQuery { note: self.fault.clone(), ..EmbeddedQuery::default() };
        if let Some(model) = &self.first {
            match measured(&**model, Kind::Query, 1, || model.embed(&[text], Kind::Query)) {
                Ok(vectors) => query.add(SPACE_FIRST, vectors.get(0).unwrap_or_default()),
                Err(error) => query.note = Some(error.to_string()),
            }
        }
        // Without an instant model there is nothing to fall back on.
        let refine = refine || self.first.is_none();
        if let Some(model) = self.refined.as_ref().filter(|_| refine) {
            let left = deadline.saturating_duration_since(Instant::now());
            let embedded = match from_cache {
                true => self.pool.embed_query(model, text, left),
                false => self.pool.embed_query_anew(model, text, left),
            };
            match embedded {
                Ok(vector) => query.add(SPACE_REFINED, &vector),
                Err(error) => {
                    let name = &model.identity().name;
                    query.note = Some(format!("without {name}: {error}"));
                }
            }
        }
        query
    }
}

impl EmbeddedQuery {
    /// A text in which a model knows nothing has the zero vector, which is near nothing.
    fn add(&mut self, space: usize, vector: &[f32]) {
        if vector.iter().any(|x| *x != 0.0) {
            self.vectors.push(QueryVector { space, vector: vector.to_vec() });
        }
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedding")
            .field("spaces", &self.spaces)
            .field("fault", &self.fault)
            .finish()
    }
}
