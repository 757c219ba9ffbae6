//! Who answers requests over HTTP on loopback, for what a server calls.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Starts one that answers 200 with what `answer` makes of a body; answers its address. It ends with
/// the process.
pub(crate) fn start(
    content_type: &'static str,
    answer: impl Fn(&[u8]) -> Vec<u8> + Clone + Send + 'static,
) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            // A client that goes away is no failure.
            std::thread::spawn(move || drop(serve(stream, content_type, answer)));
        }
    });
    Ok(format!("http://{address}"))
}

fn serve(
    stream: TcpStream,
    content_type: &str,
    answer: impl Fn(&[u8]) -> Vec<u8>,
) -> std::io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let body = answer(&body);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n");
        let mut whole = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        whole.extend(body);
        // At once: what is sent in pieces waits for the other side's acknowledgement.
        answers.write_all(&whole)?;
    }
}
