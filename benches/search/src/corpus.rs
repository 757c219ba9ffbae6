//! Texts to index and queries to ask, made the same way on every machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Some texts under a name.
pub struct Corpus {
    pub name: &'static str,
    pub texts: Vec<String>,
}

/// A small generator with a fixed seed (SplitMix64), so that every run sees the same text.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Short web queries from the folder of test collections beside the repository, where it is present.
pub fn logged_queries() -> Option<Vec<String>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/datasets");
    let folder = std::env::var_os("MAINSTAY_DATASETS").map_or(beside, PathBuf::from);
    let file = folder.join("query-logs/web-mq.jsonl.zst");
    let output = Command::new("zstd").arg("-dcq").arg(file).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let queries: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(row.get("text")?.as_str()?.to_string())
        })
        .collect();
    (!queries.is_empty()).then_some(queries)
}

/// The records of all packages that Debian knows: short texts of 20 to 300 words.
pub fn packages() -> Option<Corpus> {
    let output = Command::new("apt-cache").arg("dumpavail").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let texts: Vec<String> = text.split("\n\n").map(String::from).collect();
    (texts.len() > 1000).then_some(Corpus { name: "packages", texts })
}

/// The text files of a folder, up to a sum of bytes.
pub fn tree(folder: &Path, bytes_max: usize) -> Corpus {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if bytes < bytes_max
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                bytes += text.len();
                texts.push(text);
            }
        }
    }
    Corpus { name: "tree", texts }
}

/// `count` texts of about 50 words, drawn by Zipf's law. Words come from `queries`, the frequent ones
/// first, so that logged queries find something; without them, words are made up.
pub fn synthetic(count: usize, queries: Option<&[String]>) -> Corpus {
    let vocabulary = queries.map_or_else(
        || (0..60_000).map(made_up_word).collect(),
        |queries| {
            let mut counts: HashMap<&str, usize> = HashMap::new();
            for word in queries.iter().flat_map(|query| query.split_whitespace()) {
                *counts.entry(word).or_default() += 1;
            }
            let mut words: Vec<(&str, usize)> = counts.into_iter().collect();
            words.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
            words.into_iter().map(|(word, _)| word.to_string()).collect::<Vec<_>>()
        },
    );
    let mut random = Random(42);
    let ranks = (vocabulary.len() as f64).ln();
    let texts = (0..count)
        .map(|_| {
            let words = 20 + random.below(60);
            let mut text = String::with_capacity(words * 7);
            for _ in 0..words {
                // Of Zipf's law with exponent 1, the logarithm of the rank is uniform.
                let rank = (random.unit() * ranks).exp() as usize;
                text.push_str(&vocabulary[rank.min(vocabulary.len()) - 1]);
                text.push(' ');
            }
            text
        })
        .collect();
    Corpus { name: "synthetic", texts }
}

fn made_up_word(rank: usize) -> String {
    let mut random = Random(rank as u64);
    (0..3 + random.below(6)).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
}

/// Queries of one to four words from random places in the texts.
pub fn queries_from(texts: &[String], count: usize) -> Vec<String> {
    let mut random = Random(7);
    (0..count)
        .map(|_| {
            let wanted = [1, 2, 2, 3, 3, 4][random.below(6)];
            let words = (0..wanted).filter_map(|_| {
                let text = &texts[random.below(texts.len())];
                let words: Vec<&str> = text
                    .split(|c: char| !c.is_ascii_alphabetic())
                    .filter(|w| w.len() > 2)
                    .collect();
                words.get(random.below(words.len())).map(|word| word.to_string())
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}
