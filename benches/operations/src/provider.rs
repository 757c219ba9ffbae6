//! A provider of embeddings on loopback that speaks the OpenAI protocol: vectors from hashes, so that
//! answers are stable and cost nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Numbers in a vector.
pub(crate) const DIMENSION: usize = 64;

/// Starts it; answers its base address. It ends with the process.
pub(crate) fn start() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = serve(stream);
            });
        }
    });
    Ok(format!("http://{address}/v1"))
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
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
        let asked: serde_json::Value = serde_json::from_slice(&body)?;
        let texts = asked["input"].as_array().cloned().unwrap_or_default();
        let data: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| {
                serde_json::json!({"index": index, "embedding": vector(text.as_str().unwrap_or(""))})
            })
            .collect();
        let answer = serde_json::json!({ "data": data }).to_string();
        write!(
            answers,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
}

/// Each word adds to a few places: texts that share words are near.
fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.01f32; DIMENSION];
    for word in text.split_whitespace() {
        let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        vector[(hash % DIMENSION as u64) as usize] += 1.0;
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}
