//! `mainstay config`, and where `mainstay serve` takes its settings from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mainstay_server::settings::{Change, SettingFault, Settings, to_json, to_text};

use crate::failure::Failure;

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
        Settings::load(file, std::env::vars(), &self.set).map_err(faults)
    }

    /// Reads all sources again; fails when that would change a setting that is fixed at the start.
    pub(crate) fn reload(&self, before: &Settings) -> Result<(Settings, Vec<Change>), Failure> {
        let after = self.load()?;
        let changes = before.changes(&after);
        let fixed: Vec<String> = changes
            .iter()
            .filter(|change| !change.setting.reloadable)
            .map(|change| {
                format!("{} needs a restart to become {}", change.setting.name, change.after)
            })
            .collect();
        if fixed.is_empty() { Ok((after, changes)) } else { Err(Failure::usage(fixed.join("; "))) }
    }
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
        Command::Check { file } => {
            let text = read(file)?;
            let settings = Settings::load(Some((file, &text)), [], &[]).map_err(faults)?;
            let changed = Settings::default().changes(&settings).len();
            println!("{} is sound: {changed} settings differ from their defaults", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
