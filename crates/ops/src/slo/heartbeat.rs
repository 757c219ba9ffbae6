//! The sign of life that tells dead time apart from time in which nothing was asked.

use super::series::take;
use crate::store::{StateError, StateStore, load_sealed, save_sealed};

const PIECE: &str = "slo-heartbeat";
const KIND: [u8; 4] = *b"beat";
const VERSION: u16 = 1;

/// When the process was last known to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heartbeat {
    /// The last beat, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    /// Since when there are figures.
    pub(super) since_unix_ms: u64,
    /// Dead time so far.
    pub(super) dead_ms: u64,
    /// Whether the process ended in order: what follows is no dead time.
    pub(super) clean: bool,
}

impl Heartbeat {
    pub(super) fn save(&self, store: &dyn StateStore) -> Result<(), StateError> {
        let mut bytes = Vec::with_capacity(25);
        for figure in [self.unix_ms, self.since_unix_ms, self.dead_ms] {
            bytes.extend_from_slice(&figure.to_le_bytes());
        }
        bytes.push(u8::from(self.clean));
        save_sealed(store, PIECE, KIND, VERSION, &bytes)
    }

    pub(super) fn load(store: &dyn StateStore) -> Result<Option<Self>, StateError> {
        let Some(bytes) = load_sealed(store, PIECE, KIND, VERSION)? else { return Ok(None) };
        let damaged = || StateError::Damaged { name: PIECE.to_owned(), what: "cut short" };
        let mut rest = bytes.as_slice();
        let mut figure = || take(&mut rest).map(u64::from_le_bytes).ok_or_else(damaged);
        let (unix_ms, since_unix_ms, dead_ms) = (figure()?, figure()?, figure()?);
        let clean = rest.first().ok_or_else(damaged)? == &1;
        Ok(Some(Heartbeat { unix_ms, since_unix_ms, dead_ms, clean }))
    }
}
