//! `mainstay dependencies`.

use std::process::ExitCode;

use mainstay_server::{DependenciesJson, DependencyJson};
use serde_json::json;

use crate::failure::Failure;
use crate::print::{BAD, GOOD, QUIET, WARNING};
use crate::remote::{Remote, path_of};
use crate::table::{self, ago, plain};

/// What a running server depends on, and manual control of it
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// All dependencies with their states and figures (the default)
    List,
    /// Close a breaker and forget what it counted
    Reset(Target),
    /// Open a breaker as if the dependency had failed
    ForceOpen {
        #[command(flatten)]
        target: Target,
        /// How long, such as 30s; the breaker's own time when absent
        #[arg(long = "for", value_name = "TIME")]
        lasting: Option<String>,
    },
    /// Hold a breaker open until it is reset
    Isolate(Target),
    /// Let calls pass uncounted until the breaker is reset
    Disable(Target),
}

#[derive(clap::Args)]
struct Target {
    /// The dependency, such as default/semantic
    name: String,
    /// Why, for the audit trail
    #[arg(long, default_value = "")]
    why: String,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (action, target, lasting) = match &arguments.command {
        None | Some(Command::List) => return list(arguments),
        Some(Command::Reset(target)) => ("reset", target, None),
        Some(Command::ForceOpen { target, lasting }) => ("force-open", target, lasting.as_ref()),
        Some(Command::Isolate(target)) => ("isolate", target, None),
        Some(Command::Disable(target)) => ("disable", target, None),
    };
    let mut body = json!({ "action": action, "why": target.why });
    if let Some(lasting) = lasting {
        body["for"] = json!(lasting);
    }
    let path = format!("/admin/dependencies/{}", path_of(&target.name));
    let answer = arguments.remote.json("POST", &path, Some(&body))?;
    show(arguments, &[read(answer)?])
}

fn list(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let answer = arguments.remote.json("GET", "/admin/dependencies", None)?;
    let all: DependenciesJson = read(answer)?;
    show(arguments, &all.dependencies)
}

fn read<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(json).map_err(|error| {
        Failure::new(format!("the server's answer is of another version: {error}"))
    })
}

fn show(arguments: &Arguments, all: &[DependencyJson]) -> Result<ExitCode, Failure> {
    if arguments.json {
        println!("{:#}", json!({ "dependencies": all }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = all.iter().map(row).collect();
    let headings = [
        "dependency",
        "kind",
        "state",
        "since",
        "errors",
        "calls",
        "p50",
        "p99",
        "next probe",
        "last error",
    ];
    table::print(&headings, &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(dependency: &DependencyJson) -> Vec<(String, anstyle::Style)> {
    let style = match dependency.state.as_str() {
        "closed" => GOOD,
        "open" | "isolated" => BAD,
        _ => WARNING,
    };
    let took = |ms: Option<f64>| plain(ms.map_or(String::new(), |ms| format!("{ms:.1} ms")));
    let error = match (&dependency.last_error, dependency.last_error_ms_ago) {
        (Some(error), Some(age)) => format!("{error} ({} ago)", ago(age)),
        _ => String::new(),
    };
    vec![
        plain(&dependency.name),
        (dependency.kind.clone(), QUIET),
        (dependency.state.clone(), style),
        plain(ago(dependency.changed_ms_ago)),
        plain(format!("{:.1} %", dependency.error_rate * 100.0)),
        plain(dependency.calls.to_string()),
        took(dependency.p50_ms),
        took(dependency.p99_ms),
        plain(dependency.next_probe_ms.map_or(String::new(), |ms| format!("in {}", ago(ms)))),
        plain(error),
    ]
}
