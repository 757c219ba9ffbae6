//! Statuses of gRPC.

use crate::error_kind::{Classify, ErrorKind, Verdict};
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

    /// The push-back of gRPC proposal A6, milliseconds.
    fn retry_after(&self) -> Option<Duration> {
        pushback(self)?.parse().ok().map(Duration::from_millis)
    }

    /// A push-back that is no number of milliseconds, such as `-1`, asks for no retry.
    fn verdict(&self) -> Verdict {
        let verdict = Verdict::failure(self.kind()).with_retry_after(self.retry_after());
        let asks_for_none = pushback(self).is_some() && self.retry_after().is_none();
        if asks_for_none { verdict.without_retry() } else { verdict }
    }
}

fn pushback(status: &Status) -> Option<&str> {
    status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_every_grpc_code_has_its_place() {
        let places = [
            (Code::Ok, ErrorKind::Unknown),
            (Code::Cancelled, ErrorKind::Unknown),
            (Code::Unknown, ErrorKind::Unknown),
            (Code::InvalidArgument, ErrorKind::BadRequest),
            (Code::DeadlineExceeded, ErrorKind::Timeout),
            (Code::NotFound, ErrorKind::NotFound),
            (Code::AlreadyExists, ErrorKind::BadRequest),
            (Code::PermissionDenied, ErrorKind::PermissionDenied),
            (Code::ResourceExhausted, ErrorKind::RateLimit),
            (Code::FailedPrecondition, ErrorKind::BadRequest),
            (Code::Aborted, ErrorKind::ServerError),
            (Code::OutOfRange, ErrorKind::BadRequest),
            (Code::Unimplemented, ErrorKind::BadRequest),
            (Code::Internal, ErrorKind::ServerError),
            (Code::Unavailable, ErrorKind::Connection),
            (Code::DataLoss, ErrorKind::ServerError),
            (Code::Unauthenticated, ErrorKind::Authentication),
        ];
        for (number, (code, kind)) in places.into_iter().enumerate() {
            assert_eq!(code as usize, number, "every code stands in the list, in its order");
            assert_eq!(Status::new(code, "a message that says timeout").kind(), kind, "{code:?}");
        }
    }

    #[test]
    fn r2_the_push_back_of_grpc_is_a_retry_after() {
        let mut status = Status::unavailable("busy");
        status.metadata_mut().insert("grpc-retry-pushback-ms", "250".parse().expect("ascii"));
        assert_eq!(status.retry_after(), Some(Duration::from_millis(250)));
        assert_eq!(status.verdict().retry_after(), Some(Duration::from_millis(250)));
        status.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().expect("ascii"));
        assert_eq!(status.retry_after(), None);
        assert!(!status.verdict().is_retryable(), "a negative push-back asks for no retry");
    }
}
