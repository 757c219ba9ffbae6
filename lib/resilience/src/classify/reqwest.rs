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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_a_response_with_an_error_status_is_placed_by_it() {
        for (status, kind) in [
            (401, ErrorKind::Authentication),
            (403, ErrorKind::PermissionDenied),
            (404, ErrorKind::NotFound),
            (429, ErrorKind::RateLimit),
            (503, ErrorKind::ServerError),
            (504, ErrorKind::Timeout),
        ] {
            let response = http::Response::builder().status(status).body("").expect("valid");
            let error = reqwest::Response::from(response).error_for_status().expect_err("an error");
            assert_eq!(error.kind(), kind, "{status}");
        }
    }

    #[test]
    fn r4_an_address_that_is_none_is_the_callers_mistake() {
        let error = reqwest::Client::new().get("no address").build().expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::BadRequest);
    }
}
