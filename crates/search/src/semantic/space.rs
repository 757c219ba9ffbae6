//! [`Spaces`]: which embedding spaces a collection has, and what made their vectors.

use std::fmt;

use super::kernels::DIMENSION_MAX;

/// The index of the instant space in [`crate::request::QueryVector::space`].
pub const INSTANT: usize = 0;
/// The index of the refining space in [`crate::request::QueryVector::space`].
pub const REFINING: usize = 1;

/// One embedding space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// The number of components, 1 to [`DIMENSION_MAX`].
    pub dimension: usize,
    /// What made the vectors, such as a name and a hash. Vectors of two models cannot be compared, so
    /// any difference here is refused when the view is opened.
    pub model: String,
}

/// The spaces of a collection: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spaces {
    /// Space 0, filled as documents are applied; `None` when the collection has only the refining
    /// model, so that documents are found once they are refined.
    pub instant: Option<Space>,
    /// Space 1, filled in behind by [`super::SemanticView::refine`]; `None` when there is nothing
    /// better than the instant model.
    pub refining: Option<Space>,
}

impl Spaces {
    /// Both spaces by index.
    pub(crate) fn each(&self) -> [Option<&Space>; 2] {
        [self.instant.as_ref(), self.refining.as_ref()]
    }

    /// The dimensions by index; 0 for a space that is not there.
    pub(crate) fn dimensions(&self) -> [usize; 2] {
        self.each().map(|space| space.map_or(0, |space| space.dimension))
    }

    /// Checks that there is a space and that dimensions are within bounds.
    pub(crate) fn check(&self) -> Result<(), SpaceError> {
        if self.instant.is_none() && self.refining.is_none() {
            return Err(SpaceError::None);
        }
        match self
            .each()
            .into_iter()
            .flatten()
            .find(|s| !(1..=DIMENSION_MAX).contains(&s.dimension))
        {
            Some(space) => Err(SpaceError::Dimension {
                model: space.model.clone(),
                dimension: space.dimension,
            }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Spaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, space) in ["instant", "refining"].into_iter().zip(self.each()) {
            if let Some(space) = space {
                write!(f, "{separator}{name} model {} ({}-d)", space.model, space.dimension)?;
                separator = " and ";
            }
        }
        Ok(())
    }
}

/// Why a view cannot be opened with these spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpaceError {
    /// No space at all.
    None,
    /// A dimension that cannot be stored.
    Dimension {
        /// What makes the vectors.
        model: String,
        /// The dimension it has.
        dimension: usize,
    },
    /// The stored vectors were made by other models.
    Mismatch {
        /// The spaces that are stored.
        stored: Box<Spaces>,
        /// The spaces that were asked for.
        asked: Box<Spaces>,
    },
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("semantic search needs at least one embedding model"),
            Self::Dimension { model, dimension } => write!(
                f,
                "model {model} has {dimension} dimensions, allowed are 1 to {DIMENSION_MAX}"
            ),
            Self::Mismatch { stored, asked } => write!(
                f,
                "stored vectors are of {stored}, the collection is opened with {asked}; use the \
                 stored models again or embed anew with `mainstay rebuild --method semantic`"
            ),
        }
    }
}

impl std::error::Error for SpaceError {}
