//! `mainstay serve`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mainstay_db::{COLLECTION_DEFAULT, Db, Options};
use mainstay_server::settings::Settings;
use mainstay_server::telemetry::Telemetry;
use mainstay_server::{Control, Server};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Sources;
use crate::failure::Failure;
use crate::{data, index};

/// Serve a data directory over HTTP
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data directory; created when it is missing
    #[arg(long, env = "MAINSTAY_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// First index this folder into the collection `default`
    #[arg(long, value_name = "PATH")]
    index: Option<PathBuf>,
    /// The embedding model of collections that are created: auto, static, minilm, folder:PATH, or a
    /// remote provider [default: auto]
    #[arg(long)]
    model: Option<String>,
    /// The share of each core that refining vectors in the background may use, in percent
    /// [default: 50]
    #[arg(long, value_name = "PERCENT")]
    refine_percent: Option<String>,
    /// Seconds that running requests get at shutdown [default: 25]
    #[arg(long, value_name = "SECONDS")]
    drain_s: Option<u32>,
    #[command(flatten)]
    sources: Sources,
}

impl Arguments {
    /// The command's own options, by the names of the settings they stand for.
    fn sources(&self) -> Sources {
        let drain = self.drain_s.map(|seconds| format!("{seconds}s"));
        let named = [
            ("server.listen", &self.listen),
            ("semantic.model", &self.model),
            ("semantic.refine_percent", &self.refine_percent),
            ("server.drain_timeout", &drain),
        ];
        let mut sources = self.sources.clone();
        for (name, value) in named {
            sources.set.extend(value.as_ref().map(|value| (name.to_string(), value.clone())));
        }
        sources
    }
}

/// A folder may be named as it is; the choices of --model are taken as they are.
fn model_path(text: &str) -> String {
    let is_folder = std::path::Path::new(text).is_dir();
    if is_folder { format!("folder:{text}") } else { text.to_string() }
}

/// Exit code 0 after an orderly shutdown, 3 when requests had to be cut off.
pub(crate) fn run(arguments: &Arguments, log: Option<String>) -> Result<ExitCode, Failure> {
    mainstay_server::install_metrics()
        .map_err(|e| Failure::new(format!("metrics cannot be received: {e}")))?;
    let mut sources = arguments.sources();
    sources.set.extend(log.map(|filter| ("log.filter".to_string(), filter)));
    let settings = sources.load()?;
    let telemetry = Telemetry::install(&settings).map_err(|e| Failure::usage(e.to_string()))?;
    let telemetry = Arc::new(telemetry);
    let db = Arc::new(Db::open(&arguments.data, options(&settings))?);
    let model = data::model(&model_path(settings.text("semantic.model")))?;
    if let Some(path) = &arguments.index {
        index::folder(&db, COLLECTION_DEFAULT, path, model)?;
    } else {
        db.collection_or_create(COLLECTION_DEFAULT, model)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = serve(Arc::clone(&db), settings, sources, Arc::clone(&telemetry));
    let drained = runtime.block_on(served)?;
    // Work that a timeout left behind must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    db.close()?;
    telemetry.flush();
    if drained {
        eprintln!("stopped; everything is durable");
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new("stopped; some requests did not end in time and were cut off"))
    }
}

fn options(settings: &Settings) -> Options {
    let count = |name| usize::try_from(settings.number(name)).unwrap_or(usize::MAX);
    Options {
        refine_percent: u8::try_from(settings.number("semantic.refine_percent")).unwrap_or(100),
        embed_threads: count("semantic.threads"),
        query_cache_bytes: count("semantic.query_cache_bytes"),
        search_threads: count("search.threads"),
        compact_interval: settings.duration("log.compact_interval"),
        ..Options::default()
    }
}

async fn serve(
    db: Arc<Db>,
    settings: Settings,
    sources: Sources,
    telemetry: Arc<Telemetry>,
) -> Result<bool, Failure> {
    let config = settings.config();
    let listen = config.listen;
    let server = Server::bind(db, config).await.map_err(|e| {
        Failure::new(format!("cannot listen on {listen}: {e}; choose another with --listen"))
    })?;
    let address = server.address()?;
    eprintln!("listening on http://{address} (no authentication: keep it on a trusted network)");
    eprintln!("try: curl -s http://{address}/search --json '{{\"query\": \"hello\"}}'");
    let hangup = signal(SignalKind::hangup())?;
    let reload = reload(server.control(), telemetry, settings, sources, hangup);
    let reload = tokio::spawn(reload);
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        eprintln!(
            "shutting down: running requests are finished first; signal again to cut them off"
        );
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            eprintln!("cut off; the log holds everything that was acknowledged");
            std::process::exit(4);
        });
    };
    let drained = server.serve(stop).await;
    reload.abort();
    Ok(drained)
}

/// Reads the settings again at each SIGHUP and takes over what has changed: all of it or nothing.
async fn reload(
    control: Control,
    telemetry: Arc<Telemetry>,
    mut settings: Settings,
    sources: Sources,
    mut hangup: Signal,
) {
    while hangup.recv().await.is_some() {
        match sources.reload(&settings) {
            Ok((after, changes)) => {
                if let Err(fault) = telemetry.reconfigure(&after) {
                    eprintln!("not reloaded, nothing was changed: {fault}");
                    continue;
                }
                control.reconfigure(after.config());
                for change in &changes {
                    let (name, before) = (change.setting.name, &change.before);
                    eprintln!("reloaded: {name} is now {} (was {before})", change.after);
                }
                if changes.is_empty() {
                    eprintln!("reloaded: nothing has changed");
                }
                settings = after;
            }
            Err(failure) => eprintln!("not reloaded, nothing was changed: {failure}"),
        }
    }
}
