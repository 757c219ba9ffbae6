//! `mainstay rebuild`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mainstay_db::{COLLECTION_DEFAULT, Method, Options};
use mainstay_server::problem::Problem;

use crate::data;
use crate::failure::Failure;
use crate::trust::Trust;

/// Make the index of a method anew from the log
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data directory
    #[arg(long, env = "MAINSTAY_DATA", required_unless_present = "url", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address of a running server: it goes on answering from the old index meanwhile
    #[arg(long, env = "MAINSTAY_URL", hide_env_values = true, conflicts_with = "data")]
    url: Option<String>,
    #[command(flatten)]
    trust: Trust,
    /// The collection
    #[arg(long, short, default_value = COLLECTION_DEFAULT)]
    collection: String,
    /// The method: bm25, tantivy, native or semantic
    #[arg(long, short)]
    method: Method,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match (&arguments.url, &arguments.data) {
        (Some(url), _) => remote(url, arguments)?,
        (None, Some(folder)) => {
            let db = data::open_existing(folder, Options::default())?;
            let collection = db.collection(&arguments.collection)?;
            let bar = data::bar(collection.durable_seq(), "rebuilding", "records");
            let rebuilt = collection.rebuild(arguments.method, &mut |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            let view = format!("{}/{}", arguments.collection, arguments.method);
            let failure = rebuilt.as_ref().err().map(ToString::to_string);
            let files = db.state_files()?;
            mainstay_server::audit_offline(
                files,
                "command line",
                "view.rebuild",
                &view,
                failure.as_deref(),
            );
            rebuilt?;
            db.close()?;
        }
        (None, None) => return Err(Failure::usage("name a data directory with --data")),
    }
    eprintln!("{} of collection {} is rebuilt", arguments.method, arguments.collection);
    Ok(ExitCode::SUCCESS)
}

fn remote(url: &str, arguments: &Arguments) -> Result<(), Failure> {
    /// A rebuild of a large collection takes its time; the server can be watched meanwhile.
    const PATIENCE: Duration = Duration::from_secs(24 * 3600);
    let url =
        format!("{}/admin/collections/{}/rebuild", url.trim_end_matches('/'), arguments.collection);
    let body = serde_json::json!({ "method": arguments.method.name() });
    let mut response = crate::remote::agent(PATIENCE, &arguments.trust)?
        .post(&url)
        .send_json(body)
        .map_err(|e| Failure::new(format!("{url}: {e}; is the server running?")))?;
    if response.status().is_success() {
        return Ok(());
    }
    let status = response.status();
    let problem = response.body_mut().read_json::<Problem>();
    Err(Failure::new(problem.map_or_else(|_| format!("{url} answered {status}"), |p| p.detail)))
}
