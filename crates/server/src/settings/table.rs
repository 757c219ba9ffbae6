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
        "Searches and reads that run at a time at most; admission.algorithm finds how many are good, and more wait in a queue.",
    ),
    live(
        "server.writes_max",
        Kind::Count(1, 100_000),
        "64",
        "Writes that run at a time; more wait in a queue.",
    ),
    fixed(
        "server.connections_max",
        Kind::Count(1, 1_000_000),
        "4096",
        "Connections that are open at a time. Beyond them 16 more serve health, metrics and administration, one call each, and answer anything else with 503; further ones wait in the system's queue.",
    ),
    live(
        "server.body_bytes_max",
        Kind::Bytes(1 << 10, 1 << 30),
        "64MiB",
        "The longest body of a request that is read whole; 1MiB at most for administration. Streams of NDJSON may be longer; their lines are bounded instead.",
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
        "The longest pause between two pieces of a request's body. Once a sender was waited for that long altogether, 1 KiB must have arrived in each further second, on average.",
    ),
    live(
        "server.drain_delay",
        Kind::Duration(Duration::ZERO, Duration::from_secs(600)),
        "0s",
        "How long new connections are still served at shutdown while /health/ready says 503 already; with 0s none is. Behind a load balancer set it to the time in which that notices: its interval times the failures that it waits for.",
    ),
    live(
        "server.drain_timeout",
        Kind::Duration(Duration::ZERO, Duration::from_secs(3600)),
        "25s",
        "The time that running requests get at shutdown, after server.drain_delay; with 0s they are cut off at once.",
    ),
    fixed(
        "auth.mode",
        Kind::Choice(&["auto", "always", "never"]),
        "auto",
        "Whether requests need an API key: auto once there is one, always, or never. With auto and no key the server listens on addresses of the machine itself alone.",
    ),
    fixed(
        "auth.metrics",
        Kind::Choice(&["auto", "open", "read"]),
        "auto",
        "Who may read /metrics: everybody (open), who has a key that may read (read), or everybody where only the machine itself can reach the server (auto).",
    ),
    fixed(
        "tls.certificate",
        Kind::Text,
        "",
        "File of the certificate chain in PEM; with it the server speaks HTTPS alone. Read again on reload and when it changes.",
    ),
    fixed("tls.key", Kind::Text, "", "File of the certificate's private key in PEM."),
    fixed(
        "tls.client_ca",
        Kind::Text,
        "",
        "File of the authorities in PEM whose certificates clients must show; empty asks for none.",
    ),
    fixed(
        "catalogue.url",
        Kind::Secret,
        "",
        "PostgreSQL database that several nodes share, as postgres://USER@HOST:PORT/DATABASE, with the password in PGPASSWORD or a password file; empty uses the file catalogue.sqlite in the data directory.",
    ),
    fixed(
        "catalogue.connections_min",
        Kind::Count(0, 1000),
        "10",
        "Connections to PostgreSQL that are kept open; 0 keeps none, and the first call after a pause makes one.",
    ),
    fixed(
        "catalogue.connections_max",
        Kind::Count(1, 1000),
        "50",
        "Connections to PostgreSQL at a time; further calls wait.",
    ),
    fixed(
        "catalogue.acquire_timeout",
        Kind::Duration(Duration::from_millis(10), Duration::from_secs(300)),
        "2s",
        "How long a call waits for a connection.",
    ),
    fixed(
        "catalogue.idle_timeout",
        Kind::Duration(Duration::from_secs(1), Duration::from_secs(86_400)),
        "10m",
        "After which time without use a connection is closed; of catalogue.connections_min another one is made at once.",
    ),
    fixed(
        "catalogue.lifetime_max",
        Kind::Duration(Duration::from_secs(1), Duration::from_secs(86_400)),
        "30m",
        "The age at which a connection is closed and another one made.",
    ),
    fixed(
        "catalogue.refresh_every",
        Kind::Duration(Duration::from_millis(100), Duration::from_secs(60)),
        "5s",
        "How often the keys and flags that other nodes have changed are looked for, and this node reported.",
    ),
    fixed(
        "health.check_every",
        Kind::Duration(Duration::from_millis(100), Duration::from_secs(3600)),
        "5s",
        "How old the answer of a health check may become before it is asked again.",
    ),
    fixed(
        "health.check_timeout",
        Kind::Duration(Duration::from_millis(10), MINUTE),
        "5s",
        "The time in which a health check must answer; afterwards it is unknown.",
    ),
    fixed(
        "health.probe_every",
        Kind::Duration(Duration::ZERO, Duration::from_secs(3600)),
        "30s",
        "How long nobody may have called a dependency until the server probes it by a cheap call; of a provider of embeddings that is paid, two tokens. With 0s only what a breaker holds open is probed, once its open period is over.",
    ),
    fixed(
        "health.ready_failures",
        Kind::Count(1, 100),
        "3",
        "Rounds, one a second, with a failing critical check until the server says that it is not ready.",
    ),
    fixed(
        "health.ready_successes",
        Kind::Count(1, 100),
        "2",
        "Rounds without one until it says that it is ready again.",
    ),
    fixed(
        "memory.limit_bytes",
        Kind::Bytes(0, 1 << 50),
        "0",
        "A limit of one's own beside those of the control group and the machine; 0 sets none.",
    ),
    fixed(
        "memory.warn_percent",
        Kind::Percent(1, 95),
        "70",
        "The share of the limit from which on memory is warned about.",
    ),
    fixed(
        "memory.shrink_percent",
        Kind::Percent(2, 96),
        "80",
        "The share from which on caches shrink and background work is refused.",
    ),
    fixed(
        "memory.return_percent",
        Kind::Percent(3, 97),
        "82",
        "The share from which on free pages are given back to the system.",
    ),
    fixed(
        "memory.reject_percent",
        Kind::Percent(4, 98),
        "85",
        "The share from which on caches are emptied and new work is refused.",
    ),
    fixed(
        "memory.emergency_percent",
        Kind::Percent(5, 99),
        "93",
        "The share from which on everything but control calls is refused.",
    ),
    fixed(
        "handles.max",
        Kind::Count(0, 1 << 20),
        "0",
        "File handles that may be given out, 16 at least; 0 takes the limit of the process less the reserve and what dependencies may take.",
    ),
    fixed(
        "handles.reserve",
        Kind::Count(0, 100_000),
        "64",
        "File handles left to what opens them without asking, beside as many as there may be connections to dependencies: catalogue.connections_max of PostgreSQL, one for each thread that embeds, a few of Redis and the collector; with 0 even control calls may find none.",
    ),
    fixed(
        "levels.worsen_after",
        Kind::Duration(Duration::ZERO, Duration::from_secs(600)),
        "1s",
        "How long a signal must want a worse level of service before it is taken; 0s takes it at the next look, of which there are four a second.",
    ),
    fixed(
        "levels.recover_after",
        Kind::Duration(Duration::ZERO, Duration::from_secs(3600)),
        "30s",
        "How long no signal may want to stay, for each step back to full service; 0s takes a step at each look, of which there are four a second.",
    ),
    fixed(
        "levels.breakers_degraded",
        Kind::Count(0, 1000),
        "1",
        "Open breakers that degrade; 0 ignores breakers.",
    ),
    fixed(
        "levels.breakers_minimal",
        Kind::Count(0, 1000),
        "3",
        "Open breakers that leave the minimum; 0 for never.",
    ),
    fixed(
        "levels.queue_degraded",
        Kind::Duration(Duration::ZERO, MINUTE),
        "200ms",
        "The age of the oldest waiting request that degrades; 0s ignores it.",
    ),
    fixed(
        "levels.queue_minimal",
        Kind::Duration(Duration::ZERO, MINUTE),
        "1s",
        "The age of the oldest waiting request that leaves the minimum; 0s for never.",
    ),
    fixed(
        "levels.maintenance_reads",
        Kind::Bool,
        "true",
        "Whether searches and reads are answered at level maintenance; with false the server is closed then, but for health and administration.",
    ),
    fixed(
        "slo.availability",
        Kind::Number(0.5, 0.99999),
        "0.999",
        "The share of searches that must be answered; 0.999 leaves 43.2 minutes a month.",
    ),
    fixed(
        "slo.latency",
        Kind::Number(0.5, 0.99999),
        "0.99",
        "The share of answered searches that must take no longer than slo.latency_threshold.",
    ),
    fixed(
        "slo.writes",
        Kind::Number(0.5, 0.99999),
        "0.999",
        "The share of writes and removals that must be taken.",
    ),
    fixed(
        "slo.latency_threshold",
        Kind::Duration(Duration::from_millis(1), Duration::from_secs(600)),
        "1s",
        "How long a search may take to count as fast.",
    ),
    fixed(
        "slo.period_days",
        Kind::Count(7, 90),
        "30",
        "The days over which objectives are judged.",
    ),
    fixed(
        "slo.mtbf_min",
        Kind::Duration(Duration::ZERO, Duration::from_secs(120 * 86_400)),
        "30d",
        "The least mean time between failures that is promised; it is judged over a year, of which three times that without a failure shows it. 0s promises none.",
    ),
    fixed(
        "slo.mttr_max",
        Kind::Duration(Duration::ZERO, Duration::from_secs(86_400)),
        "15m",
        "The longest mean time to repair that is promised, judged likewise; 0s promises none.",
    ),
    fixed(
        "slo.probe_every",
        Kind::Duration(Duration::ZERO, Duration::from_secs(600)),
        "10s",
        "How often the server searches itself to see whether it works, 100ms at least; 0s for never.",
    ),
    fixed(
        "slo.probe_timeout",
        Kind::Duration(Duration::from_millis(10), Duration::from_secs(30)),
        "2s",
        "The time in which such a search must be answered.",
    ),
    Setting {
        also: &["HTTP_TIMEOUT_SEC"],
        ..live(
            "dependency.timeout",
            Kind::Duration(Duration::from_millis(1), Duration::from_secs(86_400)),
            "30s",
            "The limit of one attempt to call something outside the process.",
        )
    },
    Setting {
        also: &["HTTP_RETRIES"],
        ..live(
            "dependency.attempts",
            Kind::Count(1, 100),
            "3",
            "Attempts in all, the first included.",
        )
    },
    Setting {
        also: &["HTTP_BACKOFF_BASE_MS"],
        ..live(
            "dependency.backoff_base",
            Kind::Duration(Duration::from_millis(1), Duration::from_secs(3600)),
            "1s",
            "The wait before the second attempt; it doubles with each further one.",
        )
    },
    live(
        "dependency.retry_after_max",
        Kind::Duration(Duration::ZERO, Duration::from_secs(3600)),
        "1m",
        "The longest wait that a dependency may ask for with `Retry-After`; when it asks for more, the call ends instead. 0s ends it whenever it asks.",
    ),
    live(
        "dependency.attempt_time_min",
        Kind::Duration(Duration::ZERO, Duration::from_secs(3600)),
        "0s",
        "A further attempt is begun only when this much of the call's time is left, and what attempts usually take; 0s: the latter alone.",
    ),
    Setting {
        also: &["CB_FAIL_THRESHOLD"],
        ..live(
            "dependency.breaker_failures",
            Kind::Count(1, 1_000_000),
            "5",
            "Failures in a row that open the breaker of a dependency.",
        )
    },
    Setting {
        also: &["CB_RESET_SEC"],
        ..live(
            "dependency.breaker_open",
            Kind::Duration(Duration::from_millis(1), Duration::from_secs(86_400)),
            "1m",
            "How long it stays open before a call may try again.",
        )
    },
    live(
        "admission.rates",
        Kind::Rates,
        "none",
        "Rates that all callers share, by group of routes (search, read, write, all) or by one route (its operation id in /openapi.json, such as search_collection), separated by ;. Each is NAME = NUMBER/PERIOD, and may say burst NUMBER, an algorithm (token_bucket, leaky_bucket, fixed_window, sliding_window) and by cost.",
    ),
    live(
        "admission.key_rates",
        Kind::Rates,
        "none",
        "The same for each API key, or for each address without one.",
    ),
    live(
        "admission.keys_max",
        Kind::Count(16, 1_000_000),
        "10000",
        "Keys that each of those rates remembers; then the least recently used is forgotten.",
    ),
    live(
        "admission.algorithm",
        Kind::Choice(&["gradient2", "aimd", "vegas", "fixed"]),
        "gradient2",
        "How the number of searches and reads at a time is found; fixed takes server.searches_max.",
    ),
    live(
        "admission.searches_min",
        Kind::Count(1, 100_000),
        "8",
        "Searches and reads at a time at least, however slow they are.",
    ),
    live(
        "admission.latency_target",
        Kind::Duration(Duration::ZERO, Duration::from_secs(3600)),
        "250ms",
        "Searches that take longer than this are never taken for normal by the algorithm; with 0s it learns what is normal by itself.",
    ),
    live(
        "admission.queue_length",
        Kind::Count(0, 100_000),
        "512",
        "Requests that wait for a slot, in one queue for searches and reads and one for writes; with 0 what does not fit is told to come again.",
    ),
    live(
        "admission.queue_timeout",
        Kind::Duration(Duration::from_millis(1), MINUTE),
        "1s",
        "How long a request waits at most.",
    ),
    live(
        "admission.queue_target",
        Kind::Duration(Duration::from_millis(1), MINUTE),
        "500ms",
        "The age from which waiting requests are told to come again while the queue stands, that is, has not been empty for twice this time.",
    ),
    fixed(
        "admission.redis_url",
        Kind::RedisUrl,
        "",
        "The Redis that several nodes share their rates through, as redis://HOST:PORT/DATABASE; empty for rates of each node alone. Without an answer from it a node goes on with its share.",
    ),
    fixed(
        "admission.redis_timeout",
        Kind::Duration(Duration::from_millis(1), MINUTE),
        "250ms",
        "The longest wait for Redis; no request ever waits for it.",
    ),
    fixed(
        "admission.nodes",
        Kind::Count(1, 10_000),
        "1",
        "Nodes that share the rates: each keeps to that part of them while Redis is away.",
    ),
    Setting {
        also: &["MODEL_PATH"],
        ..fixed(
            "semantic.model",
            Kind::Text,
            "auto",
            "The embedding model of collections that are created: auto, static, minilm, folder:PATH, or remote:URL,MODEL,DIMENSION with ,VARIABLE behind for the environment variable of its key.",
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
        "search.answers_max",
        Kind::Count(1, 1_000_000),
        "1000",
        "Answers that are kept for when there is no better one.",
    ),
    fixed(
        "search.answers_stale_for",
        Kind::Duration(Duration::ZERO, Duration::from_secs(86_400)),
        "5m",
        "How old a kept answer may be when it stands in for an error, or at level minimal; 0s gives none.",
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
        also: &["OTEL_EXPORTER_OTLP_HEADERS"],
        ..fixed(
            "telemetry.otlp_headers",
            Kind::Headers,
            "",
            "Headers that go with the spans, such as the key of a hosted collector, as gRPC metadata or HTTP headers: name=value,name=value, with other characters in percent-encoding.",
        )
    },
    Setting {
        also: &["OTEL_TRACES_SAMPLER_ARG"],
        ..live(
            "telemetry.sample_ratio",
            Kind::Number(0.0, 1.0),
            "1",
            "The share of traces that is recorded, 0 for none; a request that brings a traceparent has been decided by its caller.",
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
