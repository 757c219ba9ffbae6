//! An embeddings provider on the loopback interface that answers what a test tells it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use mainstay_embed::{Embedder, HashModel, Kind};
use serde_json::{Value, json};

/// What the provider does with a request.
pub(crate) enum Reply {
    /// Answers properly, with vectors of the hash model of this dimension.
    Vectors(usize),
    /// Answers properly, with the items in reverse order.
    Reversed(usize),
    /// Answers with this status, header line (may be empty) and body.
    Raw(u16, &'static str, String),
    /// Promises a body and closes the connection half-way through it.
    HalfBody,
    /// Closes the connection without a word.
    Hangup,
    /// Says nothing until the test is over.
    Silence,
}

/// A request as the provider saw it.
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) seen: Receiver<Seen>,
    /// Dropped with the provider, which ends every silence.
    _alive: Sender<()>,
}

/// Starts a provider that gives `replies` one after the other, and the last one for ever.
pub(crate) fn provider(replies: Vec<Reply>) -> Provider {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (report, seen) = channel();
    let (alive, over) = channel();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for (number, stream) in listener.incoming().enumerate() {
            let reply = &replies[number.min(replies.len() - 1)];
            // A client that gave up meanwhile is no failure of the provider.
            let Ok(mut stream) = stream else { continue };
            let Ok(request) = read(&stream) else { continue };
            let body = request.body.clone();
            // Reported before it is answered: a client that has its answer finds it counted.
            if report.send(request).is_err() {
                break;
            }
            match reply {
                Reply::Silence => silent.push(stream),
                reply => drop(write(&mut stream, reply, &body)),
            }
        }
        let _ = over.recv();
    });
    Provider { url, seen, _alive: alive }
}

fn read(stream: &TcpStream) -> std::io::Result<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("").to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Seen { path, authorization, body: serde_json::from_slice(&body).unwrap_or_default() })
}

fn write(stream: &mut TcpStream, reply: &Reply, question: &Value) -> std::io::Result<()> {
    let (status, header, body) = match reply {
        Reply::Vectors(dimension) => (200, "", answer(question, *dimension, false)),
        Reply::Reversed(dimension) => (200, "", answer(question, *dimension, true)),
        Reply::Raw(status, header, body) => (*status, *header, body.clone()),
        Reply::HalfBody => {
            return write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{{\"data\":");
        }
        Reply::Hangup | Reply::Silence => return Ok(()),
    };
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\nconnection: close\r\n{header}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn answer(question: &Value, dimension: usize, reversed: bool) -> String {
    let texts: Vec<&str> =
        question["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let vectors = HashModel::new(dimension, 1).embed(&texts, Kind::Passage).unwrap();
    let mut data: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": vector}))
        .collect();
    if reversed {
        data.reverse();
    }
    json!({"object": "list", "data": data, "model": question["model"]}).to_string()
}
