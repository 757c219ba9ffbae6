//! [`Slot`]: the place of one view in a collection: the view itself, held by its driver, and what
//! readers get of it.
//!
//! Invariants:
//! - Readers never wait for the view: they clone the `Arc` in `published`, which the driver swaps.
//! - `published.through` never runs ahead of what `published.readers` show.
//! - The generation on disk that counts is the highest one whose folder holds the marker `complete`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use mainstay_search::view::{ViewError, ViewFigures};

use crate::driven::{Driven, Readers, ViewKind};

/// What a view can do at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewState {
    /// It answers.
    Ready,
    /// It is being made anew; it answers if the old one still can.
    Rebuilding {
        /// Log records read so far.
        done: u64,
        /// Log records in all.
        total: u64,
    },
    /// It cannot go on at present; it answers with what it has, and tries again.
    Failing {
        /// The last error.
        reason: String,
    },
}

impl fmt::Display for ViewState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Rebuilding { done, total } => write!(f, "rebuilding, {done} of {total} records"),
            Self::Failing { reason } => write!(f, "failing: {reason}"),
        }
    }
}

/// What readers get of a view.
#[derive(Clone)]
pub(crate) struct Published {
    /// `None` while there is nothing to read from.
    pub(crate) readers: Option<Readers>,
    /// Up to where the readers see the log.
    pub(crate) through: u64,
    /// Up to where the view is durable by itself.
    pub(crate) checkpointed: u64,
    /// What it can do.
    pub(crate) state: ViewState,
    /// What it costs.
    pub(crate) figures: ViewFigures,
    /// Passages with a refined vector, and passages in all; `semantic` with a refining model only.
    pub(crate) refined: Option<(u64, u64)>,
    /// How often it was made anew by itself since the collection was opened, and why the last time.
    pub(crate) mended: (u64, String),
}

/// The view and its generation, under the driver's lock.
pub(crate) struct Held {
    /// `None` while the view is damaged and not yet rebuilt.
    pub(crate) driven: Option<Box<dyn Driven>>,
    /// The number in its folder's name.
    pub(crate) generation: u64,
    /// Up to where the last checkpoint reached.
    pub(crate) checkpointed: u64,
    /// Why the view on disk is left alone until somebody asks for a rebuild: a later version wrote
    /// it, or another model made its vectors.
    pub(crate) foreign: Option<String>,
}

/// The place of one view.
pub(crate) struct Slot {
    pub(crate) kind: ViewKind,
    held: Mutex<Held>,
    published: RwLock<Arc<Published>>,
    /// Held by the one rebuild that may run.
    pub(crate) rebuilding: Mutex<()>,
}

impl Slot {
    pub(crate) fn new(kind: ViewKind, held: Held) -> Self {
        let published = Published {
            readers: None,
            through: 0,
            checkpointed: held.checkpointed,
            state: match (&held.foreign, &held.driven) {
                (Some(reason), _) => ViewState::Failing { reason: reason.clone() },
                (None, Some(_)) => ViewState::Ready,
                (None, None) => ViewState::Rebuilding { done: 0, total: 0 },
            },
            figures: ViewFigures::default(),
            refined: None,
            mended: (0, String::new()),
        };
        let slot = Self {
            kind,
            held: Mutex::new(held),
            published: RwLock::new(Arc::new(published)),
            rebuilding: Mutex::new(()),
        };
        slot.publish(&mut slot.held());
        slot
    }

    /// What readers get now.
    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The view, for whoever drives it.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        // A panic under this lock was caught by the driver, which throws the view away.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows readers the view's present state.
    pub(crate) fn publish(&self, held: &mut Held) {
        let checkpointed = held.checkpointed;
        self.change(|published| {
            published.checkpointed = checkpointed;
            if let Some(driven) = &held.driven {
                published.readers = Some(driven.readers());
                published.through = driven.through();
                published.figures = driven.figures();
                published.refined = driven.refined();
            }
        });
    }

    /// Makes the view durable by itself and notes how far.
    pub(crate) fn checkpoint(&self, held: &mut Held) -> Result<(), ViewError> {
        if let Some(driven) = held.driven.as_mut() {
            driven.checkpoint()?;
            held.checkpointed = driven.through();
            self.publish(held);
        }
        Ok(())
    }

    /// Changes what the view is said to be able to do.
    pub(crate) fn set_state(&self, state: ViewState) {
        if self.published().state != state {
            self.change(|published| published.state = state);
        }
    }

    /// Notes that the view was made anew by itself.
    pub(crate) fn note_mended(&self, why: &str) {
        self.change(|published| {
            published.mended = (published.mended.0 + 1, why.to_string());
        });
    }

    fn change(&self, change: impl FnOnce(&mut Published)) {
        let mut guard = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let mut published = (**guard).clone();
        change(&mut published);
        *guard = Arc::new(published);
    }
}
