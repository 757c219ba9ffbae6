//! The sources of settings: a TOML file, environment variables, the command line.

use std::fmt;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use mainstay_ops::redact::redact;

use super::Settings;
use super::fault::{SettingFault, nearest};
use super::table::{SETTINGS, Setting};

/// What the variables of settings begin with.
const PREFIX: &str = "MAINSTAY_";

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
            let nearest = nearest(name, str::to_string);
            faults.push(SettingFault::unknown(origin, &message, nearest));
            return;
        };
        match SETTINGS[index].parse(text) {
            Ok(value) => self.set(index, value, origin),
            Err(allowed) => {
                let message = format!("{name} is {:?}; allowed is {allowed}", redact(text));
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
            let nearest = nearest(&name, str::to_string);
            return faults.push(SettingFault::unknown(origin, &message, nearest));
        };
        match setting.parse(text) {
            Ok(value) => {
                self.services.insert((service.to_string(), setting.name), (value, origin));
            }
            Err(allowed) => {
                let message = format!("service.{service}.{key} is {text:?}; allowed is {allowed}");
                faults.push(SettingFault { origin, message });
            }
        }
    }
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

/// Reads environment variables. Variables that begin like those of a section must be settings.
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
        } else if of_a_section(&name) {
            let nearest = nearest(&name, variable);
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

fn of_a_section(name: &str) -> bool {
    SETTINGS.iter().filter_map(|setting| setting.name.split_once('.')).any(|(section, _)| {
        name.strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix(&section.to_ascii_uppercase()))
            .is_some_and(|rest| rest.starts_with('_'))
    })
}

/// Reads pairs of name and value from the command line.
pub(super) fn flags(
    flags: &[(String, String)],
    settings: &mut Settings,
    faults: &mut Vec<SettingFault>,
) {
    for (name, text) in flags {
        settings.take(name, text, Origin::CommandLine, faults);
    }
}
