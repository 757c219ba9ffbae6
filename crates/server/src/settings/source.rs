//! The sources of settings: a TOML file, environment variables, the command line.

use std::fmt;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use super::Settings;
use super::fault::{SettingFault, nearest};
use super::table::SETTINGS;

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
        let Some(index) = SETTINGS.iter().position(|setting| setting.name == name) else {
            let message = format!("there is no setting {name}");
            let nearest = nearest(name, str::to_string);
            faults.push(SettingFault::unknown(origin, &message, nearest));
            return;
        };
        match SETTINGS[index].parse(text) {
            Ok(value) => self.set(index, value, origin),
            Err(allowed) => {
                let message = format!("{name} is {text:?}; allowed is {allowed}");
                faults.push(SettingFault { origin, message });
            }
        }
    }
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
        for (key, item) in table.iter() {
            let span = key_span(table, key).or_else(|| item.span());
            let line = span.map_or(0, |span| line_of(span.start));
            settings.take(&format!("{section}.{key}"), written(item, text), at(line), faults);
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
        if let Some(setting) = found {
            settings.take(setting.name, &text, origin, faults);
        } else if of_a_section(&name) {
            let nearest = nearest(&name, variable);
            faults.push(SettingFault::unknown(origin, "there is no such setting", nearest));
        }
    }
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
