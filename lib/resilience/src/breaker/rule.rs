//! The rule by which a breaker opens, in words: "5 in a row or 50 % of 1m, open for 30s".

use super::config::{BreakerConfig, Window};
use crate::human_duration::format as duration;

impl BreakerConfig {
    /// When it opens, and for how long.
    pub(crate) fn rule(&self) -> String {
        let mut when = Vec::new();
        if self.consecutive_failures > 0 {
            when.push(format!("{} in a row", self.consecutive_failures));
        }
        let window = match self.window {
            Window::None => "nothing".to_owned(),
            Window::Count { calls } => format!("{calls} calls"),
            Window::Time { length, .. } => duration(length),
        };
        // Rounded, so that 0.07 is not shown as 7.000000000000001.
        let percent = |rate: f64| (rate * 1e4).round() / 1e2;
        if let Some(rate) = self.failure_rate {
            let learned = if self.adaptive.is_some() { " at first" } else { "" };
            when.push(format!("{} %{learned} of {window}", percent(rate)));
        } else if self.adaptive.is_some() {
            when.push(format!("a learned share of {window}"));
        }
        if let Some(slow) = &self.slow_calls {
            let (share, longer) = (percent(slow.rate), duration(slow.longer_than));
            when.push(format!("{share} % of {window} slower than {longer}"));
        }
        let when = if when.is_empty() { "by hand only".to_owned() } else { when.join(" or ") };
        let (first, max) = (duration(self.open_for.first), duration(self.open_for.max));
        let grows = self.open_for.factor > 1.0 && first != max;
        let up_to = if grows { format!(" to {max}") } else { String::new() };
        format!("{when}, open for {first}{up_to}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::{Adaptive, OpenFor, SlowCalls};
    use std::time::Duration;

    #[test]
    fn every_rule_that_can_open_a_breaker_is_named() {
        let second = Duration::from_secs(1);
        let mut config = BreakerConfig::default();
        assert_eq!(config.rule(), "5 in a row or 50 % of 1m, open for 30s");
        config.slow_calls = Some(SlowCalls { rate: 0.07, longer_than: second * 2 });
        config.open_for = OpenFor::growing(second, second * 60);
        config.window = Window::count(100);
        config.adaptive = Some(Adaptive::default());
        let all = "5 in a row or 50 % at first of 100 calls or 7 % of 100 calls slower than 2s, \
                   open for 1s to 1m";
        assert_eq!(config.rule(), all);
        let mut none = BreakerConfig::search_method();
        none.consecutive_failures = 0;
        assert_eq!(none.rule(), "by hand only, open for 30s");
    }
}
