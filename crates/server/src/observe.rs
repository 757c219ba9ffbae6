//! The outermost part of every request: its correlation id and its place in a trace, its span, its
//! figures, and the level of service on its answer.
//!
//! What the span begins follows the request through every thread that enters it; see
//! `mainstay_ops::correlation`.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::Response;
use mainstay_ops::correlation::{
    CORRELATION_HEADER, Ids, Incoming, TRACEPARENT_HEADER, TRACESTATE_HEADER, begin,
    is_correlation_id, random_id, with_current,
};
use mainstay_ops::levels::{Level, Standing};
use mainstay_ops::slo::Source;
use metrics::{Counter, Gauge, Histogram};
use tracing::Span;
use tracing::field::Empty;

use crate::problem::TurnedAway;
use crate::route::{ROUTES, Route};
use crate::route_kind::RouteKind;
use crate::state::State;

/// The level of service, on every answer.
const LEVEL: HeaderName = HeaderName::from_static("x-mainstay-level");
/// Why it is not full, on every answer below full service.
const LEVEL_REASON: HeaderName = HeaderName::from_static("x-mainstay-level-reason");
/// The longest reason in a header; answers to searches and `/admin/level` have it whole.
const REASON_CHARS_MAX: usize = 200;

/// The headers that a request is looked at for.
const CORRELATION: HeaderName = HeaderName::from_static(CORRELATION_HEADER);
const TRACEPARENT: HeaderName = HeaderName::from_static(TRACEPARENT_HEADER);
const TRACESTATE: HeaderName = HeaderName::from_static(TRACESTATE_HEADER);

/// A request that is being answered.
pub(crate) struct Observed {
    begun: Instant,
    span: Span,
    route: Route,
    /// As a label.
    method: &'static str,
    /// Whether the caller's correlation id was replaced.
    malformed: bool,
    /// What ties it together, where nobody follows spans.
    unfollowed: Option<Ids>,
    _in_flight: InFlight,
}

impl Observed {
    pub(crate) fn begin(request: &Request, route: Route, figures: &Figures) -> Self {
        let begun = Instant::now();
        let headers = request.headers();
        let given = text(headers, CORRELATION);
        let ids = Ids::of_request(Incoming {
            correlation: given,
            traceparent: text(headers, TRACEPARENT),
            tracestate: text(headers, TRACESTATE),
        });
        let malformed = match given {
            Some(given) => !is_correlation_id(given),
            None => headers.contains_key(CORRELATION),
        };
        let method = route.row.map_or_else(|| known_method(request.method()), |row| ROUTES[row].0);
        let (span, unfollowed) =
            begin(ids, || span(&figures.span_name(&route, method), method, route.path));
        let _in_flight = InFlight::begin(figures);
        Self { begun, span, route, method, malformed, unfollowed, _in_flight }
    }

    /// What there is to say once the request's span is entered.
    pub(crate) fn enter(&self) {
        if self.malformed {
            metrics::counter!("mainstay_correlation_ids_replaced_total").increment(1);
            tracing::warn!(
                "malformed X-Correlation-ID replaced; it has at most 64 letters, digits and -"
            );
        }
    }

    /// What the request's work runs in.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Measures the answer, and says on it what it belongs to; called inside the span.
    pub(crate) fn end(&self, state: &State, figures: &Figures, response: &mut Response) {
        let standing = state.operations().levels.standing();
        let ended = Ended {
            status: response.status().as_u16(),
            turned_away: response.extensions().get::<TurnedAway>().is_some(),
            took: self.begun.elapsed(),
        };
        say(&self.span, self.method, self.route.path, &ended, &standing);
        figures.ended(&self.route, self.method, &ended);
        // Requests that were shed on purpose, and those whose work panicked: to who asks they are no
        // answer. Who is not let in has asked for nothing, and who goes beyond a rate chose to.
        let promised = match self.route.kind {
            RouteKind::Search => Some(Source::Searches),
            RouteKind::Write => Some(Source::Writes),
            _ => None,
        };
        if let Some(source) = promised
            && !matches!(ended.status, 401 | 403 | 429)
        {
            state.operations().slo.request(source, ended.status >= 500, ended.took);
        }
        let headers = response.headers_mut();
        say_level(&standing, headers);
        match &self.unfollowed {
            Some(ids) => say_ids(ids, random_id(), headers),
            None => drop(with_current(|ids, span_id| say_ids(ids, span_id, headers))),
        }
    }
}

/// Puts the level of service on an answer.
pub(crate) fn say_level(standing: &Standing, headers: &mut HeaderMap) {
    headers.insert(LEVEL, HeaderValue::from_static(standing.level.as_str()));
    if standing.level != Level::Full {
        headers.insert(LEVEL_REASON, in_a_header(&standing.reason));
    }
}

/// Puts what a request belongs to on its answer.
pub(crate) fn say_ids(ids: &Ids, span_id: u64, headers: &mut HeaderMap) {
    // Both are of digits, letters and hyphens by construction.
    if let Ok(value) = HeaderValue::from_str(&ids.correlation) {
        headers.insert(CORRELATION, value);
    }
    if let Ok(value) = HeaderValue::try_from(ids.traceparent(span_id)) {
        headers.insert(TRACEPARENT, value);
    }
}

/// A text whose characters a header can hold: any other becomes a question mark.
fn in_a_header(text: &str) -> HeaderValue {
    let held = text.chars().take(REASON_CHARS_MAX);
    let held = held.map(|char| if char == ' ' || char.is_ascii_graphic() { char } else { '?' });
    HeaderValue::from_str(&held.collect::<String>()).unwrap_or(HeaderValue::from_static("?"))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn span(name: &str, method: &'static str, route: &str) -> Span {
    tracing::info_span!(
        parent: None,
        "http.request",
        "otel.name" = name,
        "otel.kind" = "server",
        "http.request.method" = method,
        "http.route" = route,
        "http.response.status_code" = Empty,
        failed = Empty,
    )
}

/// The method as a label: those that a server may be asked with, and nothing of a caller's making.
fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    known.into_iter().find(|known| method.as_str() == *known).unwrap_or("other")
}

/// How a request ended.
struct Ended {
    status: u16,
    /// On purpose, by admission: no failure of the server.
    turned_away: bool,
    took: Duration,
}

/// Says it in the log and on the span.
fn say(span: &Span, method: &str, route: &str, ended: &Ended, standing: &Standing) {
    let Ended { status, turned_away, took } = *ended;
    span.record("http.response.status_code", status);
    let took_ms = took.as_secs_f64() * 1000.0;
    let (level, reason) = (standing.level.as_str(), &*standing.reason);
    if turned_away {
        // Under overload there are thousands a second; metrics count them.
        tracing::debug!(method, route, status, took_ms, level, reason, "request turned away");
    } else if status >= 500 {
        span.record("failed", true);
        tracing::warn!(method, route, status, took_ms, level, reason, "request failed");
    } else {
        tracing::debug!(method, route, status, took_ms, level, reason, "request answered");
    }
}

/// The classes of status codes, as labels.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The figures of each route and the name of its spans, looked up once: by then a request's own work has
/// pushed everything else out of the processor's caches, and finding a metric by its labels would fetch all
/// of them again.
pub(crate) struct Figures {
    in_flight: Gauge,
    routes: Box<[RouteFigures]>,
}

#[derive(Default)]
struct RouteFigures {
    span_name: OnceLock<String>,
    duration: OnceLock<Histogram>,
    answers: [OnceLock<Counter>; CLASSES.len()],
}

impl Figures {
    /// Those of the receiver that is installed now.
    pub(crate) fn new() -> Self {
        let in_flight = metrics::gauge!("mainstay_http_requests_in_flight");
        Self { in_flight, routes: ROUTES.iter().map(|_| RouteFigures::default()).collect() }
    }

    fn span_name(&self, route: &Route, method: &'static str) -> Cow<'_, str> {
        let name = || format!("{method} {}", route.path);
        match route.row.map(|row| &self.routes[row]) {
            Some(known) => Cow::Borrowed(known.span_name.get_or_init(name)),
            None => Cow::Owned(name()),
        }
    }

    fn ended(&self, route: &Route, method: &'static str, ended: &Ended) {
        let class = usize::from(ended.status / 100).clamp(1, CLASSES.len()) - 1;
        let (path, status_class) = (route.path, CLASSES[class]);
        let duration = || {
            metrics::histogram!(
                "mainstay_http_request_duration_seconds", "route" => path, "method" => method
            )
        };
        let answers = || {
            metrics::counter!(
                "mainstay_http_requests_total",
                "route" => path, "method" => method, "status_class" => status_class
            )
        };
        match route.row.map(|row| &self.routes[row]) {
            Some(known) => {
                known.duration.get_or_init(duration).record(ended.took);
                known.answers[class].get_or_init(answers).increment(1);
            }
            None => {
                duration().record(ended.took);
                answers().increment(1);
            }
        }
    }
}

/// Counts a request while it is being answered, also one whose caller goes away.
struct InFlight(Gauge);

impl InFlight {
    fn begin(figures: &Figures) -> Self {
        figures.in_flight.increment(1.0);
        Self(figures.in_flight.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
