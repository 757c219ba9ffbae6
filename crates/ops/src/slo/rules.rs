//! The same objectives as rules for Prometheus, so that alerts reach people while this process is
//! dead, and two computations can be held against each other.

use super::alert::{BAD_EVENTS_MIN, Pair, Severity, pairs};
use super::objective::Objective;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The section of the page that alerts link to which is about nothing being known.
const NOTHING_KNOWN: &str = "when-nothing-is-known";

/// Recording and alerting rules as YAML, for `rule_files`. They read `mainstay_slo_events_total`.
/// `runbook_url` is the page that alerts link to; the objective's name is appended as a fragment, or
/// that of the section about nothing being known.
#[must_use]
pub fn prometheus_rules(objectives: &[Objective], runbook_url: &str) -> String {
    let mut text = String::from("groups:\n");
    for objective in objectives {
        group(&mut text, objective, runbook_url);
    }
    mean_times(&mut text, runbook_url);
    text
}

/// Mean times are judged inside alone: Prometheus does not know the incidents.
fn mean_times(text: &mut String, runbook_url: &str) {
    // Writing to a string does not fail.
    let _ = write!(
        text,
        r#"  - name: mainstay-mean-times
    rules:
      - alert: MainstayMeanTimeMissed
        expr: mainstay_mean_time_verdict{{verdict="missed"}} == 1
        labels: {{ severity: ticket }}
        annotations:
          summary: "the promised {{{{ $labels.mean_time }}}} is missed"
          runbook_url: "{runbook_url}#mean-times"
"#
    );
}

fn group(text: &mut String, objective: &Objective, runbook_url: &str) {
    let name = &objective.name;
    let mut line = |indent: usize, line: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:indent$}{line}", "");
    };
    line(2, &format!("- name: mainstay-slo-{name}"));
    line(4, "rules:");
    let pairs = pairs(objective);
    let mut windows: BTreeSet<u64> =
        pairs.iter().flat_map(|pair| [pair.long_ms, pair.short_ms]).collect();
    windows.insert(u64::from(objective.period_days) * 86_400_000);
    for window_ms in &windows {
        let seconds = window_ms / 1_000;
        let rate = |result: &str| {
            format!("sum(rate(mainstay_slo_events_total{{slo=\"{name}\"{result}}}[{seconds}s]))")
        };
        line(6, &format!("- record: {}", recorded(seconds)));
        line(8, &format!("expr: {} / {}", rate(",result=\"bad\""), rate("")));
        line(8, &format!("labels: {{ slo: \"{name}\" }}"));
    }
    for severity in [Severity::Page, Severity::Ticket] {
        let conditions: Vec<String> = pairs
            .iter()
            .filter(|pair| pair.severity == severity)
            .map(|pair| condition(objective, pair))
            .collect();
        line(6, &format!("- alert: MainstayBudgetBurn{}", camel(severity)));
        line(8, &format!("expr: {}", conditions.join(" or ")));
        line(8, &format!("labels: {{ severity: {}, slo: \"{name}\" }}", severity.as_str()));
        line(8, "annotations:");
        line(10, &format!("summary: \"the error budget of {name} burns too fast\""));
        line(10, &format!("runbook_url: \"{runbook_url}#{name}\""));
    }
    // A selector that matches nothing must not read as all well.
    line(6, "- alert: MainstayObjectiveAbsent");
    line(8, &format!("expr: absent(mainstay_slo_events_total{{slo=\"{name}\"}})"));
    line(8, "for: 5m");
    line(8, &format!("labels: {{ severity: page, slo: \"{name}\" }}"));
    line(8, "annotations:");
    line(10, &format!("summary: \"nothing is known of {name}: is the process up?\""));
    line(10, &format!("runbook_url: \"{runbook_url}#{NOTHING_KNOWN}\""));
}

/// What `burn` asks of a pair: both windows burn too fast, and the long one has events enough to
/// have a rate at all.
fn condition(objective: &Objective, pair: &Pair) -> String {
    let name = &objective.name;
    let bound = pair.factor * objective.budget();
    let above = |ms: u64| format!("{}{{slo=\"{name}\"}} > {bound:.8}", recorded(ms / 1_000));
    let seconds = pair.long_ms / 1_000;
    // By the one label that the recorded ratios have, so that `and` finds its like.
    let enough = |result: &str, least: u64| {
        let events = format!("mainstay_slo_events_total{{slo=\"{name}\"{result}}}");
        format!("sum by (slo) (increase({events}[{seconds}s])) >= {least}")
    };
    format!(
        "({} and {} and {} and {})",
        above(pair.long_ms),
        above(pair.short_ms),
        enough("", objective.events_min),
        enough(",result=\"bad\"", BAD_EVENTS_MIN),
    )
}

fn recorded(seconds: u64) -> String {
    format!("mainstay:slo_error_ratio:rate{seconds}s")
}

fn camel(severity: Severity) -> &'static str {
    match severity {
        Severity::Ticket => "Ticket",
        Severity::Page => "Page",
    }
}
