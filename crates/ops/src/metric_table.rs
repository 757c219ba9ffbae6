//! [`METRICS`]: the one table of metrics, of all floors.
//!
//! Whatever records a metric declares it here: its name, kind, unit, labels with their values, and
//! when it appears. `docs/metrics.md` is made from this table.

use std::fmt::Write as _;

use crate::metric::{Label, Metric, MetricKind, Shown, Unit, Values};

/// Bounds of the durations of requests and methods, in seconds.
const DURATIONS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bounds of what is done in microseconds on a good disk, in seconds.
const SHORT_DURATIONS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 5.0,
];
/// Bounds of the number of attempts; a retry allows 100.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 25.0, 100.0];

const METHOD: Label = Label::one_of("method", &["bm25", "tantivy", "native", "semantic"]);
const VIEW: Label = Label::one_of("view", &["documents", "bm25", "tantivy", "native", "semantic"]);
const COLLECTION: Label = Label::open("collection");
/// The name of a policy: of a breaker, a retry, a limit.
const NAME: Label = Label::open("name");
const KIND: Label = Label::one_of("kind", &["query", "passage"]);
/// What a cache was asked and answered.
const RESULT: Label = Label::one_of("result", &["hit", "miss"]);
const PRIORITY: Label =
    Label::one_of("priority", &["background", "low", "normal", "high", "critical"]);
const CODE: Label = Label::open("code");
const POOL: Label = Label::one_of("pool", &["catalogue"]);
const POOL_STATE: Label = Label::one_of("state", &["in_use", "idle"]);
const CLASS: Label = Label::one_of("class", &["files", "connections"]);

const MEAN_TIME: Label = Label::one_of("mean_time", &["mtbf", "mttr"]);
const GROUP: Label = Label::one_of("group", &["search", "read", "write"]);
const GATE: Label = Label::one_of("gate", &["reads", "writes"]);

/// Every metric.
pub const METRICS: &[Metric] = &[
    // Searches.
    Metric::counter(
        "mainstay_search_requests_total",
        "Searches, by how much of the service stood behind the answer; none for those that failed",
        &[Label::one_of("level", &["full", "degraded", "minimal", "maintenance", "none"])],
    ),
    Metric::counter(
        "mainstay_search_errors_total",
        "Searches that failed, by the code of the error",
        &[CODE],
    )
    .after("a search has failed"),
    Metric::histogram(
        "mainstay_search_duration_seconds",
        DURATIONS,
        "Time from a search's beginning to its answer or error",
        &[],
    )
    .unit(Unit::Seconds)
    .after("the first search"),
    Metric::counter(
        "mainstay_slow_searches_total",
        "Searches that took longer than search.slow_threshold",
        &[],
    ),
    Metric::counter(
        "mainstay_method_requests_total",
        "Methods asked, by what became of them",
        &[METHOD, Label::one_of("status", &["ok", "partial", "skipped", "timed_out", "failed"])],
    ),
    Metric::histogram(
        "mainstay_method_duration_seconds",
        DURATIONS,
        "Time that a method took to answer, or was waited for",
        &[METHOD],
    )
    .unit(Unit::Seconds)
    .after("the first search"),
    Metric::gauge(
        "mainstay_search_queue_depth",
        "Searches that wait for a thread of this method",
        &[METHOD],
    ),
    Metric::gauge(
        "mainstay_search_threads_busy",
        "Threads of this method that are at work",
        &[METHOD],
    ),
    Metric::gauge("mainstay_search_threads", "Threads of this method", &[METHOD]),
    // Writes, log and views.
    Metric::counter(
        "mainstay_index_operations_total",
        "Documents whose change was made durable, by what was done",
        &[Label::one_of("operation", &["put", "delete"])],
    ),
    Metric::counter(
        "mainstay_index_errors_total",
        "Writes that failed, by the code of the error",
        &[CODE],
    )
    .after("a write has failed"),
    Metric::histogram(
        "mainstay_write_duration_seconds",
        DURATIONS,
        "Time from a write's beginning until it is durable and visible",
        &[],
    )
    .unit(Unit::Seconds)
    .after("the first write"),
    Metric::histogram(
        "mainstay_log_sync_duration_seconds",
        SHORT_DURATIONS,
        "Time in which the disk makes one frame of a log durable",
        &[],
    )
    .unit(Unit::Seconds)
    .after("the first write"),
    Metric::counter("mainstay_log_appended_bytes_total", "Bytes of frames appended to logs", &[])
        .unit(Unit::Bytes),
    Metric::gauge("mainstay_log_size_bytes", "Bytes of a collection's log on disk", &[COLLECTION])
        .unit(Unit::Bytes),
    Metric::gauge(
        "mainstay_log_queue_bytes",
        "Bytes of writes that wait for the disk; at 64 MiB writers wait, and are then refused",
        &[COLLECTION],
    )
    .unit(Unit::Bytes),
    Metric::gauge(
        "mainstay_log_durable_seq",
        "The last durable sequence number of a collection",
        &[COLLECTION],
    ),
    Metric::gauge(
        "mainstay_log_refuses_writes",
        "1 while a collection's log takes no ordinary writes, as on a full disk",
        &[COLLECTION],
    ),
    Metric::gauge("mainstay_documents", "Documents of a collection that live", &[COLLECTION]),
    Metric::gauge(
        "mainstay_passages",
        "Passages of a collection, where a refining model is used",
        &[COLLECTION],
    )
    .after("a collection with a refining model is open"),
    Metric::gauge(
        "mainstay_refined_passages",
        "Those with a vector of the refining model",
        &[COLLECTION],
    )
    .after("a collection with a refining model is open"),
    Metric::counter(
        "mainstay_passages_refined_total",
        "Passages that got their refined vector",
        &[],
    ),
    Metric::counter(
        "mainstay_refine_failures_total",
        "Rounds of refinement that failed and are tried again",
        &[],
    ),
    Metric::gauge(
        "mainstay_view_indexed_through",
        "The last sequence number that readers of a view see",
        &[COLLECTION, VIEW],
    ),
    Metric::gauge(
        "mainstay_view_lag_records",
        "Durable records that readers of a view do not see yet",
        &[COLLECTION, VIEW],
    ),
    Metric::gauge(
        "mainstay_view_ready",
        "1 while a view is ready, 0 while it is rebuilt or fails",
        &[COLLECTION, VIEW],
    ),
    Metric::gauge("mainstay_view_segments", "Segments of a view", &[COLLECTION, VIEW]),
    Metric::gauge("mainstay_view_disk_bytes", "Bytes of a view on disk", &[COLLECTION, VIEW])
        .unit(Unit::Bytes),
    Metric::gauge("mainstay_view_memory_bytes", "Bytes of a view in memory", &[COLLECTION, VIEW])
        .unit(Unit::Bytes),
    Metric::gauge(
        "mainstay_view_set_aside",
        "Records that a view can never apply",
        &[COLLECTION, VIEW],
    ),
    Metric::counter(
        "mainstay_set_aside_total",
        "Records set aside because a view can never apply them",
        &[VIEW],
    ),
    Metric::histogram(
        "mainstay_view_apply_duration_seconds",
        DURATIONS,
        "Time in which a view applies one batch of records",
        &[VIEW],
    )
    .unit(Unit::Seconds)
    .after("the first write"),
    Metric::counter(
        "mainstay_view_records_applied_total",
        "Records that a view has applied",
        &[VIEW],
    ),
    Metric::counter("mainstay_view_failures_total", "Steps of a view that failed", &[VIEW]),
    Metric::counter(
        "mainstay_worker_restarts_total",
        "Times that background work panicked and was begun anew",
        &[Label::one_of(
            "worker",
            &["refine", "compact", "documents", "bm25", "tantivy", "native", "semantic"],
        )],
    )
    .after("background work has panicked"),
    Metric::counter(
        "mainstay_view_rebuilds_total",
        "Views made anew from the log, by how that ended",
        &[VIEW, Label::one_of("result", &["done", "failed"])],
    ),
    // Embedding and caches.
    Metric::histogram(
        "mainstay_embedding_duration_seconds",
        DURATIONS,
        "Time of one call to an embedding model",
        &[Label::open("model"), KIND],
    )
    .unit(Unit::Seconds)
    .after("the first text is embedded"),
    Metric::counter("mainstay_embedding_texts_total", "Texts embedded", &[KIND]),
    Metric::counter(
        "mainstay_embedding_failures_total",
        "Calls to an embedding model that failed",
        &[],
    ),
    Metric::counter(
        "mainstay_embedding_rejected_total",
        "Texts turned away because the queue of a pool was full",
        &[],
    ),
    Metric::counter(
        "mainstay_embedding_queries_timed_out_total",
        "Queries that got no vector in time",
        &[],
    ),
    Metric::gauge("mainstay_embedding_queue_depth", "Texts that wait to be embedded", &[KIND]),
    Metric::gauge("mainstay_embedding_workers", "Threads that embed", &[]),
    Metric::counter(
        "mainstay_cache_requests_total",
        "What caches were asked for and had, or had not",
        &[Label::one_of("cache", &["query_vectors", "answers"]), RESULT],
    ),
    Metric::gauge(
        "mainstay_cache_size_bytes",
        "Bytes held by a cache",
        &[Label::one_of("cache", &["query_vectors", "answers"])],
    )
    .unit(Unit::Bytes),
    // The toolkit's policies, by their names.
    Metric::gauge("mainstay_circuit_breaker_state", "0 closed, 1 open, 2 half-open", &[NAME])
        .recorded_as("resilience_breaker_state"),
    Metric::gauge(
        "mainstay_circuit_breaker_error_rate",
        "Share of calls in the window that failed, from 0 to 1",
        &[NAME],
    )
    .recorded_as("resilience_breaker_error_rate"),
    Metric::gauge(
        "mainstay_circuit_breaker_slow_rate",
        "Share of calls in the window that were slow, from 0 to 1",
        &[NAME],
    )
    .recorded_as("resilience_breaker_slow_rate"),
    Metric::gauge("mainstay_circuit_breaker_calls", "Calls in the window", &[NAME])
        .recorded_as("resilience_breaker_calls"),
    Metric::counter(
        "mainstay_circuit_breaker_transitions_total",
        "Changes of state, by the new state and its cause",
        &[
            NAME,
            Label::one_of(
                "to",
                &[
                    "closed",
                    "open",
                    "half_open",
                    "recovering",
                    "isolated",
                    "disabled",
                    "observe_only",
                ],
            ),
            Label::one_of(
                "cause",
                &[
                    "consecutive_failures",
                    "failure_rate",
                    "slow_call_rate",
                    "open_period_over",
                    "probes_succeeded",
                    "probes_failed",
                    "probes_gave_up",
                    "ramp_complete",
                    "by_hand",
                ],
            ),
        ],
    )
    .recorded_as("resilience_breaker_transitions_total")
    .after("a breaker has changed its state"),
    Metric::counter(
        "mainstay_circuit_breaker_would_open_total",
        "Times that a breaker which only observes would have opened, by the cause",
        &[
            NAME,
            Label::one_of(
                "cause",
                &["consecutive_failures", "failure_rate", "slow_call_rate"],
            ),
        ],
    )
    .recorded_as("resilience_breaker_would_open_total")
    .after("a breaker that only observes would have opened"),
    Metric::counter(
        "mainstay_circuit_breaker_would_reject_total",
        "Calls that a breaker which only observes would have rejected",
        &[NAME],
    )
    .recorded_as("resilience_breaker_would_reject_total"),
    Metric::counter(
        "mainstay_dependency_probes_total",
        "Calls that the server made to see whether a dependency works",
        &[NAME, Label::one_of("outcome", &["succeeded", "failed"])],
    )
    .after("a dependency was probed"),
    Metric::counter(
        "mainstay_circuit_breaker_rejected_total",
        "Calls that a breaker rejected without making them",
        &[NAME],
    )
    .after("a breaker has rejected a call"),
    Metric::counter(
        "mainstay_rejected_total",
        "Calls that a policy rejected, by policy and reason",
        &[
            NAME,
            Label::one_of(
                "policy",
                &[
                    "circuit_breaker",
                    "retry",
                    "timeout",
                    "rate_limiter",
                    "bulkhead",
                    "adaptive_limit",
                    "throttle",
                    "queue",
                    "hedge",
                ],
            ),
            Label::open("reason"),
        ],
    )
    .recorded_as("resilience_rejected_total")
    .after("a policy has rejected a call"),
    Metric::counter(
        "mainstay_retries_total",
        "Attempts made again, by why the one before failed",
        &[NAME, Label::open("kind")],
    )
    .recorded_as("resilience_retries_total")
    .after("a call is retried"),
    Metric::histogram(
        "mainstay_retry_attempts",
        ATTEMPTS,
        "Attempts of calls that needed more than one or failed",
        &[NAME],
    )
    .recorded_as("resilience_retry_attempts")
    .after("a call was retried or failed"),
    Metric::counter(
        "mainstay_retry_successes_total",
        "Calls that succeeded after a retry",
        &[NAME],
    )
    .recorded_as("resilience_retry_success_total")
    .after("a retry has succeeded"),
    Metric::counter(
        "mainstay_retry_calls_total",
        "Calls of an endpoint that allows retries, by the attempts they needed; 10 stands for more too",
        &[
            NAME,
            Label::one_of("attempts", &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]),
        ],
    )
    .recorded_as("resilience_retry_calls_total")
    .after("an endpoint is in use"),
    Metric::gauge(
        "mainstay_retry_budget",
        "Retries, hedges and fallbacks that may be made at once now",
        &[NAME],
    )
    .recorded_as("resilience_retry_budget")
    .after("an endpoint is in use"),
    Metric::gauge("mainstay_rate_available", "Calls that a rate limit allows at once now", &[NAME])
        .recorded_as("resilience_rate_available")
        .after("an endpoint with a rate limit is in use"),
    Metric::gauge("mainstay_bulkhead_in_use", "Calls that a bulkhead has under way", &[NAME])
        .recorded_as("resilience_bulkhead_in_use")
        .after("an endpoint with a bulkhead is in use"),
    Metric::gauge("mainstay_bulkhead_waiting", "Calls that wait for a bulkhead", &[NAME])
        .recorded_as("resilience_bulkhead_waiting")
        .after("an endpoint with a bulkhead is in use"),
    Metric::counter("mainstay_timeouts_total", "Calls that a timeout stopped", &[NAME])
        .recorded_as("resilience_timeouts_total")
        .after("a timeout has stopped a call"),
    Metric::counter("mainstay_hedges_total", "Second attempts beside a slow first one", &[NAME])
        .recorded_as("resilience_hedges_total")
        .after("a call is hedged"),
    Metric::counter("mainstay_hedge_wins_total", "Hedges that beat the first attempt", &[NAME])
        .recorded_as("resilience_hedge_wins_total")
        .after("a hedge has won"),
    Metric::counter("mainstay_fallbacks_total", "Answers of a fallback", &[NAME])
        .recorded_as("resilience_fallbacks_total")
        .after("a fallback has answered"),
    Metric::gauge("mainstay_concurrency_limit", "The present value of an adaptive limit", &[NAME])
        .recorded_as("resilience_limit")
        .after("an adaptive limit has moved"),
    // HTTP.
    Metric::counter(
        "mainstay_http_requests_total",
        "Requests answered, by route, method and class of the status",
        &[
            Label::open("route"),
            Label::open("method"),
            Label::one_of("status_class", &["1xx", "2xx", "3xx", "4xx", "5xx"]),
        ],
    )
    .after("the first request"),
    Metric::histogram(
        "mainstay_http_request_duration_seconds",
        DURATIONS,
        "Time from a request's headers to its answer's headers",
        &[Label::open("route"), Label::open("method")],
    )
    .unit(Unit::Seconds)
    .after("the first request"),
    Metric::gauge("mainstay_http_requests_in_flight", "Requests that are being answered", &[]),
    Metric::gauge("mainstay_http_connections", "Connections that are open", &[]),
    Metric::counter(
        "mainstay_http_panics_total",
        "Requests that met a panic in their handler",
        &[],
    ),
    Metric::counter(
        "mainstay_requests_shed_total",
        "Requests told to come again because a bound was reached",
        &[Label::one_of("work", &["searches", "writes"])],
    ),
    // Admission.
    Metric::counter(
        "mainstay_admission_admitted_total",
        "Requests, or parts of them, whose work was begun",
        &[GROUP],
    ),
    Metric::counter(
        "mainstay_admission_refused_total",
        "Requests whose work was not begun, by why",
        &[
            GROUP,
            Label::one_of(
                "reason",
                &[
                    "rate",
                    "key_rate",
                    "shared_rate",
                    "queue_full",
                    "displaced",
                    "queue_timeout",
                    "queue_age",
                    "priority",
                    "memory",
                ],
            ),
        ],
    )
    .after("a request is refused"),
    Metric::gauge(
        "mainstay_admission_limit",
        "Requests that may be under way at a time; it adapts for searches and reads",
        &[GATE],
    ),
    Metric::gauge("mainstay_admission_in_use", "Requests that are under way", &[GATE]),
    Metric::gauge("mainstay_admission_waiting", "Requests that wait for a slot", &[GATE]),
    Metric::gauge(
        "mainstay_admission_oldest_wait_seconds",
        "How long the oldest of them has waited",
        &[GATE],
    )
    .unit(Unit::Seconds),
    Metric::gauge(
        "mainstay_admission_pressure_ratio",
        "Places of the queue that are taken, 0 to 1",
        &[GATE],
    )
    .unit(Unit::Ratio),
    Metric::gauge(
        "mainstay_admission_keys",
        "Keys that a rate limit remembers",
        &[Label::open("policy")],
    )
    .after("a rate limit is configured"),
    // Telemetry itself.
    Metric::counter(
        "mainstay_metrics_undeclared_total",
        "Records of a metric or label that is not declared; each is a fault of the program",
        &[],
    ),
    Metric::counter("mainstay_spans_exported_total", "Spans that a collector has taken", &[]),
    Metric::counter(
        "mainstay_spans_dropped_total",
        "Spans that were lost, by why",
        &[Label::one_of("reason", &["queue_full", "export_failed", "rejected"])],
    ),
    Metric::counter(
        "mainstay_correlation_ids_replaced_total",
        "Requests whose correlation id was malformed and replaced",
        &[],
    ),
    // The process.
    Metric::gauge("mainstay_build_info", "1, with the version", &[Label::open("version")]),
    Metric::gauge(
        "mainstay_process_start_time_seconds",
        "When the process began, in seconds since 1970",
        &[],
    )
    .unit(Unit::Seconds),
    Metric::gauge(
        "mainstay_process_resident_memory_bytes",
        "Memory of the process that is in RAM",
        &[],
    )
    .unit(Unit::Bytes),
    Metric::gauge(
        "mainstay_process_cpu_seconds",
        "Processor time that the process has used since its start",
        &[],
    )
    .unit(Unit::Seconds),
    Metric::gauge("mainstay_process_open_fds", "File handles that are open", &[]),
    Metric::gauge("mainstay_process_threads", "Threads of the process", &[]),
    // Operations.
    Metric::counter(
        "mainstay_stale_answers_total",
        "Kept answers given in place of better ones",
        &[],
    ),
    Metric::gauge("mainstay_keys", "API keys that exist", &[]),
    Metric::counter(
        "mainstay_auth_failures_total",
        "Requests without a key that lets them in",
        &[Label::one_of("reason", &["missing", "unknown", "expired", "forbidden", "other_site"])],
    ),
    Metric::counter(
        "mainstay_tls_reloads_total",
        "Certificates read again because they had changed",
        &[Label::one_of("result", &["done", "failed"])],
    ),
    Metric::counter("mainstay_tls_handshake_failures_total", "TLS handshakes that failed", &[]),
    Metric::gauge("mainstay_level", "0 full, 1 degraded, 2 minimal, 3 maintenance", &[])
        .after("levels are in use"),
    Metric::gauge(
        "mainstay_level_reason",
        "1 for what the present level comes from",
        &[Label::one_of(
            "reason",
            &["none", "breakers", "health", "memory", "queue", "budget", "log", "hand"],
        )],
    )
    .after("a level has had a reason"),
    Metric::counter(
        "mainstay_level_transitions_total",
        "Changes of level, by the new one and its cause",
        &[
            Label::one_of("to", &["full", "degraded", "minimal", "maintenance"]),
            Label::open("cause"),
        ],
    )
    .after("the level has changed"),
    Metric::gauge(
        "mainstay_shutdown_phase_seconds",
        "Time of a phase of the shutdown",
        &[Label::open("phase")],
    )
    .unit(Unit::Seconds)
    .after("the shutdown"),
    Metric::gauge("mainstay_handles_max", "File handles that may be open", &[])
        .after("a handle pool is in use"),
    Metric::gauge("mainstay_handles_in_use", "File handles taken from the pool", &[CLASS])
        .after("a handle is taken"),
    Metric::counter("mainstay_handles_refused_total", "File handles refused", &[CLASS])
        .after("a handle is refused"),
    Metric::gauge("mainstay_pool_connections", "Connections to a database", &[POOL, POOL_STATE]),
    Metric::gauge("mainstay_pool_connections_max", "Connections that there may be", &[POOL]),
    Metric::gauge(
        "mainstay_pool_utilisation_ratio",
        "Share of the connections that may be which are in use",
        &[POOL],
    )
    .unit(Unit::Ratio),
    Metric::histogram(
        "mainstay_pool_acquire_duration_seconds",
        SHORT_DURATIONS,
        "Time that a call waited for a connection",
        &[POOL],
    )
    .unit(Unit::Seconds)
    .after("the first call"),
    Metric::counter("mainstay_pool_timeouts_total", "Calls that got no connection", &[POOL])
        .after("a call got none"),
    Metric::counter(
        "mainstay_pool_discarded_total",
        "Connections thrown away because their call did not end",
        &[POOL],
    )
    .after("one was thrown away"),
    Metric::counter(
        "mainstay_catalogue_audit_dropped_total",
        "Events of the audit that the data directory has and the catalogue does not",
        &[],
    )
    .after("an event could not be sent"),
    Metric::counter("mainstay_audit_events_total", "Events recorded in the audit", &[])
        .after("the first event"),
    Metric::counter("mainstay_audit_failures_total", "Events that the audit could not keep", &[])
        .after("an event could not be kept"),
    Metric::counter(
        "mainstay_journal_torn_lines_total",
        "Lines of a journal, such as the audit's, that a crash cut short",
        &[],
    )
    .after("a journal ended in the middle of a line"),
    Metric::histogram(
        "mainstay_health_check_duration_seconds",
        DURATIONS,
        "Time of one health check",
        &[Label::open("check")],
    )
    .unit(Unit::Seconds)
    .after("the first check"),
    Metric::counter(
        "mainstay_health_check_timeouts_total",
        "Health checks that did not answer in time",
        &[Label::open("check")],
    )
    .after("a check came late"),
    Metric::gauge("mainstay_health_check_state", "What a check said last", &[Label::open("check")])
        .after("the first check"),
    Metric::gauge("mainstay_ready", "1 while requests should be sent here", &[])
        .after("readiness is decided"),
    Metric::gauge("mainstay_flags", "Feature flags", &[]).after("flags are in use"),
    Metric::counter("mainstay_flag_changes_total", "Changes of flags", &[])
        .after("a flag is changed"),
    Metric::counter(
        "mainstay_flag_errors_total",
        "Evaluations of flags that failed",
        &[Label::one_of("code", &["flag_not_found", "type_mismatch"])],
    )
    .after("an evaluation failed"),
    Metric::counter("mainstay_incidents_total", "Incidents opened", &[])
        .after("the first incident"),
    Metric::gauge("mainstay_incidents_open", "Incidents that are open", &[])
        .after("the first incident"),
    Metric::gauge("mainstay_slo_objective_ratio", "The objective itself", &[Label::open("slo")])
        .unit(Unit::Ratio)
        .after("objectives are in use"),
    Metric::counter(
        "mainstay_slo_events_total",
        "Events that an objective counts",
        &[Label::open("slo"), Label::one_of("result", &["good", "bad"])],
    )
    .after("objectives are in use"),
    Metric::gauge(
        "mainstay_slo_budget_remaining_ratio",
        "Share of the error budget left",
        &[Label::open("slo")],
    )
    .unit(Unit::Ratio)
    .after("objectives are in use"),
    Metric::gauge(
        "mainstay_slo_burn_rate",
        "How fast the error budget is used up",
        &[Label::open("slo"), Label::open("window")],
    )
    .after("objectives are in use"),
    Metric::gauge(
        "mainstay_slo_alert",
        "1 while an objective's alert fires",
        &[Label::open("slo"), Label::one_of("severity", &["ticket", "page"])],
    )
    .after("objectives are in use"),
    Metric::gauge(
        "mainstay_mean_time_seconds",
        "Mean times between failures and to repair: promised, observed, and bounds of 95 %",
        &[MEAN_TIME, Label::one_of("figure", &["objective", "estimate", "lower", "upper"])],
    )
    .unit(Unit::Seconds)
    .after("objectives are in use"),
    Metric::gauge(
        "mainstay_mean_time_verdict",
        "1 for what the bounds say of a mean time that is promised",
        &[MEAN_TIME, Label::one_of("verdict", &["met", "missed", "not_yet_known"])],
    )
    .after("objectives are in use"),
    Metric::counter(
        "mainstay_memory_refused_total",
        "Requests refused for want of memory",
        &[PRIORITY],
    )
    .after("a request is refused"),
    Metric::counter(
        "mainstay_memory_shrunk_bytes_total",
        "Bytes that caches gave back",
        &[Label::open("cache")],
    )
    .unit(Unit::Bytes)
    .after("a cache has shrunk"),
    Metric::counter("mainstay_memory_purges_total", "Times that the allocator was emptied", &[])
        .after("the first purge"),
    Metric::gauge("mainstay_memory_step", "0 normal, rising with the pressure", &[])
        .after("the memory guard is in use"),
    Metric::gauge("mainstay_memory_reserved_bytes", "Bytes reserved by requests under way", &[])
        .unit(Unit::Bytes)
        .after("the memory guard is in use"),
    Metric::gauge("mainstay_memory_used_bytes", "Memory in use as the limit counts it", &[])
        .unit(Unit::Bytes)
        .after("the memory guard is in use"),
    Metric::gauge("mainstay_memory_limit_bytes", "The limit of memory", &[])
        .unit(Unit::Bytes)
        .after("the memory guard is in use"),
    Metric::gauge("mainstay_memory_pressure_ratio", "Share of time stalled for memory", &[])
        .unit(Unit::Ratio)
        .after("the memory guard is in use"),
];

/// `docs/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Every metric of `mainstay serve`; this page is made from the table in `crates/ops/src/metric_table.rs`.\n\n\
         `GET /metrics` answers the Prometheus text format, or OpenMetrics to a scraper that accepts it.\n\
         OpenMetrics adds units and, on durations, exemplars with the id of a trace that was recorded.\n\
         Counters whose labels are closed sets begin at 0; other metrics appear as the last column says.\n\
         A label without listed values has at most as many as it says; further ones are counted as `other`.\n\n\
         | name | kind | unit | labels | what it says | appears |\n|---|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(label).collect();
        let shown = match metric.shown {
            Shown::Always => "always",
            Shown::After(event) => event,
        };
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {shown} |",
            metric.name,
            metric.kind.as_str(),
            metric.unit.as_str().unwrap_or_default(),
            labels.join("; "),
            metric.help,
        );
    }
    page.push_str("\n## Buckets\n\n| name | upper bounds |\n|---|---|\n");
    for metric in METRICS {
        if let MetricKind::Histogram(bounds) = metric.kind {
            let bounds: Vec<String> = bounds.iter().map(ToString::to_string).collect();
            let _ = writeln!(page, "| `{}` | {} |", metric.name, bounds.join(" "));
        }
    }
    page
}

fn label(label: &Label) -> String {
    match label.values {
        Values::OneOf(values) => format!("`{}`: {}", label.name, values.join(", ")),
        Values::AtMost(most) => format!("`{}`: at most {most}", label.name),
    }
}
