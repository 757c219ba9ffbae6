//! The REST server: the only floor that knows HTTP and JSON.
//!
//! A request enters in `routes`, is handled by one file of `http/`, and asks
//! `mainstay-db` on a thread of its own; the answer's JSON is made in [`wire`].
//!
//! Order of start: data directory, listener, requests. Order of stop: not ready, no new
//! connections, running requests, data directory.

// A problem is made at most once in a request; boxing it would only hide its fields.
#![allow(clippy::result_large_err)]

pub mod config;
pub mod host;
pub mod problem;
pub mod search_json;
pub mod settings;
pub mod wire;

mod admit;
mod answers;
mod caller;
mod gauges;
mod http;
mod listener;
mod operations;
mod reload;
mod routes;
mod standing;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_db::Db;
use mainstay_ops::admission::Admission;
use mainstay_ops::meter::{Meter, MeterError};
use mainstay_ops::metric_table::METRICS;
use tokio::net::TcpListener;

pub use config::Config;
pub use host::Host;
pub use http::dependencies::{DependenciesJson, DependencyActionJson, DependencyJson};
pub use mainstay_ops::ticker::Ticker;
pub use mainstay_ops::{admission, health, memory, notify, shutdown, slo};
pub use mainstay_resilience::Clock;
pub use operations::{OperationsConfig, StartFailure};
pub use reload::ReadSettings;
pub use routes::openapi;

/// Receives metrics from now on; once in a process, a second call changes nothing.
///
/// # Errors
/// Another library has installed a receiver.
pub fn install_metrics() -> Result<&'static Meter, MeterError> {
    Meter::install(METRICS)
}

/// Changes a running server.
#[derive(Clone)]
pub struct Control(state::State);

impl Control {
    /// The time that running requests get at shutdown.
    pub fn drain_timeout(&self) -> std::time::Duration {
        self.0.config().drain_timeout
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
        match self.0.reloader() {
            Some(reloader) => reloader.reload(false, who),
            None => Err(vec!["the server was not started from settings".to_string()]),
        }
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
        let listener = TcpListener::bind(config.listen).await?;
        let meter = Meter::installed();
        let (watched, operations) = (Arc::clone(&db), config.operations.clone());
        let admission = Admission::new(&config.admission, Clock::system());
        let admission = admission.map_err(std::io::Error::other)?;
        let gate = admission.clone();
        let started = tokio::task::spawn_blocking(move || {
            operations::Operations::start(&watched, &operations, &host, &gate)
        });
        let operations = started.await.map_err(std::io::Error::other)?;
        let operations = operations.map_err(std::io::Error::other)?;
        let state = state::State::new(db, config, meter, operations, admission);
        Ok(Self { listener, state })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Lets the server read its settings again when it is told to.
    pub fn reload_from(&self, current: settings::Settings, read: Box<ReadSettings>) {
        let weak = self.state.downgrade();
        let apply = move |settings: &settings::Settings| {
            let state = weak.upgrade().ok_or("the server is ending")?;
            let pipelines = &state.operations().pipelines;
            pipelines.reload(settings.pipelines()).map_err(|error| error.to_string())?;
            state.reconfigure(settings.config())
        };
        let audit = self.state.operations().audit.clone();
        self.state.set_reloader(reload::Reloader::new(current, read, Box::new(apply), audit));
    }

    /// A handle that changes a running server.
    pub fn control(&self) -> Control {
        Control(self.state.clone())
    }

    /// Serves until `stop` is done, then lets running requests end within the drain time. The data
    /// directory is left open. Answers whether every request ended in time.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) -> bool {
        let router = routes::routes(self.state.clone());
        listener::serve(self.listener, router, self.state, stop).await
    }
}
