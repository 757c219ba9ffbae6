//! The server over real sockets on loopback: one binary, one module a theme.
#![allow(clippy::unwrap_used)]

mod admission;
mod audit;
mod bad_input;
mod catalogue;
mod contract;
mod disk_full;
mod documents;
mod incidents;
mod ladder;
mod operations;
mod ranges;
mod recovery;
mod remedies;
mod search;
mod security;
mod shared_rates;
mod shutdown;
mod smuggling;
mod telemetry;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_db::{Db, InjectedFault, Method, Options};
use mainstay_ops::handles::{HandleConfig, HandlePool};
use mainstay_server::{Config, Control, Host, Server};
use mainstay_testkit::file_system::FileSystem;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A server on a free port of loopback, stopped when dropped.
struct Running {
    address: SocketAddr,
    db: Arc<Db>,
    control: Control,
    handles: HandlePool,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<bool>>,
    _folder: Arc<TempDir>,
}

impl Running {
    fn start() -> Self {
        Self::start_with(Config::default())
    }

    fn start_with(config: Config) -> Self {
        Self::start_tuned(config, |_| {})
    }

    /// On another disk than the machine's.
    fn start_on(fs: Arc<dyn FileSystem>, config: Config) -> Self {
        let host = Host::new(&HandleConfig::default(), None).unwrap();
        Self::start_hosted(host, fs, config, |_| {})
    }

    /// With a last word on the server before it serves.
    fn start_tuned(config: Config, tune: impl FnOnce(&Server) + Send + 'static) -> Self {
        let host = Host::new(&HandleConfig::default(), None).unwrap();
        let fs = host.file_system();
        Self::start_hosted(host, fs, config, tune)
    }

    fn start_hosted(
        host: Host,
        fs: Arc<dyn FileSystem>,
        config: Config,
        tune: impl FnOnce(&Server) + Send + 'static,
    ) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let db = Db::open_on(fs, folder.path(), Options::default()).unwrap();
        db.create_collection("default", "static".parse().unwrap()).unwrap();
        Self::start_over(folder, db, host, config, tune)
    }

    /// Over a data directory that is there already.
    fn start_over(
        folder: Arc<TempDir>,
        db: Db,
        host: Host,
        config: Config,
        tune: impl FnOnce(&Server) + Send + 'static,
    ) -> Self {
        mainstay_server::install_metrics().unwrap();
        let db = Arc::new(db);
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let (served, handles) = (Arc::clone(&db), host.handles.clone());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async move {
                let server = Server::bind(served, config, host).await.unwrap();
                tune(&server);
                tell.send((server.address().unwrap(), server.control())).unwrap();
                server.serve(async move { drop(stopped.await) }).await
            })
        });
        let (address, control) = told.recv().unwrap();
        let (stop, thread) = (Some(stop), Some(thread));
        Self { address, db, control, handles, stop, thread, _folder: folder }
    }

    fn control(&self) -> &Control {
        &self.control
    }

    /// Makes a method of the collection `default` fail.
    fn break_method(&self, method: Method, fault: InjectedFault) {
        let docs = self.db.collection("default").unwrap();
        docs.dependency(method).faults().set(fault, None);
    }

    /// Lets a method of the collection `default` work again.
    fn mend_method(&self, method: Method) {
        self.db.collection("default").unwrap().dependency(method).faults().clear();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> Answer {
        Answer::of(agent().get(self.url(path)).call())
    }

    fn delete(&self, path: &str) -> Answer {
        Answer::of(agent().delete(self.url(path)).call())
    }

    fn post(&self, path: &str, json: &Value) -> Answer {
        Answer::of(agent().post(self.url(path)).send_json(json))
    }

    fn put(&self, path: &str, json: &Value) -> Answer {
        Answer::of(agent().put(self.url(path)).send_json(json))
    }

    /// Sends a body as it is.
    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        let agent = agent();
        let request = match method {
            "POST" => agent.post(self.url(path)),
            _ => agent.put(self.url(path)),
        };
        Answer::of(request.header("content-type", kind).send(body))
    }

    /// Tells the server to stop.
    fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the server; answers whether every request ended in time.
    fn stop(&mut self) -> bool {
        self.begin_stop();
        self.thread.take().map(|thread| thread.join().unwrap()).unwrap_or(true)
    }
}

/// A server with two documents that every method has indexed.
fn with_documents() -> Running {
    let server = Running::start();
    indexed(&server);
    server
}

/// Stores two documents and waits until every method has indexed them.
fn indexed(server: &Running) {
    let documents = json!([
        {"id": "1", "title": "Zebras", "body": "a zebra crosses\nthe road", "language": "en",
         "attributes": {"price": 3.5, "new": true, "at": {"date": "2026-01-31"}}},
        {"id": "src/b.rs", "path": "src/b.rs", "body": "fn walrus() {}", "language": "rust"},
    ]);
    let answer = server.put("/collections/default/documents", &documents);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seq = answer.json()["seq"].as_u64().unwrap();
    let docs = server.db.collection("default").unwrap();
    assert!(docs.wait_indexed(seq, &Method::ALL, Duration::from_secs(60)));
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Answer {
    status: u16,
    kind: String,
    retry_after: Option<String>,
    headers: ureq::http::HeaderMap,
    body: String,
}

impl Answer {
    fn of(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Self {
        let mut response = response.unwrap();
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string)
        };
        let (kind, retry_after) =
            (header("content-type").unwrap_or_default(), header("retry-after"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.body_mut().read_to_string().unwrap();
        Self { status, kind, retry_after, headers, body }
    }

    /// The text of a header; empty without one.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The problem's code, after checking that it is one.
    fn problem(&self) -> String {
        assert_eq!(self.kind, "application/problem+json", "{}", self.body);
        let json = self.json();
        assert_eq!(json["status"], self.status);
        assert!(!json["detail"].as_str().unwrap().is_empty());
        json["code"].as_str().unwrap().to_string()
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .build()
        .new_agent()
}
