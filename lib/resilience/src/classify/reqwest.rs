//! Errors of `reqwest`.

use super::{from_chain, from_http_status};
use crate::error_kind::{Classify, ErrorKind};

impl Classify for reqwest::Error {
    fn kind(&self) -> ErrorKind {
        if let Some(kind) = self.status().and_then(|status| from_http_status(status.as_u16())) {
            return kind;
        }
        if self.is_timeout() {
            return ErrorKind::Timeout;
        }
        if self.is_builder() {
            return ErrorKind::BadRequest;
        }
        match from_chain(self) {
            ErrorKind::Unknown if self.is_request() || self.is_body() => ErrorKind::Connection,
            kind => kind,
        }
    }
}
