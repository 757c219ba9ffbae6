//! Statuses of gRPC.

use crate::error_kind::{Classify, ErrorKind};
use std::time::Duration;
use tonic::{Code, Status};

impl Classify for Status {
    fn kind(&self) -> ErrorKind {
        match self.code() {
            Code::DeadlineExceeded => ErrorKind::Timeout,
            Code::Unavailable => ErrorKind::Connection,
            Code::ResourceExhausted => ErrorKind::RateLimit,
            Code::Unauthenticated => ErrorKind::Authentication,
            Code::PermissionDenied => ErrorKind::PermissionDenied,
            Code::NotFound => ErrorKind::NotFound,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::AlreadyExists
            | Code::Unimplemented => ErrorKind::BadRequest,
            Code::Internal | Code::DataLoss | Code::Aborted => ErrorKind::ServerError,
            Code::Ok | Code::Cancelled | Code::Unknown => ErrorKind::Unknown,
        }
    }

    /// The push-back of gRPC proposal A6, milliseconds; a negative one asks for no retry and is
    /// read as none.
    fn retry_after(&self) -> Option<Duration> {
        let text = self.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?;
        text.parse().ok().map(Duration::from_millis)
    }
}
