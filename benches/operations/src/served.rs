//! A server with documents, on a free port of loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_db::{Db, Document, Method, Options};
use mainstay_resilience::Pipelines;
use mainstay_server::settings::Settings;
use mainstay_server::telemetry::Telemetry;
use mainstay_server::{Host, Server};
use tempfile::TempDir;

/// Documents of the corpus: enough that a search does real work.
const DOCUMENTS: usize = 20_000;
const WORDS: &[&str] = &[
    "anchor", "breaker", "cable", "deck", "ensign", "fender", "gale", "harbour", "island", "jetty",
    "keel", "lantern", "mast", "net", "oar", "pilot", "quay", "rope", "sail", "tide", "upwind",
    "vessel", "wave", "yard", "zenith",
];

/// The server; it ends with the process.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) db: Arc<Db>,
    /// The routes without and with what stands in front of them.
    pub(crate) routers: [axum::Router; 2],
    _folder: TempDir,
    /// Who receives logs and traces.
    pub(crate) telemetry: Option<Telemetry>,
}

/// The words of a query, different for each number.
pub(crate) fn query(number: u64) -> String {
    let word = |seed: u64| WORDS[(seed % WORDS.len() as u64) as usize];
    format!("{} {} {}", word(number), word(number / 7 + 3), word(number.wrapping_mul(31) / 5))
}

fn document(number: usize) -> Document {
    let mut body = String::new();
    let mut state = number as u64 + 1;
    for _ in 0..60 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        body.push_str(WORDS[(state >> 33) as usize % WORDS.len()]);
        body.push(' ');
    }
    Document { id: number.to_string(), body, ..Document::default() }
}

/// Settings of which these differ from their defaults.
pub(crate) fn settings(changed: &[(&str, &str)]) -> Result<Settings, String> {
    // From the environment, because passwords are refused elsewhere.
    let variables =
        changed.iter().chain(&[("server.listen", "127.0.0.1:0")]).map(|(key, value)| {
            (format!("MAINSTAY_{}", key.replace('.', "_").to_uppercase()), value.to_string())
        });
    Settings::load(None, variables, &[]).map_err(|faults| format!("{faults:?}"))
}

/// Who receives what a process says of itself.
pub(crate) type Receivers = fn(&Settings, &Pipelines) -> Result<Option<Telemetry>, String>;

/// Metrics are kept, logs and traces are received by nobody.
pub(crate) fn metrics_alone(_: &Settings, _: &Pipelines) -> Result<Option<Telemetry>, String> {
    mainstay_server::install_metrics().map_err(|error| error.to_string())?;
    Ok(None)
}

/// Everything is received, as by `mainstay serve`.
pub(crate) fn everything(
    settings: &Settings,
    pipelines: &Pipelines,
) -> Result<Option<Telemetry>, String> {
    mainstay_server::install_metrics().map_err(|error| error.to_string())?;
    Telemetry::install(settings, pipelines).map(Some).map_err(|error| error.to_string())
}

/// Starts a server with these settings whose collection `default` uses this model.
pub(crate) fn start(
    model: &str,
    changed: &[(&str, &str)],
    receivers: Receivers,
) -> Result<Served, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let settings = settings(changed)?;
    let pipelines = Options::pipelines(settings.pipelines()).map_err(|e| told(&e))?;
    let telemetry = receivers(&settings, &pipelines)?;
    let mut config = settings.config();
    let folder = tempfile::tempdir().map_err(|e| told(&e))?;
    let host = Host::new(&Default::default(), None).map_err(|e| told(&e))?;
    let options = Options { pipelines, ..Options::default() };
    let db =
        Arc::new(Db::open_on(host.file_system(), folder.path(), options).map_err(|e| told(&e))?);
    let model = model.parse().map_err(|e| format!("{e}"))?;
    let docs = db.create_collection("default", model).map_err(|e| told(&e))?;
    for begin in (0..DOCUMENTS).step_by(1_000) {
        docs.put((begin..begin + 1_000).map(document).collect()).map_err(|e| told(&e))?;
    }
    let seq = docs.durable_seq();
    if !docs.wait_indexed(seq, &Method::ALL, Duration::from_secs(300)) {
        return Err("the documents were not indexed in time".into());
    }
    let served = Arc::clone(&db);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async move {
            // Answers that were kept would hide what is missing.
            config.answers_stale_for = Duration::ZERO;
            if let Ok(server) = Server::bind(served, config, host).await
                && let Ok(address) = server.address()
            {
                let _ = tell.send((address, server.routers()));
                server.serve(std::future::pending()).await;
            }
        });
    });
    let (address, routers) = told.recv().map_err(|_| "the server did not start".to_string())?;
    Ok(Served { address, db, routers, _folder: folder, telemetry })
}
