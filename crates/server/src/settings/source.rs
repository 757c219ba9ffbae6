//! The sources of settings: a TOML file, environment variables, the command line.

use std::fmt;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use mainstay_ops::redact::{holds_secret, redact};

use super::Settings;
use super::fault::SettingFault;
use super::table::{SETTINGS, Setting};
use crate::nearest::nearest;

/// What the variables of settings begin with.
const PREFIX: &str = "MAINSTAY_";

/// Variables that begin like settings and are none: those that commands of the program read
/// themselves, and those of this project's own tests, which run the program.
pub const PROGRAM_VARIABLES: &[&str] = &[
    "MAINSTAY_API_KEY",
    "MAINSTAY_CA",
    "MAINSTAY_CERT",
    "MAINSTAY_CERT_KEY",
    "MAINSTAY_CONFIG",
    "MAINSTAY_DATA",
    "MAINSTAY_URL",
    "MAINSTAY_DATASETS",
    "MAINSTAY_LONG",
    "MAINSTAY_SEED",
    "MAINSTAY_SCREENSHOTS",
    "MAINSTAY_SEEDS",
    "MAINSTAY_UPDATE",
];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The table.
    Default,
    /// A line of a file, from 1; 0 for the file as a whole.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// The command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// How a setting is called in the environment, unless the table gives it another name too.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "_").to_ascii_uppercase())
}

impl Settings {
    /// Sets one by name, or says why not.
    fn take(&mut self, name: &str, text: &str, origin: Origin, faults: &mut Vec<SettingFault>) {
        if let Some((service, key)) = of_a_service(name) {
            return self.take_service(service, key, text, origin, faults);
        }
        let Some(index) = SETTINGS.iter().position(|setting| setting.name == name) else {
            let message = format!("there is no setting {name}");
            let nearest = nearest(name, setting_names());
            faults.push(SettingFault::unknown(origin, &message, nearest));
            return;
        };
        match SETTINGS[index].parse(text) {
            Ok(value) => self.set(index, value, origin),
            Err(allowed) => {
                let shown = SETTINGS[index].kind.shown(text);
                let message = format!("{name} is {shown:?}; allowed is {allowed}");
                faults.push(SettingFault { origin, message });
            }
        }
    }

    /// Overrides a setting of `dependency` for one service.
    fn take_service(
        &mut self,
        service: &str,
        key: &str,
        text: &str,
        origin: Origin,
        faults: &mut Vec<SettingFault>,
    ) {
        let name = format!("dependency.{key}");
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            let message = format!("there is no setting {key} of a service");
            let nearest = nearest(&name, setting_names());
            return faults.push(SettingFault::unknown(origin, &message, nearest));
        };
        match setting.parse(text) {
            Ok(value) => {
                self.services.insert((service.to_string(), setting.name), (value, origin));
            }
            Err(allowed) => {
                let shown = redact(text);
                let message = format!("service.{service}.{key} is {shown:?}; allowed is {allowed}");
                faults.push(SettingFault { origin, message });
            }
        }
    }
}

fn setting_names() -> impl Iterator<Item = String> {
    SETTINGS.iter().map(|setting| setting.name.to_string())
}

/// Service and key of `service.NAME.KEY`; the name may hold points itself.
fn of_a_service(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("service.")?.rsplit_once('.')
}

/// Reads a TOML file: a table for each section.
pub(super) fn file(
    path: &Path,
    text: &str,
    settings: &mut Settings,
    faults: &mut Vec<SettingFault>,
) {
    let at = |line| Origin::File(path.to_path_buf(), line);
    let line_of = |byte: usize| text[..byte.min(text.len())].matches('\n').count() + 1;
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map_or(0, |span| line_of(span.start));
            let message = error.message().trim().to_string();
            return faults.push(SettingFault { origin: at(line), message });
        }
    };
    for (section, item) in document.as_table().iter() {
        let Some(table) = item.as_table_like() else {
            let line = item.span().map_or(0, |span| line_of(span.start));
            let message =
                format!("{section} is no section; write [{section}] and its settings below");
            faults.push(SettingFault { origin: at(line), message });
            continue;
        };
        let mut take = |name: String, table: &dyn TableLike, key: &str, item: &Item| {
            let span = key_span(table, key).or_else(|| item.span());
            let line = span.map_or(0, |span| line_of(span.start));
            settings.take(&name, written(item, text), at(line), faults);
        };
        for (key, item) in table.iter() {
            match item.as_table_like().filter(|_| section == "service") {
                None => take(format!("{section}.{key}"), table, key, item),
                Some(service) => {
                    for (inner, item) in service.iter() {
                        take(format!("service.{key}.{inner}"), service, inner, item);
                    }
                }
            }
        }
    }
}

fn key_span(table: &dyn TableLike, key: &str) -> Option<std::ops::Range<usize>> {
    table.get_key_value(key).and_then(|(key, _)| key.span())
}

/// The text of a value; a string without its quotes.
fn written<'a>(item: &'a Item, file: &'a str) -> &'a str {
    let as_it_stands = || item.span().and_then(|span| file.get(span)).unwrap_or_default();
    item.as_str().unwrap_or_else(as_it_stands)
}

/// Every variable that means something.
fn known_variables() -> impl Iterator<Item = String> {
    let also = SETTINGS.iter().flat_map(|setting| setting.also).chain(PROGRAM_VARIABLES);
    let ours = also.filter(|name| name.starts_with(PREFIX)).map(ToString::to_string);
    SETTINGS.iter().map(|setting| variable(setting.name)).chain(ours)
}

/// Reads environment variables. Variables that begin like ours must be known.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (String, String)>,
    settings: &mut Settings,
    faults: &mut Vec<SettingFault>,
) {
    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort();
    for (name, text) in variables {
        let found = SETTINGS.iter().find(|setting| {
            variable(setting.name) == name || setting.also.contains(&name.as_str())
        });
        let origin = Origin::Environment(name.clone());
        let of_service = |setting: &'static Setting| {
            let also = setting.also.iter().find_map(|also| name.strip_suffix(also))?;
            let service = also.strip_suffix('_').filter(|service| !service.is_empty())?;
            Some((service.to_ascii_lowercase(), setting))
        };
        if let Some(setting) = found {
            settings.take(setting.name, &with_unit(&name, &text), origin, faults);
        } else if let Some((service, setting)) = SETTINGS
            .iter()
            .filter(|setting| setting.name.starts_with("dependency."))
            .find_map(of_service)
        {
            let name = setting.name.replacen("dependency", &format!("service.{service}"), 1);
            settings.take(&name, &with_unit(setting.also[0], &text), origin, faults);
        } else if is_unknown(&name, &text) {
            let nearest = nearest(&name, known_variables());
            faults.push(SettingFault::unknown(origin, "there is no such setting", nearest));
        }
    }
}

/// Variables whose name ends in their unit have plain numbers.
fn with_unit(variable: &str, text: &str) -> String {
    let text = text.trim();
    let unit = match variable {
        name if name.ends_with("_SEC") => "s",
        name if name.ends_with("_MS") => "ms",
        _ => "",
    };
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { format!("{text}{unit}") } else { text.to_string() }
}

/// Whether a variable looks like ours and is neither a setting nor one that the program reads itself.
fn is_unknown(name: &str, text: &str) -> bool {
    let ours = name.starts_with(PREFIX) && !PROGRAM_VARIABLES.contains(&name);
    ours && !of_an_orchestrator(name, text)
}

/// Kubernetes tells every container where each service is; of a service called `mainstay` in
/// variables such as `MAINSTAY_SERVICE_HOST` and `MAINSTAY_PORT_8080_TCP_ADDR`.
fn of_an_orchestrator(name: &str, text: &str) -> bool {
    let (before, after) = name.split_once("_PORT").unwrap_or((name, ""));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || after.is_empty() && before != name && text.contains("://")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| after.contains(protocol))
}

/// Reads pairs of name and value from the command line, which is no place for a password.
pub(super) fn flags(
    flags: &[(String, String)],
    settings: &mut Settings,
    faults: &mut Vec<SettingFault>,
) {
    for (name, text) in flags {
        let of_secrets = SETTINGS.iter().any(|it| it.name == name && it.kind.is_secret());
        // A model takes no password from anywhere: that is told when the settings are checked.
        let in_address = name != "semantic.model" && text.contains("://") && holds_secret(text);
        if of_secrets && !text.is_empty() || in_address {
            let message = format!(
                "{name} holds a password, and the list of processes shows it to everybody on the \
                 machine; set {} in the environment instead",
                variable(name)
            );
            faults.push(SettingFault { origin: Origin::CommandLine, message });
            continue;
        }
        settings.take(name, text, Origin::CommandLine, faults);
    }
}
