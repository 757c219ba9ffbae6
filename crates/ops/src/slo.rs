//! Objectives, error budgets and burn-rate alerts, computed inside and exact to the bucket.
//!
//! An objective counts good and bad events, from requests or from the process's own probes. Events
//! fall into buckets of 10 s (6 hours X
//!
//! Alerts are those of the SRE workbook's "multiwindow, multi-burn-rate": an alert fires when the
//! budget burns faster than its factor over a long *and* a short window. The factor is derived,
//! `share of the budget × period ÷ long window`, and the windows scale with the period:
//!
//! | severity | share of the budget | long | short | factor (30 days) |
//! |---|---|---|---|---|
//! | page | 2 % | 1 h | 5 min | 14.4 |
//! | page | 5 % | 6 h | 30 min | 6 |
//! | ticket | 10 % | 1 d | 2 h | 3 |
//! | ticket | 10 % | 3 d | 6 h | 1 |
//!
//! Three things keep the figure honest: a window without events has no ratio rather than 100 %; a
//! probe that could not be made counts as bad; and time in which the process was dead counts as
//! bad after a restart, at the rate of events that it had before, unless it was stopped in order.
//! What it cannot see is trouble between the user and this process: for that, probe from outside.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_slo_events_total` | counter | `slo`, `result` (`good`, `bad`) |
//! | `mainstay_slo_objective_ratio` | gauge | `slo` |
//! | `mainstay_slo_budget_remaining_ratio` | gauge, may be negative | `slo` |
//! | `mainstay_slo_burn_rate` | gauge | `slo`, `window` |
//! | `mainstay_slo_alert` | gauge: 0 or 1 | `slo`, `severity` |
//! | `mainstay_mean_time_seconds` | gauge | `mean_time` (`mtbf`, `mttr`), `figure` (`objective`, `estimate`, `lower`, `upper`) |
//! | `mainstay_mean_time_verdict` | gauge: 0 or 1 | `mean_time`, `verdict` (`met`, `missed`, `not_yet_known`) |

mod alert;
mod heartbeat;
mod history;
mod mean_times;
mod objective;
mod probe;
mod report;
mod rules;
mod series;
mod tracker;

pub use crate::incidents::{MeanTimeReport, MeanTimes, Verdict};
pub use alert::Severity;
pub use objective::{Indicator, Objective, SloConfig, Source};
pub use probe::{ProbeLedger, Probing};
pub use report::{ObjectiveReport, SloReport, WindowReport};
pub use rules::prometheus_rules;
pub use tracker::Slo;
