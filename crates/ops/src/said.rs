//! [`Said`]: what a span or an event says, written down as a collector wants it.
//!
//! Invariants: what one span says is bounded, and without secrets. Of attributes with one name, and of names
//! of a span, the last one counts.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, FieldSet, Visit};
use tracing::span::{Attributes, Record};

use crate::buffer::{Buffer, Short};
use crate::otlp::{self, SpanKind, SpanValue, inner, span};
use crate::otlp::{write_attribute, write_bytes, write_fixed};
use crate::redact::{REDACTED, is_secret_name, redacted};

/// Attributes of one span or event; those of the program are fewer than ten.
const ATTRIBUTES_MAX: u8 = 32;
/// The longest text of an attribute, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Warnings and errors of one span.
const EVENTS_MAX: u8 = 16;
/// What spans say, nearly always, without memory of its own.
const USUAL_BYTES: usize = 120;

/// Whether any span or event that is registered has a field with the name of a secret. The program's own have
/// none, so that their names need not be read each time; once one has, all are.
static SECRETS_NAMED: AtomicBool = AtomicBool::new(false);

/// To be called for every span and event before it says anything: otherwise a secret may be shown.
pub(crate) fn register(fields: &FieldSet) {
    if fields.iter().any(|field| is_secret_name(field.name())) {
        SECRETS_NAMED.store(true, Ordering::Relaxed);
    }
}

fn names_secret(field: &Field) -> bool {
    SECRETS_NAMED.load(Ordering::Relaxed) && is_secret_name(field.name())
}

/// What a span or an event says, in the fields of its message. `otel.name` renames a span, `otel.kind` is
/// `server` or `client`, `failed = true` marks it as failed, and `otel.ended_ns_ago` says how long before it is
/// closed its work was done, where that is by another thread.
pub(crate) struct Said {
    bytes: Short<USUAL_BYTES>,
    /// Which fields of its place in the code have said something, a bit each: those have 32 at most.
    fields: u32,
    attributes: u8,
    events: u8,
    is_of_event: bool,
    is_named: bool,
    failed: bool,
    kind: SpanKind,
    ended_ns_ago: u64,
}

impl Said {
    fn nothing(is_of_event: bool) -> Self {
        Self {
            bytes: Short::new(),
            fields: 0,
            attributes: 0,
            events: 0,
            is_of_event,
            is_named: false,
            failed: false,
            kind: SpanKind::Internal,
            ended_ns_ago: 0,
        }
    }

    /// By a span that begins.
    pub(crate) fn at_first(attributes: &Attributes<'_>) -> Self {
        let mut said = Self::nothing(false);
        attributes.record(&mut said);
        said
    }

    /// By a span, after it began.
    pub(crate) fn later(values: &Record<'_>) -> Self {
        let mut said = Self::nothing(false);
        values.record(&mut said);
        said
    }

    /// By an event.
    pub(crate) fn in_event(event: &tracing::Event<'_>) -> Self {
        let mut said = Self::nothing(true);
        event.record(&mut said);
        said
    }

    /// What a collector gets of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a span says what it is called.
    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    /// How a span stands to other processes.
    pub(crate) fn kind(&self) -> SpanKind {
        self.kind
    }

    /// Whether a span failed.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// How long before a span is closed its work was done, in nanoseconds.
    pub(crate) fn ended_ns_ago(&self) -> u64 {
        self.ended_ns_ago
    }

    /// What a span says later counts.
    pub(crate) fn add_later(&mut self, later: &Self) {
        self.is_named |= later.is_named;
        self.failed |= later.failed;
        self.ended_ns_ago = self.ended_ns_ago.max(later.ended_ns_ago);
        if later.kind != SpanKind::Internal {
            self.kind = later.kind;
        }
        let attributes = self.attributes.saturating_add(later.attributes);
        if self.fields & later.fields != 0 || attributes > ATTRIBUTES_MAX {
            return self.say_again(later);
        }
        self.fields |= later.fields;
        self.attributes = attributes;
        self.bytes.put(&later.bytes);
    }

    /// The same where something was said before, or there is no room for all.
    #[cold]
    fn say_again(&mut self, later: &Self) {
        self.fields |= later.fields;
        for new in otlp::written(&later.bytes) {
            let is_attribute = new.field == span::ATTRIBUTES;
            if let Some(place) = self.place_of(&new) {
                self.bytes.replace(place, new.whole);
            } else if !is_attribute || self.attributes < ATTRIBUTES_MAX {
                self.attributes += u8::from(is_attribute);
                self.bytes.put(new.whole);
            }
        }
    }

    /// Where that was said before.
    fn place_of(&self, again: &otlp::Written<'_>) -> Option<Range<usize>> {
        let mut end = 0;
        let said = otlp::written(&self.bytes).find(|said| {
            end += said.whole.len();
            said.field == again.field && said.attribute_name() == again.attribute_name()
        })?;
        Some(end - said.whole.len()..end)
    }

    /// A warning or an error is logged inside a span, at this time.
    pub(crate) fn add_event(&mut self, at_ns: u64, is_error: bool, mut event: Self) {
        self.failed |= is_error;
        if self.events < EVENTS_MAX {
            self.events += 1;
            write_fixed(inner::EVENT_TIME, at_ns, &mut event.bytes);
            write_bytes(span::EVENTS, &event.bytes, &mut self.bytes);
        }
    }

    fn says(&mut self, field: &Field) {
        self.fields |= 1u32.wrapping_shl(field.index() as u32);
    }

    fn add(&mut self, field: &Field, value: SpanValue<'_>) {
        if self.attributes < ATTRIBUTES_MAX {
            self.says(field);
            self.attributes += 1;
            let attribute =
                if self.is_of_event { inner::EVENT_ATTRIBUTES } else { span::ATTRIBUTES };
            write_attribute(attribute, field.name(), value, &mut self.bytes);
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        let text = redacted(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
        match (field.name(), self.is_of_event) {
            ("message", true) => write_bytes(inner::EVENT_NAME, text.as_bytes(), &mut self.bytes),
            ("otel.name", false) => {
                self.says(field);
                self.is_named = true;
                write_bytes(span::NAME, text.as_bytes(), &mut self.bytes);
            }
            ("otel.kind", false) => {
                self.kind = match &*text {
                    "server" => SpanKind::Server,
                    "client" => SpanKind::Client,
                    _ => SpanKind::Internal,
                };
            }
            ("message" | "otel.name" | "otel.kind", _) => {}
            _ if names_secret(field) => self.add(field, SpanValue::Text(REDACTED)),
            _ => self.add(field, SpanValue::Text(&text)),
        }
    }
}

impl Visit for Said {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, SpanValue::Number(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, SpanValue::Whole(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "otel.ended_ns_ago" {
            self.ended_ns_ago = value;
            return;
        }
        // OTLP has no unsigned numbers; beyond 2^63 nothing is counted here.
        self.add(field, SpanValue::Whole(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "failed" {
            self.failed |= value;
        } else {
            self.add(field, SpanValue::Truth(value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;
    use tracing::field::Empty;
    use tracing::{Event, Id, Metadata, Subscriber, info_span, warn};

    use std::sync::{Arc, Mutex};

    use super::*;

    /// Follows one span.
    #[derive(Clone, Default)]
    struct Follower(Arc<Mutex<Option<Said>>>);

    impl Follower {
        /// What it said until now, as a reader has it.
        fn read(&self) -> Span {
            let said = self.0.lock().unwrap();
            Span::decode(said.as_ref().unwrap().bytes()).unwrap()
        }

        fn names(&self) -> Vec<String> {
            self.read().attributes.into_iter().map(|attribute| attribute.key).collect()
        }
    }

    impl Subscriber for Follower {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            register(metadata.fields());
            true
        }

        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            *self.0.lock().unwrap() = Some(Said::at_first(attributes));
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            let later = Said::later(values);
            self.0.lock().unwrap().as_mut().unwrap().add_later(&later);
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let event = Said::in_event(event);
            self.0.lock().unwrap().as_mut().unwrap().add_event(7, false, event);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    fn followed(work: impl FnOnce(&Follower)) {
        let follower = Follower::default();
        tracing::subscriber::with_default(follower.clone(), || work(&follower));
    }

    /// V5: attributes of one name come once, and a replaced text takes no memory.
    #[test]
    fn what_is_said_last_counts_and_keeps_its_place() {
        followed(|follower| {
            let span =
                info_span!("a span", first = "1", "otel.name" = "one", moves = Empty, last = 3);
            span.record("moves", 1.5);
            warn!(first = "an event's", "between");
            span.record("first", "é".repeat(100));
            span.record("otel.name", "another one");
            assert_eq!(follower.names(), ["first", "last", "moves"]);
            let before = follower.read();
            assert_eq!((&before.name[..], before.events.len()), ("another one", 1));
            assert_eq!(
                (before.events[0].name.as_str(), before.events[0].time_unix_nano),
                ("between", 7)
            );
            for round in 0..1_000 {
                span.record("moves", format!("{round:0>100}"));
            }
            assert_eq!(follower.names(), ["first", "last", "moves"]);
            let said = follower.0.lock().unwrap().as_ref().unwrap().bytes().len();
            assert!(said < 700, "{said} bytes");
            span.record("moves", true);
            span.record("first", 1);
            assert_eq!(
                follower.read().encoded_len(),
                follower.0.lock().unwrap().as_ref().unwrap().bytes().len()
            );
            let values: Vec<_> =
                follower.read().attributes.into_iter().map(|it| it.value.unwrap()).collect();
            assert_eq!(format!("{values:?}").matches("IntValue").count(), 2);
        });
    }

    /// V5: bounded by number and by length, at a boundary of a character.
    #[test]
    fn what_a_span_says_is_bounded() {
        followed(|follower| {
            let span = info_span!("a span", long = format!("x{}", "é".repeat(1_000)));
            for _ in 0..40 {
                warn!("again");
            }
            let read = follower.read();
            let value = format!("{:?}", read.attributes[0].value);
            assert_eq!((value.matches('é').count(), read.events.len()), (511, 16));
            drop(span);
        });
    }
}
