//! The models that are part of the program, and what is known of them without opening them.

use std::sync::Arc;

use serde_json::json;

use crate::error::EmbedError;
use crate::identity::ModelIdentity;
use crate::model_file::{ModelBytes, require_sha256};
use crate::static_model::{self, StaticModel};
use crate::tokenizer_file::TokenizerFile;
use crate::transformer::{Pooling, Transformer, TransformerSettings};
use crate::wordpiece::{Case, WordPiece};

/// Tokens that all-MiniLM-L6-v2 was trained to read.
const MINILM_TOKENS_MAX: usize = 256;

const MINILM_SHA256: &str = "62463c497e9bb14e28923bfbe64ebded5718b582fb116162742259ee9e0bbc10";
const STATIC_SHA256: &str = "b7624748baaa7f3cf91b417e0a3e34cba4f021a90c47cd954a57a571de435ed3";
const VOCABULARY_SHA256: &str = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3";

/// A model that is compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltIn {
    /// The token table `static-256`: about 60,000 passages a second and core.
    Static,
    /// all-MiniLM-L6-v2 with int8 weights: about 58 passages of 128 tokens a second and core.
    MiniLm,
}

impl BuiltIn {
    /// The identity, known without opening the model.
    pub fn identity(self) -> ModelIdentity {
        match self {
            Self::Static => ModelIdentity {
                name: "static-256".into(),
                sha256: STATIC_SHA256.into(),
                dimension: 256,
                normalised: true,
                tokens_max: static_model::TOKENS_MAX,
            },
            Self::MiniLm => ModelIdentity {
                name: "minilm-l6-v2-int8".into(),
                sha256: MINILM_SHA256.into(),
                dimension: 384,
                normalised: true,
                tokens_max: MINILM_TOKENS_MAX,
            },
        }
    }
}

impl StaticModel {
    /// Opens the built-in table; takes some milliseconds.
    ///
    /// # Errors
    /// [`EmbedError::NotBuiltIn`] without the feature `builtin`; [`EmbedError::WrongHash`] when the
    /// program file is damaged.
    pub fn built_in() -> Result<Arc<Self>, EmbedError> {
        let BuiltInFiles { table, vocabulary, .. } = built_in_files("static")?;
        static_from(table, vocabulary).map(Arc::new)
    }
}

impl Transformer {
    /// Opens the built-in MiniLM; takes some tens of milliseconds and 40 MB of memory.
    ///
    /// # Errors
    /// As [`StaticModel::built_in`].
    pub fn built_in() -> Result<Arc<Self>, EmbedError> {
        let BuiltInFiles { minilm, vocabulary, .. } = built_in_files("minilm")?;
        minilm_from(minilm, vocabulary).map(Arc::new)
    }
}

impl WordPiece {
    /// The tokeniser of both built-in models.
    ///
    /// # Errors
    /// As [`StaticModel::built_in`].
    pub fn built_in() -> Result<Self, EmbedError> {
        let BuiltInFiles { vocabulary, .. } = built_in_files("minilm")?;
        vocabulary_from(vocabulary).map(|tokenizer| tokenizer.wordpiece)
    }
}

/// The bytes compiled in.
struct BuiltInFiles {
    minilm: &'static [u8],
    table: &'static [u8],
    vocabulary: &'static [u8],
}

#[cfg(feature = "builtin")]
fn built_in_files(_model: &'static str) -> Result<BuiltInFiles, EmbedError> {
    Ok(BuiltInFiles {
        minilm: include_bytes!("../../../models/minilm-l6-v2-int8.onnx"),
        table: include_bytes!("../../../models/static-256/model.safetensors"),
        vocabulary: include_bytes!("../../../models/vocab.txt"),
    })
}

#[cfg(not(feature = "builtin"))]
fn built_in_files(model: &'static str) -> Result<BuiltInFiles, EmbedError> {
    Err(EmbedError::NotBuiltIn { model })
}

fn static_from(table: &'static [u8], vocabulary: &[u8]) -> Result<StaticModel, EmbedError> {
    let BuiltInParts { identity, tokenizer } = checked(BuiltIn::Static, table, vocabulary)?;
    let config = json!({ "normalize": identity.normalised, "seq_length": identity.tokens_max });
    let ModelIdentity { name, sha256, .. } = identity;
    StaticModel::open(&name, sha256, ModelBytes::Borrowed(table), &config, tokenizer.wordpiece)
}

fn minilm_from(weights: &'static [u8], vocabulary: &[u8]) -> Result<Transformer, EmbedError> {
    let BuiltInParts { identity, tokenizer } = checked(BuiltIn::MiniLm, weights, vocabulary)?;
    let settings = TransformerSettings {
        name: identity.name,
        sha256: identity.sha256,
        pooling: Pooling::Mean,
        normalised: identity.normalised,
        tokens_max: identity.tokens_max,
        query_prompt: String::new(),
        passage_prompt: String::new(),
    };
    Transformer::open(settings, ModelBytes::Borrowed(weights), tokenizer)
}

struct BuiltInParts {
    identity: ModelIdentity,
    tokenizer: TokenizerFile,
}

/// Proves that the bytes are those that were published before anything is computed with them.
fn checked(model: BuiltIn, weights: &[u8], vocabulary: &[u8]) -> Result<BuiltInParts, EmbedError> {
    let identity = model.identity();
    require_sha256(&identity.name, weights, &identity.sha256)?;
    Ok(BuiltInParts { identity, tokenizer: vocabulary_from(vocabulary)? })
}

fn vocabulary_from(bytes: &[u8]) -> Result<TokenizerFile, EmbedError> {
    require_sha256("vocab.txt", bytes, VOCABULARY_SHA256)?;
    TokenizerFile::from_vocabulary("vocab.txt", bytes, Case::Folded)
}

#[cfg(all(test, feature = "builtin"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::embedder::Embedder;

    #[test]
    fn identities_known_beforehand_are_those_of_the_opened_models() {
        assert_eq!(*StaticModel::built_in().unwrap().identity(), BuiltIn::Static.identity());
        assert_eq!(*Transformer::built_in().unwrap().identity(), BuiltIn::MiniLm.identity());
    }

    #[test]
    fn one_changed_byte_in_a_built_in_model_is_refused() {
        let files = built_in_files("static").unwrap();
        let mut table = files.table.to_vec();
        let last = table.len() - 1;
        table[last] ^= 1;
        let error = static_from(table.leak(), files.vocabulary).unwrap_err();
        assert!(matches!(error, EmbedError::WrongHash { .. }), "{error}");
        let cut = &files.minilm[..files.minilm.len() / 2];
        let error = minilm_from(cut, files.vocabulary).unwrap_err();
        assert!(matches!(error, EmbedError::WrongHash { .. }), "{error}");
        let error = minilm_from(files.minilm, &files.vocabulary[1..]).unwrap_err();
        assert!(error.to_string().contains("vocab.txt"), "{error}");
    }

    #[test]
    fn the_vocabulary_is_the_one_the_table_was_published_with() {
        let json = include_bytes!("../../../models/static-256/tokenizer.json");
        let published = TokenizerFile::from_json("tokenizer.json", json).unwrap();
        let files = built_in_files("static").unwrap();
        let ours =
            TokenizerFile::from_vocabulary("vocab.txt", files.vocabulary, Case::Folded).unwrap();
        for line in std::str::from_utf8(files.vocabulary).unwrap().lines() {
            let encode = |file: &TokenizerFile| {
                let mut tokens = Vec::new();
                file.wordpiece.encode(line, 100, &mut tokens);
                tokens
            };
            assert_eq!(encode(&published), encode(&ours), "{line}");
        }
    }
}
