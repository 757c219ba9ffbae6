//! What the parts of an open log have in common: its files, how far it is durable, and whether
//! it may be written.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::cache::Cache;
use super::error::{Damage, LogError};
use super::options::LogOptions;
use super::segment::Segment;
use super::spare::Spares;
use crate::fs::FileSystem;

/// The highest numbers among the segment files, those that cannot be read included: what stands
/// in for a file must have a higher generation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NamesEnd {
    pub(crate) last_number: u64,
    pub(crate) generation: u32,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Arc<LogOptions>,
    pub(crate) spares: Spares,
    pub(crate) cache: Cache,
    segments: RwLock<Arc<[Arc<Segment>]>>,
    durable_seq: Mutex<u64>,
    advanced: Condvar,
    poison: Mutex<Option<Arc<str>>>,
    closed: AtomicBool,
    damage: Mutex<Vec<Damage>>,
    names_end: Mutex<NamesEnd>,
}

impl State {
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        options: Arc<LogOptions>,
        spares: Spares,
    ) -> Self {
        Self {
            fs,
            dir,
            spares,
            cache: Cache::new(options.cache_bytes),
            options,
            segments: RwLock::new(Arc::new([])),
            durable_seq: Mutex::new(0),
            advanced: Condvar::new(),
            poison: Mutex::new(None),
            closed: AtomicBool::new(false),
            damage: Mutex::new(Vec::new()),
            names_end: Mutex::default(),
        }
    }

    /// The segments as they are now, in order. Stays readable whatever happens to the files.
    pub(crate) fn segments(&self) -> Arc<[Arc<Segment>]> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_segments(&self, segments: Vec<Arc<Segment>>) {
        let bytes = segments.iter().map(|segment| segment.end()).sum();
        *self.segments.write().unwrap_or_else(PoisonError::into_inner) = segments.into();
        self.spares.set_log_bytes(bytes);
    }

    /// Changes the list of segments in one step.
    pub(crate) fn update_segments(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let mut guard = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut segments = guard.to_vec();
        change(&mut segments);
        let bytes = segments.iter().map(|segment| segment.end()).sum();
        *guard = segments.into();
        drop(guard);
        self.spares.set_log_bytes(bytes);
    }

    pub(crate) fn durable_seq(&self) -> u64 {
        *self.durable()
    }

    pub(crate) fn set_durable_seq(&self, seq: u64) {
        *self.durable() = seq;
        self.advanced.notify_all();
    }

    /// Blocks until something beyond `seq` is durable, the time is over, or the log is poisoned or
    /// closed.
    pub(crate) fn wait_beyond(&self, seq: u64, timeout: Duration) -> u64 {
        let deadline = Instant::now() + timeout;
        let mut durable = self.durable();
        while *durable <= seq && !self.is_poisoned() && !self.closed.load(Ordering::Acquire) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.advanced.wait_timeout(durable, left);
            durable = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *durable
    }

    /// Nothing more will be written.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes those who wait in [`State::wait_beyond`].
    fn wake(&self) {
        let _durable = self.durable();
        self.advanced.notify_all();
    }

    /// Ends all writing: what is on the disk is not known any more. Runs the fatal handler.
    pub(crate) fn poison(&self, error: &LogError) -> Arc<str> {
        let reason: Arc<str> = error.to_string().into();
        let first = {
            let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
            let first = poison.is_none();
            poison.get_or_insert_with(|| Arc::clone(&reason));
            first
        };
        if first {
            (self.options.on_fatal)(error);
        }
        self.wake();
        reason
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(crate) fn damage(&self) -> Vec<Damage> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_damage(&self, damage: Vec<Damage>) {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = damage;
    }

    /// As found when the log was opened.
    pub(crate) fn names_end(&self) -> NamesEnd {
        *self.names_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_names_end(&self, names_end: NamesEnd) {
        *self.names_end.lock().unwrap_or_else(PoisonError::into_inner) = names_end;
    }

    /// Refuses if nothing may be written at all.
    pub(crate) fn check_writable(&self) -> Result<(), LogError> {
        if let Some(reason) = &*self.poison.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(LogError::Poisoned { reason: Arc::clone(reason) });
        }
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        match damage.first() {
            Some(first) => Err(LogError::ReadOnly { damage: first.clone(), ranges: damage.len() }),
            None => Ok(()),
        }
    }

    fn durable(&self) -> MutexGuard<'_, u64> {
        self.durable_seq.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
