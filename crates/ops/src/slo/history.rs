//! The buckets of all objectives, and the pieces of state that they are kept in.
//!
//! One piece holds an hour of fine or a day of coarse buckets of every objective: the number of the
//! chunk, then for each objective its name and what [`Tier::encode`] wrote. A piece is replaced by
//! the chunk that takes its place when the ring has gone round.

use super::objective::{Objective, SloConfig};
use super::series::{Tier, take};
use crate::store::{StateError, StateStore, load_sealed, save_sealed};

const KIND: [u8; 4] = *b"slos";
const VERSION: u16 = 1;
/// Days of coarse chunks that are kept, whatever the periods: the longest period and a day.
const COARSE_PLACES: u64 = 91;

/// The buckets of one objective.
#[derive(Clone)]
pub(super) struct Series {
    pub(super) fine: Tier,
    pub(super) coarse: Tier,
}

impl Series {
    pub(super) fn tier(&self, fine: bool) -> &Tier {
        if fine { &self.fine } else { &self.coarse }
    }

    pub(super) fn tier_mut(&mut self, fine: bool) -> &mut Tier {
        if fine { &mut self.fine } else { &mut self.coarse }
    }
}

fn piece(fine: bool, place: u64) -> String {
    format!("slo-{}-{place}", if fine { "hour" } else { "day" })
}

/// Buckets without events.
pub(super) fn empty(config: &SloConfig) -> Vec<Series> {
    let series = |o: &Objective| Series { fine: Tier::fine(), coarse: Tier::coarse(o.period_days) };
    config.objectives.iter().map(series).collect()
}

/// Saves one chunk of all objectives.
pub(super) fn save(
    store: &dyn StateStore,
    config: &SloConfig,
    series: &[Series],
    fine: bool,
    chunk: u64,
) -> Result<(), StateError> {
    let mut bytes = chunk.to_le_bytes().to_vec();
    for (objective, series) in config.objectives.iter().zip(series) {
        let name = objective.name.as_bytes();
        // Validated to have 40 bytes at most.
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name);
        series.tier(fine).encode(chunk, &mut bytes);
    }
    let place = if fine { Tier::fine().place(chunk) } else { chunk % COARSE_PLACES };
    save_sealed(store, &piece(fine, place), KIND, VERSION, &bytes)
}

/// Takes in all pieces; how many of them could not be read.
pub(super) fn load(store: &dyn StateStore, config: &SloConfig, series: &mut [Series]) -> u64 {
    let mut damaged = 0;
    for (fine, places) in [(true, Tier::fine().places()), (false, COARSE_PLACES)] {
        for place in 0..places {
            let name = piece(fine, place);
            let read = load_sealed(store, &name, KIND, VERSION);
            let taken = match read {
                Ok(None) => true,
                Ok(Some(bytes)) => take_in(&bytes, fine, config, series),
                Err(error) => {
                    tracing::error!(%error, "a piece of the objectives' history is lost");
                    false
                }
            };
            damaged += u64::from(!taken);
        }
    }
    damaged
}

/// What belongs to an objective that is no longer configured is read over.
fn take_in(mut bytes: &[u8], fine: bool, config: &SloConfig, series: &mut [Series]) -> bool {
    let Some(chunk) = take(&mut bytes).map(u64::from_le_bytes) else { return false };
    while let Some([length]) = take::<1>(&mut bytes) {
        let Some((name, rest)) = bytes.split_at_checked(usize::from(length)) else { return false };
        bytes = rest;
        let known = config.objectives.iter().position(|o| o.name.as_bytes() == name);
        let read = match known {
            Some(n) => series[n].tier_mut(fine).decode(chunk, &mut bytes),
            None if fine => Tier::fine().decode(chunk, &mut bytes),
            None => Tier::coarse(1).decode(chunk, &mut bytes),
        };
        if !read {
            return false;
        }
    }
    true
}
