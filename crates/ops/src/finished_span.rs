//! [`FinishedSpan`]: a span that has ended, as it is handed to a collector.

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedSpan {
    /// The trace.
    pub trace_id: u128,
    /// The span.
    pub span_id: u64,
    /// Its parent; 0 for none.
    pub parent_span_id: u64,
    /// The state of other tracing systems.
    pub state: String,
    /// Its name.
    pub name: String,
    /// How it stands to other processes.
    pub kind: SpanKind,
    /// When it began, in nanoseconds since 1970.
    pub begun_ns: u64,
    /// When it ended, in nanoseconds since 1970.
    pub ended_ns: u64,
    /// What is known about it.
    pub attributes: Vec<(&'static str, SpanValue)>,
    /// Warnings and errors inside it.
    pub events: Vec<SpanEvent>,
    /// Whether an error was logged inside it, or it says of itself that it failed.
    pub failed: bool,
}

/// How a span stands to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// It stays inside.
    Internal,
    /// It answers a caller.
    Server,
    /// It calls a dependency.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum SpanValue {
    /// A text, with secrets replaced.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Truth(bool),
}

/// A warning or an error inside a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// When, in nanoseconds since 1970.
    pub at_ns: u64,
    /// Its message.
    pub message: String,
    /// Its fields.
    pub attributes: Vec<(&'static str, SpanValue)>,
}
