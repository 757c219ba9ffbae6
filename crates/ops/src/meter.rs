//! [`Meter`]: receives what every floor records through the `metrics` façade, and keeps what is
//! declared.
//!
//! Invariants:
//! - Nothing is exported that the table does not declare: an unknown name, kind or label is counted
//!   in `mainstay_metrics_undeclared_total`, logged once, and dropped.
//! - The number of series is bounded by the declarations: beyond a label's bound a value counts as
//!   [`OTHER`].
//! - A series that was seen before is found and moved without a lock; a lock is taken when one is
//!   seen for the first time, and to export.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit as FacadeUnit,
};

use crate::metric::{Metric, MetricKind, OTHER, Shown, Values};
use crate::series::Series;

/// Keys that are remembered as the façade gives them, over all metrics: a process has some hundreds,
/// and the same series may be recorded with its labels in another order. Beyond it the lock is taken.
const SEEN_MAX: usize = 8192;
/// Undeclared names that are logged, each once.
const UNDECLARED_NAMES_MAX: usize = 64;
/// The counter of what was refused.
const UNDECLARED: &str = "mainstay_metrics_undeclared_total";

static INSTALLED: OnceLock<&'static Meter> = OnceLock::new();
/// Held while a receiver is installed: two callers at once must not both try.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Receives metrics and keeps those that are declared.
pub struct Meter {
    families: Vec<Family>,
    by_name: HashMap<&'static str, usize>,
    seen: ArcSwap<Seen>,
    seeing: Mutex<()>,
    undeclared: AtomicU64,
    undeclared_names: Mutex<HashSet<String>>,
}

type Seen = HashMap<u64, Arc<Known>, BuildHasherDefault<AsItIs>>;

/// A key as the façade gives it, and its series.
struct Known {
    key: Key,
    kind: MetricKind,
    series: Arc<Series>,
}

/// One metric and its series by their labels' values.
pub(crate) struct Family {
    pub(crate) metric: &'static Metric,
    series: Mutex<BTreeMap<Vec<String>, Arc<Series>>>,
    overflowed: AtomicBool,
}

impl Family {
    /// The series, sorted by the values of their labels.
    pub(crate) fn series(&self) -> MutexGuard<'_, BTreeMap<Vec<String>, Arc<Series>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of these values; a value beyond its label's bound becomes [`OTHER`].
    fn of(&self, mut values: Vec<String>) -> Arc<Series> {
        let mut series = self.series();
        if let Some(found) = series.get(&values) {
            return Arc::clone(found);
        }
        for (at, label) in self.metric.labels.iter().enumerate() {
            let Values::AtMost(most) = label.values else { continue };
            let known: HashSet<&str> = series.keys().map(|values| values[at].as_str()).collect();
            if !known.contains(values[at].as_str()) && known.len() >= most {
                values[at] = OTHER.to_string();
                if !self.overflowed.swap(true, Ordering::Relaxed) {
                    let (metric, label) = (self.metric.name, label.name);
                    tracing::warn!(metric, label, most, "further values are counted as \"other\"");
                }
            }
        }
        let made = || Arc::new(Series::new(self.metric.kind));
        Arc::clone(series.entry(values).or_insert_with(made))
    }
}

impl Meter {
    /// A meter for these declarations. Counters that appear always and have only labels with closed
    /// sets begin at 0.
    #[must_use]
    pub fn new(table: &'static [Metric]) -> Self {
        let family = |metric: &'static Metric| Family {
            metric,
            series: Mutex::default(),
            overflowed: AtomicBool::new(false),
        };
        let families: Vec<Family> = table.iter().map(family).collect();
        let mut by_name = HashMap::new();
        for (at, metric) in table.iter().enumerate() {
            by_name.insert(metric.name, at);
            if !metric.recorded_as.is_empty() {
                by_name.insert(metric.recorded_as, at);
            }
        }
        let meter = Self {
            families,
            by_name,
            seen: ArcSwap::default(),
            seeing: Mutex::new(()),
            undeclared: AtomicU64::new(0),
            undeclared_names: Mutex::default(),
        };
        meter.begin_at_zero();
        meter
    }

    /// Receives metrics from now on, for the rest of the process; a second call answers the first
    /// one's meter.
    ///
    /// # Errors
    /// Another library has installed a receiver.
    pub fn install(table: &'static [Metric]) -> Result<&'static Meter, MeterError> {
        let _turn = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = INSTALLED.get() {
            return Ok(meter);
        }
        let meter: &'static Meter = Box::leak(Box::new(Meter::new(table)));
        metrics::set_global_recorder(meter).map_err(|_| MeterError)?;
        Ok(INSTALLED.get_or_init(|| meter))
    }

    /// The meter that [`install`](Self::install) installed.
    #[must_use]
    pub fn installed() -> Option<&'static Meter> {
        INSTALLED.get().copied()
    }

    /// How many records were refused because the table does not declare them.
    #[must_use]
    pub fn undeclared(&self) -> u64 {
        self.undeclared.load(Ordering::Relaxed)
    }

    /// The names that were refused, sorted; the first 64 of them.
    #[must_use]
    pub fn undeclared_names(&self) -> Vec<String> {
        let names = self.undeclared_names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = names.iter().cloned().collect();
        names.sort();
        names
    }

    /// The families, in the order of the table.
    pub(crate) fn families(&self) -> &[Family] {
        if let Some(&at) = self.by_name.get(UNDECLARED) {
            self.families[at].of(Vec::new()).raise_to(self.undeclared());
        }
        &self.families
    }

    fn begin_at_zero(&self) {
        for family in &self.families {
            if family.metric.shown != Shown::Always || family.metric.kind != MetricKind::Counter {
                continue;
            }
            let mut all: Vec<Vec<String>> = vec![Vec::new()];
            for label in family.metric.labels {
                let Values::OneOf(values) = label.values else {
                    all.clear();
                    break;
                };
                let with = |before: &Vec<String>, value: &str| {
                    let mut values = before.clone();
                    values.push(value.to_string());
                    values
                };
                all = all.iter().flat_map(|it| values.iter().map(|v| with(it, v))).collect();
            }
            for values in all {
                family.of(values);
            }
        }
    }

    fn find(&self, key: &Key, kind: MetricKind) -> Option<Arc<Series>> {
        let seen = self.seen.load();
        match seen.get(&key.get_hash()) {
            Some(known) if known.key == *key && same_kind(known.kind, kind) => {
                Some(Arc::clone(&known.series))
            }
            _ => self.find_slowly(key, kind),
        }
    }

    #[cold]
    fn find_slowly(&self, key: &Key, kind: MetricKind) -> Option<Arc<Series>> {
        let Some(family) = self.by_name.get(key.name()).map(|&at| &self.families[at]) else {
            self.refuse(key.name(), "no such metric is declared");
            return None;
        };
        if !same_kind(family.metric.kind, kind) {
            self.refuse(key.name(), "it is declared as another kind");
            return None;
        }
        let Some(values) = self.values(key, family.metric) else {
            self.refuse(key.name(), "its labels are declared otherwise");
            return None;
        };
        let series = family.of(values);
        let _turn = self.seeing.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen.load();
        if seen.len() < SEEN_MAX && !seen.contains_key(&key.get_hash()) {
            let known = Known { key: key.clone(), kind, series: Arc::clone(&series) };
            let mut more = Seen::clone(&seen);
            more.insert(key.get_hash(), Arc::new(known));
            self.seen.store(Arc::new(more));
        }
        Some(series)
    }

    /// The labels' values in the order of the declaration; nothing when the names differ.
    fn values(&self, key: &Key, metric: &Metric) -> Option<Vec<String>> {
        if key.labels().len() != metric.labels.len() {
            return None;
        }
        let value = |declared: &crate::metric::Label| {
            let label = key.labels().find(|label| label.key() == declared.name)?;
            match declared.values {
                Values::OneOf(all) if !all.contains(&label.value()) => {
                    self.refuse(key.name(), "a label has a value that is not declared");
                    Some(OTHER.to_string())
                }
                _ => Some(label.value().to_string()),
            }
        };
        metric.labels.iter().map(value).collect()
    }

    fn refuse(&self, name: &str, reason: &str) {
        self.undeclared.fetch_add(1, Ordering::Relaxed);
        let mut names = self.undeclared_names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < UNDECLARED_NAMES_MAX && names.insert(name.to_string()) {
            drop(names);
            tracing::error!(metric = name, reason, "metric refused");
        }
    }
}

fn same_kind(one: MetricKind, other: MetricKind) -> bool {
    std::mem::discriminant(&one) == std::mem::discriminant(&other)
}

impl Recorder for Meter {
    fn describe_counter(&self, _: KeyName, _: Option<FacadeUnit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<FacadeUnit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<FacadeUnit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.find(key, MetricKind::Counter).map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.find(key, MetricKind::Gauge).map_or_else(Gauge::noop, Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let series = self.find(key, MetricKind::Histogram(&[]));
        series.map_or_else(Histogram::noop, Histogram::from_arc)
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Meter({} metrics)", self.families.len())
    }
}

/// Another library receives this process's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterError;

impl std::fmt::Display for MeterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("another receiver of metrics is installed in this process")
    }
}

impl std::error::Error for MeterError {}

/// Keys bring their hash along.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
