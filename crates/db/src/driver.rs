//! The driver: one thread for each view that carries records from the log into it.
//!
//! What it promises:
//! - Records are applied in log order, each once per view; none is skipped unless it was set aside
//!   durably first.
//! - A view that fails is tried again, ever more slowly, and serves what it has meanwhile. A batch
//!   that fails for another reason than IO is applied record by record, so that the one at fault is
//!   found; a record that fails [`ATTEMPTS_MAX`] times alone is set aside.
//! - A panic inside a view costs that view its memory, not the process its life: the view is opened
//!   again from its checkpoint.
//! - A damaged view is thrown away and rebuilt from the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mainstay_search::view::{Merged, ViewError};

use crate::driven::RefusedSeq;
use crate::engine::Engine;
use crate::large_records::{LargeRecords, Turn};

use crate::panics::panic_message;
use crate::record::Change;
use crate::set_aside::SetAsideEntry;
use crate::slot::{Held, Slot, ViewState};

/// Bytes of log applied in one batch: large enough to pay for publishing, small enough that readers
/// are never far behind.
const BATCH_BYTES: u64 = 2 << 20;
/// How often one record is tried alone before it is set aside.
const ATTEMPTS_MAX: u32 = 3;
/// The longest sleep for new records; bounds how long a finished merge or a shutdown waits.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// The first and the longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// Memory that a view may hold before it must make a checkpoint.
const CHECKPOINT_BYTES: u64 = 48 << 20;
/// The same while memory is short: small files now rather than none later.
const CHECKPOINT_BYTES_SHORT: u64 = 1 << 20;
/// A view with nothing to do makes its checkpoint after this time, so that a restart has little to replay.
const CHECKPOINT_IDLE: Duration = Duration::from_secs(5);
/// The longest time between two checkpoints of a view that changes.
const CHECKPOINT_BUSY: Duration = Duration::from_secs(60);

/// Drives one view until the collection closes.
pub(crate) struct Driver {
    inner: Arc<Engine>,
    slot: Arc<Slot>,
    merging: Option<Receiver<Result<Merged, ViewError>>>,
    checkpoint_at: Instant,
    failures: u32,
    /// Up to here records are applied one by one because a batch with them failed.
    careful_through: u64,
    /// The record that failed alone last, and how often.
    suspect: (u64, u32),
}

/// How one step went.
enum Step {
    /// Records were applied.
    Advanced,
    /// There was nothing to do.
    Idle,
    /// There is no view to drive: it must be rebuilt.
    Absent,
    /// The view on disk is left alone until somebody asks for a rebuild.
    Foreign,
}

/// Why one step failed.
enum Fault {
    View(ViewError),
    Log(mainstay_storage::LogError),
    Panic(String),
}

impl Driver {
    pub(crate) fn new(inner: Arc<Engine>, slot: Arc<Slot>) -> Self {
        Self {
            inner,
            slot,
            merging: None,
            checkpoint_at: Instant::now(),
            failures: 0,
            careful_through: 0,
            suspect: (0, 0),
        }
    }

    /// Runs until the collection closes; makes a last checkpoint.
    pub(crate) fn run(mut self) {
        while !self.inner.stopper.is_set() {
            // A panic ends what it met and not the view: whoever waits for it would wait for ever.
            let stepped = catch_unwind(AssertUnwindSafe(|| self.step()))
                .unwrap_or_else(|panic| Err(Fault::Panic(panic_message(panic.as_ref()))));
            match stepped {
                Ok(Step::Advanced) => self.recovered(),
                Ok(Step::Idle) => {
                    self.recovered();
                    let through = self.slot.held().driven.as_ref().map_or(0, |view| view.through());
                    self.inner.log.wait_beyond(through, IDLE_WAIT);
                }
                Ok(Step::Foreign) => {
                    self.inner.stopper.wait(IDLE_WAIT);
                }
                Ok(Step::Absent) => {
                    self.rebuild("nothing of it could be read");
                    self.inner.stopper.wait(IDLE_WAIT);
                }
                Err(fault) => self.failed(fault),
            }
        }
        let mut held = self.slot.held();
        if let Err(error) = self.slot.checkpoint(&mut held) {
            tracing::warn!(view = %self.slot.kind, %error, "no checkpoint at shutdown; the log will be replayed");
        }
    }

    fn recovered(&mut self) {
        if self.failures > 0 {
            self.failures = 0;
            self.slot.set_state(ViewState::Ready);
            tracing::info!(collection = self.inner.name(), view = %self.slot.kind, "view goes on");
        }
    }

    fn step(&mut self) -> Result<Step, Fault> {
        let slot = Arc::clone(&self.slot);
        let mut held = slot.held();
        if held.driven.is_none() {
            return Ok(if held.foreign.is_some() { Step::Foreign } else { Step::Absent });
        }
        self.finish_merge(&mut held)?;
        // Until what a large record needed is written.
        let turns = self.inner.runtime.large_records.clone();
        let mut turn = None;
        let advanced = self.advance(&mut held, &turns, &mut turn)?;
        self.checkpoint_when_due(&mut held, !advanced)?;
        drop(turn);
        self.start_merge(&held);
        drop(held);
        if advanced {
            self.inner.notify_applied();
        }
        Ok(if advanced { Step::Advanced } else { Step::Idle })
    }

    /// Applies the next batch; answers whether there was one.
    fn advance<'t>(
        &mut self,
        held: &mut Held,
        turns: &'t LargeRecords,
        turn: &mut Option<Turn<'t>>,
    ) -> Result<bool, Fault> {
        let Some(driven) = held.driven.as_mut() else { return Ok(false) };
        let from = driven.through() + 1;
        let batch;
        (batch, *turn) = self.inner.read_in_turn(turns, from, BATCH_BYTES).map_err(Fault::Log)?;
        let (mut entries, mut last) = (batch.entries, batch.next_seq - 1);
        if last < from {
            return Ok(false);
        }
        if from <= self.careful_through && entries.len() > 1 {
            entries.truncate(1);
            last = entries[0].seq;
        }
        let mut changes = Vec::with_capacity(entries.len());
        for entry in &entries {
            if self.inner.set_aside.contains(self.slot.kind.name(), entry.seq) {
                continue;
            }
            match Change::decode(entry.kind, &entry.payload) {
                Ok(change) => changes.push((entry.seq, change)),
                Err(error) => self.set_aside(entry.seq, String::new(), error.to_string())?,
            }
        }
        let ids: Vec<(u64, String)> = if entries.len() == 1 { ids(&changes) } else { Vec::new() };
        let kind = self.slot.kind.name();
        let records = entries.len();
        let span = tracing::info_span!(
            "view.apply",
            collection = self.inner.name(),
            view = kind,
            records,
            through = last
        );
        let begun = Instant::now();
        let outcome =
            span.in_scope(|| catch_unwind(AssertUnwindSafe(|| driven.apply(changes, last))));
        match outcome {
            Ok(Ok(refused)) => {
                metrics::histogram!("mainstay_view_apply_duration_seconds", "view" => kind)
                    .record(begun.elapsed());
                metrics::counter!("mainstay_view_records_applied_total", "view" => kind)
                    .increment(records as u64);
                self.keep_refused(refused)?;
                self.slot.publish(held);
                Ok(true)
            }
            Ok(Err(error)) => {
                self.suspect(from, last, ids, &error)?;
                Err(Fault::View(error))
            }
            Err(panic) => {
                let message = panic_message(panic.as_ref());
                let error = ViewError::Failed(format!("panic: {message}").into());
                self.suspect(from, last, ids, &error)?;
                Err(Fault::Panic(message))
            }
        }
    }

    /// Notes which records may be at fault; sets the one aside that failed alone too often.
    fn suspect(
        &mut self,
        from: u64,
        last: u64,
        ids: Vec<(u64, String)>,
        error: &ViewError,
    ) -> Result<(), Fault> {
        if matches!(error, ViewError::Io { .. } | ViewError::Damaged { .. }) {
            return Ok(());
        }
        self.careful_through = self.careful_through.max(last);
        if from != last {
            return Ok(());
        }
        let attempts = if self.suspect.0 == last { self.suspect.1 + 1 } else { 1 };
        self.suspect = (last, attempts);
        if attempts >= ATTEMPTS_MAX {
            let id = ids.into_iter().next().map(|(_, id)| id).unwrap_or_default();
            self.set_aside(last, id, error.to_string())?;
        }
        Ok(())
    }

    fn keep_refused(&self, refused: Vec<RefusedSeq>) -> Result<(), Fault> {
        for (seq, reason) in refused {
            let id = match self.inner.log.read(seq, 1).map_err(Fault::Log)?.first() {
                Some(entry) if entry.seq == seq => {
                    match Change::decode(entry.kind, &entry.payload) {
                        Ok(Change::Put(document)) => document.id,
                        Ok(Change::Delete(id)) => id,
                        Err(_) => String::new(),
                    }
                }
                _ => String::new(),
            };
            self.set_aside(seq, id, reason)?;
        }
        Ok(())
    }

    fn set_aside(&self, seq: u64, id: String, error: String) -> Result<(), Fault> {
        let view = self.slot.kind.name().to_string();
        tracing::error!(collection = self.inner.name(), %view, seq, %id, %error, "record set aside");
        metrics::counter!("mainstay_set_aside_total", "view" => view.clone()).increment(1);
        let entry = SetAsideEntry { view, seq, id, error, at_ms: self.inner.now_ms() };
        let add = self.inner.set_aside.add(entry);
        add.map_err(ViewError::io("set a record aside")).map_err(Fault::View)
    }

    fn checkpoint_when_due(&mut self, held: &mut Held, idle: bool) -> Result<(), Fault> {
        let Some(driven) = &held.driven else { return Ok(()) };
        let memory_bytes = driven.figures().memory_bytes;
        let changed = driven.through() > held.checkpointed || memory_bytes > 0;
        let waited = self.checkpoint_at.elapsed();
        let bytes_max = match self.inner.runtime.memory_is_short() {
            true => CHECKPOINT_BYTES_SHORT,
            false => CHECKPOINT_BYTES,
        };
        let due = memory_bytes >= bytes_max
            || changed && waited >= if idle { CHECKPOINT_IDLE } else { CHECKPOINT_BUSY };
        if due {
            self.checkpoint_at = Instant::now();
            self.slot.checkpoint(held).map_err(Fault::View)?;
        }
        Ok(())
    }

    fn start_merge(&mut self, held: &Held) {
        let (None, Some(driven)) = (&self.merging, &held.driven) else { return };
        let Some(merge) = driven.plan_merge(&self.inner.living()) else { return };
        let (send, receive) = mpsc::channel();
        let stop = self.inner.stop_work.clone();
        let bytes = merge.bytes;
        let job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(|| (merge.run)(&stop)));
            let result = result.unwrap_or_else(|panic| {
                Err(ViewError::Failed(
                    format!("merge panicked: {}", panic_message(panic.as_ref())).into(),
                ))
            });
            // The driver may be gone by now; then the files are orphans that the next open removes.
            let _ = send.send(result);
        });
        self.inner.maintenance.submit(bytes, job);
        self.merging = Some(receive);
    }

    fn finish_merge(&mut self, held: &mut Held) -> Result<(), Fault> {
        let Some(receive) = &self.merging else { return Ok(()) };
        let result = match receive.try_recv() {
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => None,
            Ok(result) => Some(result),
        };
        self.merging = None;
        match (result, held.driven.as_mut()) {
            (Some(Ok(merged)), Some(driven)) => {
                driven.install(merged).map_err(Fault::View)?;
                self.slot.publish(held);
                Ok(())
            }
            (Some(Err(ViewError::Io { source, .. })), _)
                if source.kind() == std::io::ErrorKind::Interrupted =>
            {
                Ok(())
            }
            (Some(Err(error)), _) => Err(Fault::View(error)),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, fault: Fault) {
        self.failures = self.failures.saturating_add(1);
        let kind = self.slot.kind;
        // A future format is not damage: throwing it away would lose what a newer version made.
        let damaged = matches!(&fault, Fault::View(ViewError::Damaged { .. }));
        let panicked = matches!(&fault, Fault::Panic(_));
        let reason = match fault {
            Fault::View(error) => error.to_string(),
            Fault::Log(error) => error.to_string(),
            Fault::Panic(message) => format!("panic: {message}"),
        };
        tracing::error!(collection = self.inner.name(), view = %kind, %reason, failures = self.failures, "view failed");
        metrics::counter!("mainstay_view_failures_total", "view" => kind.name()).increment(1);
        self.slot.set_state(ViewState::Failing { reason: reason.clone() });
        if damaged {
            self.merging = None;
            self.rebuild(&reason);
        } else if panicked {
            self.merging = None;
            self.inner.restarts.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("mainstay_worker_restarts_total", "worker" => kind.name())
                .increment(1);
            self.inner.reopen(&self.slot);
        }
        let pause = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1);
        self.inner.stopper.wait(pause);
    }

    fn rebuild(&mut self, why: &str) {
        let kind = self.slot.kind;
        match crate::rebuild::rebuild(&self.inner, kind, &mut |_, _| {}) {
            Ok(()) => self.slot.note_mended(why),
            Err(error) => {
                tracing::error!(collection = self.inner.name(), view = %kind, %error, "rebuild failed; it is tried again");
            }
        }
    }
}

fn ids(changes: &[(u64, Change)]) -> Vec<(u64, String)> {
    let id = |change: &Change| match change {
        Change::Put(document) => document.id.clone(),
        Change::Delete(id) => id.clone(),
    };
    changes.iter().map(|(seq, change)| (*seq, id(change))).collect()
}
