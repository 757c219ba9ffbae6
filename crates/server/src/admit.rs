//! Admission of requests: refused before their bodies are read, or given a ticket that their work
//! is begun under.
//!
//! The ticket travels in a task-local, so that no handler can forget it: whatever a handler runs
//! through [`State::blocking`] counts against the limits of the request that it serves.

use std::cell::RefCell;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use mainstay_ops::admission::{Class, Group, PolicyState, write_bytes};

use crate::caller::Caller;
use crate::problem::Problem;
use crate::route::Route;
use crate::state::State;
use crate::ticket::Serving;

/// The limits that count for the caller: draft-ietf-httpapi-ratelimit-headers-10.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of them.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// How full the way of a write is, on every answer to one.
const WRITE_QUEUE: HeaderName = HeaderName::from_static("x-mainstay-write-queue");

/// When to try again without a connection to be had: others end theirs within about this time.
const CONNECTION_RETRY_MS: u64 = 1_000;
/// Urgencies of RFC 9218 from which nobody waits for the answer; 3 is the default, 7 the lowest.
const BATCH_FROM: u8 = 5;
/// The lowest of them.
const URGENCY_MAX: u8 = 7;

/// What an answer shows of the limits that count for its caller.
#[derive(Default)]
pub(crate) struct Shown {
    /// None for control calls.
    limited: Option<Group>,
    /// The collection of a write.
    writes_to: Option<String>,
}

/// Refuses what is not begun now; everything else runs under its ticket. `shown` is told what the answer
/// shows in both cases.
pub(crate) fn admit(
    state: &State,
    caller: &Caller,
    route: &Route,
    spare: bool,
    request: &Request,
    shown: &mut Shown,
) -> Result<Serving, Box<Response>> {
    let refused = |problem: Problem| Box::new(problem.into_response());
    let group = match route.kind.group() {
        Some(group) if spare => return Err(refused(no_connection(state, group))),
        group => group,
    };
    let headers = request.headers();
    let admission = state.admission();
    let arrived = match group {
        // Health, metrics and administration pass every limit.
        None => Ok(admission.control()),
        Some(group) => {
            shown.limited = Some(group);
            if group == Group::Write {
                shown.writes_to = Some(collection_of(request.uri().path()));
            }
            admission.arrive_at(route.name, class_of(headers), group, &caller.key())
        }
    };
    let admitted = arrived.and_then(|ticket| {
        // A body that is read whole counts before its first byte is there, as far as it is declared;
        // the rest of it counts as it arrives.
        let declared = group.map_or(0, |_| declared_bytes(headers));
        let body = RefCell::new(ticket.reserve(write_bytes(declared))?);
        Ok(Serving { caller: caller.clone(), ticket: Arc::new(ticket), body })
    });
    admitted.map_err(|refusal| refused(Problem::from(&*refusal)))
}

impl Shown {
    /// Puts it on the answer.
    pub(crate) fn add(
        self,
        state: &State,
        route: &Route,
        caller: &Caller,
        headers: &mut HeaderMap,
    ) {
        let Some(group) = self.limited else { return };
        let mut rates = Rates::default();
        let key = caller.key();
        state.admission().policies_at(route.name, group, &key, |policy| rates.add(&policy));
        rates.show(headers);
        if let Some(collection) = self.writes_to {
            show_write_queue(headers, state, collection);
        }
    }
}

/// The refusal of what came on a connection that is kept for control calls.
fn no_connection(state: &State, group: Group) -> Problem {
    let work = if group == Group::Write { "writes" } else { "searches" };
    metrics::counter!("mainstay_requests_shed_total", "work" => work).increment(1);
    let bound = state.config().connections_max;
    let detail = format!(
        "every connection is in use, {bound} at most and one for each file handle; try again, or \
         raise server.connections_max or the limit of file handles"
    );
    Problem::busy(detail, CONNECTION_RETRY_MS)
}

/// Batch when the caller says so (RFC 9218: `Priority: u=5` to `u=7`), or sends a stream.
fn class_of(headers: &HeaderMap) -> Class {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let urgency = text(HeaderName::from_static("priority")).and_then(|priority| {
        let member = priority.split(',').find_map(|member| member.trim().strip_prefix("u="));
        let urgency = member.and_then(|it| it.split(';').next()?.trim().parse::<u8>().ok());
        // RFC 9218: what is out of range is as if it were not there.
        urgency.filter(|urgency| *urgency <= URGENCY_MAX)
    });
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let streams = ["application/x-ndjson", "application/jsonl"];
    let is_batch = urgency.map(|urgency| urgency >= BATCH_FROM);
    if is_batch.unwrap_or_else(|| streams.iter().any(|stream| kind.starts_with(stream))) {
        Class::Batch
    } else {
        Class::Interactive
    }
}

/// Bytes of a body that is read whole, as far as its sender says; a stream is read in parts that
/// count as they arrive.
fn declared_bytes(headers: &HeaderMap) -> u64 {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if kind.starts_with(b"application/x-ndjson") || kind.starts_with(b"application/jsonl") {
        return 0;
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

fn collection_of(path: &str) -> String {
    path.split('/').nth(2).unwrap_or_default().to_string()
}

/// The rates that count for a caller. On every answer: each list is written once, into what becomes its
/// header.
#[derive(Default)]
struct Rates {
    policies: String,
    left: String,
}

impl Rates {
    fn add(&mut self, it: &PolicyState) {
        let Self { policies, left } = self;
        if policies.is_empty() {
            (*policies, *left) = (String::with_capacity(64), String::with_capacity(64));
        }
        let between = if policies.is_empty() { "\"" } else { ", \"" };
        push(policies, &[between, &it.name, "\";q="], it.quota);
        // The draft counts whole seconds only.
        if it.window.subsec_nanos() == 0 {
            push(policies, &[";w="], it.window.as_secs());
        }
        push(left, &[between, &it.name, "\";r="], it.remaining);
        let reset = it.reset.as_secs() + u64::from(it.reset.subsec_millis() > 0);
        push(left, &[";t="], reset);
    }

    fn show(self, headers: &mut HeaderMap) {
        if self.policies.is_empty() {
            return;
        }
        for (name, text) in [(RATE_LIMIT_POLICY, self.policies), (RATE_LIMIT, self.left)] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// Texts and a number. By hand: on every answer, and what `format!` needs would be fetched anew after every
/// search.
fn push(text: &mut String, before: &[&str], number: u64) {
    before.iter().for_each(|part| text.push_str(part));
    let (mut digits, mut at, mut rest) = ([b'0'; 20], 20, number);
    while rest > 0 || at == 20 {
        at -= 1;
        digits[at] += (rest % 10) as u8;
        rest /= 10;
    }
    digits[at..].iter().for_each(|digit| text.push(char::from(*digit)));
}

/// A structured dictionary (RFC 8941): writers slow down before they are refused.
fn show_write_queue(headers: &mut HeaderMap, state: &State, collection: String) {
    let gate = state.admission().report(Group::Write);
    let log = state.db().collection(&collection).map(|it| it.queued_bytes());
    let (bytes, bytes_max) = log.unwrap_or((0, 0));
    let text = format!(
        "waiting={}, waiting-max={}, log-bytes={bytes}, log-bytes-max={bytes_max}",
        gate.waiting, gate.waiting_max,
    );
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(WRITE_QUEUE, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn o4_limits_are_shown_as_the_draft_writes_them() {
        let state = |name: &str, window_ms, remaining, reset_ms| PolicyState {
            name: name.into(),
            quota: 100,
            window: Duration::from_millis(window_ms),
            remaining,
            reset: Duration::from_millis(reset_ms),
        };
        let mut headers = HeaderMap::new();
        Rates::default().show(&mut headers);
        assert!(headers.is_empty());
        let mut rates = Rates::default();
        rates.add(&state("search", 1_000, 0, 1_001));
        rates.add(&state("a-per-key", 1_500, u64::MAX, 59_000));
        rates.show(&mut headers);
        assert_eq!(headers[RATE_LIMIT_POLICY], "\"search\";q=100;w=1, \"a-per-key\";q=100");
        let left = format!("\"search\";r=0;t=2, \"a-per-key\";r={};t=59", u64::MAX);
        assert_eq!(headers[RATE_LIMIT], left);
    }

    #[test]
    fn o5_a_caller_may_call_its_request_unimportant_and_never_important() {
        for (headers, expected) in [
            (&[][..], Class::Interactive),
            (&[("priority", "u=1")], Class::Interactive),
            (&[("priority", "u=5, i")], Class::Batch),
            (&[("priority", "i, u=7;x=1")], Class::Batch),
            (&[("priority", "u=8")], Class::Interactive),
            (&[("priority", "u=abc")], Class::Interactive),
            (&[("content-type", "application/x-ndjson"), ("priority", "u=9")], Class::Batch),
            (&[("content-type", "application/x-ndjson; charset=utf-8")], Class::Batch),
            (&[("content-type", "application/x-ndjson"), ("priority", "u=3")], Class::Interactive),
        ] {
            assert_eq!(class_of(&map(headers)), expected, "{headers:?}");
        }
    }
}
