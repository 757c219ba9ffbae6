//! `mainstay health`.

use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use mainstay_server::health::{CheckEntry, Health, HealthReport};
use mainstay_server::redact::redact_logins;

use crate::failure::Failure;
use crate::print::{BAD, GOOD, QUIET, WARNING};
use crate::remote::Remote;
use crate::table;

/// How long the report may take: beyond the 5 s that the server waits for its checks, and within the
/// 10 s after which whoever started this command gives up.
const PATIENCE: Duration = Duration::from_secs(8);
/// Nobody can say how the server is.
const UNKNOWN: u8 = 3;

/// Ask a running server how it is: exit code 0 healthy, 1 degraded, 2 unhealthy, 3 unknown
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Show the figures of every check, and ask all of them anew
    #[arg(long, short)]
    verbose: bool,
    /// Print the server's report as it is
    #[arg(long)]
    json: bool,
}

fn style(health: Health) -> Style {
    match health {
        Health::Healthy => GOOD,
        Health::Degraded | Health::Unknown => WARNING,
        Health::Unhealthy => BAD,
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let path = if arguments.verbose { "/health?fresh=true" } else { "/health" };
    let answer = match arguments.remote.ask_within(PATIENCE, "GET", path, None) {
        Ok(answer) => answer,
        Err(failure) => return Ok(unknown(arguments, &failure.to_string())),
    };
    let Ok(report) = serde_json::from_str::<HealthReport>(&answer.text) else {
        let told = format!("{} answered {} and no report", arguments.remote.url, answer.status);
        return Ok(unknown(arguments, &redact_logins(&told)));
    };
    if arguments.json {
        println!("{}", answer.text);
    } else {
        show(&report, arguments.verbose);
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn unknown(arguments: &Arguments, why: &str) -> ExitCode {
    if arguments.json {
        println!("{}", serde_json::json!({ "state": "unknown", "notes": [why] }));
    } else {
        anstream::println!("{WARNING}unknown{WARNING:#}: {why}");
    }
    ExitCode::from(UNKNOWN)
}

fn show(report: &HealthReport, verbose: bool) {
    let whole = style(report.state);
    let ready = if report.ready { "ready" } else { "not ready" };
    anstream::println!(
        "{whole}{}{whole:#}, {ready}  {QUIET}mainstay {} {}{QUIET:#}",
        report.state.as_str(),
        report.release_id,
        report.service_id
    );
    let mut rows = Vec::new();
    let checks = report.checks.iter().filter_map(|(key, entries)| {
        let name = key.strip_suffix(":responseTime")?;
        Some((name, entries.first()?))
    });
    for (name, entry) in checks {
        let state = (entry.state.as_str().to_string(), style(entry.state));
        let told = table::plain(entry.output.clone());
        rows.push(vec![table::plain(name), state, (observed(entry), QUIET), told]);
        let figures = report.checks.iter().filter_map(|(key, entries)| {
            let measured = key.strip_prefix(name)?.strip_prefix(':')?;
            Some((measured, entries.first()?))
        });
        for (measured, entry) in
            figures.filter(|(measured, _)| verbose && *measured != "responseTime")
        {
            let nothing = || table::plain("");
            let measured = (format!("  {measured}"), QUIET);
            rows.push(vec![measured, nothing(), (observed(entry), QUIET), nothing()]);
        }
    }
    table::print(&["check", "state", "took", ""], &rows);
    for note in report.notes.iter().filter(|_| !report.ready) {
        anstream::println!("{WARNING}{note}{WARNING:#}");
    }
}

/// A figure with its unit.
fn observed(entry: &CheckEntry) -> String {
    entry.observed_value.map_or(String::new(), |value| {
        let unit = entry.observed_unit.as_deref().unwrap_or_default();
        format!("{} {unit}", number(value))
    })
}

/// Whole numbers without a fraction, others with three digits of it.
fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
