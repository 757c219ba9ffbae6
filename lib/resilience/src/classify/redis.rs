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
