//! `mainstay config`, and where `mainstay serve` takes its settings from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mainstay_server::ReadSettings;
use mainstay_server::settings::{SettingFault, Settings, to_json, to_text};

use crate::failure::Failure;
use crate::remote::Remote;

/// The longest file that is read: settings fill some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Show or check the settings of the server
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the settings that count, as TOML
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
        /// Print an object with value, origin, default and range of each
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        sources: Sources,
    },
    /// Let a running server read its settings again and take over what changed
    Reload {
        #[command(flatten)]
        remote: Remote,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Check a file; exit code 0 when it can be used
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Where settings come from besides defaults and the environment.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sources {
    /// A TOML file of settings; docs/configuration.md lists them
    #[arg(long, env = "MAINSTAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, such as server.searches_max=64; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("write NAME=VALUE, such as server.searches_max=64".to_string())?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

impl Sources {
    /// Reads all sources.
    pub(crate) fn load(&self) -> Result<Settings, Failure> {
        let text = self.config.as_deref().map(read).transpose()?;
        let file = self.config.as_deref().zip(text.as_deref());
        Settings::load(file, variables(), &self.set).map_err(faults)
    }

    /// What reads all sources again.
    pub(crate) fn reader(self) -> Box<ReadSettings> {
        Box::new(move || {
            let text = self.config.as_deref().map(read).transpose();
            let text = text.map_err(|failure| vec![failure.to_string()])?;
            let file = self.config.as_deref().zip(text.as_deref());
            Settings::load(file, variables(), &self.set)
                .map_err(|faults| faults.iter().map(ToString::to_string).collect())
        })
    }
}

/// The environment. What is no Unicode is no setting, and must not end the program.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn read(path: &Path) -> Result<String, Failure> {
    let unreadable =
        |error| Failure::usage(format!("{}: the settings cannot be read: {error}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let path = path.display();
        return Err(Failure::usage(format!(
            "{path}: is longer than {FILE_BYTES_MAX} bytes, which no settings are"
        )));
    }
    Ok(text)
}

fn faults(faults: Vec<SettingFault>) -> Failure {
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Failure::usage(format!("the settings cannot be used\n  {}", told.join("\n  ")))
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Show { origin, json, sources } => {
            let settings = sources.load()?;
            if *json {
                println!("{:#}", to_json(&settings));
            } else {
                print!("{}", to_text(&settings, *origin));
            }
        }
        Command::Reload { remote, dry_run } => {
            let path = format!("/admin/config/reload?dry_run={dry_run}");
            let answer = remote.json("POST", &path, None)?;
            let changes = answer["changes"].as_array().cloned().unwrap_or_default();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
            for change in &changes {
                let [name, before, after] =
                    ["name", "before", "after"].map(|field| text(&change[field]));
                println!(
                    "{name} {} {after} (was {before})",
                    if *dry_run { "would be" } else { "is now" }
                );
            }
            if changes.is_empty() {
                println!("nothing has changed");
            }
        }
        Command::Check { file } => {
            let text = read(file)?;
            let settings = Settings::load(Some((file, &text)), [], &[]).map_err(faults)?;
            let changed = Settings::default().changes(&settings).len();
            println!("{} is sound: {changed} settings differ from their defaults", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
