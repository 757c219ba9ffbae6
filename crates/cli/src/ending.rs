//! [`Ending`]: how long each part of an orderly end may take.
//!
//! Invariant: nothing that a server does between the signal and its last instruction waits for longer
//! than its part here, and by default the parts together stay within the 30 s that orchestrators grant
//! (O6). What a part does not need goes to the next ones.

use std::time::Duration;

use mainstay_server::shutdown::TOTAL_DEFAULT;

/// What telling the requests to end takes beside the time they get.
const STOP_MARGIN: Duration = Duration::from_secs(1);
/// How long closing the data directory may take at least: every view is made durable. What is cut off
/// is replayed from the log by the next start.
const CLOSE_MIN: Duration = Duration::from_secs(2);
/// How long spans are sent at least.
const FLUSH_MIN: Duration = Duration::from_secs(1);
/// How long spans are sent at most: a collector that hangs must not hold up the end.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// How long work is waited for that a timeout left behind.
const THREADS_MAX: Duration = Duration::from_millis(500);
/// What has no bound of its own, and waits for nothing: starting threads, printing, the kernel's end of
/// the process.
const REST: Duration = Duration::from_millis(500);

/// How long each part of the end may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// The running requests, with telling them.
    pub(crate) drain: Duration,
    /// The data directory.
    pub(crate) close: Duration,
    /// The threads of the runtime.
    pub(crate) threads: Duration,
}

impl Ending {
    /// With this long for running requests. The default total is used up; longer drains make it longer.
    pub(crate) fn of(drain_time: Duration) -> Self {
        let drain = drain_time + STOP_MARGIN;
        let others = drain + FLUSH_MIN + THREADS_MAX + REST;
        let close = TOTAL_DEFAULT.saturating_sub(others).max(CLOSE_MIN);
        Self { drain, close, threads: THREADS_MAX }
    }

    /// How long sending spans may take when the parts before took this long.
    pub(crate) fn flush_after(&self, took: Duration) -> Duration {
        (self.drain + self.close + FLUSH_MIN).saturating_sub(took).clamp(FLUSH_MIN, FLUSH_MAX)
    }

    /// Everything: the longest time from the signal to the end of the process.
    pub(crate) fn total(&self) -> Duration {
        self.drain + self.close + FLUSH_MIN + self.threads + REST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// O6: with the default settings and every part at its bound.
    #[test]
    fn o6_all_bounds_together_stay_within_thirty_seconds_by_default() {
        let drain_time = {
            let config = mainstay_server::Config::default();
            config.drain_delay + config.drain_timeout
        };
        let ending = Ending::of(drain_time);
        let phases = ending.drain + ending.close;
        let flush = ending.flush_after(phases);
        let all = phases + flush + ending.threads + REST;
        assert!(all <= Duration::from_secs(30), "{all:?}: {ending:?}, {flush:?}");
        assert_eq!(all, ending.total(), "the service manager is told of all of it");
        assert!(ending.drain > drain_time, "telling the requests takes no time from them");
        assert!(ending.close >= CLOSE_MIN && flush >= FLUSH_MIN && !ending.threads.is_zero());
    }

    /// O6: time that was not needed is used, and the whole becomes no longer for it.
    #[test]
    fn o6_spans_get_more_time_only_when_the_parts_before_were_quick() {
        let seconds = Duration::from_secs;
        for drain_time in [seconds(0), seconds(1), seconds(25), seconds(600)] {
            let ending = Ending::of(drain_time);
            let phases = ending.drain + ending.close;
            assert_eq!(ending.flush_after(Duration::ZERO), FLUSH_MAX);
            for took in [Duration::ZERO, phases / 2, phases - seconds(1), phases] {
                let all = took + ending.flush_after(took) + ending.threads + REST;
                assert!(all <= ending.total(), "{all:?} after {took:?} of {ending:?}");
            }
            assert!(ending.close >= CLOSE_MIN, "{ending:?}");
        }
    }
}
