//! [`Written`]: requests that are written already, in gRPC.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::bytes::{BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

/// A request: what stands in front of the spans, and they.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) head: Bytes,
    pub(crate) spans: Bytes,
}

impl Request {
    /// What it takes, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.spans.len()
    }
}

/// Writes a request as it stands; reads what is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written;

impl Codec for Written {
    type Encode = Request;
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
    type Item = Request;
    type Error = Status;

    fn encode(&mut self, request: Request, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(request.len());
        buffer.put(request.head);
        buffer.put(request.spans);
        Ok(())
    }
}
