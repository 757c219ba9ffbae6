//! [`Ids`]: the correlation id of what one request causes, and its place in a distributed trace (W3C Trace
//! Context), as they are read and written.
//!
//! Invariants: a correlation id has 1 to [`CORRELATION_CHARS_MAX`] letters, digits and `-`; a trace
//! id and a span id are never 0.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};

/// The longest correlation id, in characters.
pub const CORRELATION_CHARS_MAX: usize = 64;
/// The longest `tracestate` that is passed on, in bytes: what the recommendation asks for.
const STATE_BYTES_MAX: usize = 512;

/// The header of the correlation id.
pub const CORRELATION_HEADER: &str = "x-correlation-id";
/// The header of the trace's place.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// The header of other systems' state.
pub const TRACESTATE_HEADER: &str = "tracestate";

/// What ties together everything that one request causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The correlation id; empty for work that no request caused.
    pub correlation: String,
    /// The trace.
    pub trace_id: u128,
    /// The caller's span; 0 when nobody has said.
    pub parent_span_id: u64,
    /// Whether the trace's spans are recorded; `None` until somebody decides.
    pub sampled: Option<bool>,
    /// The state of other tracing systems, passed on as it came; empty without.
    pub state: String,
}

/// The values of a request's headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming<'a> {
    /// `X-Correlation-ID`.
    pub correlation: Option<&'a str>,
    /// `traceparent`.
    pub traceparent: Option<&'a str>,
    /// `tracestate`.
    pub tracestate: Option<&'a str>,
}

impl Ids {
    /// The ids of a request. A header that is malformed is as good as absent.
    #[must_use]
    pub fn of_request(incoming: Incoming<'_>) -> Self {
        let correlation = match incoming.correlation {
            Some(given) if is_correlation_id(given) => given.to_string(),
            _ => new_correlation_id(),
        };
        let Some((trace_id, parent_span_id, sampled)) =
            incoming.traceparent.and_then(parse_traceparent)
        else {
            return Self { correlation, ..Self::background() };
        };
        let state = incoming.tracestate.filter(|state| is_state(state)).unwrap_or_default();
        let state = state.to_string();
        Self { correlation, trace_id, parent_span_id, sampled: Some(sampled), state }
    }

    /// The ids of work that no request caused: a trace of its own, without a correlation id.
    #[must_use]
    pub fn background() -> Self {
        let trace_id = (u128::from(random_id()) << 64) | u128::from(random_id());
        Self {
            correlation: String::new(),
            trace_id,
            parent_span_id: 0,
            sampled: None,
            state: String::new(),
        }
    }

    /// The ids of work on traces themselves: a trace that is not recorded, whatever share is.
    pub(crate) fn unrecorded() -> Self {
        Self { sampled: Some(false), ..Self::background() }
    }

    /// Decides, where no caller has, whether the trace is recorded: with the probability `ratio`.
    pub(crate) fn decide(&mut self, ratio: f64) {
        let trace_id = self.trace_id;
        self.sampled.get_or_insert_with(|| falls_in(trace_id, ratio));
    }

    /// Whether the trace's spans are recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled.unwrap_or(false)
    }

    /// `traceparent` for what the span `span_id` of this trace calls.
    #[must_use]
    pub fn traceparent(&self, span_id: u64) -> String {
        traceparent(self.trace_id, span_id, self.is_sampled())
    }
}

/// `traceparent` for what a span of a trace calls.
#[must_use]
pub fn traceparent(trace_id: u128, span_id: u64, is_sampled: bool) -> String {
    let mut text = *b"00-________________________________-________________-00";
    write_hex((trace_id >> 64) as u64, &mut text[3..19]);
    write_hex(trace_id as u64, &mut text[19..35]);
    write_hex(span_id, &mut text[36..52]);
    text[54] += u8::from(is_sampled);
    text_of(&text)
}

/// Fills `place` with the last hexadecimal digits of a number. By hand, because every request needs
/// three of them, and one place for all, because it is fetched anew for every search.
#[inline(never)]
fn write_hex(mut number: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        let value = (number & 15) as u8;
        *digit = if value < 10 { b'0' + value } else { b'a' - 10 + value };
        number >>= 4;
    }
}

/// Digits and hyphens are text.
fn text_of(digits: &[u8]) -> String {
    std::str::from_utf8(digits).unwrap_or_default().to_owned()
}

/// Whether this may be a correlation id: 1 to 64 letters, digits and `-`.
#[must_use]
pub fn is_correlation_id(text: &str) -> bool {
    (1..=CORRELATION_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A new correlation id: 32 hexadecimal digits.
#[must_use]
pub fn new_correlation_id() -> String {
    let mut digits = [0; 32];
    write_hex(random_id(), &mut digits[..16]);
    write_hex(random_id(), &mut digits[16..]);
    text_of(&digits)
}

/// Trace, parent span and the sampled flag of a `traceparent`; nothing when it is malformed.
fn parse_traceparent(text: &str) -> Option<(u128, u64, bool)> {
    let mut fields = text.trim().split('-');
    let (version, trace, parent, flags) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    // A later version may append fields; version 00 has none, and ff is forbidden.
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let digits = |text: &str, count| {
        text.len() == count && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !(digits(version, 2) && digits(trace, 32) && digits(parent, 16) && digits(flags, 2)) {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span_id = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace_id, span_id, flags & 1 == 1))
}

fn is_state(text: &str) -> bool {
    text.len() <= STATE_BYTES_MAX && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// The decision of every sampler that goes by the ratio of trace ids, so that services agree.
fn falls_in(trace_id: u128, ratio: f64) -> bool {
    // The cast saturates; 2^63 stands for all.
    let bound = (ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64;
    ((trace_id as u64) >> 1) < bound
}

thread_local! {
    static RANDOM: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
    static NEXT: RefCell<Option<Ids>> = const { RefCell::new(None) };
}

/// A number that is not 0 and that nobody else has: the generator SplitMix64 (Steele, Lea, Flood,
/// 2014), seeded for each thread by the system. Ids are no secrets.
#[must_use]
pub fn random_id() -> u64 {
    RANDOM.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    })
}

/// Lends `ids` to the span that `make` begins; answers what it made, and the ids where no span took them:
/// nobody follows spans then.
pub fn begin<T>(ids: Ids, make: impl FnOnce() -> T) -> (T, Option<Ids>) {
    NEXT.set(Some(ids));
    let made = make();
    (made, NEXT.take())
}

/// The ids that [`begin`] lends.
pub(crate) fn lent() -> Option<Ids> {
    NEXT.try_with(RefCell::take).ok().flatten()
}

/// Whether [`begin`] lends some.
pub(crate) fn is_lent() -> bool {
    // A thread that ends begins nothing any more.
    NEXT.try_with(|next| next.borrow().is_some()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_correlation_id_has_letters_digits_and_hyphens_and_at_most_64_of_them() {
        let longest = "a".repeat(64);
        for good in ["a", "A-1", "550e8400-e29b-41d4-a716-446655440000", &longest] {
            assert!(is_correlation_id(good), "{good}");
        }
        let too_long = "a".repeat(65);
        for bad in ["", "a b", "a_b", "ä", "a\n", "<script>", &too_long] {
            assert!(!is_correlation_id(bad), "{bad}");
            let incoming = Incoming { correlation: Some(bad), ..Incoming::default() };
            let ids = Ids::of_request(incoming);
            assert!(is_correlation_id(&ids.correlation) && ids.correlation != bad);
        }
    }

    #[test]
    fn a_traceparent_is_taken_over_and_passed_on() {
        let incoming = Incoming {
            traceparent: Some(PARENT),
            tracestate: Some("vendor=1"),
            ..Incoming::default()
        };
        let mut ids = Ids::of_request(incoming);
        ids.decide(0.0);
        assert_eq!(ids.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(ids.parent_span_id, 0x00f0_67aa_0ba9_02b7);
        assert!(ids.is_sampled(), "the caller's decision counts");
        assert_eq!(ids.state, "vendor=1");
        assert_eq!(ids.traceparent(ids.parent_span_id), PARENT);
    }

    #[test]
    fn a_malformed_traceparent_begins_a_new_trace() {
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse_traceparent(bad), None, "{bad}");
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more";
        assert!(parse_traceparent(later).is_some_and(|(_, _, sampled)| !sampled));
    }

    #[test]
    fn the_share_of_recorded_traces_is_the_ratio() {
        let is_sampled = |ratio| {
            let mut ids = Ids::background();
            ids.decide(ratio);
            ids.is_sampled()
        };
        let sampled = |ratio| (0..20_000).filter(|_| is_sampled(ratio)).count();
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 20_000));
        let quarter = sampled(0.25);
        assert!((4_500..5_500).contains(&quarter), "{quarter}");
    }

    #[test]
    fn ids_are_written_with_all_their_zeros() {
        assert_eq!(traceparent(0xab, 0x1f, false), format!("00-{:032x}-{:016x}-00", 0xab, 0x1f));
        let all = traceparent(u128::MAX, u64::MAX, true);
        assert_eq!(all, format!("00-{}-{}-01", "f".repeat(32), "f".repeat(16)));
        let made: Vec<String> = (0..1_000).map(|_| new_correlation_id()).collect();
        assert!(made.iter().all(|id| id.len() == 32 && is_correlation_id(id)));
        assert!(
            (0..32).all(|at| made.iter().any(|id| id.as_bytes()[at] != made[0].as_bytes()[at]))
        );
    }
}
