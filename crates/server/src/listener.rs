//! Connections: accepted within a bound, given up when their headers do not arrive, and told to
//! close at shutdown.
//!
//! Invariants:
//! - Clients that hold every connection keep nobody from asking how the server is: beyond the bound
//!   there are a few places for control calls, one call each.
//! - Readiness is false before the listener refuses anybody, so that a load balancer that
//!   asks within the drain delay hears it from an answer and not from a closed door.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use mainstay_ops::correlation::{Ids, Incoming, random_id};
use mainstay_ops::handles::{HandleClass, HandlesExhausted};

use crate::front::Front;
use crate::observe;
use crate::problem::Problem;
use crate::security_headers::SecurityHeaders;
use crate::state::State;

/// How long to wait after the system refused a connection, for want of file handles as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections beyond the bound, for control calls alone: what asks for health, metrics and
/// administration at a time, with room. Where the pool of file handles has none left for them they
/// live on its reserve, which is four times as many by default.
const SPARE_PLACES: usize = 16;
/// How long such a connection may take for its headers: a place that is held is held from everybody.
const SPARE_PATIENCE: Duration = Duration::from_secs(1);

/// Serves until `stop` is done, then takes its leave: not ready, connections for the drain delay, no
/// connections, the running requests. Answers whether every one of those ended within the drain time.
pub(crate) async fn serve(
    listener: TcpListener,
    front: Front,
    state: State,
    stop: impl Future<Output = ()> + Send,
) -> bool {
    let door = Door::new(front, state.clone());
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
    front: Front,
    state: State,
    http: Builder,
    places: Arc<Semaphore>,
    spare_places: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

/// A connection's place; given back when it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    /// Whether it is one beyond the bound, for control calls alone.
    spare: bool,
}

impl Door {
    fn new(front: Front, state: State) -> Self {
        let config = state.config();
        let mut http = Builder::new();
        http.timer(TokioTimer::new());
        let places = Arc::new(Semaphore::new(config.connections_max));
        let spare_places = Arc::new(Semaphore::new(SPARE_PLACES));
        Self { front, state, http, places, spare_places, graceful: GracefulShutdown::new() }
    }

    /// Takes connections until `stop` is done.
    async fn open(&self, listener: &TcpListener, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        loop {
            let place = tokio::select! {
                place = self.place() => place,
                () = &mut stop => return,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => return,
            };
            match (accepted, place) {
                (Ok((stream, peer)), Some(place)) => self.take_in(stream, peer, place).await,
                (Err(error), _) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                (_, None) => return,
            }
        }
    }

    /// Waits for a place, a spare one when there is no other.
    async fn place(&self) -> Option<Place> {
        let (permit, spare) = tokio::select! {
            biased;
            permit = Arc::clone(&self.places).acquire_owned() => (permit, false),
            permit = Arc::clone(&self.spare_places).acquire_owned() => (permit, true),
        };
        permit.ok().map(|permit| Place { _permit: permit, spare })
    }

    /// Serves a connection on a task of its own.
    async fn take_in(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        let place = self.better(place);
        let taken = self.state.operations().handles.try_acquire(HandleClass::Connections);
        let (place, handle) = match taken {
            Ok(handle) => (place, Some(handle)),
            Err(_) if place.spare => (place, None),
            Err(error) => match self.try_spare() {
                Some(spare) => (spare, None),
                None => return turn_away(stream, &error, &self.state).await,
            },
        };
        // Answers are small and waited for: sent at once, not gathered.
        let _ = stream.set_nodelay(true);
        let front = self.front.of_connection(peer.ip(), place.spare);
        let mut patience = self.state.config().header_timeout;
        if place.spare {
            patience = patience.min(SPARE_PATIENCE);
        }
        let mut http = self.http.clone();
        http.header_read_timeout(patience);
        let (watcher, state) = (self.graceful.watcher(), self.state.clone());
        metrics::gauge!("mainstay_http_connections").increment(1.0);
        tokio::spawn(async move {
            converse(stream, front, &http, watcher, &state, patience).await;
            metrics::gauge!("mainstay_http_connections").decrement(1.0);
            drop((place, handle));
        });
    }

    /// An ordinary place, when one became free while the connection was waited for.
    fn better(&self, place: Place) -> Place {
        let free = Arc::clone(&self.places).try_acquire_owned().ok().filter(|_| place.spare);
        free.map_or(place, |permit| Place { _permit: permit, spare: false })
    }

    fn try_spare(&self) -> Option<Place> {
        let permit = Arc::clone(&self.spare_places).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, spare: true })
    }
}

/// Tells a connection that there is no file handle for it, and closes it. Its request is not read, so
/// the answer is written by hand, with the headers that every other one has.
async fn turn_away(mut stream: TcpStream, error: &HandlesExhausted, state: &State) {
    let ids = Ids::of_request(Incoming::default());
    tracing::warn!(%error, correlation_id = ids.correlation, "connection closed");
    if state.has_tls() {
        // What it speaks would have to be negotiated first.
        return tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    let problem = Problem::busy(error.to_string(), 1_000);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let mut headers = HeaderMap::new();
    SecurityHeaders::default().add(state, &mut headers);
    observe::say_level(&state.operations().levels.standing(), &mut headers);
    observe::say_ids(&ids, random_id(), &mut headers);
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in &headers {
        let value = value.to_str().unwrap_or_default();
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    answer.push_str("\r\n");
    answer.push_str(&body);
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing on what was not read would reset the connection before the answer is.
        while stream.read(&mut [0; 1024]).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(ACCEPT_PAUSE, said).await;
}

/// Serves one connection to its end, encrypted when there is a certificate.
async fn converse(
    stream: TcpStream,
    front: Front,
    http: &Builder,
    watcher: Watcher,
    state: &State,
    patience: Duration,
) {
    let answers = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = front.clone().answer(request.map(Body::new));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let Some(tls) = state.tls() else {
        return ended(watcher.watch(http.serve_connection(TokioIo::new(stream), answers)).await);
    };
    let handshake = tls.acceptor().accept(stream);
    match tokio::time::timeout(patience, handshake).await {
        Ok(Ok(stream)) => {
            ended(watcher.watch(http.serve_connection(TokioIo::new(stream), answers)).await);
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
