//! Errors of `redis`.

use crate::error_kind::{Classify, ErrorKind};
use redis::RedisError;

impl Classify for RedisError {
    fn kind(&self) -> ErrorKind {
        if self.is_timeout() {
            return ErrorKind::Timeout;
        }
        if self.is_io_error() || self.is_connection_dropped() || self.is_cluster_error() {
            return ErrorKind::Connection;
        }
        match self.code() {
            Some("NOAUTH" | "WRONGPASS") => ErrorKind::Authentication,
            Some("NOPERM") => ErrorKind::PermissionDenied,
            Some("BUSY" | "LOADING" | "TRYAGAIN" | "MASTERDOWN" | "READONLY") => {
                ErrorKind::ServerError
            }
            Some("OOM") => ErrorKind::RateLimit,
            Some("WRONGTYPE" | "NOSCRIPT" | "ERR" | "EXECABORT") => ErrorKind::BadRequest,
            _ => ErrorKind::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// An error as the server writes it.
    fn server(reply: &str) -> RedisError {
        let parsed = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes());
        match parsed.and_then(redis::Value::extract_error) {
            Ok(value) => panic!("{value:?} is no error"),
            Err(error) => error,
        }
    }

    #[test]
    fn r4_errors_of_redis_are_placed_by_their_connection_and_code() {
        let io = |kind| RedisError::from(io::Error::from(kind));
        assert_eq!(Classify::kind(&io(io::ErrorKind::TimedOut)), ErrorKind::Timeout);
        assert_eq!(Classify::kind(&io(io::ErrorKind::ConnectionRefused)), ErrorKind::Connection);
        for (reply, kind) in [
            ("NOAUTH Authentication required.", ErrorKind::Authentication),
            ("NOPERM this user has no permissions", ErrorKind::PermissionDenied),
            ("LOADING Redis is loading the dataset in memory", ErrorKind::ServerError),
            ("READONLY You can't write against a read only replica.", ErrorKind::ServerError),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::RateLimit),
            ("WRONGTYPE Operation against a key", ErrorKind::BadRequest),
            ("ERR unknown command", ErrorKind::BadRequest),
        ] {
            assert_eq!(Classify::kind(&server(reply)), kind, "{reply}");
        }
    }
}
