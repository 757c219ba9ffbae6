//! A server with documents, on a free port of loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_db::{Db, Document, Method, Options};
use mainstay_resilience::Pipelines;
use mainstay_server::settings::Settings;
use mainstay_server::telemetry::Telemetry;
use mainstay_server::{Front, Handlers, Host, Server};
use tempfile::TempDir;

/// Documents of the corpus: enough that a search does real work.
const DOCUMENTS: usize = 20_000;
/// Words of a document.
const LENGTH: usize = 60;
/// Words that nobody searches for, because every other document has them.
const STOP_WORDS: u64 = 50;

/// What documents are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Corpus {
    /// 20,000 words of which each is as rare as in natural text: the n-th has the share 1/n (Zipf).
    Natural,
    /// 25 words: nearly every document has every word of a query.
    Dense,
}

/// The server; it ends with the process.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) db: Arc<Db>,
    /// The handlers without and with what stands in front of them.
    pub(crate) routes: (Handlers, Front),
    _folder: TempDir,
    /// Who receives logs and traces.
    pub(crate) telemetry: Option<Telemetry>,
}

impl Corpus {
    /// The words of a document, by their ranks.
    fn ranks(self, number: u64) -> impl Iterator<Item = u64> {
        let mut state = number + 1;
        std::iter::repeat_with(move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let share = (state >> 11) as f64 / (1u64 << 53) as f64;
            match self {
                Self::Natural => 20_000f64.powf(share) as u64,
                Self::Dense => STOP_WORDS + (25.0 * share) as u64,
            }
        })
    }

    fn document(self, number: usize) -> Document {
        let words: Vec<String> = self.ranks(number as u64).take(LENGTH).map(word).collect();
        Document { id: number.to_string(), body: words.join(" "), ..Document::default() }
    }

    /// Three words of some document, different for each number.
    pub(crate) fn query(self, number: u64) -> String {
        let document = number.wrapping_mul(7_919) % DOCUMENTS as u64;
        let words = self.ranks(document).filter(|rank| *rank >= STOP_WORDS).map(word);
        words.take(3).collect::<Vec<String>>().join(" ")
    }
}

/// A word of two to four syllables.
fn word(rank: u64) -> String {
    let mut state = rank.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let syllable = |_| {
        state = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let consonant = b"bcdfghjklmnprstvw"[(state >> 32) as usize % 17];
        [char::from(consonant), char::from(b"aeiou"[(state >> 48) as usize % 5])]
    };
    (0..2 + rank % 3).flat_map(syllable).collect()
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
    corpus: Corpus,
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
        docs.put((begin..begin + 1_000).map(|number| corpus.document(number)).collect())
            .map_err(|e| told(&e))?;
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
                let _ = tell.send((address, server.routes()));
                server.serve(std::future::pending()).await;
            }
        });
    });
    let (address, routes) = told.recv().map_err(|_| "the server did not start".to_string())?;
    Ok(Served { address, db, routes, _folder: folder, telemetry })
}
