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
pub mod otlp;
pub mod problem;
pub mod search_json;
pub mod settings;
pub mod telemetry;
pub mod wire;

mod gauges;
mod http;
mod listener;
mod observe;
mod routes;
mod slow_search;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_db::Db;
use mainstay_ops::meter::{Meter, MeterError};
use mainstay_ops::metric_table::METRICS;
use tokio::net::TcpListener;

pub use config::Config;
pub use http::health::HealthJson;
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
    /// Takes over bounds and times. Fields that are fixed at the start (`listen`, `connections_max`,
    /// `header_timeout`) keep their effect until the next one.
    pub fn reconfigure(&self, config: Config) {
        self.0.reconfigure(config);
    }
}

/// A server that is bound to its address and not yet serving.
pub struct Server {
    listener: TcpListener,
    state: state::State,
}

impl Server {
    /// Binds the address. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(db: Arc<Db>, config: Config) -> std::io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let meter = Meter::installed();
        Ok(Self { listener, state: state::State::new(db, config, meter) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
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
