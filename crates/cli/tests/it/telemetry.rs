//! What `mainstay serve` says of itself: spans over OTLP, lines, slow searches (V5).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};

use crate::text;

/// How long anything here may take; far beyond what it does.
const PATIENCE: Duration = Duration::from_secs(40);

/// A server in a process of its own with these settings; killed when dropped.
struct Node {
    child: Child,
    url: String,
    lines: Arc<Mutex<Vec<String>>>,
    _data: tempfile::TempDir,
}

impl Node {
    fn start(settings: &[&str], config: Option<&Path>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command
            .args(["serve", "--data", text(data.path()), "--listen", "127.0.0.1:0"])
            .args(["--model", "static"])
            .args(settings.iter().flat_map(|setting| ["--set", *setting]));
        if let Some(config) = config {
            command.args(["--config", text(config)]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&lines);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let mut node = Self { child, url: String::new(), lines, _data: data };
        let listening = node.await_line("listening on http://");
        let address = listening.split("http://").nth(1).unwrap();
        node.url = format!("http://{}", address.split_whitespace().next().unwrap());
        node
    }

    fn await_line(&self, part: &str) -> String {
        self.await_that(part, || {
            self.lines.lock().unwrap().iter().find(|line| line.contains(part)).cloned()
        })
    }

    fn await_that<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            let lines = || self.lines.lock().unwrap().join("\n");
            assert!(Instant::now() < until, "waited for {what:?} in vain:\n{}", lines());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn search(&self, correlation: &str, traceparent: Option<&str>) -> u16 {
        let mut request =
            ureq::post(format!("{}/search", self.url)).header("x-correlation-id", correlation);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        request.send_json(json!({"query": "zebra"})).unwrap().status().as_u16()
    }

    fn get(&self, path: &str) -> Value {
        let text = ureq::get(format!("{}{path}", self.url)).call().unwrap();
        serde_json::from_str(&text.into_body().read_to_string().unwrap()).unwrap()
    }

    /// The value of a sample.
    fn metric(&self, sample: &str) -> Option<f64> {
        let text = ureq::get(format!("{}/metrics", self.url)).call().unwrap();
        let text = text.into_body().read_to_string().unwrap();
        text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A batch that a collector was sent.
struct Taken {
    request: ExportTraceServiceRequest,
    /// The header `x-key`, by which hosted collectors tell their users apart.
    key: String,
}

impl Taken {
    fn into_spans(self) -> impl Iterator<Item = Span> {
        let scopes = self.request.resource_spans.into_iter().flat_map(|it| it.scope_spans);
        scopes.flat_map(|scope| scope.spans)
    }
}

struct Taker(Sender<Taken>);

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let key = request.metadata().get("x-key").map(|key| key.to_str().unwrap().to_string());
        let key = key.unwrap_or_default();
        let _ = self.0.send(Taken { request: request.into_inner(), key });
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector that takes spans over gRPC.
fn grpc_collector() -> (String, Receiver<Taken>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let service = TraceServiceServer::new(Taker(tell));
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
    (url, told)
}

/// A collector that answers HTTP with `status` and `answer`.
fn http_collector(status: &'static str, answer: Vec<u8>) -> (String, Receiver<Taken>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
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
            assert!(head.starts_with("POST /v1/traces "), "{head}");
            assert!(head.to_ascii_lowercase().contains("content-type: application/x-protobuf"));
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
            let key = head.lines().find_map(|line| line.strip_prefix("x-key: "));
            let _ = tell.send(Taken { request, key: key.unwrap_or_default().to_string() });
            let length = answer.len();
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close");
            let _ = stream.write_all(&[head.as_bytes(), b"\r\n\r\n", &answer].concat());
        }
    });
    (url, told)
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a Any> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref()?.value.as_ref()
}

fn is_text(span: &Span, name: &str, expected: &str) -> bool {
    matches!(attribute(span, name), Some(Any::StringValue(found)) if found == expected)
}

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

/// One search with a caller's trace: the request and its four methods.
fn the_tree_of_a_search_arrives(protocol: &str, url: &str, told: &Receiver<Taken>) {
    let endpoint = format!("telemetry.endpoint={url}");
    let protocol = format!("telemetry.protocol={protocol}");
    let settings =
        [endpoint.as_str(), &protocol, "telemetry.service_name=books", "telemetry.sample_ratio=0"];
    let node = Node::start(&settings, None);
    assert_eq!(node.search("the-tree", Some(GIVEN)), 200);
    assert_eq!(node.search("not-recorded", None), 200);
    let mut spans: Vec<Span> = Vec::new();
    let until = Instant::now() + PATIENCE;
    while spans.len() < 5 {
        let taken = told.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap();
        for resource in taken.request.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            assert!(attributes.iter().any(|it| it.key == "service.name"
                && it.value.as_ref().unwrap().value == Some(Any::StringValue("books".into()))));
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    assert!(spans.iter().all(|span| span.trace_id == TRACE.to_be_bytes()), "{spans:#?}");
    assert!(spans.iter().all(|span| is_text(span, "correlation_id", "the-tree")), "{spans:#?}");
    let root = spans.iter().find(|span| span.name == "POST /search").unwrap();
    assert_eq!(root.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(root.kind, 2, "it is a server's");
    assert!(is_text(root, "http.route", "/search"));
    assert_eq!(attribute(root, "http.response.status_code"), Some(&Any::IntValue(200)));
    let mut methods: Vec<&Span> =
        spans.iter().filter(|span| span.name == "search.method").collect();
    methods.retain(|span| span.parent_span_id == root.span_id);
    for method in ["bm25", "tantivy", "native", "semantic"] {
        assert!(methods.iter().any(|span| is_text(span, "method", method)), "{method}");
    }
    for span in &spans {
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(root.start_time_unix_nano <= span.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano);
        assert_eq!(attribute(span, "otel.ended_ns_ago"), None, "it is told by the time");
    }
    node.await_that("exported spans", || {
        node.metric("mainstay_spans_exported_total").filter(|count| *count >= 5.0)
    });
}

#[test]
fn the_tree_of_a_search_arrives_over_grpc() {
    let (url, told) = grpc_collector();
    the_tree_of_a_search_arrives("grpc", &url, &told);
}

#[test]
fn the_tree_of_a_search_arrives_over_http() {
    let (url, told) = http_collector("200 OK", Vec::new());
    the_tree_of_a_search_arrives("http/protobuf", &url, &told);
}

/// V5: each view that applies a write, and each attempt at a dependency, has a span of its own; those
/// of attempts stand under the method that made them.
#[test]
fn views_and_attempts_have_spans_of_their_own() {
    let (url, told) = http_collector("200 OK", Vec::new());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("telemetry.endpoint={url}");
    let settings = [
        endpoint.as_str(),
        "telemetry.protocol=http/protobuf",
        "telemetry.sample_ratio=1",
        "dependency.attempts=2",
        "dependency.backoff_base=1ms",
        // Refinement and probes find nobody there either.
        "dependency.breaker_failures=1000",
    ];
    let node = Node::start(&settings, None);
    let model = format!("remote:http://{gone}/v1,none,8");
    let made = ureq::post(format!("{}/collections", node.url))
        .send_json(json!({"name": "far", "model": model}));
    assert_eq!(made.unwrap().status(), 201);
    let put = ureq::put(format!("{}/collections/far/documents", node.url))
        .send_json(json!([{"id": "1", "body": "a zebra"}]));
    assert_eq!(put.unwrap().status(), 200);
    let searched = ureq::post(format!("{}/collections/far/search", node.url))
        .header("traceparent", GIVEN)
        .send_json(json!({"query": "zebra"}));
    assert_eq!(searched.unwrap().status(), 200);
    let mut spans: Vec<Span> = Vec::new();
    let until = Instant::now() + PATIENCE;
    let number = |span: &Span| match attribute(span, "attempt") {
        Some(Any::IntValue(number)) => *number,
        _ => 0,
    };
    loop {
        let taken = told.recv_timeout(until.saturating_duration_since(Instant::now()));
        spans.extend(
            taken.unwrap_or_else(|_| panic!("not all of them came: {spans:#?}")).into_spans(),
        );
        let applied = |view: &str| {
            spans.iter().any(|span| span.name == "view.apply" && is_text(span, "view", view))
        };
        let tried = |attempt: i64| {
            let method = spans.iter().find(|span| {
                span.name == "search.method"
                    && is_text(span, "method", "semantic")
                    && span.trace_id == TRACE.to_be_bytes()
            });
            spans.iter().any(|span| {
                span.name == "dependency.attempt"
                    && number(span) == attempt
                    && is_text(span, "service", "embedding")
                    && method.is_some_and(|method| method.span_id == span.parent_span_id)
            })
        };
        let views = ["documents", "bm25", "tantivy", "native", "semantic"];
        if views.into_iter().all(applied) && tried(1) && tried(2) {
            return;
        }
    }
}

/// C5: what a collector knows its user by goes with each batch, and nobody else sees it.
#[test]
fn the_key_of_a_collector_goes_with_the_spans_and_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mainstay.toml");
    let (over_grpc, over_http) = (grpc_collector(), http_collector("200 OK", Vec::new()));
    for (protocol, (url, told)) in [("grpc", over_grpc), ("http/protobuf", over_http)] {
        let toml = format!(
            "[log]\nfilter = \"trace\"\n[telemetry]\nendpoint = \"{url}\"\n\
             protocol = \"{protocol}\"\notlp_headers = \"X-Key=hunter2%20of%20ours\"\n"
        );
        std::fs::write(&config, toml).unwrap();
        let node = Node::start(&[], Some(&config));
        assert_eq!(node.search("with-a-key", None), 200);
        let taken = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(taken.key, "hunter2 of ours", "over {protocol}");
        let settings = node.get("/admin/config");
        let shown = &settings["telemetry.otlp_headers"]["value"];
        assert_eq!(shown, "x-key=[redacted]");
        let lines = node.lines.lock().unwrap().join("\n");
        assert!(lines.contains("with-a-key"), "the log is that of a request");
        assert!(!lines.contains("hunter2") && !settings.to_string().contains("hunter2"));
    }
}

/// B3, V5: the collector is a dependency like any other: listed, checked and moved by hand; what it
/// is sent says nothing of the sending itself, which would have to be sent as well.
#[test]
fn the_collector_is_a_dependency_whose_own_calls_leave_no_spans() {
    let (url, told) = http_collector("200 OK", Vec::new());
    let endpoint = format!("telemetry.endpoint={url}");
    let settings = [endpoint.as_str(), "telemetry.protocol=http/protobuf"];
    let node = Node::start(&settings, None);
    let path = "/admin/dependencies/telemetry/otlp";
    let one = node.get(path);
    assert_eq!((&one["kind"], &one["criticality"]), (&json!("http"), &json!("informative")));
    for round in 1..=3 {
        assert_eq!(node.search("a-round", None), 200);
        let spans: Vec<Span> = told.recv_timeout(PATIENCE).unwrap().into_spans().collect();
        let own = spans.iter().find(|span| is_text(span, "service", "telemetry"));
        assert!(own.is_none(), "in round {round}: {own:#?}");
        node.await_that("the call", || {
            (node.get(path)["calls"].as_u64() >= Some(round)).then_some(())
        });
    }
    let act = |action: &str| {
        let acted = ureq::post(format!("{}{path}", node.url)).send_json(json!({"action": action}));
        assert_eq!(acted.unwrap().status(), 200);
    };
    act("isolate");
    node.await_that("lost spans", || {
        assert_eq!(node.search("lost", None), 200);
        node.metric("mainstay_spans_dropped_total{reason=\"export_failed\"}")
            .filter(|lost| *lost > 0.0)
    });
    let health = node.get("/health?fresh=true");
    assert_eq!(health["status"], "pass", "nothing else suffers: {health:#}");
    let checks = health["checks"].as_object().unwrap();
    let check = checks.iter().find(|(name, _)| name.starts_with("telemetry:")).unwrap().1;
    assert!(check.to_string().contains("spans are dropped and counted"), "{check:#}");
    while told.try_recv().is_ok() {}
    act("reset");
    node.await_that("spans again", || {
        assert_eq!(node.search("again", None), 200);
        told.try_recv().ok()
    });
}

/// Searches are answered, the spans are counted as lost, and the log says it once.
fn a_useless_collector_costs_spans_alone(protocol: &str, url: &str) {
    let endpoint = format!("telemetry.endpoint={url}");
    let protocol = format!("telemetry.protocol={protocol}");
    let node = Node::start(&[&endpoint, &protocol, "telemetry.timeout=200ms"], None);
    let lost = "mainstay_spans_dropped_total{reason=\"export_failed\"}";
    node.await_that("lost spans", || {
        assert_eq!(node.search("lost", None), 200);
        node.metric(lost).filter(|count| *count > 20.0)
    });
    node.await_line("the collector takes no spans");
    assert_eq!(node.metric("mainstay_spans_exported_total"), Some(0.0));
    let lines = node.lines.lock().unwrap();
    let said = lines.iter().filter(|line| line.contains("the collector takes no spans")).count();
    assert_eq!(said, 1, "{lines:#?}");
    assert!(lines.len() < 20, "{lines:#?}");
}

#[test]
fn a_collector_that_is_gone_costs_spans_alone() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    a_useless_collector_costs_spans_alone("grpc", &format!("http://{gone}"));
    a_useless_collector_costs_spans_alone("http/protobuf", &format!("http://{gone}"));
}

#[test]
fn a_collector_that_answers_nonsense_costs_spans_alone() {
    let (url, _told) = http_collector("200 OK", vec![0xff; 100]);
    a_useless_collector_costs_spans_alone("http/protobuf", &url);
    let (url, _told) = http_collector("500 Internal Server Error", b"oh".to_vec());
    a_useless_collector_costs_spans_alone("http/protobuf", &url);
    // No gRPC at all.
    a_useless_collector_costs_spans_alone("grpc", &url);
}

/// Bad input: a collector that takes the connection and never answers.
#[test]
fn a_collector_that_never_answers_costs_spans_alone_and_holds_up_no_end() {
    for protocol in ["grpc", "http/protobuf"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Connections come into the system's queue, and nobody takes them out of it.
        a_useless_collector_costs_spans_alone(protocol, &url);
        // Longer than a flush at the end is waited for.
        let endpoint = format!("telemetry.endpoint={url}");
        let protocol = format!("telemetry.protocol={protocol}");
        let mut node = Node::start(&[&endpoint, &protocol, "telemetry.timeout=1m"], None);
        for _ in 0..50 {
            assert_eq!(node.search("waits", None), 200);
        }
        node.signal("-TERM");
        node.await_line("stopped; everything is durable");
        assert_eq!(node.child.wait().unwrap().code(), Some(0));
        drop(listener);
    }
}

#[test]
fn a_slow_search_is_logged_with_its_plan_and_without_its_text() {
    let node = Node::start(&["search.slow_threshold=1ms", "server.searches_max=9"], None);
    // A millisecond is short of no search, but one in a few is longer, on any machine.
    let line = node.await_that("a slow search", || {
        assert_eq!(node.search("a-slow-one", None), 200);
        let lines = node.lines.lock().unwrap();
        lines.iter().find(|line| line.contains("slow search")).cloned()
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["correlation_id"]), (&"WARN".into(), &"a-slow-one".into()));
    let fields = &line["fields"];
    for method in ["bm25", "tantivy", "native", "semantic"] {
        assert!(fields["plan"].as_str().unwrap().contains(method), "{line}");
    }
    assert_eq!(fields["limit"], 10);
    assert_eq!((&fields["query_bytes"], &fields["query_text"]), (&5.into(), &"".into()));
    assert!(node.metric("mainstay_slow_searches_total").unwrap() >= 1.0);
}

#[test]
fn the_filter_changes_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mainstay.toml");
    std::fs::write(&config, "[log]\nfilter = \"warn\"\nformat = \"human\"\n").unwrap();
    let node = Node::start(&[], Some(&config));
    node.search("before", None);
    std::fs::write(&config, "[log]\nfilter = \"debug\"\nformat = \"human\"\n").unwrap();
    node.signal("-HUP");
    node.await_line("log.filter is now debug (was warn)");
    node.search("after", None);
    let line = node.await_line("request answered");
    assert!(line.contains(" DEBUG mainstay_server::observe: request answered method=POST"));
    assert!(line.contains("correlation_id=after"), "{line}");
    std::fs::write(&config, "[log]\nfilter = \"what=ever=\"\nformat = \"human\"\n").unwrap();
    node.signal("-HUP");
    let line = node.await_line("not reloaded, nothing was changed");
    assert!(line.contains("mainstay.toml:2: log.filter cannot be used"), "{line}");
}

#[test]
fn a_filter_or_an_endpoint_that_cannot_be_used_is_told_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    for (setting, told) in [
        ("log.filter=what=ever=", "the log filter \"what=ever=\" cannot be read"),
        ("log.format=xml", "allowed is auto, human, json"),
        ("telemetry.sample_ratio=2", "allowed is 0 to 1"),
        ("telemetry.endpoint=nowhere at all", "telemetry.endpoint cannot be used"),
    ] {
        let ran = crate::mainstay(&["serve", "--data", text(data.path()), "--set", setting]);
        assert_eq!(ran.code, 2, "{setting}: {}", ran.err);
        assert!(ran.err.contains(told), "{setting}: {}", ran.err);
    }
}
