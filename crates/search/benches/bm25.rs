//! How fast `bm25` indexes, opens and answers, on made-up short texts.
//!
//! `cargo bench -p mainstay-search --bench bm25 -- [documents]`; 200,000 documents when not said.
//! The comparison with tantivy on real text is in `benches/search`.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use mainstay_search::bitmap::Bitmap;
use mainstay_search::bm25::Bm25View;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{DocNumber, Document};
use mainstay_search::request::{Allowed, Pattern, Request, SearchError, Stop, Text, Texts};
use mainstay_search::view::{Addition, View};

struct NoTexts;

impl Texts for NoTexts {
    fn visit(
        &self,
        _: &[DocNumber],
        _: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        Ok(())
    }
}

/// SplitMix64 with a fixed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A rank below `bound` by Zipf's law with exponent 1.
    fn rank(&mut self, bound: u32) -> u32 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (unit * f64::from(bound).ln()).exp() as u32
    }
}

const VOCABULARY: u32 = 60_000;
const BATCH: usize = 500;

fn word(rank: u32) -> String {
    let mut random = Random(u64::from(rank));
    let letters = 3 + random.next() % 6;
    (0..letters).map(|_| char::from(b'a' + (random.next() % 26) as u8)).collect()
}

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next();
    let count: usize = count.unwrap_or(200_000);
    let words: Vec<String> = (0..VOCABULARY).map(word).collect();
    let mut random = Random(42);
    let pick = |random: &mut Random| words[random.rank(VOCABULARY) as usize - 1].as_str();

    let directory = Arc::new(MemoryDirectory::new());
    let mut view = Bm25View::open(directory.clone()).unwrap();
    let (mut seconds, mut bytes) = (0.0, 0);
    for first in (0..count).step_by(BATCH) {
        let batch: Vec<Addition> = (first..(first + BATCH).min(count))
            .map(|number| {
                let length = 20 + random.next() % 60;
                let body: Vec<&str> = (0..length).map(|_| pick(&mut random)).collect();
                let document = Document { body: body.join(" "), ..Document::default() };
                bytes += document.body.len();
                Addition { number: number as u32, document }
            })
            .collect();
        let started = Instant::now();
        view.apply(&batch, first as u64).unwrap();
        seconds += started.elapsed().as_secs_f64();
    }
    let segments = view.figures().segments;
    let started = Instant::now();
    view.checkpoint().unwrap();
    let checkpoint = started.elapsed().as_secs_f64();
    println!(
        "index: {:.1} us a document, {:.1} MB/s, {segments} segments; checkpoint {:.1} us a document; {:.3} of the text",
        seconds * 1e6 / count as f64,
        bytes as f64 / 1e6 / seconds,
        checkpoint * 1e6 / count as f64,
        view.figures().disk_bytes as f64 / bytes as f64,
    );
    let started = Instant::now();
    let view = Bm25View::open(directory).unwrap();
    println!("open: {:.2} ms", started.elapsed().as_secs_f64() * 1e3);

    let searcher = view.searcher();
    let allowed = Allowed::new(Bitmap::full(count as u32), None);
    let mut random = Random(7);
    for terms in 1..=5 {
        let queries: Vec<String> = (0..400)
            .map(|_| {
                let words: Vec<&str> = (0..terms).map(|_| pick(&mut random)).collect();
                words.join(" ")
            })
            .collect();
        let mut times = vec![f64::MAX; queries.len()];
        for _ in 0..5 {
            for (query, best) in queries.iter().zip(&mut times) {
                let request = Request {
                    strict: false,
                    verified_max: usize::MAX,
                    text: query,
                    pattern: Pattern::default(),
                    vectors: &[],
                    limit: 10,
                    allowed: &allowed,
                    texts: &NoTexts,
                    threads: 1,
                    stop: &Stop::new(),
                };
                let started = Instant::now();
                std::hint::black_box(searcher.search(&request).unwrap());
                *best = best.min(started.elapsed().as_secs_f64() * 1e6);
            }
        }
        times.sort_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        println!("{terms} terms: mean {mean:.1} us, p50 {:.1}, p99 {:.1}", times[200], times[396]);
    }
}
