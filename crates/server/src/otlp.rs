//! [`Collector`]: sends spans to an OpenTelemetry collector over OTLP, by gRPC or by HTTP with
//! protobuf.
//!
//! The collector is a dependency like any other: it has a pipeline among those of the process, with
//! retries and a breaker, so one that is gone is asked rarely. Everything here runs on the thread that
//! exports spans or on that of a probe, where no span is recorded.

use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use mainstay_ops::otlp::{RequestHead, SpanValue};
use mainstay_ops::span_export::{SpanBatch, SpanSink};
use mainstay_resilience::{
    Attempt, Classify, Clock, Context, Criticality, Deadline, Dependency, DependencyKind,
    ErrorKind, Injected, Pipelines, Priority, Verdict, classify_http_status,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use prost::bytes::Bytes;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use ureq::SendBody;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout, time};

use crate::otlp_codec::{Request, Written};
use crate::otlp_headers::OtlpHeaders;

/// The service's name in pipelines, metrics and settings (`service.telemetry.attempts`).
pub const SERVICE: &str = "telemetry";
/// Its one endpoint.
const ENDPOINT: &str = "otlp";
/// The longest answer that is read, in bytes; a collector answers with some counts.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Bytes that are sent over HTTP at a time: what is copied for that stays in the processor's caches.
const SENT_BYTES: usize = 64 << 10;
/// What takes spans, in gRPC.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, usually on port 4317.
    Grpc,
    /// HTTP with protobuf bodies, usually on port 4318.
    Http,
}

/// Where spans are sent, and how.
#[derive(Clone, Debug)]
pub struct CollectorConfig {
    /// Its address, such as `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The name of this service in traces.
    pub service_name: String,
    /// What goes with every batch.
    pub headers: OtlpHeaders,
    /// The time of one attempt, where the pipeline allows no less.
    pub timeout: Duration,
}

/// Sends spans to a collector.
pub struct Collector(Arc<Sender>);

/// What batches are sent with, and probes as well.
struct Sender {
    wire: Wire,
    headers: OtlpHeaders,
    head: RequestHead,
    pipelines: Pipelines,
    dependency: Dependency,
    timeout: Duration,
}

enum Wire {
    Grpc { runtime: tokio::runtime::Runtime, client: tonic::client::Grpc<Channel> },
    Http { agent: ureq::Agent, address: String },
}

/// Why a batch was not taken.
#[derive(Debug)]
struct Refusal {
    kind: ErrorKind,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Injected> for Refusal {
    fn from(injected: Injected) -> Self {
        Refusal { kind: ErrorKind::Connection, message: injected.to_string() }
    }
}

impl Classify for Refusal {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn verdict(&self) -> Verdict {
        Verdict::failure(self.kind)
    }
}

impl Collector {
    /// Whether spans can be sent there, without sending any.
    ///
    /// # Errors
    /// What is wrong with the address; never the address itself.
    pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
        let uri: Uri = endpoint.parse().map_err(|_| "it is no address".to_string())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err("write http://HOST:PORT or https://HOST:PORT".to_string());
        }
        Ok(())
    }

    /// A collector that is called through `pipelines`, where it is listed from now on; nothing is sent
    /// yet. Nothing that is searched needs it: it is informative.
    ///
    /// # Errors
    /// What is wrong with the endpoint.
    pub fn new(config: CollectorConfig, pipelines: &Pipelines) -> Result<Self, String> {
        let CollectorConfig { endpoint, protocol, service_name, headers, timeout } = config;
        Self::check_endpoint(&endpoint)?;
        let wire = match protocol {
            Protocol::Grpc => Wire::grpc(&endpoint)?,
            Protocol::Http => Wire::http(&endpoint),
        };
        pipelines.declare_service(SERVICE, DependencyKind::Http, Criticality::Informative);
        let dependency = pipelines.endpoint(SERVICE, ENDPOINT).dependency().clone();
        let head = RequestHead::new(&[
            ("service.name", SpanValue::Text(&service_name)),
            ("service.version", SpanValue::Text(env!("CARGO_PKG_VERSION"))),
            ("process.pid", SpanValue::Whole(i64::from(std::process::id()))),
        ]);
        let sender = Arc::new(Sender {
            wire,
            headers,
            head,
            pipelines: pipelines.clone(),
            dependency,
            timeout,
        });
        let weak = Arc::downgrade(&sender);
        sender.dependency.probe_by(move || {
            let sender = weak.upgrade().ok_or("spans are no longer exported")?;
            sender.export(&mut Vec::new()).map(drop)
        });
        Ok(Self(sender))
    }
}

impl SpanSink for Collector {
    fn export(&mut self, batch: &mut SpanBatch) -> Result<u64, String> {
        self.0.export(&mut batch.bytes)
    }
}

impl Sender {
    /// Without spans as a probe sends it: a collector takes it and has nothing to pass on.
    fn export(&self, spans: &mut Vec<u8>) -> Result<u64, String> {
        let head = Bytes::from(self.head.before(spans.len()));
        let request = Request { head, spans: Bytes::from(std::mem::take(spans)) };
        let send = |attempt: Attempt| {
            self.dependency.faults().strike()?;
            let left = attempt.deadline().remaining(attempt.began());
            self.wire.send(&request, &self.headers, self.timeout.min(left))
        };
        // Two attempts and a wait between them fit.
        let deadline = Deadline::after(&Clock::system(), self.timeout.saturating_mul(3));
        let context = Context::within(deadline).priority(Priority::Background);
        let answer = self.pipelines.run(SERVICE, ENDPOINT, context, send);
        // Whose memory is used again, unless an attempt that was given up holds it still.
        *spans = Vec::from(request.spans);
        let answer = answer.map_err(|error| error.to_string())?;
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

impl Wire {
    fn grpc(endpoint: &str) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let mut at = Endpoint::from_shared(endpoint.to_string()).map_err(|e| e.to_string())?;
        if endpoint.starts_with("https:") {
            let tls = ClientTlsConfig::new().with_webpki_roots();
            at = at.tls_config(tls).map_err(|error| error.to_string())?;
        }
        // The channel's work runs on the runtime in whose context it is made.
        let channel = {
            let _inside = runtime.enter();
            at.connect_lazy()
        };
        Ok(Self::Grpc { runtime, client: tonic::client::Grpc::new(channel) })
    }

    fn http(endpoint: &str) -> Self {
        let base = endpoint.trim_end_matches('/');
        let address = match base.ends_with("/v1/traces") {
            true => base.to_string(),
            false => format!("{base}/v1/traces"),
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .output_buffer_size(SENT_BYTES)
            .build();
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), Lookup::default());
        Self::Http { agent, address }
    }

    fn send(
        &self,
        request: &Request,
        headers: &OtlpHeaders,
        timeout: Duration,
    ) -> Result<ExportTraceServiceResponse, Refusal> {
        match self {
            Self::Grpc { runtime, client } => runtime.block_on(async {
                let mut client = client.clone();
                let mut request = tonic::Request::new(request.clone());
                *request.metadata_mut() = MetadataMap::from_headers(headers.map().clone());
                let answer = async {
                    client.ready().await.map_err(|gone| Status::unavailable(gone.to_string()))?;
                    client.unary(request, PathAndQuery::from_static(EXPORT), Written).await
                };
                let answer = tokio::time::timeout(timeout, answer).await;
                match answer {
                    Ok(Ok(answer)) => Ok(answer.into_inner()),
                    Ok(Err(status)) => {
                        let message = format!("{}: {}", status.code(), status.message());
                        Err(Refusal { kind: status.kind(), message })
                    }
                    Err(_) => {
                        let message = format!("no answer within {timeout:?}");
                        Err(Refusal { kind: ErrorKind::Timeout, message })
                    }
                }
            }),
            Self::Http { agent, address } => post(agent, address, request, headers, timeout),
        }
    }
}

/// Looks names up as usual. An address in digits is not waited for, and so needs no thread that the usual way
/// starts with each call to wait for no longer than it may.
#[derive(Debug, Default)]
struct Lookup(DefaultResolver);

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        mut timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.parse::<IpAddr>().is_ok() {
            timeout.after = time::Duration::NotHappening;
        }
        self.0.resolve(uri, config, timeout)
    }
}

fn post(
    agent: &ureq::Agent,
    address: &str,
    request: &Request,
    headers: &OtlpHeaders,
    timeout: Duration,
) -> Result<ExportTraceServiceResponse, Refusal> {
    let failed = |error: ureq::Error| Refusal {
        kind: match error {
            ureq::Error::Timeout(_) => ErrorKind::Timeout,
            _ => ErrorKind::Connection,
        },
        message: error.to_string(),
    };
    let given = headers.map().iter();
    let post = agent.post(address).header("content-type", "application/x-protobuf");
    // Sent as it stands: with its length, a reader is not copied in between.
    let post = post.header("content-length", request.len());
    let mut body = request.head.chain(&request.spans[..]);
    let post = given.fold(post, |post, (name, value)| post.header(name, value));
    let post = post.config().timeout_global(Some(timeout)).build();
    let mut answer = post.send(SendBody::from_reader(&mut body)).map_err(failed)?;
    let status = answer.status().as_u16();
    if status != 200 {
        let kind = classify_http_status(status).unwrap_or(ErrorKind::BadRequest);
        return Err(Refusal { kind, message: format!("the collector answered {status}") });
    }
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let body = body.map_err(failed)?;
    ExportTraceServiceResponse::decode(body.as_slice()).map_err(|error| Refusal {
        kind: ErrorKind::BadRequest,
        message: format!("the collector's answer cannot be read: {error}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use mainstay_resilience::{InjectedFault, PipelinesConfig, ServiceConfig};

    use super::*;

    #[test]
    fn an_address_in_digits_is_not_waited_for_and_a_name_is_looked_up() {
        let within = |address: &str, after: Duration| {
            let timeout = NextTimeout {
                after: time::Duration::Exact(after),
                reason: ureq::Timeout::Global,
                per_read: None,
                per_write: None,
            };
            let found =
                Lookup::default().resolve(&address.parse().unwrap(), &Config::default(), timeout);
            found.map(|all| all.iter().map(|one| (one.ip().is_loopback(), one.port())).collect())
        };
        let found = |address: &str, after| -> Vec<_> { within(address, after).unwrap() };
        assert_eq!(found("http://127.0.0.1:4318/v1/traces", Duration::ZERO), [(true, 4318)]);
        assert_eq!(found("https://[::1]/v1/traces", Duration::ZERO), [(true, 443)]);
        assert!(found("http://localhost:7", Duration::from_secs(30)).contains(&(true, 7)));
    }

    /// R6: the process's own settings and drills reach the collector as any other dependency.
    #[test]
    fn the_collector_is_listed_set_and_drilled_through_the_pipelines_of_the_process() {
        let pipelines = Pipelines::new(PipelinesConfig::default()).unwrap();
        let nobody_asks = TcpListener::bind("127.0.0.1:0").unwrap();
        nobody_asks.set_nonblocking(true).unwrap();
        let config = CollectorConfig {
            endpoint: format!("http://{}", nobody_asks.local_addr().unwrap()),
            protocol: Protocol::Http,
            service_name: "test".into(),
            headers: OtlpHeaders::default(),
            timeout: Duration::from_secs(5),
        };
        let mut collector = Collector::new(config, &pipelines).unwrap();
        let [listed] = &pipelines.dependencies()[..] else { panic!("one") };
        let (kind, weight) = (listed.kind(), listed.criticality());
        assert_eq!((kind, weight), (DependencyKind::Http, Criticality::Informative));
        assert_eq!(listed.name(), "telemetry/otlp");
        listed.faults().set(InjectedFault::Error, None);
        for attempts in [3, 1, 2] {
            let mut config = PipelinesConfig::default();
            let mut service = ServiceConfig::default();
            service.all.attempts = Some(attempts);
            service.all.backoff_base = Some(Duration::from_millis(1));
            config.services.insert(SERVICE.to_string(), service);
            pipelines.reload(config).unwrap();
            listed.breaker().reset();
            let before = listed.faults().struck();
            let refused = collector.export(&mut SpanBatch::default()).unwrap_err();
            assert!(refused.contains("injected error"), "{refused}");
            assert_eq!(listed.faults().struck() - before, u64::from(attempts));
        }
        // A probe takes the same way, as long as somebody exports.
        listed.breaker().reset();
        let (probe, before) = (listed.probe().unwrap(), listed.faults().struck());
        assert!(probe().unwrap_err().contains("injected error"));
        assert_eq!(listed.faults().struck() - before, 2);
        listed.breaker().force_open();
        let refused = collector.export(&mut SpanBatch::default()).unwrap_err();
        assert!(!refused.contains("injected error"), "the breaker refused it: {refused}");
        assert!(nobody_asks.accept().is_err(), "nothing was sent");
        drop(collector);
        assert_eq!(probe(), Err("spans are no longer exported".to_string()));
    }
}
