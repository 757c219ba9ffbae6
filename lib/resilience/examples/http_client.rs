//! A resilient HTTP client against a server that fails at first. Both run in this process, so the
//! example needs no network. Run with
//! `cargo run -p mainstay-resilience --example http_client --features tokio`.

use mainstay_resilience::{
    Classify, Clock, Context, Deadline, ErrorKind, Event, Overrides, Pipelines, PipelinesConfig,
    TokioSleeper, classify_http_status,
};
use std::error::Error;
use std::io::{Write, stdout};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a request can come to.
#[derive(Debug)]
enum Failure {
    Status(u16),
    Io(std::io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Status(status) => write!(f, "status {status}"),
            Failure::Io(error) => error.fmt(f),
        }
    }
}

impl Classify for Failure {
    fn kind(&self) -> ErrorKind {
        match self {
            Failure::Status(status) => classify_http_status(*status).unwrap_or(ErrorKind::Unknown),
            Failure::Io(error) => Classify::kind(error),
        }
    }
}

async fn get(port: u16) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(Failure::Io)?;
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(Failure::Io)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(Failure::Io)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(500);
    if status == 200 { Ok(answer) } else { Err(Failure::Status(status)) }
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    for request in 0.. {
        let (mut stream, _) = listener.accept().await?;
        let status = if request < 2 { "503 Service Unavailable" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.read(&mut [0; 1_024]).await?;
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

async fn talk(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(serve(listener));

    let mut config = PipelinesConfig::default();
    let mut defaults = Overrides::default();
    defaults.timeout = Some(Duration::from_secs(2));
    defaults.backoff_base = Some(Duration::from_millis(50));
    config.defaults = defaults;
    let config = config.with_environment(std::env::vars_os())?;
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let observer = Arc::new(move |event: &Event<'_>| {
        heard.lock().into_iter().for_each(|mut heard| heard.push(format!("{event:?}")));
    });
    let pipelines = Pipelines::with(config, Clock::system(), TokioSleeper, observer)?;

    writeln!(out, "{}", pipelines.endpoint("local", "root").pipeline().describe())?;
    let context = Context::from(Deadline::after(&Clock::system(), Duration::from_secs(5)));
    let answer = pipelines.call("local", "root", context, |_| get(port)).await;
    for event in events.lock().map_err(|_| "poisoned")?.drain(..) {
        writeln!(out, "  {event}")?;
    }
    writeln!(out, "answer: {:?}", answer.map(|text| text.lines().next().map(str::to_owned)))?;
    for status in pipelines.list() {
        let (service, endpoint) = (status.service, status.endpoint);
        writeln!(out, "{service}/{endpoint}: {:?}", status.retry)?;
    }
    Ok(())
}

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(talk(out))
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
