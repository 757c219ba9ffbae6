//! A provider of embeddings on loopback that speaks the OpenAI protocol: vectors from hashes, so that
//! answers are stable and cost nothing.

use crate::receiver;

/// Numbers in a vector.
pub(crate) const DIMENSION: usize = 64;

/// Starts it; answers its base address. It ends with the process.
pub(crate) fn start() -> std::io::Result<String> {
    Ok(format!("{}/v1", receiver::start("application/json", embeddings)?))
}

fn embeddings(body: &[u8]) -> Vec<u8> {
    let asked: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let texts = asked["input"].as_array().cloned().unwrap_or_default();
    let vectors = texts.iter().map(|text| vector(text.as_str().unwrap_or("")));
    let data: Vec<_> = vectors
        .enumerate()
        .map(|(index, vector)| serde_json::json!({"index": index, "embedding": vector}))
        .collect();
    serde_json::json!({ "data": data }).to_string().into_bytes()
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
