//! [`Metric`]: what is declared about one metric, once.
//!
//! The declaration decides what is exported: its name, unit, buckets, help, and the values that each
//! label may have. [`Meter`](crate::meter::Meter) refuses what is not declared.

/// The most distinct values of a label that is not a closed set, when a declaration names no other
/// bound: enough for every collection and dependency of a large node, and at ten series each still
/// a page that is scraped in milliseconds.
pub const VALUES_MAX: usize = 128;

/// The value that stands for all values beyond a label's bound.
pub const OTHER: &str = "other";

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name as Prometheus stores it; counters end in `_total`.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// What it counts in; base units only.
    pub unit: Unit,
    /// What it says, in one line.
    pub help: &'static str,
    /// Its labels; a sample has all of them.
    pub labels: &'static [Label],
    /// When it appears.
    pub shown: Shown,
    /// Another name under which a library records it; empty when there is none.
    pub recorded_as: &'static str,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
    /// Observations counted in buckets; these are their upper bounds, rising, without infinity.
    Histogram(&'static [f64]),
}

/// What a metric counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share from 0 to 1.
    Ratio,
}

/// A label and what it may hold.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// The values of a label.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// These; any other is a fault of the program and shown as [`OTHER`].
    OneOf(&'static [&'static str]),
    /// Whatever comes, but at most so many; later ones are shown as [`OTHER`].
    AtMost(usize),
}

/// When a metric appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// In every scrape of a server. Counters whose labels are closed sets begin at 0.
    Always,
    /// After the first such event.
    After(&'static str),
}

impl Metric {
    const fn new(
        name: &'static str,
        kind: MetricKind,
        help: &'static str,
        labels: &'static [Label],
    ) -> Self {
        let (unit, shown) = (Unit::None, Shown::Always);
        Self { name, kind, unit, help, labels, shown, recorded_as: "" }
    }

    /// A counter.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self::new(name, MetricKind::Counter, help, labels)
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self::new(name, MetricKind::Gauge, help, labels)
    }

    /// A histogram with these upper bounds.
    #[must_use]
    pub const fn histogram(
        name: &'static str,
        bounds: &'static [f64],
        help: &'static str,
        labels: &'static [Label],
    ) -> Self {
        Self::new(name, MetricKind::Histogram(bounds), help, labels)
    }

    /// The same in this unit.
    #[must_use]
    pub const fn unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// The same, appearing only after `event`.
    #[must_use]
    pub const fn after(self, event: &'static str) -> Self {
        Self { shown: Shown::After(event), ..self }
    }

    /// The same, recorded by a library under its own name.
    #[must_use]
    pub const fn recorded_as(self, name: &'static str) -> Self {
        Self { recorded_as: name, ..self }
    }

    /// The name of its family in OpenMetrics, where the samples of counters carry the suffix and
    /// the family does not.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match self.kind {
            MetricKind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        }
    }
}

impl MetricKind {
    /// `counter`, `gauge` or `histogram`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        }
    }
}

impl Unit {
    /// The unit as OpenMetrics writes it; nothing for things.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Unit::None => None,
            Unit::Seconds => Some("seconds"),
            Unit::Bytes => Some("bytes"),
            Unit::Ratio => Some("ratio"),
        }
    }
}

impl Label {
    /// A label with a closed set of values.
    #[must_use]
    pub const fn one_of(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values: Values::OneOf(values) }
    }

    /// A label with at most [`VALUES_MAX`] values.
    #[must_use]
    pub const fn open(name: &'static str) -> Self {
        Self { name, values: Values::AtMost(VALUES_MAX) }
    }
}
