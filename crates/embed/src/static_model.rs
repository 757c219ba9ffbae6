//! A static model: one vector a token, summed. Ten thousand times cheaper than a transformer and
//! clearly weaker; it makes new passages searchable at once.
//!
//! The layout is that of Model2Vec: `embeddings` [rows, dimension] as I8, F16, BF16, F32 or F64,
//! `weights` `[tokens]` (optional) and `mapping` `[tokens]` from token to row (optional).
//!
//! Invariants: every token of the vocabulary has a row and a finite weight, checked when the model
//! is opened, so embedding looks nothing up twice and cannot fail on a text.

use serde_json::Value;

use crate::embedder::{Embedder, Kind, Vectors, normalise};
use crate::error::EmbedError;
use crate::identifier::split_identifiers;
use crate::identity::ModelIdentity;
use crate::model_file::ModelBytes;
use crate::safetensors::{Safetensors, Tensor};
use crate::wordpiece::{WordPiece, readable};

/// Tokens that are read of a text. Tables are made from texts of this length; a longer text is a
/// document rather than a passage, and its sum says little.
pub(crate) const TOKENS_MAX: usize = 512;

/// Texts handed over at once: some milliseconds of work.
const BATCH_TEXTS: usize = 256;

/// A table of token vectors with its tokeniser.
pub struct StaticModel {
    identity: ModelIdentity,
    wordpiece: WordPiece,
    rows: Rows,
    /// What each token counts; for an I8 table with the scale of its row in it.
    weights: Vec<f32>,
    /// Row of each token; empty when they are the same.
    mapping: Vec<u32>,
}

/// Token vectors, one after the other.
enum Rows {
    Bytes(ModelBytes),
    Floats(Vec<f32>),
}

impl StaticModel {
    /// Opens a table from the bytes of its `model.safetensors`. `name` goes into the identity,
    /// `sha256` too; `config` is the parsed `config.json`.
    pub(crate) fn open(
        name: &str,
        sha256: String,
        weights: ModelBytes,
        config: &Value,
        wordpiece: WordPiece,
    ) -> Result<Self, EmbedError> {
        let table = Safetensors::parse(name, weights)?;
        let damaged = |reason: String| EmbedError::Damaged { file: name.to_owned(), reason };
        let embeddings = table
            .get("embeddings")
            .ok_or_else(|| damaged("it has no tensor \"embeddings\"".into()))?;
        let [row_count, dimension] = embeddings.shape[..] else {
            return Err(damaged(format!("\"embeddings\" has shape {:?}", embeddings.shape)));
        };
        if dimension == 0 || row_count == 0 {
            return Err(damaged("\"embeddings\" is empty".into()));
        }
        let mapping = mapping(&table)?;
        let token_count = if mapping.is_empty() { row_count } else { mapping.len() };
        if let Some(row) = mapping.iter().find(|row| **row as usize >= row_count) {
            return Err(damaged(format!("\"mapping\" names row {row} of {row_count}")));
        }
        if wordpiece.size() > token_count {
            let size = wordpiece.size();
            return Err(damaged(format!("it has {token_count} tokens, the vocabulary {size}")));
        }
        let weights = token_weights(&table, token_count)?;
        let rows = rows(&table, embeddings)?;
        let tokens_max = config["seq_length"]
            .as_u64()
            .and_then(|tokens| usize::try_from(tokens).ok())
            .filter(|tokens| *tokens > 0)
            .map_or(TOKENS_MAX, |tokens| tokens.min(TOKENS_MAX));
        let identity = ModelIdentity {
            name: name.to_owned(),
            sha256,
            dimension,
            normalised: config["normalize"].as_bool().unwrap_or(true),
            tokens_max,
        };
        Ok(Self { identity, wordpiece, rows, weights, mapping })
    }

    /// The tokens of `text`, identifiers cut into words, those that the table does not know left
    /// out.
    fn tokens(&self, text: &str, tokens: &mut Vec<u32>) {
        tokens.clear();
        let text = split_identifiers(readable(text, self.identity.tokens_max));
        self.wordpiece.encode(&text, self.identity.tokens_max, tokens);
        let unknown = self.wordpiece.unknown();
        tokens.retain(|token| *token != unknown);
    }

    fn sum(&self, tokens: &[u32], vector: &mut [f32]) {
        let dimension = vector.len();
        let mut total = 0.0;
        for token in tokens {
            let token = *token as usize;
            let weight = self.weights[token];
            let row = self.mapping.get(token).map_or(token, |row| *row as usize) * dimension;
            match &self.rows {
                Rows::Bytes(rows) => add_bytes(vector, &rows[row..row + dimension], weight),
                Rows::Floats(rows) => add_floats(vector, &rows[row..row + dimension], weight),
            }
            total += 1.0;
        }
        // The length of the mean says how much the tokens agree; without normalisation it stays.
        if total > 0.0 {
            vector.iter_mut().for_each(|x| *x /= total);
        }
    }
}

impl Embedder for StaticModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str], _kind: Kind) -> Result<Vectors, EmbedError> {
        let dimension = self.identity.dimension;
        let mut vectors = vec![0.0; dimension * texts.len()];
        let mut tokens = Vec::with_capacity(self.identity.tokens_max);
        for (text, vector) in texts.iter().zip(vectors.chunks_exact_mut(dimension)) {
            self.tokens(text, &mut tokens);
            self.sum(&tokens, vector);
            if self.identity.normalised {
                normalise(vector);
            }
        }
        let vectors = Vectors::from_data(&self.identity.name, dimension, vectors)?;
        // Finite rows can still add up to infinity in a table of extreme numbers.
        vectors.require_finite(&self.identity.name)?;
        Ok(vectors)
    }

    fn known_share(&self, text: &str) -> f32 {
        let text = split_identifiers(readable(text, self.identity.tokens_max));
        self.wordpiece.known_share(&text, self.identity.tokens_max)
    }

    fn batch_texts(&self) -> usize {
        BATCH_TEXTS
    }
}

impl std::fmt::Debug for StaticModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticModel").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn add_bytes(vector: &mut [f32], row: &[u8], weight: f32) {
    for (sum, byte) in vector.iter_mut().zip(row) {
        *sum += f32::from(byte.cast_signed()) * weight;
    }
}

fn add_floats(vector: &mut [f32], row: &[f32], weight: f32) {
    for (sum, number) in vector.iter_mut().zip(row) {
        *sum += number * weight;
    }
}

fn rows(table: &Safetensors, embeddings: &Tensor) -> Result<Rows, EmbedError> {
    if embeddings.element == "I8" {
        return Ok(Rows::Bytes(table.owned_bytes(embeddings)));
    }
    let floats = table.floats(embeddings)?;
    require_finite(table, "embeddings", &floats)?;
    Ok(Rows::Floats(floats))
}

fn token_weights(table: &Safetensors, token_count: usize) -> Result<Vec<f32>, EmbedError> {
    let Some(tensor) = table.get("weights") else { return Ok(vec![1.0; token_count]) };
    let weights = table.floats(tensor)?;
    if weights.len() != token_count {
        return Err(EmbedError::Damaged {
            file: table.file().to_owned(),
            reason: format!("\"weights\" has {} numbers for {token_count} tokens", weights.len()),
        });
    }
    require_finite(table, "weights", &weights)?;
    Ok(weights)
}

fn require_finite(table: &Safetensors, name: &str, floats: &[f32]) -> Result<(), EmbedError> {
    match floats.iter().position(|number| !number.is_finite()) {
        Some(at) => Err(EmbedError::Damaged {
            file: table.file().to_owned(),
            reason: format!("number {at} of {name:?} is NaN or infinite"),
        }),
        None => Ok(()),
    }
}

fn mapping(table: &Safetensors) -> Result<Vec<u32>, EmbedError> {
    let Some(tensor) = table.get("mapping") else { return Ok(Vec::new()) };
    let bytes = table.bytes(tensor);
    let numbers: Vec<i64> = match tensor.element.as_str() {
        "I64" => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        "I32" => bytes.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        other => {
            return Err(EmbedError::UnsupportedModel {
                file: table.file().to_owned(),
                reason: format!("\"mapping\" has element type {other}"),
            });
        }
    };
    numbers
        .iter()
        .map(|row| {
            u32::try_from(*row).map_err(|_| EmbedError::Damaged {
                file: table.file().to_owned(),
                reason: format!("\"mapping\" names row {row}"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wordpiece::Case;
    use serde_json::json;

    /// Tokens 0 `[UNK]`, 1 `a`, 2 `b` and, for one test, a fourth without a row.
    fn open(header: &str, data: &[u8], pieces: &[&str]) -> Result<StaticModel, EmbedError> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        let pieces = (0u32..).zip(pieces.iter().map(|p| (*p).to_owned())).map(|(i, p)| (p, i));
        let wordpiece = WordPiece::new(pieces, "##", 0, Vec::new(), Case::Folded);
        let config = json!({"normalize": true});
        StaticModel::open("m", "0".into(), ModelBytes::Owned(bytes), &config, wordpiece)
    }

    const PIECES: &[&str] = &["[UNK]", "a", "b"];
    const I8: &str = r#"{"embeddings":{"dtype":"I8","shape":[3,2],"data_offsets":[0,6]},
        "weights":{"dtype":"F32","shape":[3],"data_offsets":[6,18]}}"#;

    fn i8_data(weights: [f32; 3]) -> Vec<u8> {
        let mut data = vec![9, 9, 3, 0, 0, (-4i8).cast_unsigned()];
        data.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
        data
    }

    #[test]
    fn a_text_is_the_normalised_weighted_sum_of_its_known_tokens() {
        let model = open(I8, &i8_data([1.0, 1.0, 1.0]), PIECES).unwrap();
        let vectors = model.embed(&["a b zzz", "", "zzz", "aB"], Kind::Passage).unwrap();
        let near = |vector: &[f32], expected: [f32; 2]| {
            vector.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6)
        };
        assert!(near(vectors.get(0).unwrap(), [0.6, -0.8]));
        assert_eq!(vectors.get(1), Some(&[0.0, 0.0][..]));
        assert_eq!(vectors.get(2), Some(&[0.0, 0.0][..]));
        assert_eq!(vectors.get(3), vectors.get(0), "identifiers are split");
    }

    #[test]
    fn a_mapping_leads_from_tokens_to_rows() {
        let header = r#"{"embeddings":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},
            "mapping":{"dtype":"I64","shape":[3],"data_offsets":[8,32]}}"#;
        let mut data: Vec<u8> = [1f32, -1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        data.extend([0i64, 1, 0].iter().flat_map(|row| row.to_le_bytes()));
        let model = open(header, &data, PIECES).unwrap();
        assert_eq!(model.embed(&["a", "b"], Kind::Query).unwrap().as_slice(), [-1.0, 1.0]);
        data[8 + 8] = 2;
        let error = open(header, &data, PIECES).unwrap_err();
        assert!(error.to_string().contains("row 2 of 2"), "{error}");
    }

    #[test]
    fn nan_in_the_table_is_refused_when_it_is_opened() {
        let error = open(I8, &i8_data([1.0, f32::NAN, 1.0]), PIECES).unwrap_err();
        assert!(error.to_string().contains("number 1 of \"weights\""), "{error}");
    }

    #[test]
    fn a_sum_that_overflows_is_refused_with_its_text() {
        let model = open(I8, &i8_data([1.0, f32::MAX, 1.0]), PIECES).unwrap();
        let error = model.embed(&["b", "a"], Kind::Passage).unwrap_err();
        assert!(matches!(error, EmbedError::NotFinite { text_index: 1, .. }), "{error}");
    }

    #[test]
    fn a_vocabulary_larger_than_the_table_is_refused() {
        let error = open(I8, &i8_data([1.0; 3]), &["[UNK]", "a", "b", "c"]).unwrap_err();
        assert!(error.to_string().contains("3 tokens, the vocabulary 4"), "{error}");
    }

    #[test]
    fn a_file_without_the_table_is_refused() {
        let error = open("{}", &[], PIECES).unwrap_err();
        assert!(error.to_string().contains("embeddings"), "{error}");
    }
}
