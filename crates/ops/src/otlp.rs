//! How spans are written for a collector: the messages of OTLP 1 in protobuf, straight from what a span
//! says. Through the generated messages each span would be copied into a score of allocations first,
//! which another thread would give back.
//!
//! Invariant: a decoder of the generated messages reads what stands here; the tests show it.

use std::ops::Range;

use prost::encoding::{WireType, decode_varint, encode_varint};

use crate::buffer::Buffer;
use crate::trace_ids::Ids;

/// Bit 0 of a span's flags: its trace is recorded.
const SAMPLED: u8 = 1;

/// Fields of `ExportTraceServiceRequest`, `ResourceSpans`, `ScopeSpans`, `Resource` and
/// `InstrumentationScope`.
mod request {
    pub(super) const RESOURCE_SPANS: u32 = 1;
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const SCOPE_SPANS: u32 = 2;
    pub(super) const SCOPE: u32 = 1;
    pub(super) const SPANS: u32 = 2;
    pub(super) const RESOURCE_ATTRIBUTES: u32 = 1;
    pub(super) const SCOPE_NAME: u32 = 1;
    pub(super) const SCOPE_VERSION: u32 = 2;
}

/// Fields of `Span`.
pub(crate) mod span {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(crate) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(crate) const ATTRIBUTES: u32 = 9;
    pub(crate) const EVENTS: u32 = 11;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
}

/// Fields of `Span.Event`, `Status`, `KeyValue` and `AnyValue`.
pub(crate) mod inner {
    pub(crate) const EVENT_TIME: u32 = 1;
    pub(crate) const EVENT_NAME: u32 = 2;
    pub(crate) const EVENT_ATTRIBUTES: u32 = 3;
    pub(super) const STATUS_CODE: u32 = 3;
    pub(super) const STATUS_ERROR: u64 = 2;
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const TEXT: u32 = 1;
    pub(super) const TRUTH: u32 = 2;
    pub(super) const WHOLE: u32 = 3;
    pub(super) const NUMBER: u32 = 4;
}

/// How a span stands to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// It stays inside.
    Internal = 1,
    /// It answers a caller.
    Server = 2,
    /// It calls a dependency.
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SpanValue<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Truth(bool),
}

/// What stands in front of the spans in every request: who sends them.
pub struct RequestHead {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl RequestHead {
    /// Of a process with these attributes.
    #[must_use]
    pub fn new(attributes: &[(&str, SpanValue<'_>)]) -> Self {
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        for (name, value) in attributes {
            write_attribute(request::RESOURCE_ATTRIBUTES, name, *value, &mut resource);
        }
        write_bytes(request::SCOPE_NAME, b"mainstay", &mut scope);
        write_bytes(request::SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes(), &mut scope);
        Self { resource, scope }
    }

    /// What makes an `ExportTraceServiceRequest` of so many bytes of spans behind it; nothing where there
    /// are none.
    #[must_use]
    pub fn before(&self, spans: usize) -> Vec<u8> {
        let (mut inside, mut written) = (Vec::new(), Vec::new());
        if spans > 0 {
            let mut scope = Vec::new();
            write_bytes(request::SCOPE, &self.scope, &mut scope);
            write_bytes(request::RESOURCE, &self.resource, &mut inside);
            write_key(request::SCOPE_SPANS, scope.len() + spans, &mut inside);
            inside.extend_from_slice(&scope);
            write_key(request::RESOURCE_SPANS, inside.len() + spans, &mut written);
            written.extend_from_slice(&inside);
        }
        written
    }
}

/// A span that has ended.
pub(crate) struct FinishedSpan<'a> {
    pub(crate) ids: &'a Ids,
    pub(crate) span_id: u64,
    /// 0 for none.
    pub(crate) parent_span_id: u64,
    /// What it is called; empty where that stands in `said`.
    pub(crate) name: &'a str,
    pub(crate) kind: SpanKind,
    /// In nanoseconds since 1970.
    pub(crate) begun_ns: u64,
    pub(crate) ended_ns: u64,
    pub(crate) failed: bool,
    /// Fields that are written already.
    pub(crate) said: &'a [u8],
}

/// What the length of a span takes, whatever it is: as much as spans may need.
const LENGTH_BYTES: usize = 3;
/// Where the length of a span stands, behind its key in `ScopeSpans`; then where its ids and times stand.
const LENGTH: Range<usize> = 1..1 + LENGTH_BYTES;
const TRACE_ID: Range<usize> = 12..28;
const SPAN_ID: Range<usize> = 30..38;
const START: Range<usize> = 39..47;
const END: Range<usize> = 48..56;
const KIND: usize = 57;
const PARENT_SPAN_ID: Range<usize> = 60..68;
/// What a span takes at most beside its texts: this, its status, keys and lengths.
const FIXED_BYTES_MAX: usize = HEAD.len() + 64;
/// What each span begins with: written at once, because that takes less code than one field after the other.
const HEAD: [u8; PARENT_SPAN_ID.end] = {
    let mut head = [0; PARENT_SPAN_ID.end];
    head[0] = key(request::SPANS, WireType::LengthDelimited);
    // The one key that takes two bytes.
    let flags_key = span::FLAGS << 3 | WireType::ThirtyTwoBit as u32;
    head[LENGTH.end] = flags_key as u8 | 0x80;
    head[LENGTH.end + 1] = (flags_key >> 7) as u8;
    head[LENGTH.end + 2] = SAMPLED;
    head[TRACE_ID.start - 2] = key(span::TRACE_ID, WireType::LengthDelimited);
    head[TRACE_ID.start - 1] = 16;
    head[SPAN_ID.start - 2] = key(span::SPAN_ID, WireType::LengthDelimited);
    head[SPAN_ID.start - 1] = 8;
    head[START.start - 1] = key(span::START, WireType::SixtyFourBit);
    head[END.start - 1] = key(span::END, WireType::SixtyFourBit);
    head[KIND - 1] = key(span::KIND, WireType::Varint);
    head[PARENT_SPAN_ID.start - 2] = key(span::PARENT_SPAN_ID, WireType::LengthDelimited);
    head[PARENT_SPAN_ID.start - 1] = 8;
    head
};

impl FinishedSpan<'_> {
    /// The most bytes that it takes.
    pub(crate) fn bytes_max(&self) -> usize {
        let Ids { state, correlation, .. } = self.ids;
        FIXED_BYTES_MAX + self.name.len() + self.said.len() + state.len() + correlation.len()
    }
}

/// Writes a span, as a field of `ScopeSpans`: no more than its [`bytes_max`](FinishedSpan::bytes_max).
pub(crate) fn write_span(finished: &FinishedSpan<'_>, bytes: &mut impl Buffer) {
    let begun = bytes.len();
    let mut head = HEAD;
    head[TRACE_ID].copy_from_slice(&finished.ids.trace_id.to_be_bytes());
    head[SPAN_ID].copy_from_slice(&finished.span_id.to_be_bytes());
    head[START].copy_from_slice(&finished.begun_ns.to_le_bytes());
    head[END].copy_from_slice(&finished.ended_ns.to_le_bytes());
    head[KIND] = finished.kind as u8;
    head[PARENT_SPAN_ID].copy_from_slice(&finished.parent_span_id.to_be_bytes());
    let has_parent = finished.parent_span_id != 0;
    bytes.put(if has_parent { &head } else { &head[..=KIND] });
    if !finished.ids.state.is_empty() {
        write_bytes(span::TRACE_STATE, finished.ids.state.as_bytes(), bytes);
    }
    if !finished.name.is_empty() {
        write_bytes(span::NAME, finished.name.as_bytes(), bytes);
    }
    bytes.put(finished.said);
    if !finished.ids.correlation.is_empty() {
        let correlation = SpanValue::Text(&finished.ids.correlation);
        write_attribute(span::ATTRIBUTES, "correlation_id", correlation, bytes);
    }
    // No status is one that is unset.
    if finished.failed {
        let status = begin(span::STATUS, bytes);
        write_number(inner::STATUS_CODE, inner::STATUS_ERROR, bytes);
        end(status, bytes);
    }
    write_length(begun, bytes);
}

/// Puts the length of a span that begins there, known now, into the room in front of it. A short one is filled
/// up to that room with bytes that add nothing, which every reader of protobuf takes.
fn write_length(begun: usize, bytes: &mut impl Buffer) {
    let (begin, end) = (begun + LENGTH.start, begun + LENGTH.end);
    let length = bytes.len() - end;
    let mut rest = length;
    for (nth, place) in bytes[begin..end].iter_mut().enumerate() {
        *place = (rest & 0x7f) as u8 | if nth + 1 < LENGTH_BYTES { 0x80 } else { 0 };
        rest >>= 7;
    }
    if rest > 0 {
        put_varint(begin..end, length, bytes);
    }
}

/// In as few pieces as there are, where all lengths are as short as they nearly always are.
pub(crate) fn write_attribute(
    field: u32,
    name: &str,
    value: SpanValue<'_>,
    bytes: &mut impl Buffer,
) {
    // What follows the name, but for a text: the value's key and length, and then its own.
    let mut rest = [0; 13];
    let (used, text) = match value {
        SpanValue::Text(text) => {
            (rest[2], rest[3]) = (key(inner::TEXT, WireType::LengthDelimited), text.len() as u8);
            (4, text)
        }
        SpanValue::Whole(number) => {
            rest[2] = key(inner::WHOLE, WireType::Varint);
            (3 + varint(number.cast_unsigned(), &mut rest[3..]), "")
        }
        SpanValue::Number(number) => {
            rest[2] = key(inner::NUMBER, WireType::SixtyFourBit);
            rest[3..11].copy_from_slice(&number.to_le_bytes());
            (11, "")
        }
        SpanValue::Truth(truth) => {
            (rest[2], rest[3]) = (key(inner::TRUTH, WireType::Varint), truth.into());
            (4, "")
        }
    };
    let value_len = used - 2 + text.len();
    let whole_len = 2 + name.len() + 2 + value_len;
    if whole_len > ONE_BYTE_MAX {
        return write_long_attribute(field, name, &rest[2..used], text, bytes);
    }
    rest[..2].copy_from_slice(&[key(inner::VALUE, WireType::LengthDelimited), value_len as u8]);
    let [whole, name_key] = [field, inner::KEY].map(|it| key(it, WireType::LengthDelimited));
    bytes.put(&[whole, whole_len as u8, name_key, name.len() as u8]);
    bytes.put(name.as_bytes());
    bytes.put(&rest[..used]);
    bytes.put(text.as_bytes());
}

/// `value` is what stands in the value, but for the length of a text and the text itself.
#[cold]
fn write_long_attribute(field: u32, name: &str, value: &[u8], text: &str, bytes: &mut impl Buffer) {
    let whole = begin(field, bytes);
    write_bytes(inner::KEY, name.as_bytes(), bytes);
    let inside = begin(inner::VALUE, bytes);
    if text.is_empty() {
        bytes.put(value);
    } else {
        write_bytes(inner::TEXT, text.as_bytes(), bytes);
    }
    end(inside, bytes);
    end(whole, bytes);
}

/// Writes a number there; answers how many bytes it takes, ten at most.
fn varint(number: u64, mut place: &mut [u8]) -> usize {
    let room = place.len();
    encode_varint(number, &mut place);
    room - place.len()
}

/// The largest number that is written as one byte.
const ONE_BYTE_MAX: usize = 0x7f;

/// The key of a field, which takes one byte for all but [`span::FLAGS`].
const fn key(field: u32, wire_type: WireType) -> u8 {
    debug_assert!(field < 16, "its key has one byte");
    (field << 3) as u8 | wire_type as u8
}

/// Begins a field whose length is not known yet; answers where its content begins.
fn begin(field: u32, bytes: &mut impl Buffer) -> usize {
    bytes.put(&[key(field, WireType::LengthDelimited), 0]);
    bytes.len()
}

/// Ends it: its length stands in the byte in front of it, or, seldom, in more.
fn end(begun: usize, bytes: &mut impl Buffer) {
    let length = bytes.len() - begun;
    if length <= ONE_BYTE_MAX {
        bytes[begun - 1] = length as u8;
    } else {
        put_varint(begun - 1..begun, length, bytes);
    }
}

#[cold]
fn put_varint(place: Range<usize>, number: usize, bytes: &mut impl Buffer) {
    let mut digits = Vec::new();
    encode_varint(number as u64, &mut digits);
    bytes.replace(place, &digits);
}

/// The key and the length of a field of so many bytes.
fn write_key(field: u32, length: usize, bytes: &mut impl Buffer) {
    bytes.put(&[key(field, WireType::LengthDelimited)]);
    put_varint(bytes.len()..bytes.len(), length, bytes);
}

pub(crate) fn write_bytes(field: u32, content: &[u8], bytes: &mut impl Buffer) {
    if content.len() <= ONE_BYTE_MAX {
        let length = content.len() as u8;
        bytes.put(&[key(field, WireType::LengthDelimited), length]);
    } else {
        write_key(field, content.len(), bytes);
    }
    bytes.put(content);
}

fn write_number(field: u32, number: u64, bytes: &mut impl Buffer) {
    let mut digits = [key(field, WireType::Varint); 11];
    let used = 1 + varint(number, &mut digits[1..]);
    bytes.put(&digits[..used]);
}

pub(crate) fn write_fixed(field: u32, number: u64, bytes: &mut impl Buffer) {
    bytes.put(&[key(field, WireType::SixtyFourBit)]);
    bytes.put(&number.to_le_bytes());
}

/// A field that was written with its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written<'a> {
    pub(crate) field: u32,
    pub(crate) content: &'a [u8],
    /// With its key and its length.
    pub(crate) whole: &'a [u8],
}

impl<'a> Written<'a> {
    /// The name of an attribute, as it was written; nothing for any other field.
    pub(crate) fn attribute_name(&self) -> Option<&'a [u8]> {
        (self.field == span::ATTRIBUTES).then(|| written(self.content).next())?.map(|it| it.content)
    }
}

/// The fields that were written there one after the other, all of them with their lengths.
pub(crate) fn written(mut bytes: &[u8]) -> impl Iterator<Item = Written<'_>> {
    std::iter::from_fn(move || {
        let (key, mut rest) = bytes.split_first()?;
        let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let (content, behind) = rest.split_at_checked(length)?;
        let whole = &bytes[..bytes.len() - behind.len()];
        bytes = behind;
        Some(Written { field: u32::from(key >> 3), content, whole })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status, span as proto, status,
    };
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::buffer::Short;
    use crate::trace_ids::CORRELATION_CHARS_MAX;

    /// Owned, so that it can be made up.
    #[derive(Clone, Debug)]
    enum Made {
        Text(String),
        Whole(i64),
        Number(f64),
        Truth(bool),
    }

    const NAMES: [&str; 4] = ["a", "http.route", "", "zwölf"];

    fn made() -> impl Strategy<Value = Vec<(usize, Made)>> {
        let value = prop_oneof![
            ".{0,200}".prop_map(Made::Text),
            any::<i64>().prop_map(Made::Whole),
            (-1e9..1e9f64).prop_map(Made::Number),
            any::<bool>().prop_map(Made::Truth),
        ];
        prop::collection::vec((0..NAMES.len(), value), 0..6)
    }

    /// As they are written, and as the generated messages have them.
    fn both(field: u32, made: &[(usize, Made)], bytes: &mut impl Buffer) -> Vec<KeyValue> {
        let write = |(name, value): &(usize, Made)| {
            let value = match value {
                Made::Text(text) => SpanValue::Text(text),
                Made::Whole(number) => SpanValue::Whole(*number),
                Made::Number(number) => SpanValue::Number(*number),
                Made::Truth(truth) => SpanValue::Truth(*truth),
            };
            write_attribute(field, NAMES[*name], value, bytes);
            key_value(NAMES[*name], value)
        };
        made.iter().map(write).collect()
    }

    fn key_value(name: &str, value: SpanValue<'_>) -> KeyValue {
        let value = match value {
            SpanValue::Text(text) => Value::StringValue(text.into()),
            SpanValue::Whole(number) => Value::IntValue(number),
            SpanValue::Number(number) => Value::DoubleValue(number),
            SpanValue::Truth(truth) => Value::BoolValue(truth),
        };
        let value = Some(AnyValue { value: Some(value) });
        KeyValue { key: name.into(), value, ..KeyValue::default() }
    }

    proptest! {
        #[test]
        fn v5_what_is_written_is_read_by_a_decoder_of_the_generated_messages(
            numbers in any::<(u128, u64, u64, u64, u64)>(),
            texts in ("[ -~]{0,300}", ".{0,40}", ".{0,200}", "[a-z0-9-]{0,64}"),
            states in (any::<bool>(), 0..3usize, any::<bool>()),
            attributes in made(),
            events in prop::collection::vec(made(), 0..3),
            count in 1..4usize,
        ) {
            let (trace_id, span_id, parent_span_id, begun_ns, ended_ns) = numbers;
            let (failed, kind, has_parent) = states;
            let parent_span_id = if has_parent { parent_span_id } else { 0 };
            let (state, name, event_name, correlation) = texts;
            let mut said = Short::<64>::new();
            let mut proto_attributes = both(span::ATTRIBUTES, &attributes, &mut said);
            if !correlation.is_empty() {
                proto_attributes.push(key_value("correlation_id", SpanValue::Text(&correlation)));
            }
            let proto_events: Vec<_> = events.iter().map(|made| {
                let mut event = Vec::new();
                write_fixed(inner::EVENT_TIME, begun_ns, &mut event);
                write_bytes(inner::EVENT_NAME, event_name.as_bytes(), &mut event);
                let attributes = both(inner::EVENT_ATTRIBUTES, made, &mut event);
                write_bytes(span::EVENTS, &event, &mut said);
                proto::Event {
                    time_unix_nano: begun_ns,
                    name: event_name.clone(),
                    attributes,
                    ..proto::Event::default()
                }
            }).collect();
            let kinds = [SpanKind::Internal, SpanKind::Server, SpanKind::Client];
            let ids = Ids { correlation, trace_id, state, ..Ids::background() };
            let finished = FinishedSpan {
                ids: &ids,
                span_id,
                parent_span_id,
                name: &name,
                kind: kinds[kind],
                begun_ns,
                ended_ns,
                failed,
                said: &said,
            };
            let id = |id: u64| if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
            let proto_kinds =
                [proto::SpanKind::Internal, proto::SpanKind::Server, proto::SpanKind::Client];
            let code = status::StatusCode::Error.into();
            let expected = Span {
                trace_id: trace_id.to_be_bytes().to_vec(),
                span_id: span_id.to_be_bytes().to_vec(),
                parent_span_id: id(parent_span_id),
                trace_state: ids.state.clone(),
                flags: 1,
                name: name.clone(),
                kind: proto_kinds[kind].into(),
                start_time_unix_nano: begun_ns,
                end_time_unix_nano: ended_ns,
                attributes: proto_attributes,
                events: proto_events,
                status: failed.then(|| Status { code, ..Status::default() }),
                ..Span::default()
            };
            let mut spans = Vec::new();
            for nth in 1..=count {
                write_span(&finished, &mut spans);
                prop_assert!(spans.len() <= nth * finished.bytes_max());
            }
            let head = RequestHead::new(&[
                ("service.name", SpanValue::Text("test")),
                ("process.pid", SpanValue::Whole(7)),
            ]);
            let request = [head.before(spans.len()), spans].concat();
            let read = ExportTraceServiceRequest::decode(&request[..]).unwrap();
            let scope = InstrumentationScope {
                name: "mainstay".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                ..InstrumentationScope::default()
            };
            let attributes = vec![
                key_value("service.name", SpanValue::Text("test")),
                key_value("process.pid", SpanValue::Whole(7)),
            ];
            let whole = ExportTraceServiceRequest {
                resource_spans: vec![ResourceSpans {
                    resource: Some(Resource { attributes, ..Resource::default() }),
                    scope_spans: vec![ScopeSpans {
                        scope: Some(scope),
                        spans: vec![expected; count],
                        ..ScopeSpans::default()
                    }],
                    ..ResourceSpans::default()
                }],
            };
            prop_assert_eq!(read, whole);
        }

        /// In both kinds of memory: a length is written once what it is of is written.
        #[test]
        fn a_text_of_any_length_is_written_and_found_again(
            lengths in prop::collection::vec(prop_oneof![0..300usize, 16_300..16_500usize], 1..4),
        ) {
            let (mut vec, mut small) = (Vec::new(), Short::<16>::new());
            for length in &lengths {
                let text = "t".repeat(*length);
                write_attribute(span::ATTRIBUTES, &text, SpanValue::Text(&text), &mut vec);
                write_attribute(span::ATTRIBUTES, &text, SpanValue::Text(&text), &mut small);
            }
            prop_assert_eq!(&vec[..], &small[..]);
            let names = written(&vec).map(|it| it.attribute_name().map(<[u8]>::len));
            prop_assert_eq!(names.collect::<Vec<_>>(), lengths.into_iter().map(Some).collect::<Vec<_>>());
            let whole: Vec<u8> = written(&vec).flat_map(|it| it.whole.to_vec()).collect();
            prop_assert_eq!(whole, vec);
        }

        /// What was not written like that is no reason to stop.
        #[test]
        fn nothing_is_found_beyond_what_is_there(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let found: usize = written(&bytes).map(|it| it.whole.len()).sum();
            prop_assert!(found <= bytes.len());
        }
    }

    #[test]
    fn the_length_of_a_span_is_right_whatever_room_it_takes() {
        for bytes in [0, 1, 127, 128, 16_383, 16_384, (1 << 21) - 1, 1 << 21, 3 << 20] {
            let (before, span) = (b"before", vec![7; bytes]);
            let mut all = [&before[..], &[0; LENGTH.end], &span].concat();
            write_length(before.len(), &mut all);
            let mut rest = &all[before.len() + LENGTH.start..];
            assert_eq!(decode_varint(&mut rest), Ok(bytes as u64));
            assert!(all.starts_with(before) && rest == span);
        }
    }

    /// Room for it is asked for before it is written.
    #[test]
    fn a_span_takes_no_more_than_it_says() {
        let correlation = "c".repeat(CORRELATION_CHARS_MAX);
        for bytes in [0, 127, 128, 20_000, 3 << 20] {
            let (said, text) = (vec![7; bytes], "t".repeat(bytes.min(512)));
            let ids =
                Ids { correlation: correlation.clone(), state: text.clone(), ..Ids::background() };
            let finished = FinishedSpan {
                ids: &ids,
                span_id: 1,
                parent_span_id: 2,
                name: &text,
                kind: SpanKind::Client,
                begun_ns: u64::MAX,
                ended_ns: u64::MAX,
                failed: true,
                said: &said,
            };
            let mut written = Vec::new();
            write_span(&finished, &mut written);
            let max = finished.bytes_max();
            assert!(written.len() <= max && max < written.len() + 64, "{} of {max}", written.len());
        }
    }

    #[test]
    fn nothing_stands_before_no_spans() {
        assert!(
            RequestHead::new(&[("service.name", SpanValue::Text("test"))]).before(0).is_empty()
        );
    }
}
