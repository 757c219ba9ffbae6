//! [`Starting`]: answers while the data directory is being opened, which may take long after a crash:
//! whoever waits for the start hears that it goes on, and not a refused connection.
//!
//! Invariants:
//! - Nothing is done for anybody: each connection gets one answer, and what it sends is not believed.
//! - Connections, their time and what is read of them are bounded; the rest waits in the system's queue
//!   and is served once the start is over.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::Config;
use crate::problem::Problem;
use crate::security_headers::add_always;

/// Connections that are answered at a time: probes and some who are in a hurry.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take to ask and to read its answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is read of a request: its first line says which answer it gets.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long to wait after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// When to ask again, in milliseconds.
const AGAIN_MS: u64 = 1_000;

/// The address is taken, and whoever comes is told to come again.
pub struct Starting {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    answering: JoinHandle<TcpListener>,
}

impl Starting {
    /// Binds the address of the configuration and answers from now on: `/health/live` with 200, because
    /// the process lives, everything else with 503. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn begin(config: &Config) -> std::io::Result<Self> {
        let listener = crate::listen(config)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let answering = tokio::spawn(answer_all(listener, stopped));
        Ok(Self { address, stop, answering })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the answers; connections that come from now on wait for who takes the listener over.
    pub(crate) async fn end(self) -> std::io::Result<TcpListener> {
        drop(self.stop);
        self.answering.await.map_err(std::io::Error::other)
    }
}

async fn answer_all(listener: TcpListener, mut stopped: oneshot::Receiver<()>) -> TcpListener {
    // Who is being answered when it ends is cut off with it, and comes again.
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return listener,
            Some(_) = answering.join_next() => {}
            accepted = listener.accept(), if answering.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    answering.spawn(async move {
                        drop(tokio::time::timeout(PATIENCE, answer(stream)).await);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut request, mut length) = (vec![0; REQUEST_BYTES_MAX], 0);
    let ends = |read: &[u8]| read.windows(4).any(|four| four == b"\r\n\r\n");
    while length < request.len() && !ends(&request[..length]) {
        match stream.read(&mut request[length..]).await? {
            0 => break,
            read => length += read,
        }
    }
    stream.write_all(text(&request[..length]).as_bytes()).await?;
    stream.shutdown().await?;
    // Closing on what was not read would reset the connection before the answer is.
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}

/// The answer to a request of which this has come.
fn text(request: &[u8]) -> String {
    let live = [&b"GET /health/live "[..], b"GET /health/live?"];
    let (status, body) = if live.iter().any(|line| request.starts_with(line)) {
        let body = serde_json::json!({ "live": true, "silent": [], "watched": [] });
        ("200 OK\r\ncontent-type: application/health+json", body.to_string())
    } else {
        let detail = "the server is starting: its data directory is being opened; try again";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting", detail);
        let problem = Problem { retry_after_ms: Some(AGAIN_MS), ..problem };
        let status =
            "503 Service Unavailable\r\nretry-after: 1\r\ncontent-type: application/problem+json";
        (status, serde_json::to_string(&problem).unwrap_or_default())
    };
    let mut headers = HeaderMap::new();
    add_always(&mut headers);
    let mut answer =
        format!("HTTP/1.1 {status}\r\ncache-control: no-store\r\nconnection: close\r\n");
    for (name, value) in &headers {
        answer.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    answer + &format!("content-length: {}\r\n\r\n{body}", body.len())
}
