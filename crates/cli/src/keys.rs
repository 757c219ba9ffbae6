//! `mainstay keys`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mainstay_db::Db;
use mainstay_server::keys::{FreshKey, KeyError, KeyReport, Keys, NewKey, Scope};
use serde_json::json;

use crate::config::Sources;
use crate::failure::Failure;
use crate::print::{QUIET, WARNING};
use crate::remote::{Remote, path_of};
use crate::table::{self, plain};

/// Who makes keys from the command line.
const WHO: &str = "command line";

/// API keys: made, listed, rotated, revoked
///
/// With --data on a data directory that no server has open, else on a running server. A key is
/// printed once, when it is made; clients send it as `Authorization: Bearer KEY`, and the commands of
/// this program take it from the environment variable MAINSTAY_API_KEY.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data directory; without it a running server is asked
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a key and print it, once
    Create {
        /// Whose it is
        name: String,
        /// What it may do: read, write, admin
        #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPES")]
        scope: Vec<String>,
        /// The collections that it may touch; all when absent
        #[arg(long, value_delimiter = ',', value_name = "NAMES")]
        collection: Vec<String>,
        /// After which time it ends, such as 90d; never when absent
        #[arg(long = "for", value_name = "TIME")]
        lasting: Option<String>,
    },
    /// All keys, without their secrets
    List,
    /// Give a key a new secret and print it, once
    Rotate {
        /// The key's id
        id: String,
        /// How long the old secret goes on working, 0s to 30d
        #[arg(long, default_value = "24h", value_name = "TIME")]
        overlap: String,
    },
    /// End a key at once
    Revoke {
        /// The key's id
        id: String,
    },
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.data {
        Some(folder) => {
            // The guard keeps servers out until the change is made.
            let (files, _guard) = Db::open_state(folder)?;
            let config = arguments.sources.load()?.config();
            let catalogue = config.operations.catalogue;
            // The catalogue is asked from threads of its own.
            let runtime = tokio::runtime::Runtime::new()?;
            let _entered = runtime.enter();
            let keys = mainstay_server::keys_of(folder, files, &catalogue);
            let keys = keys.map_err(|error| Failure::new(error.to_string()))?;
            // Other nodes of a shared catalogue may listen elsewhere.
            let alone = config.listen.ip().is_loopback() && catalogue.url.is_none();
            on_disk(arguments, &keys, alone)
        }
        None => remotely(arguments, &arguments.remote),
    }
}

fn refused(error: KeyError) -> Failure {
    match error {
        KeyError::Config(_) | KeyError::NotFound { .. } | KeyError::LastAdmin { .. } => {
            Failure::usage(error.to_string())
        }
        other => Failure::new(other.to_string()),
    }
}

fn time(name: &str, text: &str) -> Result<Duration, Failure> {
    mainstay_server::parse_duration(name, text).map_err(|error| Failure::usage(error.to_string()))
}

/// `may_be_last` says whether the only key may be revoked.
fn on_disk(arguments: &Arguments, keys: &Keys, may_be_last: bool) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Create { name, scope, collection, lasting } => {
            let known = |name: &String| {
                let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == name);
                found.ok_or_else(|| {
                    Failure::usage(format!("--scope {name}: known are read, write, admin"))
                })
            };
            let scopes: Vec<Scope> = scope.iter().map(known).collect::<Result<_, _>>()?;
            let administers = scopes.contains(&Scope::Admin) && collection.is_empty();
            if keys.is_empty() && !administers {
                return Err(Failure::usage(
                    "the first key must have the scope admin for all collections, or nobody could \
                     make another one",
                ));
            }
            let lasting = lasting.as_deref().map(|text| time("for", text)).transpose()?;
            let (name, collections) = (name.clone(), collection.clone());
            let new = NewKey { name, scopes, collections, lasting };
            made(arguments, &keys.create(&new, WHO).map_err(refused)?)
        }
        Command::List => list(arguments, &keys.list()),
        Command::Rotate { id, overlap } => {
            let overlap = time("overlap", overlap)?;
            made(arguments, &keys.rotate(id, overlap, WHO).map_err(refused)?)
        }
        Command::Revoke { id } => {
            keys.revoke(id, may_be_last, WHO).map_err(refused)?;
            revoked(id)
        }
    }
}

fn remotely(arguments: &Arguments, remote: &Remote) -> Result<ExitCode, Failure> {
    let fresh = |answer: serde_json::Value| FreshKey {
        id: answer["id"].as_str().unwrap_or_default().to_string(),
        key: answer["key"].as_str().unwrap_or_default().to_string(),
    };
    match &arguments.command {
        Command::Create { name, scope, collection, lasting } => {
            let body = json!({
                "name": name, "scopes": scope, "collections": collection, "for": lasting,
            });
            made(arguments, &fresh(remote.json("POST", "/admin/keys", Some(&body))?))
        }
        Command::List => {
            let mut answer = remote.json("GET", "/admin/keys", None)?;
            let keys: Vec<KeyReport> =
                serde_json::from_value(answer["keys"].take()).map_err(|error| {
                    Failure::new(format!("the server's answer is of another version: {error}"))
                })?;
            list(arguments, &keys)
        }
        Command::Rotate { id, overlap } => {
            let path = format!("/admin/keys/{}/rotate?overlap={}", path_of(id), path_of(overlap));
            made(arguments, &fresh(remote.json("POST", &path, None)?))
        }
        Command::Revoke { id } => {
            remote.json("DELETE", &format!("/admin/keys/{}", path_of(id)), None)?;
            revoked(id)
        }
    }
}

/// The key alone on standard output, so that it can be piped; what to know beside it.
fn made(arguments: &Arguments, fresh: &FreshKey) -> Result<ExitCode, Failure> {
    if arguments.json {
        println!("{}", json!({ "id": fresh.id, "key": fresh.key }));
    } else {
        println!("{}", fresh.key);
        anstream::eprintln!(
            "{WARNING}this is the only time that key {} is shown{WARNING:#}",
            fresh.id
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn revoked(id: &str) -> Result<ExitCode, Failure> {
    eprintln!("key {id} is gone");
    Ok(ExitCode::SUCCESS)
}

fn list(arguments: &Arguments, keys: &[KeyReport]) -> Result<ExitCode, Failure> {
    if arguments.json {
        println!("{:#}", json!({ "keys": keys }));
        return Ok(ExitCode::SUCCESS);
    }
    if keys.is_empty() {
        eprintln!("there are no keys; `mainstay keys create NAME --scope admin` makes the first");
        return Ok(ExitCode::SUCCESS);
    }
    let date =
        |ms: Option<u64>, none: &str| ms.map_or(none.to_string(), mainstay_server::format_time);
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
            let collections = match key.collections.is_empty() {
                true => "all".to_string(),
                false => key.collections.join(", "),
            };
            vec![
                plain(&key.id),
                plain(&key.name),
                plain(scopes.join(", ")),
                plain(collections),
                (date(Some(key.created_unix_ms), ""), QUIET),
                plain(date(key.expires_unix_ms, "never")),
                plain(date(key.old_secret_until_unix_ms, "")),
                plain(date(key.last_used_unix_ms, "not since the start")),
            ]
        })
        .collect();
    let headings =
        ["id", "name", "scopes", "collections", "made", "ends", "old secret until", "last used"];
    table::print(&headings, &rows);
    Ok(ExitCode::SUCCESS)
}
