//! [`Counts`]: what became of requests, in counters that cost an addition each.

use super::{Group, RefusalReason};
use std::sync::atomic::{AtomicU64, Ordering};

const GROUPS: usize = Group::ALL.len();
const REASONS: usize = RefusalReason::ALL.len();

#[derive(Debug, Default)]
pub(super) struct Counts {
    admitted: [AtomicU64; GROUPS],
    refused: [[AtomicU64; REASONS]; GROUPS],
}

impl Counts {
    pub(super) fn admitted(&self, group: Group) {
        self.admitted[group as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, group: Group, reason: RefusalReason) {
        self.refused[group as usize][reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Records them as metrics; reasons that never occurred are left out.
    pub(super) fn show(&self) {
        for group in Group::ALL {
            let name = group.as_str();
            let admitted = self.admitted[group as usize].load(Ordering::Relaxed);
            metrics::counter!("mainstay_admission_admitted_total", "group" => name)
                .absolute(admitted);
            for reason in RefusalReason::ALL {
                let refused = self.refused[group as usize][reason as usize].load(Ordering::Relaxed);
                if refused > 0 {
                    let labels = [("group", name), ("reason", reason.as_str())];
                    metrics::counter!("mainstay_admission_refused_total", &labels)
                        .absolute(refused);
                }
            }
        }
    }
}
