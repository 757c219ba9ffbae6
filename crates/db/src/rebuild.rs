//! Rebuilding a view from the log while the old one goes on serving.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, TryLockError};

use mainstay_search::method::Method;
use mainstay_search::view::ViewError;

use crate::collection::Collection;
use crate::driven::{Driven, ViewKind};
use crate::embedding::Embedding;
use crate::engine::Engine;
use crate::error::DbError;
use crate::panics::panic_message;
use crate::record::Change;
use crate::set_aside::SetAsideEntry;
use crate::slot::{Slot, ViewState};

/// Bytes of log applied at once.
const BATCH_BYTES: u64 = 4 << 20;
/// The new view takes over under the lock when it is this close to the log's end.
const HANDOVER_RECORDS: u64 = 256;
/// Memory that the new view may hold before it must make a checkpoint.
const CHECKPOINT_BYTES: u64 = 48 << 20;

impl Collection {
    /// Makes the index of a method anew from the log, online: the old one serves until the new one
    /// has caught up. Reports records read and records in all.
    pub fn rebuild(
        &self,
        method: Method,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), DbError> {
        rebuild(&self.inner, ViewKind::Method(method), progress)
    }

    /// Makes the stored documents anew from the log. See [`Collection::rebuild`].
    pub fn rebuild_documents(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), DbError> {
        rebuild(&self.inner, ViewKind::Documents, progress)
    }
}

/// Records that may turn out to be poison in one rebuild, each costing one more attempt; more than
/// this means that the view is broken, not the records.
const POISON_MAX: usize = 32;

/// Rebuilds one view. At most one rebuild of a view runs at a time; a second one is refused.
pub(crate) fn rebuild(
    inner: &Arc<Engine>,
    kind: ViewKind,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), DbError> {
    let result = make_anew(inner, kind, progress);
    let outcome = if result.is_ok() { "done" } else { "failed" };
    metrics::counter!("mainstay_view_rebuilds_total", "view" => kind.name(), "result" => outcome)
        .increment(1);
    result
}

fn make_anew(
    inner: &Arc<Engine>,
    kind: ViewKind,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), DbError> {
    let slot = inner.slot(kind);
    let _turn = match slot.rebuilding.try_lock() {
        Ok(turn) => turn,
        Err(TryLockError::Poisoned(turn)) => PoisonError::into_inner(turn),
        Err(TryLockError::WouldBlock) => {
            return Err(DbError::Bound {
                message: format!("view {kind} is being rebuilt already; wait until it is done"),
            });
        }
    };
    let old = slot.held().generation;
    let generation = old + 1;
    // A rebuild of `semantic` takes up the model that is configured now, whatever made the old one.
    let embedding = match kind {
        ViewKind::Method(Method::Semantic) => {
            Embedding::for_rebuild(&inner.runtime, &inner.settings())?
        }
        _ => inner.embedding(),
    };
    let mut suspects = Suspects::default();
    tracing::info!(collection = inner.name(), view = %kind, generation, "rebuild begins");
    let mut work = loop {
        let driven = inner.open_generation(kind, generation, &embedding)?;
        let mut work = Rebuild { driven, refused: Vec::new(), inner, kind, suspects };
        match work.catch_up(slot, progress) {
            Ok(()) => break work,
            Err(error) if work.suspects.narrowed => {
                tracing::warn!(view = %kind, %error, "rebuild begins again, looking for the record at fault");
                suspects = std::mem::take(&mut work.suspects);
                suspects.narrowed = false;
            }
            Err(error) => return Err(error),
        }
    };
    let mut held = slot.held();
    while work.advance()? {}
    work.finish()?;
    let Rebuild { driven, refused, .. } = work;
    // The old view's records stay set aside until the new one has taken its place.
    inner.set_aside.clear(kind.name()).map_err(DbError::io("clear set-aside", &inner.folder))?;
    for entry in refused {
        inner.set_aside.add(entry).map_err(DbError::io("set a record aside", &inner.folder))?;
    }
    if kind == ViewKind::Method(Method::Semantic) {
        inner.change_settings(|settings| settings.spaces = embedding.identities())?;
        inner.set_embedding(embedding);
    }
    inner.commit_generation(kind, generation, old)?;
    held.checkpointed = driven.through();
    held.driven = Some(driven);
    held.generation = generation;
    held.foreign = None;
    slot.publish(&mut held);
    drop(held);
    slot.set_state(ViewState::Ready);
    inner.notify_applied();
    let total = inner.log.durable_seq();
    progress(total, total);
    tracing::info!(collection = inner.name(), view = %kind, generation, "rebuild done");
    Ok(())
}

struct Rebuild<'a> {
    inner: &'a Arc<Engine>,
    kind: ViewKind,
    driven: Box<dyn Driven>,
    refused: Vec<SetAsideEntry>,
    suspects: Suspects,
}

/// Which records a rebuild must be careful with, learnt from attempts that failed.
#[derive(Default)]
struct Suspects {
    /// The last batch that failed, first and last record: applied one by one the next time.
    careful: Option<(u64, u64)>,
    /// Records that failed alone, with what happened.
    poison: std::collections::BTreeMap<u64, String>,
    /// Whether the attempt that failed has taught something, so that another one makes sense.
    narrowed: bool,
}

impl Suspects {
    fn failed(&mut self, from: u64, last: u64, error: &str) {
        self.narrowed = self.poison.len() < POISON_MAX;
        if from == last {
            self.poison.insert(from, error.to_string());
        } else {
            self.careful = Some((from, last));
        }
    }

    fn is_careful(&self, seq: u64) -> bool {
        self.careful.is_some_and(|(from, last)| (from..=last).contains(&seq))
    }
}

impl Rebuild<'_> {
    /// Reads the log until the new view is close to its end.
    fn catch_up(&mut self, slot: &Slot, progress: &mut dyn FnMut(u64, u64)) -> Result<(), DbError> {
        loop {
            let total = self.inner.log.durable_seq();
            let done = self.driven.through();
            progress(done, total);
            slot.set_state(ViewState::Rebuilding { done, total });
            if self.inner.stopper.is_set() {
                return Err(DbError::Closed { name: self.inner.name().to_string() });
            }
            if done + HANDOVER_RECORDS >= total || !self.advance()? {
                return Ok(());
            }
        }
    }

    /// Applies the next batch; answers whether there was one.
    fn advance(&mut self) -> Result<bool, DbError> {
        let from = (self.driven.through() + 1).max(self.inner.log.first_seq());
        let turns = &self.inner.runtime.large_records;
        let (batch, _turn) = self.inner.read_in_turn(turns, from, BATCH_BYTES)?;
        let (mut entries, mut last) = (batch.entries, batch.next_seq - 1);
        if last < from {
            return Ok(false);
        }
        if self.suspects.is_careful(from) && entries.len() > 1 {
            entries.truncate(1);
            last = entries[0].seq;
        }
        let living = self.inner.documents().ok();
        let mut changes = Vec::with_capacity(entries.len());
        let mut ids = std::collections::HashMap::new();
        for entry in entries {
            if let Some(error) = self.suspects.poison.get(&entry.seq).cloned() {
                self.refuse(entry.seq, String::new(), error);
                continue;
            }
            match Change::decode(entry.kind, &entry.payload) {
                Ok(Change::Put(document)) => {
                    // What is known to be dead needs no index; the documents view itself needs the
                    // whole history to know.
                    let dead = self.kind != ViewKind::Documents
                        && living.as_ref().is_some_and(|documents| {
                            entry.seq <= documents.through()
                                && !documents.living().contains(crate::driven::number_of(entry.seq))
                        });
                    if !dead {
                        ids.insert(entry.seq, document.id.clone());
                        changes.push((entry.seq, Change::Put(document)));
                    }
                }
                Ok(change) => changes.push((entry.seq, change)),
                Err(error) => self.refuse(entry.seq, String::new(), error.to_string()),
            }
        }
        let driven = &mut self.driven;
        let outcome = catch_unwind(AssertUnwindSafe(|| driven.apply(changes, last)));
        let refused = match outcome {
            Ok(Ok(refused)) => refused,
            Ok(Err(error)) => {
                if !matches!(error, ViewError::Io { .. }) {
                    self.suspects.failed(from, last, &error.to_string());
                }
                return Err(self.failed(error));
            }
            Err(panic) => {
                let message = format!("panic: {}", panic_message(panic.as_ref()));
                self.suspects.failed(from, last, &message);
                return Err(self.failed(ViewError::Failed(message.into())));
            }
        };
        for (seq, reason) in refused {
            let id = ids.remove(&seq).unwrap_or_default();
            self.refuse(seq, id, reason);
        }
        if self.driven.figures().memory_bytes >= CHECKPOINT_BYTES {
            self.driven.checkpoint().map_err(|e| self.failed(e))?;
            self.merge()?;
        }
        Ok(true)
    }

    /// Merges as long as it pays, here and now: nobody reads this view yet.
    fn merge(&mut self) -> Result<(), DbError> {
        while let Some(merge) = self.driven.plan_merge(&self.inner.living()) {
            let merged = (merge.run)(&self.inner.stop_work).map_err(|e| self.failed(e))?;
            self.driven.install(merged).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DbError> {
        self.driven.checkpoint().map_err(|e| self.failed(e))
    }

    fn refuse(&mut self, seq: u64, id: String, error: String) {
        let view = self.kind.name().to_string();
        self.refused.push(SetAsideEntry { view, seq, id, error, at_ms: self.inner.now_ms() });
    }

    fn failed(&self, source: ViewError) -> DbError {
        DbError::View { view: self.kind.name(), source }
    }
}
