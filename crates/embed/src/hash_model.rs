//! An embedder without a model: vectors from a hash of the words. Deterministic, instant, and
//! texts that share words are near each other; for tests of everything above this crate.

use crate::embedder::{Embedder, Kind, Vectors, normalise};
use crate::error::EmbedError;
use crate::identity::ModelIdentity;
use crate::model_file::fingerprint;

/// Words that are read of a text.
const WORDS_MAX: usize = 512;

/// Texts handed over at once; any number would do.
const BATCH_TEXTS: usize = 64;

/// Sums a pseudo-random direction for each word.
#[derive(Debug, Clone)]
pub struct HashModel {
    identity: ModelIdentity,
    seed: u64,
}

impl HashModel {
    /// An embedder of `dimension` numbers (0 is taken as 1). Models of other seeds give other
    /// vectors and have another identity.
    pub fn new(dimension: usize, seed: u64) -> Self {
        let dimension = dimension.max(1);
        let sha256 = fingerprint(&[
            ("dimension", &(dimension as u64).to_le_bytes()),
            ("seed", &seed.to_le_bytes()),
        ]);
        let name = format!("hash-{dimension}");
        let identity =
            ModelIdentity { name, sha256, dimension, normalised: true, tokens_max: WORDS_MAX };
        Self { identity, seed }
    }
}

impl Embedder for HashModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str], _kind: Kind) -> Result<Vectors, EmbedError> {
        let dimension = self.identity.dimension;
        let mut data = vec![0.0; dimension * texts.len()];
        for (text, vector) in texts.iter().zip(data.chunks_exact_mut(dimension)) {
            let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            for word in words.take(WORDS_MAX) {
                let mut state = word.to_lowercase().bytes().fold(self.seed, |state, byte| {
                    (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
                });
                for x in vector.iter_mut() {
                    *x += direction(&mut state);
                }
            }
            normalise(vector);
        }
        Vectors::from_data(&self.identity.name, dimension, data)
    }

    fn batch_texts(&self) -> usize {
        BATCH_TEXTS
    }
}

/// The next number in (-1, 1) of the SplitMix64 sequence (Steele, Lea and Flood, 2014).
fn direction(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    // 24 bits fit a float exactly; half a step keeps zero out.
    ((z >> 40) as f32 + 0.5) / 8_388_608.0 - 1.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_that_share_words_are_nearer_than_texts_that_do_not() {
        let model = HashModel::new(64, 1);
        let texts = ["the quick brown fox", "a quick brown dog", "unrelated words entirely"];
        let vectors = model.embed(&texts, Kind::Passage).unwrap();
        let dot = |a: usize, b: usize| -> f32 {
            let (a, b) = (vectors.get(a).unwrap(), vectors.get(b).unwrap());
            a.iter().zip(b).map(|(x, y)| x * y).sum()
        };
        assert!(dot(0, 1) > dot(0, 2));
    }
}
