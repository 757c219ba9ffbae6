//! Connections: accepted within a bound, given up when their headers do not arrive, and told to
//! close at shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::problem::Problem;
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
    let router = router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn(crate::observe::observe));
    let config = state.config();
    let connections = Arc::new(Semaphore::new(config.connections_max));
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
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
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and waited for: sent at once, not gathered.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        metrics::gauge!("mainstay_http_connections").increment(1.0);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            metrics::gauge!("mainstay_http_connections").decrement(1.0);
            drop(permit);
        });
    }
    drop(listener);
    state.drain();
    tokio::time::timeout(state.config().drain_timeout, graceful.shutdown()).await.is_ok()
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message");
    metrics::counter!("mainstay_http_panics_total").increment(1);
    tracing::error!(panic = message, "a handler panicked");
    Problem::new(
        axum::http::StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "the request met a fault of the server; it is in the log",
    )
    .into_response()
}
