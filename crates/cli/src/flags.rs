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
    /// All flags (the default), with what a user gets
    List(Whom),
    /// What a user gets of a flag, and why
    Show {
        /// The flag
        name: String,
        #[command(flatten)]
        whom: Whom,
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

/// For whom flags are evaluated
#[derive(clap::Args, Default)]
struct Whom {
    /// The user or API key; nobody in particular when absent
    #[arg(long)]
    user: Option<String>,
    /// The collection
    #[arg(long)]
    collection: Option<String>,
}

impl Whom {
    fn query(&self) -> String {
        let parts = [("user", &self.user), ("collection", &self.collection)];
        let given = |(name, value): (&str, &Option<String>)| {
            value.as_ref().map(|value| format!("{name}={}", path_of(value)))
        };
        let given: Vec<_> = parts.into_iter().filter_map(given).collect();
        if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
    }
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
    let list = |whom: &Whom| {
        let flags = remote.json("GET", &format!("/admin/flags{}", whom.query()), None);
        flags.map(|mut answer| answer["flags"].take())
    };
    let shown = match &arguments.command {
        None => list(&Whom::default())?,
        Some(Command::List(whom)) => list(whom)?,
        Some(Command::Show { name, whom }) => {
            remote.json("GET", &format!("/admin/flags/{}{}", path_of(name), whom.query()), None)?
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
