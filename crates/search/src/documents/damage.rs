//! [`Damage`]: a file of the view does not hold what it should.

use std::sync::Arc;

use crate::request::SearchError;
use crate::view::ViewError;

/// What is wrong with which file; becomes the error of whoever asked.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    pub(super) file: Arc<str>,
    pub(super) reason: String,
}

impl Damage {
    pub(super) fn new(file: &Arc<str>, reason: impl Into<String>) -> Self {
        Self { file: Arc::clone(file), reason: reason.into() }
    }
}

impl From<Damage> for ViewError {
    fn from(damage: Damage) -> Self {
        ViewError::damaged(damage.file.to_string(), damage.reason)
    }
}

impl From<Damage> for SearchError {
    fn from(damage: Damage) -> Self {
        SearchError::damaged(damage.file.to_string(), damage.reason)
    }
}
