//! `mainstay serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mainstay_db::{COLLECTION_DEFAULT, Db, Options};
use mainstay_server::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::{data, index};

/// Serve a data directory over HTTP
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data directory; created when it is missing
    #[arg(long, env = "MAINSTAY_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Address and port; port 0 takes a free one
    #[arg(long, env = "MAINSTAY_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: SocketAddr,
    /// First index this folder into the collection `default`
    #[arg(long, value_name = "PATH")]
    index: Option<PathBuf>,
    /// The embedding model of collections that are created: auto, static, minilm, folder:PATH, or a
    /// remote provider
    #[arg(long, env = "MODEL_PATH", default_value = "auto", value_parser = model_path)]
    model: String,
    /// The share of each core that refining vectors in the background may use, in percent
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    refine_percent: u8,
    /// Seconds that running requests get at shutdown
    #[arg(long, default_value_t = 25)]
    drain_s: u64,
}

/// `MODEL_PATH` names a folder; the choices of --model are taken as they are.
fn model_path(text: &str) -> Result<String, String> {
    let is_folder = std::path::Path::new(text).is_dir();
    Ok(if is_folder { format!("folder:{text}") } else { text.to_string() })
}

/// Exit code 0 after an orderly shutdown, 3 when requests had to be cut off.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    mainstay_server::install_metrics()
        .map_err(|e| Failure::new(format!("metrics cannot be received: {e}")))?;
    let options = Options { refine_percent: arguments.refine_percent, ..Options::default() };
    let db = Arc::new(Db::open(&arguments.data, options)?);
    let model = data::model(&arguments.model)?;
    if let Some(path) = &arguments.index {
        index::folder(&db, COLLECTION_DEFAULT, path, model)?;
    } else {
        db.collection_or_create(COLLECTION_DEFAULT, model)?;
    }
    let config = Config {
        listen: arguments.listen,
        drain_timeout: Duration::from_secs(arguments.drain_s),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let drained = runtime.block_on(serve(Arc::clone(&db), config))?;
    // Work that a timeout left behind must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    db.close()?;
    if drained {
        eprintln!("stopped; everything is durable");
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new("stopped; some requests did not end in time and were cut off"))
    }
}

async fn serve(db: Arc<Db>, config: Config) -> Result<bool, Failure> {
    let listen = config.listen;
    let server = Server::bind(db, config).await.map_err(|e| {
        Failure::new(format!("cannot listen on {listen}: {e}; choose another with --listen"))
    })?;
    let address = server.address()?;
    eprintln!("listening on http://{address} (no authentication: keep it on a trusted network)");
    eprintln!("try: curl -s http://{address}/search --json '{{\"query\": \"hello\"}}'");
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
    Ok(server.serve(stop).await)
}
