//! Vectors to compare with: drawn around centres, or real texts under the static table.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

/// Vectors of unit length, and queries of the same kind that are not among them.
pub(crate) struct Data {
    pub(crate) name: &'static str,
    pub(crate) dimension: usize,
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) queries: Vec<Vec<f32>>,
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn normal(&mut self) -> f32 {
        (0..6).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum::<f32>()
            * 2f32.sqrt()
    }
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

/// 384 dimensions whose variance falls off as that of sentence models does, around one centre for
/// each 100 vectors; neighbours in a cluster have a cosine of about 0.6.
pub(crate) fn clustered(count: usize, queries: usize) -> Data {
    let dimension = 384;
    let mut dice = Dice(42);
    let spread: Vec<f32> = (0..dimension).map(|i| 1.0 / (1.0 + i as f32 / 48.0)).collect();
    let mut draw = |weight: f32, around: Option<&Vec<f32>>| -> Vec<f32> {
        let noise: Vec<f32> = spread.iter().map(|s| s * dice.normal()).collect();
        let noise = unit(noise);
        match around {
            None => noise,
            Some(centre) => unit(noise.iter().zip(centre).map(|(n, c)| n * weight + c).collect()),
        }
    };
    let centres: Vec<_> = (0..count.div_ceil(100)).map(|_| draw(1.0, None)).collect();
    let mut which = Dice(1);
    let mut all: Vec<_> = (0..count + queries)
        .map(|_| draw(0.8, Some(&centres[which.next() as usize % centres.len()])))
        .collect();
    let queries = all.split_off(count);
    Data { name: "clustered", dimension, vectors: all, queries }
}

/// Windows of twelve words of the texts in `datasets`, as the static table in `models` embeds them.
pub(crate) fn texts(shared: &Path, count: usize, queries: usize) -> io::Result<Data> {
    let table = Table::read(&shared.join("models"))?;
    let mut windows = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(shared.join("datasets"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort();
    for folder in folders {
        let Ok(lines) = fs::read_to_string(folder.join("docs.jsonl")) else { continue };
        for line in lines.lines() {
            let value: serde_json::Value = serde_json::from_str(line)?;
            let text = value["text"].as_str().unwrap_or_default();
            let words: Vec<_> = text.split_whitespace().collect();
            windows.extend(words.chunks(12).filter(|words| words.len() > 3).map(|w| w.join(" ")));
        }
    }
    // In an order that has nothing to do with the texts, so that queries come from all of them.
    let mut dice = Dice(7);
    for at in (1..windows.len()).rev() {
        windows.swap(at, (dice.next() % (at as u64 + 1)) as usize);
    }
    windows.truncate(count + queries);
    let mut all: Vec<_> = windows.iter().map(|window| table.embed(window)).collect();
    let queries = all.split_off(all.len().saturating_sub(queries));
    Ok(Data { name: "texts", dimension: 256, vectors: all, queries })
}

/// The static table: a vector for each token of a WordPiece vocabulary.
struct Table {
    vocabulary: HashMap<String, usize>,
    scales: Vec<f32>,
    rows: Vec<i8>,
}

impl Table {
    fn read(models: &Path) -> io::Result<Self> {
        let vocabulary = fs::read_to_string(models.join("vocab.txt"))?;
        let vocabulary: HashMap<_, _> = vocabulary
            .lines()
            .enumerate()
            .map(|(index, token)| (token.to_string(), index))
            .collect();
        let bytes = fs::read(models.join("static-256/model.safetensors"))?;
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let contents = &bytes[8 + header..];
        let (scales, rows) = contents.split_at(vocabulary.len() * 4);
        let scales = scales.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
        Ok(Self { vocabulary, scales, rows: rows.iter().map(|&byte| byte as i8).collect() })
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let mut sum = vec![0f32; 256];
        for token in self.tokens(&text.to_lowercase()) {
            let row = &self.rows[token * 256..(token + 1) * 256];
            sum.iter_mut().zip(row).for_each(|(s, &r)| *s += f32::from(r) * self.scales[token]);
        }
        unit(sum)
    }

    /// Greedy longest pieces of each word.
    fn tokens(&self, text: &str) -> Vec<usize> {
        let mut tokens = Vec::new();
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            let mut from = 0;
            while from < word.len() {
                let piece = (from + 1..=word.len())
                    .rev()
                    .filter(|&to| word.is_char_boundary(to))
                    .find_map(|to| {
                        let prefix = if from > 0 { "##" } else { "" };
                        let piece = format!("{prefix}{}", &word[from..to]);
                        self.vocabulary.get(&piece).map(|&token| (token, to))
                    });
                let Some((token, to)) = piece else { break };
                tokens.push(token);
                from = to;
            }
        }
        tokens
    }
}
