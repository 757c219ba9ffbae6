//! `mainstay flags`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::print::{GOOD, QUIET, WARNING};
use crate::remote::{Remote, path_of};
use crate::table::{self, plain};

/// Feature flags of a running server
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
    /// All flags (the default)
    List,
    /// What a user gets of a flag, and why
    Show {
        /// The flag
        name: String,
        /// The user or API key
        #[arg(long)]
        user: Option<String>,
    },
    /// Switch a flag on
    On(Change),
    /// Switch a flag off
    Off(Change),
    /// Give a flag another definition: variants, rules, percentages, schedule
    Set {
        #[command(flatten)]
        change: Change,
        /// A file of JSON; - reads it from standard input
        file: PathBuf,
    },
    /// Bring back the definition that the program declares
    Remove(Change),
}

#[derive(clap::Args)]
struct Change {
    /// The flag
    name: String,
    /// Why, for the audit trail
    #[arg(long, default_value = "")]
    why: String,
}

impl Change {
    fn path(&self) -> String {
        format!("/admin/flags/{}?why={}", path_of(&self.name), path_of(&self.why))
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let remote = &arguments.remote;
    let put = |change: &Change, body: &Value| remote.json("PUT", &change.path(), Some(body));
    let shown = match &arguments.command {
        None | Some(Command::List) => remote.json("GET", "/admin/flags", None)?["flags"].take(),
        Some(Command::Show { name, user }) => {
            let user =
                user.as_ref().map_or(String::new(), |user| format!("?user={}", path_of(user)));
            remote.json("GET", &format!("/admin/flags/{}{user}", path_of(name)), None)?
        }
        Some(Command::On(change)) => put(change, &json!({ "enabled": true }))?,
        Some(Command::Off(change)) => put(change, &json!({ "enabled": false }))?,
        Some(Command::Set { change, file }) => put(change, &read(file)?)?,
        Some(Command::Remove(change)) => {
            remote.json("DELETE", &change.path(), None)?;
            remote.json("GET", &format!("/admin/flags/{}", path_of(&change.name)), None)?
        }
    };
    if arguments.json {
        println!("{shown:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let one = std::slice::from_ref(&shown);
    let flags = shown.as_array().map_or(one, Vec::as_slice);
    let rows: Vec<_> = flags.iter().map(row).collect();
    table::print(&["flag", "value", "reason", "", "what it does"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(flag: &Value) -> Vec<(String, anstyle::Style)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let style = if flag["value"] == false { WARNING } else { GOOD };
    let changed = if flag["overridden"] == true { "changed" } else { "" };
    vec![
        plain(text(&flag["name"])),
        (text(&flag["value"]), style),
        (text(&flag["reason"]).to_lowercase(), QUIET),
        plain(changed),
        plain(text(&flag["definition"]["description"])),
    ]
}

fn read(file: &std::path::Path) -> Result<Value, Failure> {
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(file),
    };
    let name = file.display();
    let text = text.map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))
}
