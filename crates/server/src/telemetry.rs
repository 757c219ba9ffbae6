//! [`Telemetry`]: logs, traces and correlation of a process, as the settings say.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_ops::correlation;
use mainstay_ops::log_lines::{LogFormat, LogWriter};
use mainstay_ops::span_export::SpanSink;
use mainstay_ops::telemetry::{self, TelemetryConfig};
use mainstay_resilience::Pipelines;

use crate::otlp::{Collector, CollectorConfig, Protocol};
use crate::settings::Settings;

/// What changes the receivers of logs and traces while they run.
pub struct Telemetry(telemetry::Telemetry);

/// Why logs and traces cannot be received.
#[derive(Debug)]
pub enum TelemetryFault {
    /// The receivers themselves.
    Receiver(telemetry::TelemetryError),
    /// The collector's address cannot be used.
    Endpoint {
        /// What is wrong with it. The address itself may hold a password and is not shown.
        reason: String,
    },
}

impl fmt::Display for TelemetryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receiver(error) => error.fmt(f),
            Self::Endpoint { reason } => write!(f, "telemetry.endpoint cannot be used: {reason}"),
        }
    }
}

impl std::error::Error for TelemetryFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Receiver(error) => Some(error),
            Self::Endpoint { .. } => None,
        }
    }
}

impl Telemetry {
    /// Receives logs and traces for a server from now on. The collector, if there is one, is called
    /// through `pipelines`, which are to be the server's own.
    ///
    /// # Errors
    /// What is wrong with the filter or the endpoint.
    pub fn install(settings: &Settings, pipelines: &Pipelines) -> Result<Self, TelemetryFault> {
        let config = config(settings, pipelines, stderr())?;
        correlate();
        telemetry::Telemetry::install(config).map(Self).map_err(TelemetryFault::Receiver)
    }

    /// The receivers with another writer, not yet installed: for tests and for programs that
    /// install receivers of their own.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn build(
        settings: &Settings,
        pipelines: &Pipelines,
        writer: LogWriter,
    ) -> Result<(Self, impl tracing::Subscriber + Send + Sync), TelemetryFault> {
        correlate();
        let built = telemetry::Telemetry::build(config(settings, pipelines, writer)?);
        let (telemetry, subscriber) = built.map_err(TelemetryFault::Receiver)?;
        Ok((Self(telemetry), subscriber))
    }

    /// Receives the logs of a command that is no server.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn of_command(filter: &str) -> Result<Self, TelemetryFault> {
        let config = TelemetryConfig {
            log_filter: filter.to_string(),
            log_format: human(),
            log_writer: stderr(),
            sample_ratio: 0.0,
            sink: None,
        };
        telemetry::Telemetry::install(config).map(Self).map_err(TelemetryFault::Receiver)
    }

    /// Takes over the settings that can change while running.
    ///
    /// # Errors
    /// What is wrong with the filter; then nothing changes.
    pub fn reconfigure(&self, settings: &Settings) -> Result<(), TelemetryFault> {
        let filter = settings.text("log.filter");
        self.0.set_log_filter(filter).map_err(TelemetryFault::Receiver)?;
        self.0.set_sample_ratio(settings.share("telemetry.sample_ratio"));
        Ok(())
    }

    /// Sends the spans that wait, for at most `patience`; answers whether that was enough.
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.flush(patience)
    }
}

/// Every call to a dependency carries the ids of the request that it is made for.
fn correlate() {
    mainstay_resilience::set_header_source(correlation::outgoing);
}

fn stderr() -> LogWriter {
    Arc::new(Mutex::new(std::io::stderr()))
}

fn human() -> LogFormat {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    LogFormat::Human { colours }
}

fn config(
    settings: &Settings,
    pipelines: &Pipelines,
    log_writer: LogWriter,
) -> Result<TelemetryConfig, TelemetryFault> {
    let log_format = match settings.text("log.format") {
        "json" => LogFormat::Json,
        "human" => human(),
        _ if std::io::stderr().is_terminal() => human(),
        _ => LogFormat::Json,
    };
    Ok(TelemetryConfig {
        log_filter: settings.text("log.filter").to_string(),
        log_format,
        log_writer,
        sample_ratio: settings.share("telemetry.sample_ratio"),
        sink: sink(settings, pipelines)?,
    })
}

fn sink(
    settings: &Settings,
    pipelines: &Pipelines,
) -> Result<Option<Box<dyn SpanSink>>, TelemetryFault> {
    let endpoint = settings.text("telemetry.endpoint");
    if endpoint.is_empty() {
        return Ok(None);
    }
    let config = CollectorConfig {
        endpoint: endpoint.to_string(),
        protocol: match settings.text("telemetry.protocol") {
            "grpc" => Protocol::Grpc,
            _ => Protocol::Http,
        },
        service_name: settings.text("telemetry.service_name").to_string(),
        headers: settings.headers("telemetry.otlp_headers"),
        timeout: settings.duration("telemetry.timeout"),
    };
    let collector = Collector::new(config, pipelines);
    let collector = collector.map_err(|reason| TelemetryFault::Endpoint { reason })?;
    Ok(Some(Box::new(collector)))
}
