//! Settings as text, as JSON, and as the reference page of the documentation.

use std::fmt::Write as _;

use super::source::variable;
use super::table::SETTINGS;
use super::{Origin, Settings, Value, service_setting};

/// Lines of TOML; with `origins` each says where its value comes from.
pub fn to_text(settings: &Settings, origins: bool) -> String {
    let mut text = String::new();
    let mut section = "";
    for (setting, value, origin) in settings.iter() {
        let (of, key) = setting.name.split_once('.').unwrap_or(("", setting.name));
        if of != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{of}]");
            section = of;
        }
        let plain = value.to_string();
        let bare = plain.parse::<f64>().is_ok() || matches!(value, Value::Bool(_));
        let quoted = if bare { plain } else { format!("{plain:?}") };
        let line = format!("{key} = {quoted}");
        let _ = match origins {
            true => writeln!(text, "{line:40} # {origin}"),
            false => writeln!(text, "{line}"),
        };
    }
    let mut service = "";
    for ((of, name), (value, origin)) in &settings.services {
        if of != service {
            let _ = writeln!(text, "\n[service.{of:?}]");
            service = of;
        }
        let key = name.split_once('.').map_or(*name, |(_, key)| key);
        let plain = value.to_string();
        let line = match plain.parse::<u64>() {
            Ok(_) => format!("{key} = {plain}"),
            Err(_) => format!("{key} = {plain:?}"),
        };
        let _ = match origins {
            true => writeln!(text, "{line:40} # {origin}"),
            false => writeln!(text, "{line}"),
        };
    }
    text
}

/// An object by name: value, origin, default, whether it can be reloaded.
pub fn to_json(settings: &Settings) -> serde_json::Value {
    let each = settings.iter().map(|(setting, value, origin)| {
        let about = serde_json::json!({
            "value": value.to_string(),
            "origin": origin.to_string(),
            "is_default": *origin == Origin::Default,
            "default": setting.default,
            "allowed": setting.kind.to_string(),
            "reloadable": setting.reloadable,
        });
        (setting.name.to_string(), about)
    });
    let services = settings.services.iter().map(|(key, (value, origin))| {
        let name = service_setting(key);
        let about = serde_json::json!({
            "value": value.to_string(),
            "origin": origin.to_string(),
            "is_default": false,
            "reloadable": true,
        });
        (name, about)
    });
    serde_json::Value::Object(each.chain(services).collect())
}

/// `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Every setting of `mainstay serve`; this page is made from the table in `crates/server/src/settings/table.rs`.\n\n\
         Later sources win: the default, the file given by `--config` (or `MAINSTAY_CONFIG`), environment variables, `--set NAME=VALUE` and the command's own options.\n\
         A variable that begins with `MAINSTAY_` and is neither below nor one that a command reads (`MAINSTAY_DATA`, `MAINSTAY_URL`, `MAINSTAY_API_KEY`, `MAINSTAY_CA`, `MAINSTAY_CERT`, `MAINSTAY_CERT_KEY`) is a fault; those that Kubernetes sets for a service called `mainstay` are not.\n\
         A password on the command line is refused, because the list of processes shows it: use the environment or the file.\n\
         All faults of all sources are told at once, and the server does not start with one.\n\
         `mainstay config show --origin` prints what counts and where it comes from; `mainstay config check FILE` only checks.\n\
         Settings marked *live* are taken over by `SIGHUP` without a restart; when a reload would change another one, nothing is changed and the server says which.\n\n\
         Bytes are written plain or with KiB, MiB, GiB, TiB; times with a unit, such as `250ms`, `1.5s`, `5m`.\n\n\
         Each setting of `dependency` may be overridden for one service, by a section `[service.NAME]` or by a variable with the service's name in front, such as `OPENAI_HTTP_TIMEOUT_SEC`.\n\n\
         | name | default | allowed | live | environment | what it does |\n|---|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let live = if setting.reloadable { "yes" } else { "" };
        let mut variables = format!("`{}`", variable(setting.name));
        for also in setting.also {
            let _ = write!(variables, ", `{also}`");
        }
        let _ = writeln!(
            page,
            "| `{}` | `{}` | {} | {live} | {variables} | {} |",
            setting.name, setting.default, setting.kind, setting.about
        );
    }
    page
}
