//! `mainstay serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_db::{COLLECTION_DEFAULT, Db, Options};
use mainstay_server::notify::Notifier;
use mainstay_server::settings::Settings;
use mainstay_server::shutdown::{EXIT_CLEAN, Plan, Progress, Shutdown};
use mainstay_server::telemetry::Telemetry;
use mainstay_server::{Clock, Config, Control, Host, Server, Starting, Ticker};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::allocator::Mimalloc;
use crate::config::Sources;
use crate::ending::Ending;
use crate::failure::Failure;
use crate::tls_files::TlsFiles;
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
    /// The embedding model of collections that are created: auto, static, minilm, folder:PATH, or
    /// remote:URL,MODEL,DIMENSION[,VARIABLE of the key] [default: auto]
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

/// Exit code 0 after an orderly shutdown, 10 when a phase of it was late or failed, 11 when a second
/// signal cut it short.
pub(crate) fn run(arguments: &Arguments, log: Option<String>) -> Result<ExitCode, Failure> {
    mainstay_server::install_metrics()
        .map_err(|e| Failure::new(format!("metrics cannot be received: {e}")))?;
    let mut sources = arguments.sources();
    sources.set.extend(log.map(|filter| ("log.filter".to_string(), filter)));
    let settings = sources.load()?;
    let pipelines = Options::pipelines(settings.pipelines())
        .map_err(|e| Failure::usage(format!("the settings cannot be used: {e}")))?;
    let telemetry = Telemetry::install(&settings, &pipelines);
    let telemetry = Arc::new(telemetry.map_err(|e| Failure::usage(e.to_string()))?);
    let notifier = Notifier::from_env().map_err(|e| Failure::usage(e.to_string()))?;
    let host = Host::new(&settings.handles(), Some(Arc::new(Mimalloc)))
        .map_err(|e| Failure::usage(e.to_string()))?;
    let options = Options { pipelines, ..options(&settings) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = settings.config();
    let starting = starting(&settings, &config, &runtime)?;
    let db = Arc::new(Db::open_on(host.file_system(), &arguments.data, options)?);
    let model = data::model(&model_path(settings.text("semantic.model")))?;
    if let Some(path) = &arguments.index {
        index::folder(&db, COLLECTION_DEFAULT, path, model)?;
    } else if let Err(error) = db.collection_or_create(COLLECTION_DEFAULT, model) {
        // The other collections serve, and health names the one that does not.
        match db.broken().contains_key(COLLECTION_DEFAULT) {
            true => eprintln!("collection {COLLECTION_DEFAULT} cannot be opened: {error}"),
            false => return Err(error.into()),
        }
    }
    let shutdown = Shutdown::new(Clock::system());
    let notifier = Arc::new(notifier);
    let signals = {
        let _entered = runtime.enter();
        Signals::new()?
    };
    let bound = runtime.block_on(bind(starting, &db, config, host))?;
    let server = start(bound, settings, sources, &telemetry)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = server.control();
    runtime.spawn(signals.hear(control.clone(), shutdown.clone(), Arc::clone(&notifier)));
    let watchdog = watchdog(&notifier, control.clone());
    let (tell, drained) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        // A dropped sender ends the server as a sent message does.
        let _ = tell.send(server.serve(async move { drop(stopped.await) }).await);
    });
    notifier.ready("answering");
    shutdown.wait();
    let (ending, began) = (Ending::of(control.drain_time()), Instant::now());
    notifier.stopping("finishing running requests", ending.total());
    let progress = end(&shutdown, &ending, stop, drained, db)?;
    drop(watchdog);
    telemetry.flush(ending.flush_after(began.elapsed()));
    eprintln!("{progress}");
    let code = progress.exit_code();
    if code == EXIT_CLEAN {
        // Work that a timeout left behind must not hold up the end.
        runtime.shutdown_timeout(ending.threads);
        eprintln!("stopped; everything is durable");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("cut off; the log holds everything that was acknowledged");
    // Threads that hang would hang the end as well.
    std::process::exit(i32::from(code));
}

/// Ends requests, then the data directory.
fn end(
    shutdown: &Shutdown,
    ending: &Ending,
    stop: tokio::sync::oneshot::Sender<()>,
    drained: std::sync::mpsc::Receiver<bool>,
    db: Arc<Db>,
) -> Result<Progress, Failure> {
    let plan = Plan::new(ending.drain + ending.close)
        .phase("drain", ending.drain, move |context| {
            // Not ready first, then no new connections, then the running requests.
            drop(stop);
            context.note("running requests are finished; signal again to cut them off");
            match drained.recv_timeout(context.remaining()) {
                Ok(true) => Ok(()),
                Ok(false) => Err("some requests did not end in time and were cut off".to_string()),
                Err(error) => Err(format!("the server did not end: {error}")),
            }
        })
        .and_then(|plan| {
            plan.phase("close", ending.close, move |_| {
                db.close().map_err(|error| error.to_string())
            })
        });
    let plan = plan.map_err(|error| Failure::usage(error.to_string()))?;
    eprintln!("shutting down: running requests are finished first; signal again to cut them off");
    Ok(plan.run(shutdown))
}

/// Tells the service manager that the process lives, as often as it wants to hear it.
fn watchdog(notifier: &Arc<Notifier>, control: Control) -> Option<Ticker> {
    let (every, notifier) = (notifier.watchdog_every()?, Arc::clone(notifier));
    let tick = move || {
        if control.liveness().live {
            notifier.watchdog();
        }
    };
    Ticker::start("watchdog", every.max(Duration::from_millis(10)), tick).ok()
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

/// Answers that the server is starting. With a certificate nothing answers before the start is over:
/// who asks in the clear would hear what nobody has signed.
fn starting(
    settings: &Settings,
    config: &Config,
    runtime: &tokio::runtime::Runtime,
) -> Result<Option<Starting>, Failure> {
    if !settings.text("tls.certificate").is_empty() {
        return Ok(None);
    }
    let _entered = runtime.enter();
    let starting = Starting::begin(config);
    starting.map(Some).map_err(|error| cannot_serve(config.listen, &error))
}

fn cannot_serve(listen: SocketAddr, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot serve on {listen}: {error}"))
}

async fn bind(
    starting: Option<Starting>,
    db: &Arc<Db>,
    config: Config,
    host: Host,
) -> Result<Server, Failure> {
    let (listen, db) = (config.listen, Arc::clone(db));
    let bound = match starting {
        Some(starting) => Server::bind_started(starting, db, config, host).await,
        None => Server::bind(db, config, host).await,
    };
    bound.map_err(|error| cannot_serve(listen, &error))
}

fn start(
    server: Server,
    settings: Settings,
    sources: Sources,
    telemetry: &Arc<Telemetry>,
) -> Result<Server, Failure> {
    let files = TlsFiles::of(&settings)?;
    let scheme = if files.is_some() { "https" } else { "http" };
    if let Some(files) = files {
        let encrypted = server.encrypt(Box::new(move || files.read()));
        encrypted
            .map_err(|error| Failure::usage(format!("the settings cannot be used: {error}")))?;
    }
    let telemetry = Arc::clone(telemetry);
    let also = move |settings: &Settings| {
        telemetry.reconfigure(settings).map_err(|fault| fault.to_string())
    };
    server.reload_from(settings, sources.reader(), Box::new(also));
    let address = server.address()?;
    let keys = match server.requires_keys() {
        true => "every request needs an API key",
        false => "no API key is needed: keep it on a trusted network",
    };
    eprintln!("listening on {scheme}://{address} ({keys})");
    eprintln!("try: curl -s {scheme}://{address}/search --json '{{\"query\": \"hello\"}}'");
    Ok(server)
}

/// The signals that the server hears.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they do not end the process. Needs the runtime.
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Listens for as long as the process lives.
    async fn hear(mut self, control: Control, shutdown: Shutdown, notifier: Arc<Notifier>) {
        loop {
            let reason = tokio::select! {
                _ = self.hangup.recv() => {
                    reload(&control, &notifier).await;
                    continue;
                }
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            };
            shutdown.request(reason);
        }
    }
}

/// Reads the settings again and takes over what has changed: all of it or nothing.
async fn reload(control: &Control, notifier: &Notifier) {
    notifier.reloading();
    let control = control.clone();
    let reloaded = tokio::task::spawn_blocking(move || control.reload("SIGHUP")).await;
    match reloaded {
        Ok(Ok(changes)) => {
            for change in &changes {
                let (name, before, after) = (&change.name, &change.before, &change.after);
                eprintln!("reloaded: {name} is now {after} (was {before})");
            }
            if changes.is_empty() {
                eprintln!("reloaded: nothing has changed");
            }
        }
        Ok(Err(faults)) => {
            eprintln!("not reloaded, nothing was changed: {}", faults.join("; "));
        }
        Err(error) => eprintln!("not reloaded, nothing was changed: {error}"),
    }
    notifier.ready("answering");
}
