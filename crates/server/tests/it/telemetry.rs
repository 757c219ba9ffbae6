//! Correlation, logs and metrics of a running server (V3, V5, B7).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use mainstay_db::Options;
use mainstay_embed::{ModelChoice, RemoteChoice};
use mainstay_ops::meter::Meter;
use mainstay_ops::metric::Shown;
use mainstay_ops::metric_table::METRICS;
use mainstay_server::settings::Settings;
use mainstay_server::telemetry::Telemetry;
use mainstay_testkit::postgres::Postgres;
use serde_json::{Value, json};

use crate::catalogue::{sharing, until};
use crate::{Running, agent, with_documents};

/// What the whole test binary logs from the first call on, at the most detailed level.
pub(crate) fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<&'static Mutex<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let written: &'static Mutex<Vec<u8>> = Box::leak(Box::default());
        let flags =
            [("log.filter", "trace"), ("log.format", "json"), ("telemetry.sample_ratio", "1")];
        let flags: Vec<_> = flags.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        let settings = Settings::load(None, [], &flags).unwrap();
        let writer = Arc::new(Mutex::new(Shared(written)));
        let pipelines = Options::default().pipelines;
        let (_, subscriber) = Telemetry::build(&settings, &pipelines, writer).unwrap();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        written
    })
}

struct Shared(&'static Mutex<Vec<u8>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn lines() -> Vec<Value> {
    let text = String::from_utf8(log().lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A header of the answer to a request with these headers.
fn answered(server: &Running, path: &str, given: &[(&str, &str)], header: &str) -> (u16, String) {
    let mut request = agent().get(server.url(path));
    for (name, value) in given {
        request = request.header(*name, *value);
    }
    let answer = request.call().unwrap();
    let value = answer.headers().get(header).map(|value| value.to_str().unwrap().to_string());
    (answer.status().as_u16(), value.unwrap_or_default())
}

#[test]
fn every_answer_carries_the_correlation_id_that_was_given_or_a_new_one() {
    let server = Running::start();
    let header = "x-correlation-id";
    let longest = "x".repeat(64);
    for given in ["abc-123", &longest] {
        for path in ["/health", "/nowhere", "/collections/missing", "/search"] {
            let (status, answered) = answered(&server, path, &[(header, given)], header);
            assert_eq!(answered, given, "{path} with {status}");
        }
    }
    let too_long = "x".repeat(65);
    let is_new = |id: &str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    for malformed in ["", "a b", "a_b", &too_long] {
        let (status, answered) = answered(&server, "/health", &[(header, malformed)], header);
        assert_eq!(status, 200, "a malformed id is no error");
        assert!(is_new(&answered), "{malformed:?} became {answered:?}");
    }
    let (_, first) = answered(&server, "/health", &[], header);
    let (_, second) = answered(&server, "/health", &[], header);
    assert!(is_new(&first) && is_new(&second) && first != second);
}

#[test]
fn a_trace_goes_on_where_the_caller_began_it() {
    log();
    let server = Running::start();
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (_, answered) = answered(&server, "/health", &[("traceparent", given)], "traceparent");
    assert!(answered.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{answered}");
    assert!(answered.ends_with("-01") && answered != given, "the span is the server's: {answered}");
}

#[test]
fn every_line_of_a_request_names_it_also_on_other_threads() {
    log();
    let server = Running::start();
    server.break_method(mainstay_db::Method::Bm25, mainstay_db::InjectedFault::Panic);
    let id = "lines-of-one-request";
    agent()
        .post(server.url("/search"))
        .header("x-correlation-id", id)
        // A panic prints its stack, which may take a while.
        .send_json(json!({"query": "x", "timeout_ms": 30_000}))
        .unwrap();
    let of_request: Vec<Value> =
        lines().into_iter().filter(|line| line["correlation_id"] == id).collect();
    let find = |message: &str| {
        let found = of_request.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in {of_request:#?}")).clone()
    };
    let answered = find("request answered");
    assert_eq!(answered["fields"]["route"], "/search");
    assert_eq!(answered["fields"]["status"], 200);
    // On a thread of the method's own, two hops away.
    let panicked = find("search method panicked");
    for name in ["time", "level", "target", "trace_id", "span_id"] {
        assert!(panicked[name].is_string(), "{name} is missing in {panicked}");
    }
    assert_eq!(panicked["trace_id"], answered["trace_id"]);
    // Nobody records this trace, so that the thread works for the request's own span.
    assert_eq!(panicked["span_id"], answered["span_id"]);
}

#[test]
fn a_replaced_correlation_id_is_said_in_a_line() {
    log();
    let server = Running::start();
    let header = "x-correlation-id";
    let (_, new) = answered(&server, "/health", &[(header, "not valid!")], header);
    let said = lines().into_iter().any(|line| {
        line["correlation_id"] == new.as_str()
            && line["message"].as_str().unwrap().contains("malformed X-Correlation-ID replaced")
    });
    assert!(said);
}

/// An embedding provider that answers one vector, and tells what it was sent.
fn provider(dimension: usize) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while reader.read_line(&mut head).is_ok_and(|read| read > 2) {
                let last = head.lines().last().unwrap_or_default().to_ascii_lowercase();
                if let Some(value) = last.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let question: Value = serde_json::from_slice(&body).unwrap();
            let texts = question["input"].as_array().unwrap().len();
            let item = |index| json!({"index": index, "embedding": vec![1.0; dimension]});
            let data: Vec<Value> = (0..texts).map(item).collect();
            let answer = json!({"data": data, "model": "m"}).to_string();
            let length = answer.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\nconnection: close\r\n\r\n{answer}"
            )
            .unwrap();
            if tell.send(head).is_err() {
                return;
            }
        }
    });
    (url, told)
}

/// The server's collection `remote`, whose queries are embedded by a provider.
fn with_provider(server: &Running, url: &str, key_env: &str) {
    let remote = RemoteChoice {
        url: url.to_string(),
        model: "m".into(),
        key_env: key_env.into(),
        dimension: 4,
    };
    server.db.create_collection("remote", ModelChoice::Remote(remote)).unwrap();
}

#[test]
fn a_dependency_is_told_whose_work_it_does() {
    log();
    let server = Running::start();
    let (url, told) = provider(4);
    with_provider(&server, &url, "");
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    agent()
        .post(server.url("/collections/remote/search"))
        .header("x-correlation-id", "passed-on")
        .header("traceparent", given)
        .header("tracestate", "vendor=1")
        .send_json(json!({"query": "x"}))
        .unwrap();
    // The server's own probe of the provider is nobody's work.
    let mut heads = std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(20)).ok());
    let head = heads.find(|head| head.to_ascii_lowercase().contains("x-correlation-id: "));
    let head = head.unwrap().to_ascii_lowercase();
    assert!(head.contains("x-correlation-id: passed-on\r\n"), "{head}");
    assert!(head.contains("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{head}");
    assert!(!head.contains(given), "the parent is our span, not the caller's: {head}");
    assert!(head.contains("tracestate: vendor=1\r\n"), "{head}");
}

/// V5: also a change that is made on a thread of its own, in the database that nodes share.
#[test]
fn the_catalogue_is_told_whose_work_it_does() {
    log();
    let database = Postgres::start();
    let url = database.database();
    let name = url.rsplit('/').next().unwrap();
    database.sql(name, &format!("ALTER DATABASE {name} SET log_statement = 'all'"));
    let mut config = sharing(&url);
    // The node itself asks once and not again; the log keeps only some lines.
    config.operations.catalogue.refresh_every = Duration::from_secs(3600);
    let server = Running::start_with(config);
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = agent()
        .post(server.url("/admin/keys"))
        .header("x-correlation-id", "to-the-catalogue")
        .header("traceparent", given)
        .header("tracestate", "vendor=1")
        .send_json(json!({"name": "root", "scopes": ["admin"]}))
        .unwrap();
    assert_eq!(answer.status(), 201);
    let said = "RETURNING version /*correlation_id='to-the-catalogue',\
                traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-";
    until("the statement names the request", || {
        let log = database.log();
        let told = log.contains(said) && log.contains(",tracestate='vendor%3D1'*/");
        assert!(!log.contains(given), "the parent is our span, not the caller's: {log}");
        told.then_some(()).ok_or(log)
    });
}

/// C5: nothing secret and no document in the log, at the most detailed level.
#[test]
fn no_secret_and_no_document_is_in_the_log() {
    log();
    let server = Running::start();
    let (url, told) = provider(4);
    with_provider(&server, &url, "PATH");
    let key = std::env::var("PATH").unwrap();
    let body = "wombat-".repeat(500);
    let document = json!([{"id": "a", "title": "numbat-title", "body": body}]);
    agent()
        .put(server.url("/collections/remote/documents"))
        .header("authorization", "Bearer hunter2-bearer")
        .header("x-api-key", "hunter2-key")
        .send_json(&document)
        .unwrap();
    agent()
        .post(server.url("/collections/remote/search"))
        .header("authorization", "Basic hunter2-basic")
        .header("x-correlation-id", "hunter2!")
        .send_json(json!({"query": "quokka-query"}))
        .unwrap();
    told.recv_timeout(Duration::from_secs(20)).unwrap();
    tracing::warn!(api_key = "hunter2", url = "postgres://u:hunter2@h/x", "Bearer hunter2");
    server.get("/metrics");
    let text = String::from_utf8(log().lock().unwrap().clone()).unwrap();
    assert!(text.contains("[redacted]"), "the planted line is there");
    for secret in ["hunter2", "wombat", "numbat-title", "quokka", key.as_str()] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

/// Something of everything that the server counts.
fn workload(server: &Running) {
    server.put("/collections/default/documents", &json!([{"id": "a", "body": "zebra"}]));
    server.post("/search", &json!({"query": "zebra"}));
    server.post("/search", &json!({"query": "x", "limit": 0}));
    server.post("/search", &json!({"query": "\"zebra", "methods": ["tantivy"]}));
    server.delete("/collections/default/documents/a");
    server.get("/nowhere");
    server.send("PUT", "/search", "text/plain", b"x");
    server.post("/admin/collections/default/rebuild", &json!({"method": "bm25"}));
    server.break_method(mainstay_db::Method::Native, mainstay_db::InjectedFault::Panic);
    for _ in 0..7 {
        server.post("/search", &json!({"query": "zebra"}));
    }
    server.mend_method(mainstay_db::Method::Native);
}

fn scraped(server: &Running, accept: &str) -> (String, String) {
    let answer = agent().get(server.url("/metrics")).header("accept", accept).call().unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_string();
    (kind, answer.into_body().read_to_string().unwrap())
}

#[test]
fn what_a_server_exports_is_declared_and_what_is_declared_is_exported() {
    let server = Running::start();
    workload(&server);
    let (kind, text) = scraped(&server, "text/plain");
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let families: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert!(families.is_subset(&declared), "{:?}", families.difference(&declared));
    for metric in METRICS.iter().filter(|metric| metric.shown == Shown::Always) {
        assert!(families.contains(metric.name), "{} never appears", metric.name);
    }
    let required = [
        "mainstay_search_duration_seconds",
        "mainstay_search_errors_total",
        "mainstay_circuit_breaker_transitions_total",
        "mainstay_circuit_breaker_rejected_total",
        "mainstay_rejected_total",
        "mainstay_http_requests_total",
        "mainstay_log_sync_duration_seconds",
        "mainstay_embedding_duration_seconds",
    ];
    for name in required {
        assert!(families.contains(name), "{name} is missing");
    }
    for sample in [
        "mainstay_circuit_breaker_state{name=\"default/native\"} 1",
        // A dependency that has never changed its state is shown all the same.
        "mainstay_circuit_breaker_state{name=\"catalogue/sqlite\"} 0",
        "mainstay_circuit_breaker_error_rate{name=\"catalogue/sqlite\"} ",
        "mainstay_retry_calls_total{name=\"catalogue/sqlite\",attempts=\"1\"} ",
        "mainstay_retry_budget{name=\"catalogue/sqlite\"} ",
        "mainstay_index_operations_total{operation=\"delete\"} ",
        "mainstay_http_requests_total{route=\"unmatched\",method=\"GET\",status_class=\"4xx\"}",
        "mainstay_search_duration_seconds_bucket{le=\"0.05\"} ",
    ] {
        assert!(text.contains(sample), "{sample} is not in\n{text}");
    }
    let meter = Meter::installed().unwrap();
    assert_eq!(meter.undeclared_names(), Vec::<String>::new());
    assert!(text.contains("mainstay_metrics_undeclared_total 0\n"));
}

#[test]
fn openmetrics_names_the_trace_of_an_observation() {
    log();
    let server = Running::start();
    let answer = agent()
        .post(server.url("/search"))
        .header("traceparent", "00-11112222333344445555666677778888-00f067aa0ba902b7-01")
        .send_json(json!({"query": "x"}))
        .unwrap();
    assert_eq!(answer.status(), 200);
    let (kind, text) = scraped(&server, "application/openmetrics-text; version=1.0.0");
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"));
    let exemplars: Vec<&str> = text.lines().filter(|line| line.contains(" # {trace_id=")).collect();
    assert!(!exemplars.is_empty(), "{text}");
    assert!(
        exemplars.iter().all(|line| line.contains("_duration_seconds_bucket{")),
        "{exemplars:?}"
    );
    let (_, plain) = scraped(&server, "text/plain");
    assert!(!plain.contains("trace_id"), "the Prometheus format has no exemplars");
}

/// V3: Prometheus' own checker has nothing to say.
#[test]
fn promtool_finds_nothing_wrong() {
    let server = Running::start();
    workload(&server);
    let (_, text) = scraped(&server, "text/plain");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by `cargo xtask test`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && words.is_empty(), "{}", String::from_utf8_lossy(&words));
}

/// A process that is killed with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// V3: a real Prometheus scrapes the server and answers what it has stored, with the trace of a request
/// beside its duration.
#[test]
fn a_real_prometheus_scrapes_the_server() {
    log();
    let server = Running::start();
    let trace = "99990000aaaabbbbccccddddeeeeffff";
    let search = || {
        agent()
            .post(server.url("/search"))
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .send_json(json!({"query": "x"}))
            .unwrap()
    };
    search();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n\
             - job_name: mainstay\n  static_configs:\n  - targets: ['{}']\n",
            server.address
        ),
    )
    .unwrap();
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={free}"))
        .arg("--enable-feature=exemplar-storage")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus is installed by `cargo xtask test`");
    let _prometheus = Killed(prometheus);
    let ask = |path: &str, parameters: &[(&str, &str)]| -> Option<Value> {
        let url = format!("http://{free}/api/v1/{path}");
        let answer = agent().get(url).query_pairs(parameters.iter().copied()).call();
        let text = answer.ok()?.into_body().read_to_string().ok()?;
        serde_json::from_str(&text).ok()
    };
    let query = |text: &str| -> Option<Value> {
        ask("query", &[("query", text)])?["data"]["result"].as_array()?.first().cloned()
    };
    let latest = Instant::now() + Duration::from_secs(60);
    let await_value = |text: &str| loop {
        let found = query(text).and_then(|it| it["value"][1].as_str().map(str::to_string));
        match found {
            Some(value) if value != "0" => break value,
            _ if Instant::now() > latest => panic!("{text} is {found:?}"),
            _ => std::thread::park_timeout(Duration::from_millis(100)),
        }
    };
    assert_eq!(await_value("up{job=\"mainstay\"}"), "1");
    let searches = await_value("sum(mainstay_search_requests_total)");
    assert!(searches.parse::<f64>().unwrap() >= 1.0, "{searches}");
    await_value("count(mainstay_search_duration_seconds_bucket{le=\"0.05\"})");
    // Other tests observe into the same buckets, each of which keeps one exemplar for a while.
    until("Prometheus has an exemplar of the request", || {
        search();
        let exemplars =
            ask("query_exemplars", &[("query", "mainstay_http_request_duration_seconds_bucket")]);
        let exemplars = exemplars.unwrap_or_default();
        let all = exemplars["data"].as_array().into_iter().flatten();
        let mut of_searches = all.filter(|it| it["seriesLabels"]["route"] == "/search");
        let is_ours = |it: &Value| it["labels"]["trace_id"] == trace;
        let found = of_searches.any(|it| it["exemplars"].as_array().unwrap().iter().any(is_ours));
        found.then_some(()).ok_or(exemplars.to_string())
    });
}

/// V3: what is looked up once and kept counts under its own labels.
#[test]
fn v3_each_route_class_and_method_counts_for_itself() {
    let server = with_documents();
    let counted = |name: &str, labels: &[&str]| -> f64 {
        let metrics = server.get("/metrics").body;
        let sample = |line: &&str| {
            line.starts_with(&format!("{name}{{")) && labels.iter().all(|it| line.contains(it))
        };
        let values = metrics.lines().filter(sample).filter_map(|line| line.split(' ').nth(1));
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    };
    let path = "route=\"/admin/collections/{collection}/set-aside\"";
    let answers = |class: &str| {
        let class = format!("status_class=\"{class}\"");
        counted("mainstay_http_requests_total", &[path, "method=\"GET\"", &class])
    };
    let before = (answers("2xx"), answers("4xx"));
    for _ in 0..2 {
        assert_eq!(server.get("/admin/collections/default/set-aside").status, 200);
        assert_eq!(server.get("/admin/collections/nowhere/set-aside").status, 404);
    }
    assert!(answers("2xx") >= before.0 + 2.0 && answers("4xx") >= before.1 + 2.0);
    for method in ["bm25", "tantivy", "native", "semantic"] {
        let method = format!("method=\"{method}\"");
        let asked = || {
            let requests = counted("mainstay_method_requests_total", &[&method, "status=\"ok\""]);
            (requests, counted("mainstay_method_duration_seconds_count", &[&method]))
        };
        let before = asked();
        assert_eq!(server.post("/search", &json!({"query": "zebra"})).status, 200);
        let after = asked();
        assert!(after.0 > before.0 && after.1 > before.1, "{method}: {before:?}, {after:?}");
    }
}
