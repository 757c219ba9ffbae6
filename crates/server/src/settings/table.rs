//! [`SETTINGS`]: the one table of settings.

use std::time::Duration;

use super::value::{Kind, Value};

const MINUTE: Duration = Duration::from_secs(60);

/// One setting.
#[derive(Debug, PartialEq)]
pub struct Setting {
    /// Section and key, as in the file: `server.listen`.
    pub name: &'static str,
    /// Its type and range.
    pub kind: Kind,
    /// The value when no source says otherwise.
    pub default: &'static str,
    /// What it does; what zero means where zero is allowed.
    pub about: &'static str,
    /// Whether it is taken over while the server runs.
    pub reloadable: bool,
    /// Further environment variables for it.
    pub also: &'static [&'static str],
}

impl Setting {
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        self.kind.parse(text)
    }
}

const fn fixed(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Setting {
    Setting { name, kind, default, about, reloadable: false, also: &[] }
}

const fn live(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Setting {
    Setting { reloadable: true, ..fixed(name, kind, default, about) }
}

/// Every setting, by section.
pub const SETTINGS: &[Setting] = &[
    Setting {
        also: &["MAINSTAY_LISTEN"],
        ..fixed(
            "server.listen",
            Kind::Address,
            "127.0.0.1:8080",
            "Address and port to listen on; port 0 takes a free one. Only addresses of the machine itself are safe without authentication.",
        )
    },
    live(
        "server.searches_max",
        Kind::Count(1, 100_000),
        "128",
        "Searches and reads that run at a time; more are told to come again.",
    ),
    live(
        "server.writes_max",
        Kind::Count(1, 100_000),
        "64",
        "Writes that run at a time; more are told to come again.",
    ),
    fixed(
        "server.connections_max",
        Kind::Count(1, 1_000_000),
        "4096",
        "Connections that are open at a time; more wait in the system's queue.",
    ),
    live(
        "server.body_bytes_max",
        Kind::Bytes(1 << 10, 1 << 30),
        "64MiB",
        "The longest body of a request that is read whole. Streams of NDJSON may be longer; their lines are bounded instead.",
    ),
    fixed(
        "server.header_timeout",
        Kind::Duration(Duration::from_millis(100), MINUTE),
        "10s",
        "The time in which the headers of a request must arrive.",
    ),
    live(
        "server.body_timeout",
        Kind::Duration(Duration::from_millis(100), Duration::from_secs(600)),
        "30s",
        "The longest pause between two pieces of a request's body.",
    ),
    live(
        "server.drain_timeout",
        Kind::Duration(Duration::ZERO, Duration::from_secs(3600)),
        "25s",
        "The time that running requests get at shutdown; with 0s they are cut off at once.",
    ),
    Setting {
        also: &["MODEL_PATH"],
        ..fixed(
            "semantic.model",
            Kind::Text,
            "auto",
            "The embedding model of collections that are created: auto, static, minilm, folder:PATH, or a remote provider.",
        )
    },
    fixed(
        "semantic.refine_percent",
        Kind::Percent(1, 100),
        "50",
        "The share of each embedding thread's time that refining in the background may use.",
    ),
    fixed(
        "semantic.threads",
        Kind::Count(0, 1024),
        "0",
        "Threads that embed; 0 takes as many as there are cores.",
    ),
    fixed(
        "semantic.query_cache_bytes",
        Kind::Bytes(0, 1 << 40),
        "16MiB",
        "Memory for embedded queries; 0 keeps none.",
    ),
    fixed(
        "search.threads",
        Kind::Count(0, 1024),
        "0",
        "Threads of each search method; 0 takes as many as there are cores.",
    ),
    live(
        "search.slow_threshold",
        Kind::Duration(Duration::ZERO, MINUTE),
        "1s",
        "Searches that take longer are logged with their plan; 0s for none.",
    ),
    live(
        "search.slow_text_chars",
        Kind::Count(0, 4096),
        "0",
        "How many characters of a slow search's text are logged; 0 logs its length alone.",
    ),
    fixed(
        "log.compact_interval",
        Kind::Duration(Duration::ZERO, Duration::from_secs(86_400)),
        "1m",
        "How often a log is looked at for compaction; 0s for never.",
    ),
    Setting {
        also: &["MAINSTAY_LOG"],
        ..live(
            "log.filter",
            Kind::Text,
            "info",
            "What the program logs: a level (error, warn, info, debug, trace, off) or directives such as info,mainstay_db=debug.",
        )
    },
    fixed(
        "log.format",
        Kind::Choice(&["auto", "human", "json"]),
        "auto",
        "How lines look; auto is human on a terminal and json elsewhere.",
    ),
    Setting {
        also: &["OTEL_EXPORTER_OTLP_ENDPOINT"],
        ..fixed(
            "telemetry.endpoint",
            Kind::Text,
            "",
            "The OpenTelemetry collector that spans are sent to, such as http://127.0.0.1:4317; empty sends none.",
        )
    },
    Setting {
        also: &["OTEL_EXPORTER_OTLP_PROTOCOL"],
        ..fixed(
            "telemetry.protocol",
            Kind::Choice(&["grpc", "http/protobuf"]),
            "grpc",
            "How spans are sent: gRPC, usually to port 4317, or HTTP with protobuf, usually to port 4318.",
        )
    },
    Setting {
        also: &["OTEL_TRACES_SAMPLER_ARG"],
        ..live(
            "telemetry.sample_ratio",
            Kind::Ratio,
            "1",
            "The share of traces that is recorded; a request that brings a traceparent has been decided by its caller.",
        )
    },
    Setting {
        also: &["OTEL_SERVICE_NAME"],
        ..fixed(
            "telemetry.service_name",
            Kind::Text,
            "mainstay",
            "The name of this service in traces.",
        )
    },
    fixed(
        "telemetry.timeout",
        Kind::Duration(Duration::from_millis(100), MINUTE),
        "5s",
        "The time of one attempt to send spans.",
    ),
];
