//! How many slots or places in a queue each caller holds, so that under load nobody takes
//! everything.
//!
//! Invariant: only callers with a slot are remembered, so there are never more than slots.

use std::collections::HashMap;

/// Slots by caller.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    held: HashMap<u64, u64>,
}

impl Shares {
    /// Counts a slot for `caller`. Under pressure, with `limit` slots in all, a caller may hold an
    /// equal share of them and at least one; `Err` is the share when it holds that already.
    pub(crate) fn take(&mut self, caller: u64, limit: Option<u64>) -> Result<(), u64> {
        let held = self.held.get(&caller).copied().unwrap_or(0);
        if let Some(limit) = limit {
            let callers = self.held.len() as u64 + u64::from(held == 0);
            let share = limit.div_ceil(callers);
            if held >= share {
                return Err(share);
            }
        }
        self.held.insert(caller, held + 1);
        Ok(())
    }

    pub(crate) fn give_back(&mut self, caller: u64) {
        if let Some(held) = self.held.get_mut(&caller) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&caller);
            }
        }
    }
}
