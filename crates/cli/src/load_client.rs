//! One client of a load: a connection of its own, opened anew when the server has closed it.
//!
//! Asynchronous, unlike the other commands' client: a thousand threads would measure themselves.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::failure::Failure;
use crate::trust::Trust;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where requests go, and what each of them carries.
pub(crate) struct Target {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    path: Uri,
    authority: HeaderValue,
    key: Option<HeaderValue>,
}

impl Target {
    /// The address of `POST path` on a server such as `http://127.0.0.1:8080`, with the key of the
    /// environment.
    pub(crate) fn new(url: &str, path: &str, trust: &Trust) -> Result<Self, Failure> {
        let wrong = |why: &dyn std::fmt::Display| Failure::usage(format!("--url {url}: {why}"));
        let uri: Uri = format!("{}{path}", url.trim_end_matches('/'))
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| wrong(&error))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong(&"it must begin with http:// or https://")),
        };
        let host = uri.host().ok_or_else(|| wrong(&"it names no host"))?.to_string();
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let key = std::env::var("MAINSTAY_API_KEY").ok();
        let key = key.map(|key| HeaderValue::try_from(format!("Bearer {key}"))).transpose();
        Ok(Self {
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            tls: is_tls.then(|| trust.of_load().map(TlsConnector::from)).transpose()?,
            path: uri
                .path()
                .parse()
                .map_err(|error: hyper::http::uri::InvalidUri| wrong(&error))?,
            authority: HeaderValue::try_from(authority).map_err(|error| wrong(&error))?,
            key: key.map_err(|error| Failure::usage(format!("MAINSTAY_API_KEY: {error}")))?,
            host,
        })
    }
}

/// A connection that asks one thing after the other.
pub(crate) struct Client {
    target: Arc<Target>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target, sender: None }
    }

    /// Sends a body; status and body of the answer, or what went wrong.
    pub(crate) async fn post(&mut self, body: Bytes) -> Result<(u16, Bytes), String> {
        let asked = tokio::time::timeout(PATIENCE, self.ask(body)).await;
        let answer = asked.unwrap_or_else(|_| Err("no answer within a minute".to_string()));
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    async fn ask(&mut self, body: Bytes) -> Result<(u16, Bytes), String> {
        // A connection that the server closed after its last answer is no failure.
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::post(self.target.path.clone())
            .header(HOST, self.target.authority.clone())
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.target.key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            // It was closed before anything of the request had gone out.
            Err(mut error) => match error.take_message() {
                None => return Err(error.into_error().to_string()),
                Some(request) => {
                    sender = self.connect().await?;
                    sender.send_request(request).await.map_err(|error| error.to_string())?
                }
            },
        };
        let status = answer.status().as_u16();
        let read = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let read = read.map_err(|error| error.to_string())?;
        self.sender = Some(sender);
        Ok((status, read.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let target = &self.target;
        let address = (target.host.trim_matches(['[', ']']), target.port);
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        // A request is one small piece that waits for its answer.
        let _ = stream.set_nodelay(true);
        match &target.tls {
            None => begin(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(address.0.to_string());
                let name = name.map_err(|error| error.to_string())?;
                let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
                begin(stream).await
            }
        }
    }
}

async fn begin<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // It ends with the sender, or when the server closes it.
    tokio::spawn(connection);
    Ok(sender)
}
