//! [`RateRule`]: a rate limit as people write it.
//!
//! `search = 100/s burst 200 token_bucket`: the name of a group of routes or of one route, what is allowed per period, and, in any order, a
//! burst, an algorithm, and `by cost`. Several rules stand beside each other with `;` between them.

use super::Group;
use mainstay_resilience::{Algorithm, RateConfig, human_duration};
use std::fmt;
use std::time::Duration;

/// Rules of one list: each request is measured by every rule of its group, one after the other.
const RULES_MAX: usize = 16;
/// The longest list: 16 rules of the longest form need less than half of it.
const TEXT_BYTES_MAX: usize = 2_048;

/// Which requests a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateScope {
    /// All that pass limits.
    All,
    /// Those of a group of routes.
    Group(Group),
    /// Those of one route, by the name that whoever reads the rules knows it by.
    Route(&'static str),
}

impl RateScope {
    /// The scope of this name among `all` and the groups.
    #[must_use]
    pub fn of_name(name: &str) -> Option<RateScope> {
        let group = || Group::ALL.into_iter().find(|group| group.as_str() == name);
        if name == "all" { Some(RateScope::All) } else { group().map(RateScope::Group) }
    }
}

/// A limit on requests, or on their cost, per time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRule {
    /// Which requests count.
    pub scope: RateScope,
    /// How much per period, and by which algorithm.
    pub rate: RateConfig,
    /// Whether a request counts by its cost; otherwise each counts 1.
    pub by_cost: bool,
}

impl RateRule {
    /// The name of the group or route, or `all`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.scope {
            RateScope::All => "all",
            RateScope::Group(group) => group.as_str(),
            RateScope::Route(route) => route,
        }
    }

    /// Whether requests of `group` to `route` count.
    #[must_use]
    pub fn covers(&self, group: Group, route: &str) -> bool {
        match self.scope {
            RateScope::All => true,
            RateScope::Group(mine) => mine == group,
            RateScope::Route(mine) => mine == route,
        }
    }

    /// What a full bucket or an unused window holds.
    #[must_use]
    pub fn quota(&self) -> u64 {
        let burst = match self.rate.algorithm {
            Algorithm::TokenBucket if self.rate.burst > 0 => self.rate.burst,
            Algorithm::LeakyBucket => 1,
            _ => self.rate.limit,
        };
        u64::from(burst)
    }

    /// What a request of this cost takes: never more than the quota, so that a dear request is slow
    /// to come by and not impossible.
    #[must_use]
    pub fn units(&self, cost: u32) -> u32 {
        let units = if self.by_cost { cost.max(1) } else { 1 };
        units.min(u32::try_from(self.quota()).unwrap_or(u32::MAX))
    }

    /// Reads a list of rules of groups; an empty text is an empty list.
    ///
    /// # Errors
    /// What is wrong with which rule, and how one is written.
    pub fn parse_list(text: &str) -> Result<Vec<RateRule>, RateRuleFault> {
        let unknown =
            |name: &str| format!("there is no group {name:?}; known are search, read, write, all");
        Self::parse_list_of(text, |name| RateScope::of_name(name).ok_or_else(|| unknown(name)))
    }

    /// The same with other names as well: `scope` says what one stands for, or why it stands for
    /// nothing.
    ///
    /// # Errors
    /// As [`parse_list`](Self::parse_list).
    pub fn parse_list_of(
        text: &str,
        scope: impl Fn(&str) -> Result<RateScope, String>,
    ) -> Result<Vec<RateRule>, RateRuleFault> {
        if text.len() > TEXT_BYTES_MAX {
            let what = format!("{} bytes are too many, the bound is {TEXT_BYTES_MAX}", text.len());
            return Err(RateRuleFault { rule: String::new(), what });
        }
        let mut rules: Vec<RateRule> = Vec::new();
        for text in text.split(';').map(str::trim).filter(|text| !text.is_empty()) {
            let fault = |what| RateRuleFault { rule: text.to_owned(), what };
            let rule = parse(text, &scope).map_err(fault)?;
            if rules.iter().any(|other| other.scope == rule.scope) {
                return Err(fault(format!("{} has a rule already", rule.name())));
            }
            if rules.len() == RULES_MAX {
                return Err(fault(format!("at most {RULES_MAX} rules are read")));
            }
            rules.push(rule);
        }
        Ok(rules)
    }

    /// Writes a list as it is read.
    #[must_use]
    pub fn format_list(rules: &[RateRule]) -> String {
        rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

fn parse(
    text: &str,
    scope: &impl Fn(&str) -> Result<RateScope, String>,
) -> Result<RateRule, String> {
    let (name, rest) = text.split_once('=').ok_or("there is no = behind the name")?;
    let scope = scope(name.trim())?;
    let mut words = rest.split_whitespace();
    let amount = words.next().ok_or("no rate is given")?;
    let (limit, period) = amount.split_once('/').ok_or("the rate has no /, as in 100/s")?;
    let limit = number("the rate", limit)?;
    let mut rate = RateConfig::new(Algorithm::TokenBucket, limit, duration(period)?);
    let mut by_cost = false;
    while let Some(word) = words.next() {
        match word {
            "burst" => rate.burst = number("burst", words.next().unwrap_or_default())?,
            "by" if words.next() == Some("cost") => by_cost = true,
            "token_bucket" => rate.algorithm = Algorithm::TokenBucket,
            "leaky_bucket" => rate.algorithm = Algorithm::LeakyBucket,
            "fixed_window" => rate.algorithm = Algorithm::FixedWindow,
            "sliding_window" => rate.algorithm = Algorithm::SlidingWindow,
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    if rate.burst > 0 && rate.algorithm != Algorithm::TokenBucket {
        return Err("only a token_bucket has a burst".to_owned());
    }
    if by_cost && rate.algorithm == Algorithm::LeakyBucket {
        // It holds one unit at a time: every cost would be the same.
        return Err("a leaky_bucket spaces requests and cannot go by cost".to_owned());
    }
    rate.validate().map_err(|error| error.to_string())?;
    Ok(RateRule { scope, rate, by_cost })
}

fn number(what: &str, text: &str) -> Result<u32, String> {
    let number: u32 = text.trim().parse().map_err(|_| format!("{what} {text:?} is no number"))?;
    if number == 0 { Err(format!("{what} is 0, which admits nothing")) } else { Ok(number) }
}

/// `s`, `m`, `h` and `d` alone are one of them; otherwise a time with its unit, as in `10s`.
fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let counted = if text.starts_with(|c: char| c.is_ascii_digit()) {
        text.to_owned()
    } else {
        format!("1{text}")
    };
    human_duration::parse("", &counted)
        .map_err(|_| format!("{text:?} is no period; write s, m, h, d or a time such as 10s"))
}

impl fmt::Display for RateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = human_duration::format(self.rate.period);
        write!(f, "{} = {}/{period}", self.name(), self.rate.limit)?;
        if self.rate.burst > 0 {
            write!(f, " burst {}", self.rate.burst)?;
        }
        f.write_str(match self.rate.algorithm {
            Algorithm::LeakyBucket => " leaky_bucket",
            Algorithm::FixedWindow => " fixed_window",
            Algorithm::SlidingWindow => " sliding_window",
            _ => " token_bucket",
        })?;
        if self.by_cost { f.write_str(" by cost") } else { Ok(()) }
    }
}

/// A list of rules that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateRuleFault {
    /// The rule as it was written; empty for the list as a whole.
    pub rule: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for RateRuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rule.is_empty() {
            write!(f, "{:?}: ", self.rule)?;
        }
        write!(f, "{}; write search = 100/s burst 200 token_bucket; write = 10/s", self.what)
    }
}

impl std::error::Error for RateRuleFault {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn o4_rules_are_read_back_as_they_are_written() {
        let text = "search = 100/1s burst 200 token_bucket; read = 7/10s leaky_bucket; \
                    write = 50/1m fixed_window by cost; all = 1000/1h sliding_window";
        let rules = RateRule::parse_list(text).unwrap();
        assert_eq!(RateRule::format_list(&rules), text);
        assert_eq!(RateRule::parse_list(" ; "), Ok(Vec::new()));
        let short = RateRule::parse_list("search=3/s").unwrap();
        assert_eq!(short[0].rate, RateConfig::per_second(Algorithm::TokenBucket, 3));
        assert_eq!((short[0].quota(), rules[0].quota(), rules[1].quota()), (3, 200, 1));
    }

    /// Bad input: malformed limits.
    #[test]
    fn o4_a_rule_that_cannot_be_read_is_told_with_what_is_wrong() {
        for (text, told) in [
            ("search", "no ="),
            ("search = ", "no rate"),
            ("search = 100", "no /"),
            ("search = -1/s", "no number"),
            ("search = 1e9/s", "no number"),
            ("search = 99999999999/s", "no number"),
            ("search = 0/s", "admits nothing"),
            ("search = 5/fortnight", "no period"),
            ("search = 5/s burst", "no number"),
            ("search = 5/s burst x", "no number"),
            ("search = 5/s quick", "not understood"),
            ("search = 5/s by name", "not understood"),
            ("search = 5/s burst 9 fixed_window", "only a token_bucket"),
            ("search = 5/s leaky_bucket by cost", "cannot go by cost"),
            ("find = 5/s", "no group"),
            ("search = 5/s; search = 6/s", "has a rule already"),
            ("search = 1000000000/1ms", "limit"),
            ("search = 5/9d", "period"),
        ] {
            let fault = RateRule::parse_list(text).unwrap_err().to_string();
            assert!(fault.contains(told), "{text}: {fault}");
            assert!(fault.contains("write search = 100/s"), "{fault}");
        }
        let long = RateRule::parse_list(&"x".repeat(TEXT_BYTES_MAX + 1)).unwrap_err();
        assert!(long.to_string().contains("2048"), "{long}");
    }

    #[test]
    fn o4_a_request_that_costs_more_than_the_quota_takes_all_of_it() {
        let rules = RateRule::parse_list("search = 10/s by cost; write = 10/s").unwrap();
        assert_eq!((rules[0].units(4), rules[0].units(99), rules[0].units(0)), (4, 10, 1));
        assert_eq!(rules[1].units(99), 1, "it counts requests");
    }
}
