//! [`Gate`]: so many requests at a time, as many as prove to be good, and a bounded line of those
//! that wait.
//!
//! Invariants:
//! - A request that waits is granted, refused or gone, exactly one of the three.
//! - Nobody takes a slot past a request that waits and could take it.
//! - A slot that comes back is offered to the line by whoever gives it back.
//!
//! A line that has not been empty for twice the target stands: then requests older than the target
//! are refused, and once that has happened the newest go first, until the line is short again.
//! Sources: CoDel (RFC 8289) for the standing queue; Maurer, "Fail at Scale" (2015), for both rules
//! in a queue of requests.

use super::line::{Line, Standing};
use super::{Class, RefusalReason};
use crate::lock::lock;
use mainstay_resilience::{
    AdaptiveConfig, AdaptiveLimit, Clock, ConfigError, Context, OwnedAdaptivePermit, Tick,
};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

/// The queue in front of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineConfig {
    /// Requests that may wait, 0 to 100 000; with 0 what does not fit is refused at once.
    pub length: u32,
    /// How long a request waits at most, 1 ms to 1 min.
    pub timeout: Duration,
    /// The age from which requests are refused while the line stands, 1 ms to 1 min.
    pub target: Duration,
}

impl LineConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let within = |field: &str, value: Duration| {
            let range = Duration::from_millis(1)..=Duration::from_secs(60);
            let wrong = || ConfigError::new(field, format!("{value:?}"), "1 ms to 1 min");
            if range.contains(&value) { Ok(()) } else { Err(wrong()) }
        };
        if self.length > 100_000 {
            return Err(ConfigError::new("queue_length", self.length, "0 to 100000"));
        }
        within("queue_timeout", self.timeout)?;
        within("queue_target", self.target)
    }
}

/// How full a gate is.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct GateReport {
    /// Requests at a time, now.
    pub limit: u64,
    /// Requests under way.
    pub in_use: u64,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that may wait.
    pub waiting_max: usize,
    /// How long the oldest has waited, in milliseconds.
    pub oldest_ms: u64,
    /// Whether old requests are refused because the line stands.
    pub shedding: bool,
}

/// A gate; shared by reference counts.
#[derive(Debug)]
pub(super) struct Gate {
    clock: Clock,
    limit: AdaptiveLimit,
    /// Requests in the line, readable without its lock.
    waiting: AtomicUsize,
    line: Mutex<Queue>,
    /// Requests that gave up waiting or were cancelled.
    left: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    config: LineConfig,
    line: Line<Arc<Waiter>>,
    /// Since when the line has not been empty.
    since: Option<Tick>,
    shedding: bool,
}

#[derive(Debug)]
struct Waiter(Mutex<Fate>);

#[derive(Debug)]
enum Fate {
    Waiting(Option<Waker>),
    Granted(OwnedAdaptivePermit),
    Refused(RefusalReason),
    /// Told, or gone.
    Over,
}

impl Waiter {
    /// Decides; whether somebody was still there to hear it.
    fn decide(&self, fate: Fate) -> bool {
        let waker = {
            let mut now = lock(&self.0);
            let Fate::Waiting(waker) = &mut *now else { return false };
            let waker = waker.take();
            *now = fate;
            waker
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

/// What became of a request that asked to enter.
pub(super) enum Entered {
    Now(GatePermit),
    Waits(Waiting),
    Refused(RefusalReason),
}

impl Gate {
    pub(super) fn new(
        name: &'static str,
        adaptive: AdaptiveConfig,
        config: LineConfig,
        clock: Clock,
    ) -> Result<Arc<Self>, ConfigError> {
        config.validate()?;
        let limit = AdaptiveLimit::with_clock(name, adaptive, clock.clone())?;
        let line = Queue { config, line: Line::default(), since: None, shedding: false };
        let (waiting, left) = (AtomicUsize::new(0), AtomicU64::new(0));
        Ok(Arc::new(Gate { clock, limit, waiting, line: Mutex::new(line), left }))
    }

    /// Takes over another configuration; who runs or waits goes on.
    pub(super) fn reconfigure(
        self: &Arc<Self>,
        adaptive: AdaptiveConfig,
        config: LineConfig,
    ) -> Result<(), ConfigError> {
        config.validate()?;
        self.limit.reconfigure(adaptive)?;
        lock(&self.line).config = config;
        self.serve();
        Ok(())
    }

    pub(super) fn timeout(&self) -> Duration {
        lock(&self.line).config.timeout
    }

    /// When to come again: once what waits now is done or gone.
    pub(super) fn retry_after(&self) -> Duration {
        let queue = lock(&self.line);
        queue.line.oldest_age(self.clock.now()).max(queue.config.target)
    }

    pub(super) fn report(&self) -> GateReport {
        let queue = lock(&self.line);
        let oldest = queue.line.oldest_age(self.clock.now()).as_millis();
        GateReport {
            limit: self.limit.limit(),
            in_use: self.limit.in_use(),
            waiting: queue.line.len(),
            waiting_max: queue.config.length as usize,
            oldest_ms: u64::try_from(oldest).unwrap_or(u64::MAX),
            shedding: queue.shedding,
        }
    }

    /// Whether a request would be refused now; a look before its body is read. `key` is asked for who it
    /// comes from, where there is a line.
    pub(super) fn is_closed_to(&self, class: Class, key: impl FnOnce() -> u64) -> bool {
        let length = self.waiting.load(Ordering::Relaxed);
        // The usual case needs no lock.
        if length == 0 && self.limit.in_use() < self.limit.limit() {
            return false;
        }
        let queue = lock(&self.line);
        let full = queue.line.len() >= queue.config.length as usize;
        let free = queue.line.len() == 0 && self.limit.in_use() < self.limit.limit();
        full && !free && queue.line.would_refuse(class, key())
    }

    fn take(&self, class: Class) -> Option<OwnedAdaptivePermit> {
        self.limit.try_acquire_owned(Context::from(class.slot_priority())).ok()
    }

    /// A slot now, a place in the line, or neither. `key` is asked as by [`is_closed_to`](Self::is_closed_to).
    pub(super) fn enter(self: &Arc<Self>, class: Class, key: impl FnOnce() -> u64) -> Entered {
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Some(permit) = self.take(class)
        {
            return Entered::Now(self.permit(permit));
        }
        let (key, now) = (key(), self.clock.now());
        let mut told = Vec::new();
        let entered = {
            let mut queue = lock(&self.line);
            self.place(&mut queue, class, key, now, &mut told)
        };
        if self.tell(told) {
            self.serve();
        }
        entered
    }

    fn place(
        self: &Arc<Self>,
        queue: &mut Queue,
        class: Class,
        key: u64,
        now: Tick,
        told: &mut Vec<(Arc<Waiter>, Fate)>,
    ) -> Entered {
        let nobody_before = queue.line.next_class().is_none_or(|waiting| waiting < class);
        if nobody_before && let Some(permit) = self.take(class) {
            return Entered::Now(self.permit(permit));
        }
        let length = queue.config.length as usize;
        if queue.line.len() >= length {
            let displaced = if length == 0 { None } else { queue.line.displace(class, key) };
            let Some(displaced) = displaced else {
                return Entered::Refused(RefusalReason::QueueFull);
            };
            told.push((displaced, Fate::Refused(RefusalReason::Displaced)));
        }
        let waiter = Arc::new(Waiter(Mutex::new(Fate::Waiting(None))));
        let standing = queue.line.push(class, key, now, Arc::clone(&waiter));
        queue.since.get_or_insert(now);
        self.waiting.store(queue.line.len(), Ordering::Relaxed);
        // Pairs with the fence of whoever gives a slot back: it sees the line, or its slot is seen
        // here.
        fence(Ordering::SeqCst);
        self.hand_out(queue, now, told);
        let gate = Arc::clone(self);
        Entered::Waits(Waiting { gate, waiter, standing, since: now, is_over: false })
    }

    fn permit(self: &Arc<Self>, permit: OwnedAdaptivePermit) -> GatePermit {
        GatePermit { permit: Some(permit), gate: Arc::clone(self) }
    }

    /// Hands free slots to the line.
    fn serve(&self) {
        loop {
            fence(Ordering::SeqCst);
            if self.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            let mut told = Vec::new();
            {
                let now = self.clock.now();
                let mut queue = lock(&self.line);
                self.hand_out(&mut queue, now, &mut told);
            }
            if !self.tell(told) {
                return;
            }
        }
    }

    /// Tells each its fate, outside the lock: waking runs code of others. Whether a slot came back,
    /// because whoever it was meant for had gone.
    fn tell(&self, told: Vec<(Arc<Waiter>, Fate)>) -> bool {
        let mut came_back = false;
        for (waiter, fate) in told {
            let is_slot = matches!(fate, Fate::Granted(_));
            came_back |= !waiter.decide(fate) && is_slot;
        }
        came_back
    }

    fn hand_out(&self, queue: &mut Queue, now: Tick, told: &mut Vec<(Arc<Waiter>, Fate)>) {
        let target = queue.config.target;
        while let Some(class) = queue.line.next_class() {
            let Some(permit) = self.take(class) else { break };
            let Some((waiter, _)) = queue.line.pop(queue.shedding) else { break };
            told.push((waiter, Fate::Granted(permit)));
        }
        let stands = queue.since.is_some_and(|since| now.since(since) >= 2 * target);
        if stands {
            let shed = queue.line.shed(target, now);
            queue.shedding |= !shed.is_empty();
            let refused = || Fate::Refused(RefusalReason::QueueAge);
            told.extend(shed.into_iter().map(|waiter| (waiter, refused())));
        }
        self.settle(queue, now);
    }

    /// What follows from the line's present length.
    fn settle(&self, queue: &mut Queue, now: Tick) {
        self.waiting.store(queue.line.len(), Ordering::Relaxed);
        if queue.line.len() == 0 {
            queue.since = None;
            queue.shedding = false;
        } else if queue.shedding && queue.line.oldest_age(now) < queue.config.target / 2 {
            queue.shedding = false;
        }
    }
}

/// A slot. Dropped without a word it was a cancelled request, which teaches nothing.
#[derive(Debug)]
pub(super) struct GatePermit {
    permit: Option<OwnedAdaptivePermit>,
    gate: Arc<Gate>,
}

impl GatePermit {
    /// The request was done; its duration counts.
    pub(super) fn success(mut self) {
        if let Some(permit) = self.permit.take() {
            permit.success();
        }
    }

    /// The request ran out of time for load: the limit may be too high.
    pub(super) fn overloaded(mut self) {
        if let Some(permit) = self.permit.take() {
            permit.overloaded();
        }
    }
}

impl Drop for GatePermit {
    fn drop(&mut self) {
        // The slot comes back before the line is looked at.
        drop(self.permit.take());
        self.gate.serve();
    }
}

/// A place in the line, left when dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    gate: Arc<Gate>,
    waiter: Arc<Waiter>,
    standing: Standing,
    since: Tick,
    is_over: bool,
}

impl Waiting {
    /// Since when it waits.
    pub(super) fn since(&self) -> Tick {
        self.since
    }

    /// Ready once it is granted or refused.
    pub(super) fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Result<GatePermit, RefusalReason>> {
        let mut fate = lock(&self.waiter.0);
        if let Fate::Waiting(waker) = &mut *fate {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        self.is_over = true;
        Poll::Ready(match std::mem::replace(&mut *fate, Fate::Over) {
            Fate::Granted(permit) => Ok(self.gate.permit(permit)),
            Fate::Refused(reason) => Err(reason),
            Fate::Waiting(_) | Fate::Over => Err(RefusalReason::QueueTimeout),
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.gate.left.fetch_add(1, Ordering::Relaxed);
        {
            let now = self.gate.clock.now();
            let mut queue = lock(&self.gate.line);
            drop(queue.line.leave(self.standing));
            self.gate.settle(&mut queue, now);
        }
        // Granted meanwhile: the slot goes to the next.
        let fate = std::mem::replace(&mut *lock(&self.waiter.0), Fate::Over);
        if let Fate::Granted(permit) = fate {
            drop(self.gate.permit(permit));
        }
    }
}
