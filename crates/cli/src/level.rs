//! `mainstay level`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::print::{BAD, GOOD, QUIET, WARNING};
use crate::remote::{Remote, path_of};

/// How much service a running server gives, and holding it by hand
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
    /// The level, why, and how it came there (the default)
    Show,
    /// Hold a level whatever the signals say
    Hold {
        /// full, degraded, minimal or maintenance
        level: String,
        /// How long, 1s to 7d
        #[arg(long = "for", value_name = "TIME")]
        lasting: String,
        /// Why; every answer shows it
        #[arg(long)]
        why: String,
    },
    /// Let the signals decide again
    Release {
        /// Why, for the audit trail
        #[arg(long, default_value = "")]
        why: String,
    },
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let remote = &arguments.remote;
    let report = match &arguments.command {
        None | Some(Command::Show) => remote.json("GET", "/admin/level", None)?,
        Some(Command::Hold { level, lasting, why }) => {
            let body = json!({ "level": level, "for": lasting, "why": why });
            remote.json("PUT", "/admin/level", Some(&body))?
        }
        Some(Command::Release { why }) => {
            remote.json("DELETE", &format!("/admin/level?why={}", path_of(why)), None)?
        }
    };
    if arguments.json {
        println!("{report:#}");
    } else {
        show(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(report: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let standing = &report["standing"];
    let level = text(&standing["level"]);
    let style = match level.as_str() {
        "full" => GOOD,
        "degraded" => WARNING,
        _ => BAD,
    };
    anstream::println!("{style}{level}{style:#}: {}", text(&standing["reason"]));
    anstream::println!("{QUIET}since {}{QUIET:#}", text(&standing["since"]));
    let effects = &standing["effects"];
    let methods = effects["methods"].as_array().filter(|methods| !methods.is_empty());
    let methods = methods.map_or("all methods".to_string(), |methods| {
        methods.iter().map(&text).collect::<Vec<_>>().join(", ")
    });
    let says = |field: &str, yes: &str, no: &str| {
        if effects[field] == true { yes } else { no }.to_string()
    };
    println!(
        "asks {methods} at {:.0} % effort, {}, {}, {}",
        effects["effort"].as_f64().unwrap_or(1.0) * 100.0,
        says("refine", "with the refining model", "without the refining model"),
        says("reads", "answers", "answers nothing"),
        says("writes", "takes writes", "takes no writes"),
    );
    for change in report["history"].as_array().into_iter().flatten().take(10) {
        anstream::println!(
            "{QUIET}{}{QUIET:#}  {} to {}: {}",
            text(&change["time"]),
            text(&change["from"]),
            text(&change["to"]),
            text(&change["reason"])
        );
    }
}
