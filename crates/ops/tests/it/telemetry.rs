//! Logs and traces as a process receives them: what the filter lets through, also one that is changed
//! while spans are open, and which spans are handed to a collector.

use mainstay_ops::correlation::{self, Ids, Incoming};
use mainstay_ops::log_lines::LogFormat;
use mainstay_ops::span_export::{SpanBatch, SpanSink};
use mainstay_ops::telemetry::{Telemetry, TelemetryConfig};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
use prost::Message;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::{debug, debug_span, info, info_span, subscriber, warn};

/// Spans as lines, where they are sent.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<String>>>);

fn value(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn line(span: &Span) -> String {
    let id = |bytes: &[u8]| bytes.iter().fold(0, |id, byte| id << 8 | u64::from(*byte));
    let (own, parent) = (id(&span.span_id), id(&span.parent_span_id));
    let mut line = format!("{} {own:x} of {parent:x}", span.name);
    for attribute in &span.attributes {
        line.push_str(&format!(" {}={}", attribute.key, value(attribute)));
    }
    for event in &span.events {
        line.push_str(&format!(" ({}", event.name));
        for attribute in &event.attributes {
            line.push_str(&format!(" {}={}", attribute.key, value(attribute)));
        }
        line.push(')');
    }
    if span.status.as_ref().is_some_and(|status| status.code == 2) {
        line.push_str(" failed");
    }
    line
}

impl SpanSink for Sent {
    fn export(&mut self, batch: &mut SpanBatch) -> Result<u64, String> {
        let spans = ScopeSpans::decode(&batch.bytes[..]).unwrap().spans;
        assert_eq!(spans.len() as u64, batch.count);
        self.0.lock().unwrap().extend(spans.iter().map(line));
        Ok(0)
    }
}

struct World {
    telemetry: Telemetry,
    log: Arc<Mutex<Vec<u8>>>,
    sent: Sent,
}

impl World {
    /// What was logged since it was asked last: the messages.
    fn logged(&self) -> Vec<String> {
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        let message = |line: &[u8]| {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            line["message"].as_str().unwrap().to_string()
        };
        log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(message).collect()
    }

    /// What was sent since it was asked last.
    fn sent(&self) -> Vec<String> {
        assert!(self.telemetry.flush(Duration::from_secs(30)));
        std::mem::take(&mut *self.sent.0.lock().unwrap())
    }
}

/// Does something while logs and traces are received by this filter.
fn under(filter: &str, work: impl FnOnce(&World)) {
    let (log, sent) = (Arc::<Mutex<Vec<u8>>>::default(), Sent::default());
    let config = TelemetryConfig {
        log_filter: filter.into(),
        log_format: LogFormat::Json,
        log_writer: log.clone(),
        sample_ratio: 1.0,
        sink: Some(Box::new(sent.clone())),
    };
    let (telemetry, receiver) = Telemetry::build(config).unwrap();
    let world = World { telemetry, log, sent };
    subscriber::with_default(receiver, || work(&world));
}

#[test]
fn v5_the_filter_says_what_is_logged_and_is_changed_while_running() {
    under("warn", |world| {
        let speak = || {
            info_span!("request").in_scope(|| {
                debug!(target: "mainstay_a", "debug of a");
                info!(target: "mainstay_a", "info of a");
                info!(target: "mainstay_b", "info of b");
                warn!(target: "mainstay_b", "warning of b");
            });
            world.logged()
        };
        assert_eq!(speak(), ["warning of b"]);
        world.telemetry.set_log_filter("error,mainstay_a=debug").unwrap();
        assert_eq!(speak(), ["debug of a", "info of a"]);
        world.telemetry.set_log_filter("off").unwrap();
        assert_eq!(speak(), [""; 0]);
        assert!(world.telemetry.set_log_filter("mainstay_a=loud").is_err());
        assert_eq!(speak(), [""; 0], "a filter that cannot be read changes nothing");
        world.telemetry.set_log_filter("info").unwrap();
        assert_eq!(speak(), ["info of a", "info of b", "warning of b"]);
        // The filter is of lines; a trace has its warnings whatever it says.
        let sent = world.sent();
        assert_eq!(sent.len(), 0, "this crate's spans are not the product's: {sent:?}");
    });
}

#[test]
fn v5_a_filter_may_ask_for_the_span_that_a_line_is_in() {
    under("info,[chosen]=debug", |world| {
        let speak = |wanted: &str| {
            let (other, chosen) = (info_span!("other"), info_span!("chosen"));
            other.in_scope(|| debug!("{wanted} outside"));
            chosen.in_scope(|| debug!("{wanted} inside"));
            world.logged()
        };
        assert_eq!(speak("first"), ["first inside"]);
        world.telemetry.set_log_filter("info").unwrap();
        assert_eq!(speak("second"), [""; 0]);
        world.telemetry.set_log_filter("info,[other]=debug").unwrap();
        assert_eq!(speak("third"), ["third outside"]);
        let open = info_span!("other");
        let inside = open.enter();
        world.telemetry.set_log_filter("warn").unwrap();
        drop(inside);
        assert_eq!(speak("fourth"), [""; 0]);
    });
}

#[test]
fn v5_crates_below_speak_of_errors_in_documents_and_never_of_what_goes_over_the_wire() {
    for (filter, expected) in [
        ("trace", &["an error"][..]),
        ("info", &["an error"]),
        ("error", &["an error"]),
        ("off", &[]),
        ("info,html5ever=warn", &["odd", "an error"]),
    ] {
        under(filter, |world| {
            debug!(target: "hyper", "a request with its key");
            tracing::trace!(target: "ureq_proto::util", "its body");
            warn!(target: "html5ever::tree_builder", "odd");
            tracing::error!(target: "html5ever::tree_builder", "an error");
            assert_eq!(world.logged(), expected, "{filter}");
        });
    }
}

#[test]
fn v5_lines_of_crates_that_use_the_log_facade_are_filtered_by_where_they_come_from() {
    // Another test of this process may have done so.
    let _ = tracing_log::LogTracer::init();
    under("off,far::away=info", |world| {
        tracing_log::log::info!(target: "far::away::below", "heard");
        tracing_log::log::info!(target: "elsewhere", "not heard");
        tracing_log::log::debug!(target: "far::away", "too quiet");
        assert_eq!(world.logged(), ["heard"]);
    });
}

#[test]
fn v5_spans_of_the_product_are_sent_with_their_places_and_no_others() {
    under("off,mainstay_x=debug,other_crate=debug", |world| {
        let incoming = Incoming { correlation: Some("abc"), ..Incoming::default() };
        let begun = || {
            info_span!(
                target: "mainstay_x", parent: None, "request", "otel.name" = "GET /a", path = "/a",
                api_token = "hunter2", status = tracing::field::Empty
            )
        };
        let request = correlation::begin(Ids::of_request(incoming), begun).0;
        request.in_scope(|| {
            // Neither a span of another crate nor one that is only logged comes in between.
            let foreign = info_span!(target: "other_crate", "foreign");
            let quiet = foreign.in_scope(|| debug_span!(target: "mainstay_x", "quiet"));
            quiet.in_scope(|| {
                assert_eq!(correlation::correlation_id().as_deref(), Some("abc"));
                info_span!(target: "mainstay_x", "step").in_scope(|| {
                    warn!(target: "mainstay_x", "slow");
                });
                warn!(target: "mainstay_x", "slower");
                warn!(target: "other_crate", "not ours");
            });
        });
        request.record("status", 200);
        request.record("path", "/b");
        drop(request);
        assert_eq!(correlation::correlation_id(), None);
        let sent = world.sent();
        let [request, step] = &sent[..] else { panic!("{sent:?}") };
        let id = request.split(' ').nth(2).unwrap();
        assert!(step.starts_with("step ") && step.contains(&format!(" of {id} ")), "{sent:?}");
        assert!(step.ends_with(" correlation_id=abc (slow)"), "{step}");
        let told = " of 0 path=/b api_token=[redacted] status=200 correlation_id=abc (slower)";
        assert!(request.starts_with("GET /a ") && request.ends_with(told), "{request}");
    });
}

#[test]
fn v5_a_step_of_a_trace_that_nobody_records_belongs_to_the_span_around_it() {
    under("off", |world| {
        let begun = |flags: &str| {
            let parent = format!("00-{:032x}-{:016x}-{flags}", 7, 8);
            let incoming = Incoming { traceparent: Some(&parent), ..Incoming::default() };
            let span = || info_span!(target: "mainstay_x", parent: None, "request", "otel.kind" = "server");
            correlation::begin(Ids::of_request(incoming), span).0
        };
        let step = || info_span!(target: "mainstay_x", "step");
        let call = || info_span!(target: "mainstay_x", "call", "otel.kind" = "client");
        begun("01").in_scope(|| assert!(!step().is_disabled() && !call().is_disabled()));
        begun("00").in_scope(|| {
            assert!(step().is_disabled() && !call().is_disabled());
            let other = correlation::begin(Ids::background(), step).0;
            assert!(!other.is_disabled(), "it begins a trace of its own");
            world.telemetry.set_log_filter("off,[step]=debug").unwrap();
            assert!(!step().is_disabled(), "the filter asks for it");
        });
        world.telemetry.set_log_filter("off").unwrap();
        assert!(!step().is_disabled(), "what no request caused is a trace of its own");
    });
}

#[test]
fn v5_more_spans_than_a_batch_holds_all_arrive() {
    under("off", |world| {
        for number in 0..5_000 {
            info_span!(target: "mainstay_x", "one", number).in_scope(|| ());
        }
        let sent = world.sent();
        assert_eq!(sent.len(), 5_000);
        for (number, span) in sent.iter().enumerate() {
            assert!(span.contains(&format!(" number={number}")), "{number}: {span}");
        }
    });
}

/// A request whose trace is recorded, and a step of it.
fn recorded() -> (tracing::Span, impl Fn(u32) -> tracing::Span) {
    let request = info_span!(target: "mainstay_x", parent: None, "request");
    let parent = request.clone();
    let step = move |number| info_span!(target: "mainstay_x", parent: &parent, "step", number);
    (request, step)
}

/// How the spans end that were sent.
fn ends(sent: &[String]) -> Vec<&str> {
    sent.iter().map(|span| span.rsplit(' ').next().unwrap_or("")).collect()
}

#[test]
fn v5_the_spans_of_a_trace_are_sent_once_its_first_one_ends_and_later_ones_at_once() {
    under("off", |world| {
        let (request, step) = recorded();
        let late = step(4);
        drop(step(1));
        let other = std::thread::spawn({
            let span = step(2);
            move || drop(span)
        });
        other.join().unwrap();
        drop(step(3));
        assert!(world.sent().is_empty(), "the request is under way");
        drop((request, step));
        let sent = world.sent();
        assert!(sent[0].starts_with("request "), "{sent:?}");
        assert_eq!(ends(&sent)[1..], ["number=1", "number=2", "number=3"]);
        drop(late);
        assert_eq!(ends(&world.sent()), ["number=4"]);
    });
}

#[test]
fn v5_a_trace_of_many_spans_or_of_a_long_time_is_sent_before_it_is_over() {
    under("off", |world| {
        let (request, step) = recorded();
        for number in 1..64 {
            drop(step(number));
        }
        assert!(world.sent().is_empty());
        drop(step(64));
        assert_eq!(world.sent().len(), 64);
        drop(step(65));
        assert!(world.sent().is_empty());
        std::thread::sleep(Duration::from_secs(1));
        drop(step(66));
        assert_eq!(ends(&world.sent()), ["number=65", "number=66"]);
        drop((request, step));
        assert_eq!(world.sent().len(), 1);
    });
}
