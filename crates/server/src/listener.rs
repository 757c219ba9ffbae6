//! Connections: accepted within a bound, given up when their headers do not arrive, and told to
//! close at shutdown.
//!
//! Invariant: readiness is false before the listener refuses anybody, so that a load balancer that
//! asks within the drain delay hears it from an answer and not from a closed door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use mainstay_ops::handles::HandleClass;

use crate::caller::Peer;
use crate::state::State;

/// How long to wait after the system refused a connection, for want of file handles as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is done, then takes its leave: not ready, connections for the drain delay, no
/// connections, the running requests. Answers whether every one of those ended within the drain time.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    state: State,
    stop: impl Future<Output = ()> + Send,
) -> bool {
    let door = Door::new(router, state.clone());
    door.open(&listener, stop).await;
    // Who asks now is told to look elsewhere; who does not know it yet is still served.
    state.drain();
    let config = state.config();
    door.open(&listener, tokio::time::sleep(config.drain_delay)).await;
    drop(listener);
    let running = door.graceful.shutdown();
    let drained = tokio::time::timeout(config.drain_timeout, running).await.is_ok();
    // Probes and judgements end with the requests; what they know is saved.
    let stopped = tokio::task::spawn_blocking(move || state.operations().stop()).await;
    drained && stopped.is_ok()
}

/// What connections are taken in with.
struct Door {
    router: Router,
    state: State,
    http: Builder,
    places: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl Door {
    fn new(router: Router, state: State) -> Self {
        let config = state.config();
        let mut http = Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout);
        let places = Arc::new(Semaphore::new(config.connections_max));
        Self { router, state, http, places, graceful: GracefulShutdown::new() }
    }

    /// Takes connections until `stop` is done.
    async fn open(&self, listener: &TcpListener, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        loop {
            let place = tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => place,
                () = &mut stop => return,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => return,
            };
            match accepted {
                Ok((stream, peer)) => self.take_in(stream, peer, place).await,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection on a task of its own.
    async fn take_in(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let handle = match self.state.operations().handles.try_acquire(HandleClass::Connections) {
            Ok(handle) => handle,
            Err(error) => {
                tracing::warn!(%error, "connection closed");
                drop(stream);
                return tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        };
        // Answers are small and waited for: sent at once, not gathered.
        let _ = stream.set_nodelay(true);
        let routed = TowerToHyperService::new(self.router.clone().layer(Extension(Peer(peer))));
        let (http, watcher) = (self.http.clone(), self.graceful.watcher());
        let state = self.state.clone();
        metrics::gauge!("mainstay_http_connections").increment(1.0);
        tokio::spawn(async move {
            converse(stream, routed, &http, watcher, &state).await;
            metrics::gauge!("mainstay_http_connections").decrement(1.0);
            drop((place, handle));
        });
    }
}

/// Serves one connection to its end, encrypted when there is a certificate.
async fn converse(
    stream: TcpStream,
    routed: TowerToHyperService<Router>,
    http: &Builder,
    watcher: Watcher,
    state: &State,
) {
    let Some(tls) = state.tls() else {
        return ended(watcher.watch(http.serve_connection(TokioIo::new(stream), routed)).await);
    };
    let handshake = tls.acceptor().accept(stream);
    match tokio::time::timeout(state.config().header_timeout, handshake).await {
        Ok(Ok(stream)) => {
            ended(watcher.watch(http.serve_connection(TokioIo::new(stream), routed)).await);
        }
        Ok(Err(error)) => refused(&error.to_string()),
        Err(_) => refused("it took too long"),
    }
}

fn ended(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

fn refused(why: &str) {
    metrics::counter!("mainstay_tls_handshake_failures_total").increment(1);
    tracing::debug!(why, "TLS handshake failed");
}
