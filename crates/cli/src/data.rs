//! Opening a data directory for a command.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mainstay_db::{Collection, Db, Method, ModelChoice, Options};

use mainstay_server::redact::redact;

use crate::failure::Failure;

/// Opens a data directory that must be there already.
pub(crate) fn open_existing(folder: &Path, options: Options) -> Result<Db, Failure> {
    if !folder.join("mainstay.json").exists() {
        return Err(Failure::new(format!(
            "{} is no data directory; make one with `mainstay index PATH --data {}`",
            folder.display(),
            folder.display()
        )));
    }
    Ok(Db::open(folder, options)?)
}

/// Reads the choice of an embedding model, which may hold no secret: everybody on the machine sees
/// the command line.
pub(crate) fn model(text: &str) -> Result<ModelChoice, Failure> {
    text.parse::<ModelChoice>()
        .and_then(|choice| choice.check().map(|()| choice))
        .map_err(|error| Failure::usage(format!("--model: {}", redact(&error.to_string()))))
}

/// Waits until every method has indexed all that is durable, showing how far it is.
///
/// Gives up when nothing moves for a minute: a method that fails says so in every answer.
pub(crate) fn wait_indexed(collection: &Collection, label: &str) -> bool {
    let target = collection.durable_seq();
    // A bar that flashes by tells nobody anything.
    if collection.wait_indexed(target, &Method::ALL, Duration::from_millis(300)) {
        return true;
    }
    let bar = bar(target, label, "records");
    let (mut best, mut moved) = (0, Instant::now());
    loop {
        let status = collection.status();
        let slowest = status.views.iter().map(|view| view.indexed_through).min().unwrap_or(target);
        bar.set_position(slowest.min(target));
        if collection.wait_indexed(target, &Method::ALL, Duration::from_millis(100)) {
            bar.finish_and_clear();
            return true;
        }
        let sum: u64 = status.views.iter().map(|view| view.indexed_through).sum();
        if sum > best {
            (best, moved) = (sum, Instant::now());
        } else if moved.elapsed() > Duration::from_secs(60) {
            bar.finish_and_clear();
            return false;
        }
    }
}

/// A progress bar with rate and remaining time; silent where nobody looks.
pub(crate) fn bar(total: u64, label: &str, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = format!(
        "{{prefix:12}} {{bar:30}} {{human_pos}}/{{human_len}} {unit} {{per_sec:.0}} {{eta}} left {{msg}}"
    );
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_prefix(label.to_string());
    bar
}
