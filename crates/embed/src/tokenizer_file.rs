//! Reader of a model's tokeniser: `tokenizer.json`, or a bare `vocab.txt`.

use serde_json::Value;

use crate::error::EmbedError;
use crate::model_file;
use crate::wordpiece::{Case, WordPiece};

/// A tokeniser with what a transformer puts around a text.
#[derive(Debug, Clone)]
pub(crate) struct TokenizerFile {
    pub(crate) wordpiece: WordPiece,
    /// Tokens before each text: `[CLS]`.
    pub(crate) before: Vec<u32>,
    /// Tokens after each text: `[SEP]`.
    pub(crate) after: Vec<u32>,
    /// What fills short texts of a batch up.
    pub(crate) padding: u32,
}

impl TokenizerFile {
    /// Reads the one-piece-a-line vocabulary of BERT; the line number is the token.
    ///
    /// # Errors
    /// [`EmbedError::Damaged`] when the text is not UTF-8 or one of `[UNK] [CLS] [SEP] [PAD]` is
    /// missing.
    pub(crate) fn from_vocabulary(
        file: &str,
        bytes: &[u8],
        case: Case,
    ) -> Result<Self, EmbedError> {
        let text = model_file::text(file, bytes)?;
        let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let lines = lines.map(|line| line.strip_suffix('\r').unwrap_or(line));
        let find = |piece: &str| {
            let id = lines.clone().position(|line| line == piece).ok_or_else(|| {
                EmbedError::Damaged { file: file.to_owned(), reason: format!("it has no {piece}") }
            })?;
            // A file within the size bound has fewer lines than u32 counts.
            Ok(id as u32)
        };
        let (unknown, padding) = (find("[UNK]")?, find("[PAD]")?);
        let (before, after) = (find("[CLS]")?, find("[SEP]")?);
        let literals = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
            .iter()
            .filter_map(|literal| Some(((*literal).to_owned(), find(literal).ok()?)))
            .collect();
        let pieces = (0u32..).zip(lines.clone()).map(|(id, piece)| (piece.to_owned(), id));
        let wordpiece = WordPiece::new(pieces, "##", unknown, literals, case);
        Ok(Self { wordpiece, before: vec![before], after: vec![after], padding })
    }

    /// Reads a `tokenizer.json` and refuses what the WordPiece here would do otherwise.
    ///
    /// # Errors
    /// [`EmbedError::Damaged`], [`EmbedError::UnsupportedTokenizer`].
    pub(crate) fn from_json(file: &str, bytes: &[u8]) -> Result<Self, EmbedError> {
        let reader = JsonReader { file, json: &model_file::json(file, bytes)? };
        let case = reader.case()?;
        let vocabulary = reader.vocabulary()?;
        let wordpiece = reader.wordpiece(&vocabulary, case)?;
        let (before, after) = reader.frame(&wordpiece)?;
        let padding = match reader.json["padding"]["pad_id"].as_u64() {
            Some(id) => u32::try_from(id).unwrap_or(0),
            None => wordpiece.id_of("[PAD]").or(wordpiece.id_of("<pad>")).unwrap_or(0),
        };
        Ok(Self { wordpiece, before, after, padding })
    }
}

struct JsonReader<'a> {
    file: &'a str,
    json: &'a Value,
}

impl JsonReader<'_> {
    fn unsupported(&self, found: impl Into<String>) -> EmbedError {
        EmbedError::UnsupportedTokenizer { file: self.file.to_owned(), found: found.into() }
    }

    fn damaged(&self, reason: impl Into<String>) -> EmbedError {
        EmbedError::Damaged { file: self.file.to_owned(), reason: reason.into() }
    }

    /// The rules for case and accents, after a check that all other rules are the usual ones.
    fn case(&self) -> Result<Case, EmbedError> {
        let kind = |part: &str| self.json[part]["type"].as_str().unwrap_or("none").to_owned();
        for (part, wanted) in [
            ("model", "WordPiece"),
            ("normalizer", "BertNormalizer"),
            ("pre_tokenizer", "BertPreTokenizer"),
        ] {
            if kind(part) != wanted {
                return Err(self.unsupported(format!("the {part} {}", kind(part))));
            }
        }
        let model = &self.json["model"];
        if model["max_input_chars_per_word"].as_u64().is_some_and(|chars| chars != 100) {
            return Err(self.unsupported("another max_input_chars_per_word than 100"));
        }
        let normalizer = &self.json["normalizer"];
        for rule in ["clean_text", "handle_chinese_chars"] {
            if normalizer[rule].as_bool() == Some(false) {
                return Err(self.unsupported(format!("{rule} false")));
            }
        }
        let lowercase = normalizer["lowercase"].as_bool().unwrap_or(true);
        let strip_accents = normalizer["strip_accents"].as_bool().unwrap_or(lowercase);
        Ok(case_of(lowercase, strip_accents))
    }

    fn vocabulary(&self) -> Result<Vec<(String, u32)>, EmbedError> {
        let vocabulary = self.json["model"]["vocab"]
            .as_object()
            .ok_or_else(|| self.damaged("model.vocab is no object"))?;
        vocabulary.iter().map(|(piece, id)| Ok((piece.clone(), self.token(piece, id)?))).collect()
    }

    fn token(&self, piece: &str, id: &Value) -> Result<u32, EmbedError> {
        id.as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| self.damaged(format!("the number of {piece:?} is {id}")))
    }

    fn wordpiece(&self, vocabulary: &[(String, u32)], case: Case) -> Result<WordPiece, EmbedError> {
        let model = &self.json["model"];
        let unknown = model["unk_token"].as_str().unwrap_or("[UNK]");
        let unknown =
            vocabulary.iter().find(|(piece, _)| piece == unknown).map(|(_, id)| *id).ok_or_else(
                || self.damaged(format!("unk_token {unknown:?} is not in the vocabulary")),
            )?;
        let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("##");
        if prefix.is_empty() {
            return Err(self.unsupported("an empty continuing_subword_prefix"));
        }
        let literals = self.literals()?;
        let pieces = vocabulary.iter().cloned();
        Ok(WordPiece::new(pieces, prefix, unknown, literals, case))
    }

    fn literals(&self) -> Result<Vec<(String, u32)>, EmbedError> {
        let added = self.json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        added
            .iter()
            .map(|token| {
                let content = token["content"].as_str().unwrap_or("");
                let plain = token["normalized"].as_bool() != Some(true)
                    && token["single_word"].as_bool() != Some(true)
                    && content.starts_with(['[', '<']);
                match plain {
                    true => Ok((content.to_owned(), self.token(content, &token["id"])?)),
                    false => Err(self.unsupported(format!("the added token {content:?}"))),
                }
            })
            .collect()
    }

    /// The tokens before and after a text.
    fn frame(&self, wordpiece: &WordPiece) -> Result<(Vec<u32>, Vec<u32>), EmbedError> {
        let processor = &self.json["post_processor"];
        match processor["type"].as_str() {
            None => Ok((Vec::new(), Vec::new())),
            Some("BertProcessing" | "RobertaProcessing") => {
                let token = |end: &str| self.token(end, &processor[end][1]);
                Ok((vec![token("cls")?], vec![token("sep")?]))
            }
            Some("TemplateProcessing") => self.template(&processor["single"], wordpiece),
            Some(other) => Err(self.unsupported(format!("the post_processor {other}"))),
        }
    }

    fn template(
        &self,
        steps: &Value,
        wordpiece: &WordPiece,
    ) -> Result<(Vec<u32>, Vec<u32>), EmbedError> {
        let steps = steps.as_array().ok_or_else(|| self.damaged("post_processor has no single"))?;
        let (mut before, mut after, mut seen_text) = (Vec::new(), Vec::new(), false);
        for step in steps {
            match step["SpecialToken"]["id"].as_str() {
                Some(special) => {
                    let id = wordpiece.id_of(special).ok_or_else(|| {
                        self.damaged(format!("{special:?} is not in the vocabulary"))
                    })?;
                    if seen_text { &mut after } else { &mut before }.push(id);
                }
                None => seen_text = true,
            }
        }
        Ok((before, after))
    }
}

/// The rules for case and accents as one value.
pub(crate) fn case_of(lowercase: bool, strip_accents: bool) -> Case {
    match (lowercase, strip_accents) {
        (true, true) => Case::Folded,
        (true, false) => Case::FoldedAccented,
        (false, true) => Case::KeptUnaccented,
        (false, false) => Case::Kept,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn tokenizer() -> Value {
        json!({
            "added_tokens": [
                {"id": 0, "content": "[UNK]", "normalized": false, "single_word": false},
                {"id": 1, "content": "[CLS]", "normalized": false, "single_word": false}
            ],
            "normalizer": {"type": "BertNormalizer", "lowercase": true, "clean_text": true,
                "handle_chinese_chars": true, "strip_accents": null},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing", "single": [
                {"SpecialToken": {"id": "[CLS]"}}, {"Sequence": {"id": "A"}},
                {"SpecialToken": {"id": "[SEP]"}}]},
            "model": {"type": "WordPiece", "unk_token": "[UNK]",
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "ab": 4, "##c": 5}}
        })
    }

    fn read(json: &Value) -> Result<TokenizerFile, EmbedError> {
        TokenizerFile::from_json("tokenizer.json", json.to_string().as_bytes())
    }

    fn tokens(file: &TokenizerFile, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        file.wordpiece.encode(text, 10, &mut tokens);
        tokens
    }

    #[test]
    fn json_and_vocabulary_give_the_same_tokeniser() {
        let from_json = read(&tokenizer()).unwrap();
        let vocabulary = b"[UNK]\n[CLS]\n[SEP]\n[PAD]\nab\n##c\n";
        let from_text =
            TokenizerFile::from_vocabulary("vocab.txt", vocabulary, Case::Folded).unwrap();
        for file in [from_json, from_text] {
            assert_eq!(tokens(&file, "ABc [CLS] ab x"), [4, 5, 1, 4, 0]);
            assert_eq!((file.before, file.after, file.padding), (vec![1], vec![2], 3));
            assert_eq!(file.wordpiece.size(), 6);
        }
    }

    #[test]
    fn bert_processing_frames_like_a_template() {
        let mut json = tokenizer();
        json["post_processor"] =
            json!({"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]});
        let file = read(&json).unwrap();
        assert_eq!((file.before, file.after), (vec![1], vec![2]));
    }

    #[test]
    fn what_would_be_cut_otherwise_is_refused_by_name() {
        for (pointer, value, expected) in [
            ("/model/type", json!("Unigram"), "the model Unigram"),
            ("/normalizer/type", json!("Precompiled"), "the normalizer Precompiled"),
            ("/normalizer", json!(null), "the normalizer none"),
            ("/pre_tokenizer/type", json!("Metaspace"), "the pre_tokenizer Metaspace"),
            ("/normalizer/clean_text", json!(false), "clean_text false"),
            ("/model/max_input_chars_per_word", json!(50), "max_input_chars_per_word"),
            ("/model/continuing_subword_prefix", json!(""), "empty continuing_subword_prefix"),
            ("/added_tokens/0/normalized", json!(true), "the added token \"[UNK]\""),
            ("/post_processor/type", json!("ByteLevel"), "the post_processor ByteLevel"),
        ] {
            let mut json = tokenizer();
            *json.pointer_mut(pointer).unwrap() = value;
            let error = read(&json).unwrap_err();
            assert!(matches!(error, EmbedError::UnsupportedTokenizer { .. }), "{pointer}: {error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_place() {
        for (pointer, value, expected) in [
            ("/model/vocab", json!([]), "model.vocab"),
            ("/model/vocab/ab", json!(-1), "\"ab\""),
            ("/model/unk_token", json!("<unk>"), "<unk>"),
            ("/post_processor/single/0/SpecialToken/id", json!("<s>"), "<s>"),
        ] {
            let mut json = tokenizer();
            *json.pointer_mut(pointer).unwrap() = value;
            let error = read(&json).unwrap_err();
            assert!(matches!(error, EmbedError::Damaged { .. }), "{pointer}: {error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = TokenizerFile::from_json("t", b"{\"model\":").unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
        let error = TokenizerFile::from_vocabulary("v", b"[UNK]\n\xFF", Case::Kept).unwrap_err();
        assert!(error.to_string().contains("byte 6"), "{error}");
        let error = TokenizerFile::from_vocabulary("v", b"[UNK]\n[CLS]", Case::Kept).unwrap_err();
        assert!(error.to_string().contains("no [PAD]"), "{error}");
    }
}
