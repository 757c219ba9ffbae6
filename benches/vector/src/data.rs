//! Vectors to compare with: real texts under the built-in models, or drawn around centres.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use mainstay_embed::{Embedder, Kind, StaticModel, Transformer};

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

/// The built-in models.
#[derive(Clone, Copy)]
pub(crate) enum Model {
    Static,
    Minilm,
}

/// Passages of seven words of the collections in `datasets`, and the questions that come with them,
/// as a built-in model embeds them. Vectors of the slow model are kept beside the build, since
/// embedding them takes minutes.
pub(crate) fn texts(
    shared: &Path,
    model: Model,
    count: usize,
    queries: usize,
) -> Result<Data, Box<dyn Error>> {
    let mut passages = lines(shared, "docs.jsonl", |text| {
        let words: Vec<_> = text.split_whitespace().collect();
        words.chunks(7).filter(|words| words.len() > 3).map(|words| words.join(" ")).collect()
    })?;
    let mut asked = lines(shared, "queries.jsonl", |text| vec![text.to_owned()])?;
    passages.sort_unstable();
    passages.dedup();
    shuffle(&mut passages, 7);
    shuffle(&mut asked, 8);
    passages.truncate(count);
    asked.truncate(queries);
    let (name, embedder): (_, Arc<dyn Embedder>) = match model {
        Model::Static => ("static", StaticModel::built_in()?),
        Model::Minilm => ("minilm", Transformer::built_in()?),
    };
    let dimension = embedder.identity().dimension;
    let vectors = match model {
        Model::Static => embed(&*embedder, &passages, Kind::Passage)?,
        Model::Minilm => {
            let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("target/{name}-{}.vectors", passages.len()));
            match read(&kept, dimension) {
                Some(vectors) if vectors.len() == passages.len() => vectors,
                _ => {
                    eprintln!("embedding {} passages with {name}", passages.len());
                    let vectors = embed(&*embedder, &passages, Kind::Passage)?;
                    let bytes: Vec<u8> =
                        vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
                    fs::write(&kept, bytes)?;
                    vectors
                }
            }
        }
    };
    let queries = embed(&*embedder, &asked, Kind::Query)?;
    let known = |vector: &Vec<f32>| vector.iter().any(|x| *x != 0.0);
    Ok(Data {
        name,
        dimension,
        vectors: vectors.into_iter().filter(known).collect(),
        queries: queries.into_iter().filter(known).collect(),
    })
}

/// What `cut` makes of the text of each line of a file that every collection has.
fn lines(
    shared: &Path,
    file: &str,
    cut: impl Fn(&str) -> Vec<String>,
) -> Result<Vec<String>, Box<dyn Error>> {
    let mut folders: Vec<_> = fs::read_dir(shared.join("datasets"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| folder.join("qrels.tsv").exists() && folder.join("docs.jsonl").exists())
        .collect();
    folders.sort();
    let mut all = Vec::new();
    for folder in folders {
        for line in fs::read_to_string(folder.join(file))?.lines() {
            let value: serde_json::Value = serde_json::from_str(line)?;
            all.extend(cut(value["text"].as_str().unwrap_or_default()));
        }
    }
    Ok(all)
}

/// An order that has nothing to do with the collections, so that a part stands for all of them.
fn shuffle(texts: &mut [String], seed: u64) {
    let mut dice = Dice(seed);
    for at in (1..texts.len()).rev() {
        texts.swap(at, (dice.next() % (at as u64 + 1)) as usize);
    }
}

fn embed(
    embedder: &dyn Embedder,
    texts: &[String],
    kind: Kind,
) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let mut vectors = Vec::with_capacity(texts.len());
    for batch in texts.chunks(embedder.batch_texts()) {
        let batch: Vec<_> = batch.iter().map(String::as_str).collect();
        let embedded = embedder.embed(&batch, kind)?;
        vectors.extend((0..batch.len()).filter_map(|at| embedded.get(at)).map(<[f32]>::to_vec));
    }
    Ok(vectors)
}

fn read(kept: &Path, dimension: usize) -> Option<Vec<Vec<f32>>> {
    let bytes = fs::read(kept).ok()?;
    let numbers: Vec<f32> =
        bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
    Some(numbers.chunks_exact(dimension).map(<[f32]>::to_vec).collect())
}
