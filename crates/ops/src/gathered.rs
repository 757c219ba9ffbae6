//! [`Gathered`]: the fields of a span or an event, bounded and without secrets.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, FieldSet, Visit};
use tracing::span::Attributes;

use crate::finished_span::{SpanAttributes, SpanKind, SpanValue};
use crate::redact::{REDACTED, is_secret_name, redacted};

/// Attributes of one span; those of the program are fewer than ten.
const ATTRIBUTES_MAX: usize = 32;
/// The longest text of an attribute, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Room for the texts of one span; those of the program are seldom longer together.
const TEXT_BYTES: usize = 128;

/// Whether any span or event that is registered has a field with the name of a secret. The program's own have
/// none, so that their names need not be read each time; once one has, all are.
static SECRETS_NAMED: AtomicBool = AtomicBool::new(false);

/// To be called for every span and event before its fields are gathered: otherwise a secret may be shown.
pub(crate) fn register(fields: &FieldSet) {
    if fields.iter().any(|field| is_secret_name(field.name())) {
        SECRETS_NAMED.store(true, Ordering::Relaxed);
    }
}

fn names_secret(field: &Field) -> bool {
    SECRETS_NAMED.load(Ordering::Relaxed) && is_secret_name(field.name())
}

/// The fields of a span or an event. `otel.name` renames a span, `otel.kind` is `server` or
/// `client`, and `failed = true` marks it as failed.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) message: String,
    pub(crate) name: Option<String>,
    pub(crate) kind: Option<SpanKind>,
    pub(crate) failed: bool,
    pub(crate) attributes: SpanAttributes,
}

impl Gathered {
    /// The fields with which a span begins.
    pub(crate) fn of(attributes: &Attributes<'_>) -> Self {
        let room = SpanAttributes::with_capacity(attributes.fields().len(), TEXT_BYTES);
        let mut gathered = Self { attributes: room, ..Self::default() };
        attributes.record(&mut gathered);
        gathered
    }

    /// What was recorded later counts.
    pub(crate) fn take_over(&mut self, later: Gathered) {
        self.name = later.name.or(self.name.take());
        self.kind = later.kind.or(self.kind);
        self.failed |= later.failed;
        for (name, value) in later.attributes.iter() {
            self.attributes.set(name, value, ATTRIBUTES_MAX);
        }
    }

    fn add(&mut self, field: &Field, value: SpanValue<'_>) {
        let value = match value {
            SpanValue::Text(_) if names_secret(field) => SpanValue::Text(REDACTED),
            other => other,
        };
        // What is recorded later replaces what the span began with.
        self.attributes.set(field.name(), value, ATTRIBUTES_MAX);
    }

    fn text(&mut self, field: &Field, text: &str) {
        let shown = || redacted(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
        match field.name() {
            "message" => self.message = shown().into_owned(),
            "otel.name" => self.name = Some(shown().into_owned()),
            "otel.kind" => {
                self.kind = Some(match text {
                    "server" => SpanKind::Server,
                    "client" => SpanKind::Client,
                    _ => SpanKind::Internal,
                });
            }
            _ => self.add(field, SpanValue::Text(&shown())),
        }
    }
}

impl Visit for Gathered {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, SpanValue::Number(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, SpanValue::Whole(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
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
