//! [`Ticket`]: a request that has arrived; [`Permit`]: one that is begun.

use super::gate::{Entered, GatePermit, Waiting};
use super::rates::Asked;
use super::{Admission, Class, Group, Refusal, RefusalReason};
use crate::memory::{MemoryRefused, Reservation};
use mainstay_resilience::Sleeper;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

/// A request that has arrived and may ask to enter, several times if its work comes in parts.
#[derive(Debug)]
pub struct Ticket {
    admission: Admission,
    class: Class,
    group: Group,
    /// Empty for no route in particular.
    route: &'static str,
    key: Box<str>,
    /// Units that were taken on arrival and are part of the first entry's cost.
    paid: AtomicU32,
}

/// What a request, or a part of one, needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Units of its rates, at least 1.
    pub cost: u32,
    /// Bytes of memory; 0 reserves none.
    pub bytes: u64,
    /// How long it can wait for a slot, if that is less than the queue's own bound.
    pub patience: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Load { cost: 1, bytes: 0, patience: Duration::MAX }
    }
}

/// A request that is begun. Dropping it gives back its slot and its memory; what it did is taken
/// for cancelled.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once admits nothing"]
pub struct Permit {
    slot: Option<GatePermit>,
    _memory: Option<Reservation>,
    waited: Duration,
}

impl Permit {
    /// The work was done; its duration teaches the limit.
    pub fn success(mut self) {
        if let Some(slot) = self.slot.take() {
            slot.success();
        }
    }

    /// The work ran out of time: the limit may be too high.
    pub fn overloaded(mut self) {
        if let Some(slot) = self.slot.take() {
            slot.overloaded();
        }
    }

    /// How long it waited for its slot.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Ticket {
    pub(super) fn new(
        admission: Admission,
        class: Class,
        group: Group,
        route: &'static str,
        key: &str,
    ) -> Self {
        Ticket { admission, class, group, route, key: key.into(), paid: AtomicU32::new(1) }
    }

    /// What it asks for.
    #[must_use]
    pub fn group(&self) -> Group {
        self.group
    }

    /// On whose behalf.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Charges what it costs, reserves its memory, and takes a slot, waiting for one in its turn.
    ///
    /// Dropping the future leaves the queue and gives back what was reserved; what was charged stays
    /// charged.
    ///
    /// # Errors
    /// The refusal; nothing was begun.
    pub async fn enter(&self, sleeper: &impl Sleeper, load: Load) -> Result<Permit, Box<Refusal>> {
        let admission = &self.admission;
        let entered = match self.class {
            Class::Control => Ok(Permit { slot: None, _memory: None, waited: Duration::ZERO }),
            _ => self.slot(sleeper, load).await,
        };
        match &entered {
            Ok(_) => admission.0.counts.admitted(self.group),
            Err(refusal) => admission.count(refusal),
        }
        entered
    }

    async fn slot(&self, sleeper: &impl Sleeper, load: Load) -> Result<Permit, Box<Refusal>> {
        let (shared, class) = (&*self.admission.0, self.class);
        if class < self.admission.admits_from() {
            return Err(self.admission.below_floor(class, self.group));
        }
        self.take_rates(load.cost)?;
        let memory = self.take(load.bytes)?;
        let gate = self.admission.gate(self.group);
        let key = || shared.seed.hash_one(&*self.key);
        let refused = |reason| self.admission.queued(class, self.group, reason);
        let (slot, waited) = match gate.enter(class, key) {
            Entered::Now(slot) => (slot, Duration::ZERO),
            Entered::Refused(reason) => return Err(refused(reason)),
            Entered::Waits(waiting) => {
                let since = waiting.since();
                let patience = load.patience.min(gate.timeout());
                let slot = wait(waiting, sleeper, patience).await.map_err(refused)?;
                (slot, shared.clock.now().since(since))
            }
        };
        Ok(Permit { slot: Some(slot), _memory: memory, waited })
    }

    /// Takes what it costs more than was taken on arrival.
    fn take_rates(&self, cost: u32) -> Result<(), Box<Refusal>> {
        let shared = &*self.admission.0;
        let paid = self.paid.swap(0, Ordering::Relaxed);
        let rates = shared.rates.load();
        if rates.is_empty() {
            return Ok(());
        }
        let Self { group, route, class, ref key, .. } = *self;
        rates.take(Asked { group, route, class, key }, shared.leases.load().as_deref(), paid, cost)
    }

    /// Reserves memory for as long as the reservation lives, beside what [`enter`](Self::enter)
    /// reserves; none where none is guarded, and none for 0 bytes.
    ///
    /// # Errors
    /// The refusal.
    pub fn reserve(&self, bytes: u64) -> Result<Option<Reservation>, Box<Refusal>> {
        let reserved = self.take(bytes);
        reserved.inspect_err(|refusal| self.admission.count(refusal))
    }

    /// Reserves what is missing to `bytes`, for work whose size shows by and by.
    ///
    /// # Errors
    /// The refusal; what was reserved stays reserved.
    pub fn reserve_up_to(
        &self,
        held: &mut Option<Reservation>,
        bytes: u64,
    ) -> Result<(), Box<Refusal>> {
        let Some(there) = held else {
            *held = self.reserve(bytes)?;
            return Ok(());
        };
        let missing = bytes.saturating_sub(there.bytes());
        if missing == 0 {
            return Ok(());
        }
        let grown = there.grow(missing).map_err(|no| self.short_of_memory(&no));
        grown.inspect_err(|refusal| self.admission.count(refusal))
    }

    fn take(&self, bytes: u64) -> Result<Option<Reservation>, Box<Refusal>> {
        if bytes == 0 {
            return Ok(None);
        }
        let budget = self.admission.0.memory.load();
        let Some(budget) = budget.as_ref() else { return Ok(None) };
        let reserved = budget.try_reserve(bytes, self.class.memory_priority());
        reserved.map(Some).map_err(|no| self.short_of_memory(&no))
    }

    #[cold]
    fn short_of_memory(&self, no: &MemoryRefused) -> Box<Refusal> {
        Box::new(Refusal {
            reason: RefusalReason::Memory,
            group: self.group,
            class: self.class,
            policy: Arc::from("memory"),
            limit: no.wanted_bytes,
            remaining: no.available_bytes,
            retry_after: super::FLOOR_RETRY,
            detail: no.to_string(),
        })
    }
}

/// Waits for its turn, at most for so long.
async fn wait(
    mut waiting: Waiting,
    sleeper: &impl Sleeper,
    patience: Duration,
) -> Result<GatePermit, RefusalReason> {
    let mut alarm = pin!(sleeper.sleep(patience));
    poll_fn(|cx| match waiting.poll(cx) {
        Poll::Pending => alarm.as_mut().poll(cx).map(|()| Err(RefusalReason::QueueTimeout)),
        ready => ready,
    })
    .await
}
