//! `mainstay slo` and `mainstay audit`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_server::slo::{MeanTimeReport, ObjectiveReport, SloReport, Verdict};
use serde_json::Value;

use crate::failure::Failure;
use crate::print::{BAD, GOOD, QUIET, WARNING};
use crate::remote::Remote;
use crate::table::{self, plain};

/// Incidents in the table; `--json` has more.
const INCIDENTS_SHOWN: usize = 10;

/// How good a running server is against what it promises
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Print JSON
    #[arg(long, conflicts_with = "rules")]
    json: bool,
    /// Print recording and alerting rules for Prometheus
    #[arg(long)]
    rules: bool,
}

/// Who changed what on a running server
#[derive(clap::Args)]
pub(crate) struct AuditArguments {
    #[command(flatten)]
    remote: Remote,
    /// How many events, 1 to 1000
    #[arg(long, short = 'n', default_value_t = 20)]
    limit: usize,
    /// Those of all nodes that share the catalogue, each with its node
    #[arg(long)]
    everywhere: bool,
    /// Print JSON, one event a line
    #[arg(long)]
    json: bool,
}

/// Exit code 0 when every budget lasts and no mean time is missed, 1 when a budget burns or is used
/// up, or a mean time is missed.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.rules {
        let rules = arguments.remote.ask("GET", "/admin/slo/rules", None)?;
        print!("{}", rules.text);
        return Ok(ExitCode::SUCCESS);
    }
    let mut answer = arguments.remote.json("GET", "/admin/slo", None)?;
    if arguments.json {
        println!("{answer:#}");
    }
    let report: SloReport = serde_json::from_value(answer["slo"].take()).map_err(|error| {
        Failure::new(format!("the server's answer is of another version: {error}"))
    })?;
    if !arguments.json {
        show(&report, &answer);
    }
    let spent = |o: &ObjectiveReport| {
        o.alert.is_some() || o.budget_remaining.is_some_and(|left| left <= 0.0)
    };
    let missed = |it: &MeanTimeReport| it.verdict == Verdict::Missed;
    let trouble = report.objectives.iter().any(spent) || report.mean_times.iter().any(missed);
    Ok(ExitCode::from(u8::from(trouble)))
}

fn show(report: &SloReport, answer: &Value) {
    let percent = |share: Option<f64>, digits: usize| {
        share.map_or("no events".to_string(), |share| format!("{:.digits$} %", share * 100.0))
    };
    let rows: Vec<_> = report
        .objectives
        .iter()
        .map(|objective| {
            let left = objective.budget_remaining;
            let style = match (objective.alert, left) {
                (Some(_), _) => BAD,
                (None, Some(left)) if left < 0.25 => WARNING,
                _ => GOOD,
            };
            let burn = objective.windows.first().and_then(|window| window.burn_long);
            vec![
                plain(&objective.name),
                plain(percent(Some(objective.target), 3)),
                (percent(objective.ratio, 4), style),
                (percent(left, 1), style),
                plain(burn.map_or(String::new(), |burn| format!("{burn:.2}"))),
                plain((objective.good + objective.bad).to_string()),
                plain(format!("{} d", objective.period_days)),
                (objective.description.clone(), QUIET),
            ]
        })
        .collect();
    let headings =
        ["objective", "target", "now", "budget left", "burn (1 h)", "events", "over", ""];
    table::print(&headings, &rows);
    show_mean_times(&report.mean_times);
    let figure = |name: &str| answer["reliability"][name].as_f64();
    let hours = |name: &str| figure(name).map_or("unknown".into(), |h| format!("{h:.1} h"));
    println!(
        "observed {}, {} incidents, mean time to repair {}, between failures at least {}",
        hours("observed_hours"),
        answer["reliability"]["incidents"],
        figure("mttr_minutes").map_or("unknown".into(), |m| format!("{m:.1} min")),
        hours("mtbf_lower_hours"),
    );
    show_incidents(answer);
    if report.unsaved_seconds > 0 {
        anstream::println!("{WARNING}not saved for {} s{WARNING:#}", report.unsaved_seconds);
    }
}

/// Incidents in a table of their own; `answer` has the latest first.
fn show_incidents(answer: &Value) {
    let incidents = answer["incidents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let row = |incident: &Value| {
        let began = incident["began_unix_ms"].as_u64().unwrap_or_default();
        let ended = incident["ended_unix_ms"].as_u64();
        let lasted = ended.unwrap_or(now).saturating_sub(began) as f64 / 1e3;
        let (style, state) = if ended.is_some() { (QUIET, "closed") } else { (BAD, "open") };
        vec![
            plain(format!("#{}", incident["number"])),
            (state.to_string(), style),
            (mainstay_server::format_time(began), QUIET),
            plain(length(lasted)),
            plain(text(&incident["key"])),
            plain(text(&incident["title"])),
        ]
    };
    let rows: Vec<_> = incidents.iter().take(INCIDENTS_SHOWN).map(row).collect();
    if !rows.is_empty() {
        table::print(&["incident", "", "began", "lasted", "cause", "what happened"], &rows);
    }
}

fn show_mean_times(mean_times: &[MeanTimeReport]) {
    if mean_times.is_empty() {
        return;
    }
    let unknown = "unknown".to_string();
    let time = |seconds: Option<f64>| seconds.map_or(unknown.clone(), length);
    let rows: Vec<_> = mean_times
        .iter()
        .map(|it| {
            let style = match it.verdict {
                Verdict::Met => GOOD,
                Verdict::Missed => BAD,
                Verdict::NotYetKnown => QUIET,
            };
            let bounds = format!("{} to {}", length(it.lower_seconds), time(it.upper_seconds));
            vec![
                plain(&it.description),
                plain(length(it.target_seconds as f64)),
                plain(time(it.estimate_seconds)),
                plain(bounds),
                (it.verdict.as_str().replace('_', " "), style),
                (it.why.clone(), QUIET),
            ]
        })
        .collect();
    table::print(&["mean time", "target", "observed", "within (95 %)", "verdict", "why"], &rows);
}

/// Minutes up to two hours, hours beyond.
fn length(seconds: f64) -> String {
    if seconds < 7_200.0 {
        format!("{:.1} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3_600.0)
    }
}

/// Runs `mainstay audit`.
pub(crate) fn audit(arguments: &AuditArguments) -> Result<ExitCode, Failure> {
    let everywhere = if arguments.everywhere { "&everywhere=true" } else { "" };
    let path = format!("/admin/audit?limit={}{everywhere}", arguments.limit);
    let answer = arguments.remote.json("GET", &path, None)?;
    let events = answer["events"].as_array().cloned().unwrap_or_default();
    if arguments.json {
        events.iter().for_each(|event| println!("{event}"));
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let row = |event: &Value| {
        let node = arguments.everywhere.then(|| plain(text(&event["node"])));
        let told = [
            (text(&event["time"]), QUIET),
            plain(text(&event["who"])),
            plain(text(&event["action"])),
            plain(text(&event["target"])),
            plain(text(&event["outcome"])),
            plain(format!("{} to {}", event["before"], event["after"])),
            plain(text(&event["why"])),
        ];
        node.into_iter().chain(told).collect::<Vec<_>>()
    };
    let rows: Vec<_> = events.iter().map(row).collect();
    let headings = ["node", "time", "who", "action", "target", "outcome", "change", "why"];
    table::print(&headings[usize::from(!arguments.everywhere)..], &rows);
    Ok(ExitCode::SUCCESS)
}
