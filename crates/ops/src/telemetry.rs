//! [`Telemetry`]: the receivers of logs and traces, put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::log_lines::{LogFormat, LogLines, LogWriter};
use crate::receivers::{LogFilter, Received};
use crate::span_export::{SpanExport, SpanSink};
use crate::spans::{SampleRatio, Spans};

/// Crates below ours that write what goes over the wire into their most detailed lines: requests
/// with their headers and bodies. They speak from INFO on, whatever the filter says.
const WIRE_CRATES: [&str; 6] = ["ureq", "ureq_proto", "hyper", "hyper_util", "h2", "rustls"];

/// A crate below ours that warns of what is odd in somebody's documents. It speaks of errors, unless
/// the filter names it.
const DOCUMENT_CRATE: &str = "html5ever";

/// How logs and traces are received.
pub struct TelemetryConfig {
    /// What is logged: a level, or directives such as `info,mainstay_db=debug`.
    pub log_filter: String,
    /// How lines look.
    pub log_format: LogFormat,
    /// Where lines go.
    pub log_writer: LogWriter,
    /// The share of traces that are recorded where no caller has decided, 0 to 1.
    pub sample_ratio: f64,
    /// Where recorded spans are sent; nowhere without one.
    pub sink: Option<Box<dyn SpanSink>>,
}

/// What changes the receivers while they run.
pub struct Telemetry {
    filter: Arc<LogFilter>,
    sample_ratio: SampleRatio,
    export: Option<SpanExport>,
}

/// Why logs and traces cannot be received.
#[derive(Debug)]
pub enum TelemetryError {
    /// The filter cannot be read.
    Filter {
        /// What was written.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another receiver is installed in this process.
    Installed,
    /// The export's thread cannot be started.
    Thread(std::io::Error),
}

impl fmt::Display for TelemetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { filter, reason } => write!(
                f,
                "the log filter {filter:?} cannot be read: {reason}; write a level (error, warn, \
                 info, debug, trace, off) or directives such as info,mainstay_db=debug"
            ),
            Self::Installed => f.write_str("another receiver of logs is installed in this process"),
            Self::Thread(_) => f.write_str("the thread that exports spans cannot be started"),
        }
    }
}

impl std::error::Error for TelemetryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread(error) => Some(error),
            _ => None,
        }
    }
}

/// Reads a filter of log lines.
///
/// # Errors
/// What is wrong with it.
pub fn log_filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let unreadable = |reason: String| TelemetryError::Filter { filter: text.to_owned(), reason };
    let mut filter =
        EnvFilter::builder().parse(text).map_err(|error| unreadable(error.to_string()))?;
    let cap = |filter: EnvFilter, name: &str, level: &str| {
        let directive = format!("{name}={level}").parse();
        let directive = directive.map(|directive| filter.add_directive(directive));
        directive.map_err(|error| unreadable(error.to_string()))
    };
    // A filter that shows less stays as it is.
    let shows = |filter: &EnvFilter| filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    if shows(&filter) > LevelFilter::ERROR && !text.contains(DOCUMENT_CRATE) {
        filter = cap(filter, DOCUMENT_CRATE, "error")?;
    }
    if shows(&filter) <= LevelFilter::INFO {
        return Ok(filter);
    }
    WIRE_CRATES.iter().try_fold(filter, |filter, name| cap(filter, name, "info"))
}

impl Telemetry {
    /// Receives logs and traces from now on, for the rest of the process.
    ///
    /// # Errors
    /// See [`TelemetryError`].
    pub fn install(config: TelemetryConfig) -> Result<Self, TelemetryError> {
        let (telemetry, subscriber) = Self::build(config)?;
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|_| TelemetryError::Installed)?;
        // Crates that use the `log` façade speak through the same lines. Its bridge may be there
        // already; then it leads to the same subscriber.
        let _ = tracing_log::LogTracer::init();
        Ok(telemetry)
    }

    /// The receivers, not yet installed.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn build(
        config: TelemetryConfig,
    ) -> Result<(Self, impl tracing::Subscriber + Send + Sync), TelemetryError> {
        let filter = LogFilter::new(log_filter(&config.log_filter)?);
        let export = config.sink.map(SpanExport::start).transpose();
        let export = export.map_err(TelemetryError::Thread)?;
        // Nothing is said to be recorded that nobody records.
        let sample_ratio = SampleRatio::new(export.as_ref().map_or(0.0, |_| config.sample_ratio));
        let queue = export.as_ref().map(SpanExport::queue);
        let spans = Spans::new(queue.clone(), sample_ratio.clone());
        let lines = LogLines::new(config.log_format, config.log_writer);
        let subscriber = Received::new(lines, Arc::clone(&filter), spans, queue);
        Ok((Self { filter, sample_ratio, export }, subscriber))
    }

    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// What is wrong with the filter; then nothing changes.
    pub fn set_log_filter(&self, text: &str) -> Result<(), TelemetryError> {
        self.filter.set(log_filter(text)?);
        Ok(())
    }

    /// Changes the share of traces that are recorded where no caller has decided; without a sink
    /// none is.
    pub fn set_sample_ratio(&self, ratio: f64) {
        if self.export.is_some() {
            self.sample_ratio.set(ratio);
        }
    }

    /// Sends the spans that wait, at most for `patience`; answers whether that was enough.
    pub fn flush(&self, patience: Duration) -> bool {
        self.export.as_ref().is_none_or(|export| export.flush(patience))
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Telemetry(export: {})", self.export.is_some())
    }
}
