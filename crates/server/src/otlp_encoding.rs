//! How spans are written for a collector: the messages of OTLP 1 in protobuf, straight from a finished
//! span. Through the generated messages each span would be copied into a score of allocations first,
//! which another thread would give back.
//!
//! Invariant: a decoder of the generated messages reads what stands here; the tests show it.

use mainstay_ops::finished_span::{FinishedSpan, SpanEvent, SpanKind, SpanValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

/// Bit 0 of a span's flags: its trace is recorded.
const SAMPLED: u32 = 1;

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
mod span {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const EVENTS: u32 = 11;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
    pub(super) const KIND_INTERNAL: u64 = 1;
    pub(super) const KIND_SERVER: u64 = 2;
    pub(super) const KIND_CLIENT: u64 = 3;
}

/// Fields of `Span.Event`, `Status`, `KeyValue` and `AnyValue`.
mod inner {
    pub(super) const EVENT_TIME: u32 = 1;
    pub(super) const EVENT_NAME: u32 = 2;
    pub(super) const EVENT_ATTRIBUTES: u32 = 3;
    pub(super) const STATUS_CODE: u32 = 3;
    pub(super) const STATUS_ERROR: u64 = 2;
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const TEXT: u32 = 1;
    pub(super) const TRUTH: u32 = 2;
    pub(super) const WHOLE: u32 = 3;
    pub(super) const NUMBER: u32 = 4;
}

/// Who sends spans: what stands in front of them in every request.
pub(crate) struct Process {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Process {
    /// A process with these attributes.
    pub(crate) fn new(attributes: &[(&str, SpanValue<'_>)]) -> Self {
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        for (name, value) in attributes {
            write_attribute(request::RESOURCE_ATTRIBUTES, name, *value, &mut resource);
        }
        write_bytes(request::SCOPE_NAME, b"mainstay", &mut scope);
        write_bytes(request::SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes(), &mut scope);
        Self { resource, scope }
    }

    /// The request that carries these spans, each as [`write_span`] wrote it.
    pub(crate) fn request(&self, spans: &[u8]) -> Vec<u8> {
        if spans.is_empty() {
            return Vec::new();
        }
        let scope_spans = field_len(self.scope.len()) + spans.len();
        let resource_spans = field_len(self.resource.len()) + field_len(scope_spans);
        let bytes = field_len(resource_spans);
        let mut written = Vec::with_capacity(bytes);
        begin(request::RESOURCE_SPANS, resource_spans, &mut written);
        write_bytes(request::RESOURCE, &self.resource, &mut written);
        begin(request::SCOPE_SPANS, scope_spans, &mut written);
        write_bytes(request::SCOPE, &self.scope, &mut written);
        written.extend_from_slice(spans);
        written
    }
}

/// What the length of a span takes, whatever it is: as much as spans may need.
const LENGTH_BYTES: usize = 3;
/// What a span takes as a whole, nearly always.
const USUAL_BYTES: usize = 512;

/// Writes a span as a field of `ScopeSpans`.
pub(crate) fn write_span(finished: &FinishedSpan<'_>, written: &mut Vec<u8>) {
    written.reserve(USUAL_BYTES);
    let key = key(request::SPANS, WireType::LengthDelimited);
    written.extend_from_slice(&[key, 0, 0, 0]);
    let begin = written.len() - LENGTH_BYTES;
    write_message(finished, written);
    let bytes = (written.len() - begin - LENGTH_BYTES) as u64;
    write_length(bytes, begin, written);
}

/// Puts the length of a message, known now, into the room in front of it. A short one is filled up to that
/// room with bytes that add nothing, which every reader of protobuf takes.
fn write_length(bytes: u64, at: usize, written: &mut Vec<u8>) {
    let mut length = bytes;
    for (nth, place) in written[at..at + LENGTH_BYTES].iter_mut().enumerate() {
        *place = (length & 0x7f) as u8 | if nth + 1 < LENGTH_BYTES { 0x80 } else { 0 };
        length >>= 7;
    }
    if length > 0 {
        let mut longer = Vec::new();
        encode_varint(bytes, &mut longer);
        written.splice(at..at + LENGTH_BYTES, longer);
    }
}

fn write_message(finished: &FinishedSpan<'_>, message: &mut Vec<u8>) {
    write_bytes(span::TRACE_ID, &finished.trace_id.to_be_bytes(), message);
    write_bytes(span::SPAN_ID, &finished.span_id.to_be_bytes(), message);
    if !finished.state.is_empty() {
        write_bytes(span::TRACE_STATE, finished.state.as_bytes(), message);
    }
    if finished.parent_span_id != 0 {
        write_bytes(span::PARENT_SPAN_ID, &finished.parent_span_id.to_be_bytes(), message);
    }
    write_bytes(span::NAME, finished.name.as_bytes(), message);
    let kind = match finished.kind {
        SpanKind::Internal => span::KIND_INTERNAL,
        SpanKind::Server => span::KIND_SERVER,
        SpanKind::Client => span::KIND_CLIENT,
    };
    write_number(span::KIND, kind, message);
    write_fixed(span::START, finished.begun_ns, message);
    write_fixed(span::END, finished.ended_ns, message);
    for (name, value) in finished.attributes.iter() {
        write_attribute(span::ATTRIBUTES, name, value, message);
    }
    if !finished.correlation_id.is_empty() {
        let value = SpanValue::Text(finished.correlation_id);
        write_attribute(span::ATTRIBUTES, "correlation_id", value, message);
    }
    for event in finished.events {
        write_event(event, message);
    }
    if finished.failed {
        begin(span::STATUS, 2, message);
        write_number(inner::STATUS_CODE, inner::STATUS_ERROR, message);
    } else {
        // Unset is what a status without a code says.
        begin(span::STATUS, 0, message);
    }
    encode_key(span::FLAGS, WireType::ThirtyTwoBit, message);
    message.put_u32_le(SAMPLED);
}

/// Rare, so that it may allocate.
#[cold]
fn write_event(event: &SpanEvent, message: &mut Vec<u8>) {
    let mut written = Vec::new();
    write_fixed(inner::EVENT_TIME, event.at_ns, &mut written);
    write_bytes(inner::EVENT_NAME, event.message.as_bytes(), &mut written);
    for (name, value) in event.attributes.iter() {
        write_attribute(inner::EVENT_ATTRIBUTES, name, value, &mut written);
    }
    write_bytes(span::EVENTS, &written, message);
}

fn write_attribute(field: u32, name: &str, value: SpanValue<'_>, message: &mut Vec<u8>) {
    let value_len = match value {
        SpanValue::Text(text) => field_len(text.len()),
        SpanValue::Whole(number) => 1 + encoded_len_varint(number.cast_unsigned()),
        SpanValue::Number(_) => 1 + 8,
        SpanValue::Truth(_) => 1 + 1,
    };
    begin(field, field_len(name.len()) + field_len(value_len), message);
    write_bytes(inner::KEY, name.as_bytes(), message);
    begin(inner::VALUE, value_len, message);
    match value {
        SpanValue::Text(text) => write_bytes(inner::TEXT, text.as_bytes(), message),
        SpanValue::Whole(number) => write_number(inner::WHOLE, number.cast_unsigned(), message),
        SpanValue::Number(number) => write_fixed(inner::NUMBER, number.to_bits(), message),
        SpanValue::Truth(truth) => write_number(inner::TRUTH, truth.into(), message),
    }
}

/// The largest number that is written as one byte.
const ONE_BYTE_MAX: u64 = 0x7f;

/// The key of a field, which takes one byte for all but [`span::FLAGS`].
fn key(field: u32, wire_type: WireType) -> u8 {
    debug_assert!(field < 16, "its key has one byte");
    (field << 3) as u8 | wire_type as u8
}

/// The key and the length of a field of so many bytes.
fn begin(field: u32, bytes: usize, message: &mut Vec<u8>) {
    write_varint(key(field, WireType::LengthDelimited), bytes as u64, message);
}

/// What a field of so many bytes takes with its key and its length.
fn field_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

fn write_bytes(field: u32, bytes: &[u8], message: &mut Vec<u8>) {
    begin(field, bytes.len(), message);
    message.extend_from_slice(bytes);
}

fn write_number(field: u32, number: u64, message: &mut Vec<u8>) {
    write_varint(key(field, WireType::Varint), number, message);
}

/// Nearly every number is written as one byte: with its key they are one piece.
fn write_varint(key: u8, number: u64, message: &mut Vec<u8>) {
    if number <= ONE_BYTE_MAX {
        message.extend_from_slice(&[key, number as u8]);
    } else {
        message.push(key);
        encode_varint(number, message);
    }
}

fn write_fixed(field: u32, number: u64, message: &mut Vec<u8>) {
    message.push(key(field, WireType::SixtyFourBit));
    message.extend_from_slice(&number.to_le_bytes());
}

/// Requests that are written already, in gRPC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written;

impl Codec for Written {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Written;
    type Decoder = tonic_prost::ProstDecoder<ExportTraceServiceResponse>;

    fn encoder(&mut self) -> Self::Encoder {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self::Decoder::default()
    }
}

impl Encoder for Written {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(request);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mainstay_ops::finished_span::SpanAttributes;
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

    /// As our encoder gets them, and as the generated messages have them.
    fn both(made: &[(usize, Made)]) -> (SpanAttributes, Vec<KeyValue>) {
        let mut attributes = SpanAttributes::default();
        for (name, value) in made {
            let value = match value {
                Made::Text(text) => SpanValue::Text(text),
                Made::Whole(number) => SpanValue::Whole(*number),
                Made::Number(number) => SpanValue::Number(*number),
                Made::Truth(truth) => SpanValue::Truth(*truth),
            };
            attributes.set(NAMES[*name], value, usize::MAX);
        }
        let proto = attributes.iter().map(|(name, value)| key_value(name, value)).collect();
        (attributes, proto)
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
            ids in any::<(u128, u64, u64, u64, u64)>(),
            texts in ("[ -~]{0,300}", ".{0,40}", ".{0,40}", "[a-z0-9-]{0,64}"),
            states in (any::<bool>(), 0..3usize, any::<bool>()),
            attributes in made(),
            events in prop::collection::vec(made(), 0..3),
            count in 1..4usize,
        ) {
            let (trace_id, span_id, parent_span_id, begun_ns, ended_ns) = ids;
            let (failed, kind, has_parent) = states;
            let parent_span_id = if has_parent { parent_span_id } else { 0 };
            let (attributes, mut proto_attributes) = both(&attributes);
            if !texts.3.is_empty() {
                proto_attributes.push(key_value("correlation_id", SpanValue::Text(&texts.3)));
            }
            let (events, proto_events): (Vec<_>, Vec<_>) = events.iter().map(|made| {
                let (attributes, proto) = both(made);
                let message = texts.2.clone();
                let event = SpanEvent { at_ns: begun_ns, message: message.clone(), attributes };
                (event, proto::Event {
                    time_unix_nano: begun_ns,
                    name: message,
                    attributes: proto,
                    ..proto::Event::default()
                })
            }).unzip();
            let kinds = [SpanKind::Internal, SpanKind::Server, SpanKind::Client];
            let finished = FinishedSpan {
                trace_id,
                span_id,
                parent_span_id,
                state: &texts.0,
                correlation_id: &texts.3,
                name: &texts.1,
                kind: kinds[kind],
                begun_ns,
                ended_ns,
                attributes: &attributes,
                events: &events,
                failed,
            };
            let id = |id: u64| if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
            let proto_kinds =
                [proto::SpanKind::Internal, proto::SpanKind::Server, proto::SpanKind::Client];
            let code =
                if failed { status::StatusCode::Error } else { status::StatusCode::Unset };
            let expected = Span {
                trace_id: trace_id.to_be_bytes().to_vec(),
                span_id: span_id.to_be_bytes().to_vec(),
                parent_span_id: id(parent_span_id),
                trace_state: texts.0.clone(),
                flags: 1,
                name: texts.1.clone(),
                kind: proto_kinds[kind].into(),
                start_time_unix_nano: begun_ns,
                end_time_unix_nano: ended_ns,
                attributes: proto_attributes,
                events: proto_events,
                status: Some(Status { code: code.into(), ..Status::default() }),
                ..Span::default()
            };
            let mut spans = Vec::new();
            (0..count).for_each(|_| write_span(&finished, &mut spans));
            let process = Process::new(&[
                ("service.name", SpanValue::Text("test")),
                ("process.pid", SpanValue::Whole(7)),
            ]);
            let read = ExportTraceServiceRequest::decode(&process.request(&spans)[..]).unwrap();
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
    }

    #[test]
    fn the_length_of_a_span_is_right_whatever_room_it_takes() {
        for bytes in [0, 1, 127, 128, 16_383, 16_384, (1 << 21) - 1, 1 << 21, 3 << 20] {
            let (before, span) = (b"before", vec![7; bytes]);
            let mut written = [&before[..], &[0; LENGTH_BYTES], &span].concat();
            write_length(bytes as u64, before.len(), &mut written);
            let mut rest = &written[before.len()..];
            assert_eq!(prost::encoding::decode_varint(&mut rest), Ok(bytes as u64));
            assert!(written.starts_with(before) && rest == span);
        }
    }

    #[test]
    fn a_request_without_spans_is_empty() {
        let process = Process::new(&[("service.name", SpanValue::Text("test"))]);
        assert!(process.request(&[]).is_empty());
    }
}
