//! Connections: accepted within a bound, given up when their headers do not arrive, and told to
//! close at shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use mainstay_ops::handles::HandleClass;

use crate::caller::Peer;
use crate::state::State;

/// How long to wait after the system refused a connection, for want of file handles as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is done; answers whether every running request ended within the drain time.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    state: State,
    stop: impl Future<Output = ()> + Send,
) -> bool {
    let config = state.config();
    let connections = Arc::new(Semaphore::new(config.connections_max));
    let graceful = GracefulShutdown::new();
    let mut http = Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout);
    tokio::pin!(stop);
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&connections).acquire_owned() => permit,
            () = &mut stop => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let handle = match state.operations().handles.try_acquire(HandleClass::Connections) {
            Ok(handle) => handle,
            Err(error) => {
                tracing::warn!(%error, "connection closed");
                drop(stream);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and waited for: sent at once, not gathered.
        let _ = stream.set_nodelay(true);
        let routed = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer))));
        let (http, watcher, state) = (http.clone(), graceful.watcher(), state.clone());
        metrics::gauge!("mainstay_http_connections").increment(1.0);
        tokio::spawn(async move {
            converse(stream, routed, &http, watcher, &state).await;
            metrics::gauge!("mainstay_http_connections").decrement(1.0);
            drop((permit, handle));
        });
    }
    drop(listener);
    state.drain();
    let drain_timeout = state.config().drain_timeout;
    let drained = tokio::time::timeout(drain_timeout, graceful.shutdown()).await.is_ok();
    // Probes and judgements end with the requests; what they know is saved.
    let stopped = tokio::task::spawn_blocking(move || state.operations().stop()).await;
    drained && stopped.is_ok()
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
