//! `mainstay verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_db::Options;
use mainstay_server::wire::VerifyJson;

use crate::data;
use crate::failure::{FOUND_FAULT, Failure};
use crate::print::{BAD, GOOD, WARNING, styled};

/// Compare the log, the documents and every index
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data directory
    #[arg(long, env = "MAINSTAY_DATA", value_name = "DIR")]
    data: PathBuf,
    /// The collection; all of them when absent
    #[arg(long, short)]
    collection: Option<String>,
    /// Print the report as JSON: an array with an object for each collection
    #[arg(long)]
    json: bool,
}

/// Exit code 0 when everything agrees, 1 when not.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let db = data::open_existing(&arguments.data, Options::default())?;
    let collections = match &arguments.collection {
        Some(name) => vec![db.collection(name)?],
        None => db.collections(),
    };
    let mut reports: Vec<VerifyJson> = Vec::new();
    for collection in &collections {
        data::wait_indexed(collection, "catching up");
        reports.push(collection.verify()?.into());
    }
    let broken = db.broken();
    db.close()?;
    if arguments.json {
        let json = serde_json::to_string(&reports).map_err(|e| Failure::new(e.to_string()))?;
        println!("{json}");
    } else {
        reports.iter().for_each(print);
    }
    for (name, reason) in &broken {
        anstream::eprintln!("{} {name}: {reason}", styled(BAD, "not opened"));
    }
    let clean = broken.is_empty() && reports.iter().all(|report| report.clean);
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(FOUND_FAULT) })
}

fn print(report: &VerifyJson) {
    let verdict = if report.clean { styled(GOOD, "clean") } else { styled(BAD, "NOT CLEAN") };
    anstream::println!(
        "{}: {verdict}: {} documents, {} log records, {} log bytes",
        report.collection,
        report.documents,
        report.log_records,
        report.log_bytes
    );
    for damage in report.log_damage.iter().chain(&report.document_damage) {
        anstream::println!("  {} {damage}", styled(BAD, "damage"));
    }
    for view in &report.views {
        let mut notes = Vec::new();
        if view.missing > 0 {
            notes.push(format!("{} missing: {}", view.missing, view.missing_ids.join(", ")));
        }
        if view.extra > 0 {
            notes.push(format!("{} extra: {:?}", view.extra, view.extra_numbers));
        }
        if !view.fault.is_empty() {
            notes.push(view.fault.clone());
        }
        let bad = !notes.is_empty();
        if view.set_aside > 0 {
            notes.push(format!("{} set aside", view.set_aside));
        }
        let mark = match (bad, notes.is_empty()) {
            (true, _) => styled(BAD, "wrong"),
            (false, true) => styled(GOOD, "ok"),
            (false, false) => styled(WARNING, "ok"),
        };
        anstream::println!(
            "  {:10} {mark} holds {} through {} {}",
            view.view,
            view.held,
            view.indexed_through,
            notes.join("; ")
        );
    }
}
