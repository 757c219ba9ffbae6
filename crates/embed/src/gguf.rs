//! Reader of BERT models in the GGUF format, versions 2 and 3.
//!
//! A GGUF file holds settings, vocabulary and weights in one. Invariants: lengths are checked
//! against the file before anything of that length is taken from it; the weights are read through
//! the names that the converter of llama.cpp gives them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::bert::{BertSizes, BertWeights};
use crate::error::EmbedError;
use crate::ggml::{Block, block_of};
use crate::tokenizer_file::TokenizerFile;
use crate::transformer::Pooling;
use crate::wordpiece::{Case, WordPiece};

/// What marks a piece that begins a word; continuing pieces carry nothing.
const WORD_BEGIN: char = '\u{2581}';

/// An opened file.
pub(crate) struct Gguf {
    file: String,
    bytes: Vec<u8>,
    settings: BTreeMap<String, Setting>,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Debug, Clone, PartialEq)]
enum Setting {
    Integer(u64),
    Float(f64),
    Text(String),
    Texts(Vec<String>),
    /// Read past; nothing here asks for it.
    Other,
}

struct Tensor {
    /// Sizes, fastest first.
    sizes: Vec<usize>,
    block: Block,
    range: Range<usize>,
}

impl Gguf {
    /// Reads header, settings and tensor list of `bytes`; `file` names it in errors.
    ///
    /// # Errors
    /// [`EmbedError::Damaged`], [`EmbedError::UnsupportedModel`].
    pub(crate) fn parse(file: &str, bytes: Vec<u8>) -> Result<Self, EmbedError> {
        let damaged = |reason| EmbedError::Damaged { file: file.to_owned(), reason };
        let mut cursor = Cursor { bytes: &bytes, at: 0 };
        let (settings, tensors) = cursor.contents().map_err(damaged)?;
        let alignment = match settings.get("general.alignment") {
            Some(Setting::Integer(bytes @ 1..=65_536)) => *bytes as usize,
            _ => 32,
        };
        let data_start = cursor.at.next_multiple_of(alignment);
        let mut placed = BTreeMap::new();
        for (name, tensor) in tensors {
            let tensor = tensor
                .place(data_start, bytes.len())
                .map_err(|reason| damaged(format!("tensor {name:?} {reason}")))?;
            placed.insert(name, tensor);
        }
        Ok(Self { file: file.to_owned(), bytes, settings, tensors: placed })
    }

    fn damaged(&self, reason: String) -> EmbedError {
        EmbedError::Damaged { file: self.file.clone(), reason }
    }

    fn unsupported(&self, reason: String) -> EmbedError {
        EmbedError::UnsupportedModel { file: self.file.clone(), reason }
    }

    fn integer(&self, name: &str) -> Option<usize> {
        match self.settings.get(name) {
            Some(Setting::Integer(number)) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> &str {
        match self.settings.get(name) {
            Some(Setting::Text(text)) => text,
            _ => "none",
        }
    }

    /// The sizes of the encoder.
    ///
    /// # Errors
    /// [`EmbedError::UnsupportedModel`] for another architecture; [`EmbedError::Damaged`].
    pub(crate) fn sizes(&self) -> Result<BertSizes, EmbedError> {
        let architecture = self.text("general.architecture");
        if architecture != "bert" {
            return Err(self
                .unsupported(format!("architecture {architecture} is not supported, only bert")));
        }
        let size = |name: &str| {
            let name = format!("bert.{name}");
            self.integer(&name).ok_or_else(|| self.damaged(format!("it has no setting {name}")))
        };
        let norm_epsilon = match self.settings.get("bert.attention.layer_norm_epsilon") {
            Some(Setting::Float(number)) => *number as f32,
            _ => 1e-12,
        };
        let sizes = BertSizes {
            hidden: size("embedding_length")?,
            layers: size("block_count")?,
            heads: size("attention.head_count")?,
            inner: size("feed_forward_length")?,
            positions: size("context_length")?,
            vocabulary: self.pieces()?.len(),
            norm_epsilon,
        };
        sizes.check(&self.file).map(|()| sizes)
    }

    /// How token vectors become the vector of the text.
    ///
    /// # Errors
    /// [`EmbedError::UnsupportedModel`].
    pub(crate) fn pooling(&self) -> Result<Pooling, EmbedError> {
        match self.integer("bert.pooling_type") {
            None | Some(1) => Ok(Pooling::Mean),
            Some(2) => Ok(Pooling::First),
            Some(other) => Err(self.unsupported(format!("pooling type {other} is not supported"))),
        }
    }

    fn pieces(&self) -> Result<&[String], EmbedError> {
        match self.settings.get("tokenizer.ggml.tokens") {
            Some(Setting::Texts(pieces)) => Ok(pieces),
            _ => Err(self.damaged("it has no setting tokenizer.ggml.tokens".into())),
        }
    }

    /// The tokeniser: BERT's, which folds case in this format.
    ///
    /// # Errors
    /// [`EmbedError::UnsupportedTokenizer`], [`EmbedError::Damaged`].
    pub(crate) fn tokenizer(&self) -> Result<TokenizerFile, EmbedError> {
        let kind = self.text("tokenizer.ggml.model");
        if kind != "bert" {
            return Err(EmbedError::UnsupportedTokenizer {
                file: self.file.clone(),
                found: format!("the tokeniser {kind}"),
            });
        }
        let pieces = self.pieces()?;
        let find = |piece: &str| {
            let id = pieces.iter().position(|found| found == piece);
            let id = id.and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.damaged(format!("its vocabulary has no {piece}")))
        };
        let (unknown, padding) = (find("[UNK]")?, find("[PAD]")?);
        let (before, after) = (find("[CLS]")?, find("[SEP]")?);
        let literals = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
            .iter()
            .filter_map(|literal| Some(((*literal).to_owned(), find(literal).ok()?)))
            .collect();
        let named = pieces.iter().map(|piece| match piece.strip_prefix(WORD_BEGIN) {
            Some(initial) => initial.to_owned(),
            None if piece.starts_with('[') && piece.ends_with(']') => piece.clone(),
            None => format!("##{piece}"),
        });
        let numbered = named.zip(0u32..);
        let wordpiece = WordPiece::new(numbered, "##", unknown, literals, Case::Folded);
        Ok(TokenizerFile { wordpiece, before: vec![before], after: vec![after], padding })
    }
}

impl BertWeights for Gguf {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EmbedError> {
        let stored = stored_name(name);
        let tensor = self
            .tensors
            .get(&stored)
            .ok_or_else(|| self.damaged(format!("it has no tensor {stored:?}")))?;
        if !tensor.sizes.iter().rev().eq(shape) {
            let sizes = &tensor.sizes;
            return Err(self.damaged(format!("{stored:?} has sizes {sizes:?} for {shape:?}")));
        }
        Ok(tensor.block.numbers(&self.bytes[tensor.range.clone()]))
    }
}

/// The name in a GGUF file of a tensor of the original checkpoint.
fn stored_name(name: &str) -> String {
    let (name, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let Some(rest) = name.strip_prefix("encoder.layer.") else {
        let stored = match name {
            "embeddings.word_embeddings" => "token_embd",
            "embeddings.position_embeddings" => "position_embd",
            "embeddings.token_type_embeddings" => "token_types",
            "embeddings.LayerNorm" => "token_embd_norm",
            other => other,
        };
        return format!("{stored}.{kind}");
    };
    let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
    let stored = match part {
        "attention.self.query" => "attn_q",
        "attention.self.key" => "attn_k",
        "attention.self.value" => "attn_v",
        "attention.output.dense" => "attn_output",
        "attention.output.LayerNorm" => "attn_output_norm",
        "intermediate.dense" => "ffn_up",
        "output.dense" => "ffn_down",
        "output.LayerNorm" => "layer_output_norm",
        other => other,
    };
    format!("blk.{layer}.{stored}.{kind}")
}

/// A tensor as the list names it.
struct Listed {
    sizes: Vec<usize>,
    kind: u32,
    offset: u64,
}

impl Listed {
    fn place(self, data_start: usize, file_bytes: usize) -> Result<Tensor, String> {
        let block = block_of(self.kind)
            .ok_or(format!("has the element type {}, which is not supported", self.kind))?;
        let numbers = self.sizes.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        let numbers = numbers.filter(|numbers| numbers.is_multiple_of(block.numbers));
        let bytes = numbers.and_then(|n| (n / block.numbers).checked_mul(block.bytes));
        let start = usize::try_from(self.offset).ok().and_then(|at| at.checked_add(data_start));
        match (start, start.zip(bytes).and_then(|(start, bytes)| start.checked_add(bytes))) {
            (Some(start), Some(end)) if end <= file_bytes => {
                Ok(Tensor { sizes: self.sizes, block, range: start..end })
            }
            _ => Err(format!("of sizes {:?} does not fit into the file", self.sizes)),
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Contents = (BTreeMap<String, Setting>, Vec<(String, Listed)>);

/// Sizes of a tensor; the format allows no more.
const DIMENSIONS_MAX: u32 = 4;

impl Cursor<'_> {
    fn contents(&mut self) -> Result<Contents, String> {
        if self.take(4)? != b"GGUF" {
            return Err("it does not begin with GGUF".into());
        }
        let version = self.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(format!("it has version {version}, but 2 and 3 are supported"));
        }
        let (tensor_count, setting_count) = (self.u64()?, self.u64()?);
        let mut settings = BTreeMap::new();
        for _ in 0..setting_count {
            let name = self.text()?;
            let kind = self.u32()?;
            settings.insert(name, self.setting(kind)?);
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            let name = self.text()?;
            let dimensions = self.u32()?;
            if dimensions > DIMENSIONS_MAX {
                return Err(format!("tensor {name:?} has {dimensions} dimensions"));
            }
            let mut sizes = Vec::new();
            for _ in 0..dimensions {
                sizes.push(usize::try_from(self.u64()?).map_err(|error| error.to_string())?);
            }
            tensors.push((name, Listed { sizes, kind: self.u32()?, offset: self.u64()? }));
        }
        Ok((settings, tensors))
    }

    fn setting(&mut self, kind: u32) -> Result<Setting, String> {
        Ok(match kind {
            0 | 7 => Setting::Integer(u64::from(self.take(1)?[0])),
            2 => Setting::Integer(u64::from(u16::from_le_bytes(self.array()?))),
            4 => Setting::Integer(u64::from(self.u32()?)),
            10 => Setting::Integer(self.u64()?),
            5 => i32::from_le_bytes(self.array()?)
                .try_into()
                .map_or(Setting::Other, Setting::Integer),
            11 => i64::from_le_bytes(self.array()?)
                .try_into()
                .map_or(Setting::Other, Setting::Integer),
            1 => self.skip(1)?,
            3 => self.skip(2)?,
            6 => Setting::Float(f64::from(f32::from_le_bytes(self.array()?))),
            12 => Setting::Float(f64::from_le_bytes(self.array()?)),
            8 => Setting::Text(self.text()?),
            9 => self.list()?,
            other => return Err(format!("it has a setting of the unknown type {other}")),
        })
    }

    fn list(&mut self) -> Result<Setting, String> {
        let (kind, count) = (self.u32()?, self.u64()?);
        if kind == 8 {
            let mut texts = Vec::new();
            for _ in 0..count {
                texts.push(self.text()?);
            }
            return Ok(Setting::Texts(texts));
        }
        let bytes: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            other => return Err(format!("it has a list of the type {other}")),
        };
        let bytes = bytes.checked_mul(count).and_then(|bytes| usize::try_from(bytes).ok());
        self.skip(bytes.ok_or("it has a list without end")?)
    }

    fn skip(&mut self, count: usize) -> Result<Setting, String> {
        self.take(count).map(|_| Setting::Other)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).map_err(|error| error.to_string())?;
        let at = self.at;
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| format!("the text at byte {at} is not UTF-8"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.first_chunk().copied().ok_or_else(|| "it is cut off".into())
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return Err(format!("it is cut off after byte {}", self.at)) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8]) -> String {
        match Gguf::parse("m.gguf", bytes.to_vec()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("a damaged file was accepted"),
        }
    }

    #[test]
    fn a_file_that_is_cut_off_or_of_another_version_says_so() {
        assert!(reason(b"GGML....").contains("does not begin with GGUF"));
        assert!(reason(b"GGUF\x01\0\0\0").contains("version 1, but 2 and 3"));
        assert!(reason(b"GGUF\x03\0\0\0\x01").contains("cut off after byte 8"));
        let endless = [&b"GGUF\x03\0\0\0"[..], &[0xFF; 16]].concat();
        assert!(reason(&endless).contains("cut off"), "no memory is taken for what is not there");
    }

    #[test]
    fn names_of_the_checkpoint_lead_to_names_of_the_file() {
        for (name, stored) in [
            ("embeddings.word_embeddings.weight", "token_embd.weight"),
            ("embeddings.LayerNorm.bias", "token_embd_norm.bias"),
            ("encoder.layer.11.attention.self.key.bias", "blk.11.attn_k.bias"),
            ("encoder.layer.0.output.dense.weight", "blk.0.ffn_down.weight"),
        ] {
            assert_eq!(stored_name(name), stored);
        }
    }
}
