//! Bodies of requests: their size, their memory and their pace are bounded while they arrive.

use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use futures_util::StreamExt;
use mainstay_ops::admission::write_bytes;
use tokio::time::Instant;

use crate::problem::Problem;
use crate::route_kind::RouteKind;
use crate::state::State;
use crate::ticket;

/// The longest body of a control call, in bytes: these pass every limit, and the largest of them is a
/// flag with its rules.
const CONTROL_BYTES_MAX: usize = 1 << 20;
/// Bytes that must arrive in each second of waiting, on average, once `server.body_timeout` has
/// passed: a modem sends five times as many, and a byte in every pause would hold its place for ever.
const RATE_MIN: u32 = 1 << 10;

/// Reads a body whole, within the bounds on size, memory, pauses and pace.
pub(crate) async fn read_body(request: Request, state: &State) -> Result<Vec<u8>, Problem> {
    let bound = bytes_max(&request, state);
    let mut pieces = Pieces::of(request);
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next(state).await? {
        let length = bytes.len() + piece.len();
        if length > bound {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body has more than {bound} bytes; send less at a time, or NDJSON"),
            ));
        }
        ticket::reserve_body(write_bytes(length as u64))?;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn bytes_max(request: &Request, state: &State) -> usize {
    let bound = state.config().body_bytes_max;
    match RouteKind::of(request.method(), request.uri().path()) {
        RouteKind::Search | RouteKind::Read | RouteKind::Write | RouteKind::Manage => bound,
        RouteKind::Open | RouteKind::Metrics | RouteKind::Admin | RouteKind::Unknown => {
            bound.min(CONTROL_BYTES_MAX)
        }
    }
}

/// A body, piece by piece.
pub(crate) struct Pieces {
    stream: BodyDataStream,
    bytes: u64,
    /// How long its sender was waited for; what is done with the pieces does not count.
    waited: Duration,
}

impl Pieces {
    pub(crate) fn of(request: Request) -> Self {
        let stream = request.into_body().into_data_stream();
        Self { stream, bytes: 0, waited: Duration::ZERO }
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self, state: &State) -> Result<Option<Bytes>, Problem> {
        let pause = state.config().body_timeout;
        let allowed = pause + Duration::from_millis(self.bytes * 1000 / u64::from(RATE_MIN));
        let left = allowed.saturating_sub(self.waited);
        let began = Instant::now();
        let arrived = tokio::time::timeout(pause.min(left), self.stream.next()).await;
        self.waited += began.elapsed();
        match arrived {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => {
                self.bytes += piece.len() as u64;
                Ok(Some(piece))
            }
            Ok(Some(Err(error))) => {
                Err(Problem::bad_request(format!("the body broke off: {error}")))
            }
            Err(_) => Err(late(pause, left)),
        }
    }
}

fn late(pause: Duration, left: Duration) -> Problem {
    let detail = match left < pause {
        true => {
            format!("less than {RATE_MIN} bytes of the body arrived in a second; send it faster")
        }
        false => format!("no byte of the body arrived for {pause:?}"),
    };
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
}
