//! The REST server: the only floor that knows HTTP and JSON.
//!
//! A request enters in `routes`, is handled by one file of `http/`, and asks
//! `mainstay-db` on a thread of its own; the answer's JSON is made in [`wire`].
//!
//! Order of start: listener with answers that say so, data directory, requests. Order of stop: not ready,
//! the drain
//! delay, no new connections, running requests, data directory.

// A problem is made at most once in a request; boxing it would only hide its fields.
#![allow(clippy::result_large_err)]

pub mod config;
pub mod host;
pub mod otlp;
pub mod otlp_headers;
pub mod problem;
pub mod search_json;
pub mod settings;
pub mod telemetry;
pub mod wire;

mod access;
mod admit;
mod answers;
mod audited;
mod authenticate;
mod caller;
mod front;
mod gauges;
mod http;
mod leaving;
mod limited_routes;
mod listener;
mod nearest;
mod observe;
mod operations;
mod other_site;
mod otlp_codec;
mod reload;
mod route;
mod route_kind;
mod routes;
mod security_headers;
mod sharing;
mod slow_search;
mod standing;
mod starting;
mod state;
mod ticket;
pub mod tls;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_db::Db;
use mainstay_ops::admission::Admission;
use mainstay_ops::audit::{Action, Outcome};
use mainstay_ops::meter::{Meter, MeterError};
use mainstay_ops::metric_table::METRICS;
use tokio::net::{TcpListener, TcpSocket};

pub use config::{AuthMode, Config, SharedRates};
pub use front::{Front, Handlers};
pub use host::Host;
pub use http::dependencies::{DependenciesJson, DependencyActionJson, DependencyJson};
pub use mainstay_catalogue::PoolConfig;
pub use mainstay_ops::ticker::Ticker;
pub use mainstay_ops::wall_clock::rfc3339 as format_time;
pub use mainstay_ops::{admission, health, keys, memory, notify, redact, shutdown, slo};
pub use mainstay_resilience::Clock;
pub use mainstay_resilience::human_duration::parse as parse_duration;
pub use operations::{OperationsConfig, StartFailure};
pub use reload::{ApplySettings, ReadSettings};
pub use routes::openapi;
pub use sharing::CatalogueConfig;
pub use starting::Starting;

/// Receives metrics from now on; once in a process, a second call changes nothing.
///
/// # Errors
/// Another library has installed a receiver.
pub fn install_metrics() -> Result<&'static Meter, MeterError> {
    Meter::install(METRICS)
}

/// The API keys of a data directory that no server has open, or of the catalogue that it shares.
/// Blocks; a tokio runtime must have been entered.
///
/// # Errors
/// They cannot be read.
pub fn keys_of(
    folder: &std::path::Path,
    files: mainstay_db::StateFiles,
    catalogue: &CatalogueConfig,
) -> Result<keys::Keys, StartFailure> {
    operations::keys_of(folder, files, catalogue)
}

/// Records in the audit trail of a data directory, which no server has open, that `who` did `action`
/// (as `noun.verb`) to `target`; with `failure`, why it was begun and not done.
pub fn audit_offline(
    files: mainstay_db::StateFiles,
    who: &str,
    action: &str,
    target: &str,
    failure: Option<&str>,
) {
    let done = Action::new(who, action, target);
    let ended = failure.map(|why| done.clone().ended(Outcome::Failed).because(why));
    operations::audit_of(files).record(ended.unwrap_or(done));
}

/// Changes a running server.
#[derive(Clone)]
pub struct Control(state::State);

impl Control {
    /// Reads the files of the certificate now; answers whether they had changed.
    ///
    /// # Errors
    /// They cannot be used; the certificate in use stays.
    pub fn refresh_certificate(&self) -> Result<bool, String> {
        self.0.tls().map_or(Ok(false), tls::Tls::refresh)
    }

    /// The time from the order to stop until every request has ended or was cut off.
    pub fn drain_time(&self) -> std::time::Duration {
        let config = self.0.config();
        config.drain_delay + config.drain_timeout
    }

    /// Decides which requests are begun; a handle to look at it and to close it to some.
    pub fn admission(&self) -> Admission {
        self.0.admission().clone()
    }

    /// Whether the process's own loops still turn.
    pub fn liveness(&self) -> health::Liveness {
        self.0.operations().pulses.liveness()
    }

    /// Reads the sources of settings again and takes over what changed.
    ///
    /// # Errors
    /// Every fault found; nothing has changed then.
    pub fn reload(&self, who: &str) -> Result<Vec<settings::Change>, Vec<String>> {
        let reloaded = match self.0.reloader() {
            Some(reloader) => reloader.reload(false, who),
            None => Err(vec!["the server was not started from settings".to_string()]),
        };
        if let Err(faults) = &reloaded {
            let action = Action::new(who, "config.reload", "settings").ended(Outcome::Refused);
            self.0.operations().audit.record(action.because(&faults.join("; ")));
        }
        reloaded
    }
}

/// A server that is bound to its address and not yet serving.
pub struct Server {
    listener: TcpListener,
    state: state::State,
}

impl Server {
    /// Binds the address and starts what watches the server. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is taken or not ours, or a setting is out of its range.
    pub async fn bind(db: Arc<Db>, config: Config, host: Host) -> std::io::Result<Self> {
        let listener = listen(&config)?;
        let state = Self::build(listener.local_addr()?, db, config, host).await?;
        Ok(Self { listener, state })
    }

    /// The same on the address that `starting` has bound, which answers until this is done.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_started(
        starting: Starting,
        db: Arc<Db>,
        config: Config,
        host: Host,
    ) -> std::io::Result<Self> {
        let address = starting.address();
        let state = Self::build(address, db, config, host).await?;
        Ok(Self { listener: starting.end().await?, state })
    }

    async fn build(
        address: SocketAddr,
        db: Arc<Db>,
        config: Config,
        host: Host,
    ) -> std::io::Result<state::State> {
        let meter = Meter::installed();
        let (watched, operations) = (Arc::clone(&db), config.operations.clone());
        let admission = Admission::new(&config.admission, Clock::system());
        let admission = admission.map_err(std::io::Error::other)?;
        let gate = admission.clone();
        let address = address.to_string();
        let started = tokio::task::spawn_blocking(move || {
            operations::Operations::start(&watched, &operations, &host, &gate, &address)
        });
        let operations = started.await.map_err(std::io::Error::other)?;
        let operations = operations.map_err(std::io::Error::other)?;
        if let Some(SharedRates { redis, nodes }) = config.shared_rates.clone() {
            let shared = admission.share_rates(redis, nodes, &operations.pipelines);
            shared.map_err(std::io::Error::other)?;
            let watched = operations.watch_redis(&config.operations);
            watched.map_err(std::io::Error::other)?;
        }
        let access = access::Access::new(&config, operations.keys.clone())?;
        let answers = answers::Answers::new(config.answers_max, config.answers_stale_for);
        let watched = operations.watch_answers(&answers, &config.operations);
        watched.map_err(std::io::Error::other)?;
        Ok(state::State::new(db, config, meter, operations, access, admission, answers))
    }

    /// What every request goes through, and the handlers behind it alone, to be called in the process: for
    /// measuring what it costs.
    pub fn routes(&self) -> (Handlers, Front) {
        let router = routes::routes(self.state.clone());
        let handlers = Handlers::new(self.state.admission(), router.clone());
        (handlers, Front::new(self.state.clone(), router))
    }

    /// Whether requests need an API key.
    pub fn requires_keys(&self) -> bool {
        self.state.access().requires_keys()
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Lets the server read its settings again when it is told to.
    ///
    /// `also` takes over what lies outside the server, such as what is logged; it goes first, and
    /// when it fails nothing is changed.
    pub fn reload_from(
        &self,
        current: settings::Settings,
        read: Box<ReadSettings>,
        also: Box<ApplySettings>,
    ) {
        let weak = self.state.downgrade();
        let apply = move |settings: &settings::Settings| {
            let state = weak.upgrade().ok_or("the server is ending")?;
            also(settings)?;
            let pipelines = &state.operations().pipelines;
            pipelines.reload(settings.pipelines()).map_err(|error| error.to_string())?;
            let catalogue = state.operations().sharing.catalogue();
            catalogue.reconfigure(settings.pipelines()).map_err(|error| error.to_string())?;
            state.reconfigure(settings.config())?;
            refresh_certificate(&state);
            Ok(())
        };
        let audit = self.state.operations().audit.clone();
        self.state.set_reloader(reload::Reloader::new(current, read, Box::new(apply), audit));
    }

    /// Speaks HTTPS alone, with the certificate that `read` reads now and whenever it changes.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn encrypt(&self, read: Box<tls::ReadPem>) -> Result<(), String> {
        self.state.set_tls(tls::Tls::open(read)?);
        let weak = self.state.downgrade();
        let look = move || {
            if let Some(state) = weak.upgrade() {
                refresh_certificate(&state);
            }
        };
        self.state
            .operations()
            // Whoever renews certificates may keep them on a disk of the network.
            .beside("certificate", CERTIFICATE_EVERY, look)
            .map_err(|error| error.to_string())
    }

    /// A handle that changes a running server.
    pub fn control(&self) -> Control {
        Control(self.state.clone())
    }

    /// Serves until `stop` is done, says that it is not ready, goes on for the drain delay, then lets
    /// running requests end within the drain time. The data directory is left open. Answers whether every request ended in time.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) -> bool {
        let (_, front) = self.routes();
        listener::serve(self.listener, front, self.state, stop).await
    }
}

/// How often the files of the certificate are looked at.
const CERTIFICATE_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// Takes over a certificate that was renewed; one that cannot be used leaves the old one in place.
fn refresh_certificate(state: &state::State) {
    let Some(tls) = state.tls() else { return };
    match tls.refresh() {
        Ok(false) => {}
        Ok(true) => {
            tracing::warn!("the certificate has changed; new connections use it");
            metrics::counter!("mainstay_tls_reloads_total", "result" => "done").increment(1);
        }
        Err(error) => {
            tracing::error!(
                error,
                "the certificate cannot be read again; the old one stays in use"
            );
            metrics::counter!("mainstay_tls_reloads_total", "result" => "failed").increment(1);
        }
    }
}

/// Connections that have come and are not yet accepted wait in the system's queue, as many as may
/// be open: beyond its bound the system drops them, and a client tries again only after a second.
fn listen(config: &Config) -> std::io::Result<TcpListener> {
    let socket = match config.listen.is_ipv4() {
        true => TcpSocket::new_v4()?,
        false => TcpSocket::new_v6()?,
    };
    // As the standard library does: a restart need not wait for connections of its predecessor.
    socket.set_reuseaddr(true)?;
    socket.bind(config.listen)?;
    socket.listen(u32::try_from(config.connections_max).unwrap_or(u32::MAX).max(128))
}
