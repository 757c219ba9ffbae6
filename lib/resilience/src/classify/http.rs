//! Status codes and headers of the `http` crate.

use super::from_http_status;
use crate::error_kind::{Classify, ErrorKind};
use crate::retry_after::parse_retry_after;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use std::time::{Duration, SystemTime};

impl Classify for StatusCode {
    /// A status that is no error is `Unknown`: ask only about errors.
    fn kind(&self) -> ErrorKind {
        from_http_status(self.as_u16()).unwrap_or(ErrorKind::Unknown)
    }
}

/// The wait that a response's `Retry-After` header asks for, seconds or date.
#[must_use]
pub fn retry_after_of(headers: &HeaderMap) -> Option<Duration> {
    parse_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn r2_r4_a_status_has_its_place_and_a_response_says_when_to_come_back() {
        assert_eq!(StatusCode::TOO_MANY_REQUESTS.kind(), ErrorKind::RateLimit);
        assert_eq!(StatusCode::GATEWAY_TIMEOUT.kind(), ErrorKind::Timeout);
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after_of(&headers), None);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(retry_after_of(&headers), Some(Duration::from_secs(7)));
    }
}
