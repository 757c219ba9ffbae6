//! Models from folders: what is read of them and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_embed::{BuiltIn, EmbedError, Embedder, Kind, StaticModel, Transformer};
use tempfile::TempDir;

use crate::contract::{self, Tolerance};

fn models() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../models")
}

/// A folder in the layout of sentence-transformers with the built-in MiniLM in it.
fn minilm_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("onnx")).unwrap();
    let onnx = folder.path().join("onnx/model.onnx");
    fs::copy(models().join("minilm-l6-v2-int8.onnx"), onnx).unwrap();
    fs::copy(models().join("vocab.txt"), folder.path().join("vocab.txt")).unwrap();
    write(&folder, "config.json", r#"{"model_type": "bert", "max_position_embeddings": 512}"#);
    write(&folder, "sentence_bert_config.json", r#"{"max_seq_length": 256}"#);
    folder
}

fn open_folder(path: &Path) -> Result<Arc<dyn Embedder>, EmbedError> {
    mainstay_embed::open_folder(path).map(mainstay_embed::FolderModel::into_embedder)
}

fn write(folder: &TempDir, name: &str, content: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn refused(folder: &TempDir) -> EmbedError {
    open_folder(folder.path()).unwrap_err()
}

#[test]
fn an_onnx_folder_gives_the_vectors_of_the_built_in_model() {
    let folder = minilm_folder();
    let model = open_folder(folder.path()).unwrap();
    let texts = ["the log is the truth", "", "a second, somewhat longer text"];
    let expected = Transformer::built_in().unwrap().embed(&texts, Kind::Passage).unwrap();
    let vectors = model.embed(&texts, Kind::Passage).unwrap();
    for (a, b) in vectors.as_slice().iter().zip(expected.as_slice()) {
        assert!((a - b).abs() < 1e-6);
    }
    let identity = model.identity();
    assert_eq!((identity.dimension, identity.tokens_max), (384, 256));
    contract::check(&*model, &Tolerance(0.0));
}

#[test]
fn a_model2vec_folder_gives_the_vectors_of_the_built_in_table() {
    let model = open_folder(&models().join("static-256")).unwrap();
    let texts = ["the log is the truth", "", "camelCase and snake_case"];
    let expected = StaticModel::built_in().unwrap().embed(&texts, Kind::Passage).unwrap();
    assert_eq!(model.embed(&texts, Kind::Passage).unwrap(), expected);
    assert_eq!(model.identity().name, "static-256");
}

#[test]
fn the_hash_changes_with_anything_that_changes_vectors_and_with_nothing_else() {
    let folder = minilm_folder();
    let hash = || open_folder(folder.path()).unwrap().identity().sha256.clone();
    let before = hash();
    write(&folder, "README.md", "nothing that matters");
    assert_eq!(hash(), before);
    write(&folder, "sentence_bert_config.json", r#"{"max_seq_length": 128}"#);
    let shorter = hash();
    assert_ne!(shorter, before);
    write(&folder, "config_sentence_transformers.json", r#"{"prompts": {"query": "query: "}}"#);
    assert_ne!(hash(), shorter);
}

#[test]
fn prompts_are_put_before_queries_and_passages() {
    let folder = minilm_folder();
    let plain = open_folder(folder.path()).unwrap();
    let prompts = r#"{"prompts": {"query": "query: ", "passage": "passage: "}}"#;
    write(&folder, "config_sentence_transformers.json", prompts);
    let prompted = open_folder(folder.path()).unwrap();
    for (kind, text) in [(Kind::Query, "query: log"), (Kind::Passage, "passage: log")] {
        let expected = plain.embed(&[text], kind).unwrap();
        assert_eq!(prompted.embed(&["log"], kind).unwrap(), expected);
        let empty = prompted.embed(&[""], kind).unwrap();
        assert!(empty.as_slice().iter().all(|number| *number == 0.0));
    }
}

#[test]
fn one_of_several_onnx_files_is_chosen_by_its_path() {
    let folder = minilm_folder();
    let onnx = folder.path().join("onnx");
    fs::rename(onnx.join("model.onnx"), onnx.join("model_int8.onnx")).unwrap();
    assert!(open_folder(folder.path()).is_ok(), "the only one needs no choice");
    fs::copy(onnx.join("model_int8.onnx"), onnx.join("model_other.onnx")).unwrap();
    let error = refused(&folder).to_string();
    assert!(error.contains("2 models") && error.contains("model_int8.onnx"), "{error}");
    assert_eq!(
        open_folder(&onnx.join("model_other.onnx")).unwrap().identity().dimension,
        BuiltIn::MiniLm.identity().dimension
    );
}

#[test]
fn missing_files_are_named() {
    let error = open_folder(Path::new("/no/such/model")).unwrap_err();
    assert!(error.to_string().contains("/no/such/model"), "{error}");
    let folder = minilm_folder();
    fs::remove_file(folder.path().join("vocab.txt")).unwrap();
    let error = refused(&folder);
    assert!(error.to_string().contains("tokenizer.json or vocab.txt"), "{error}");
    let folder = minilm_folder();
    fs::remove_file(folder.path().join("onnx/model.onnx")).unwrap();
    assert!(matches!(refused(&folder), EmbedError::Missing { .. }));
}

#[test]
fn truncated_weights_are_refused_at_any_length() {
    let folder = minilm_folder();
    let onnx = folder.path().join("onnx/model.onnx");
    let whole = fs::read(&onnx).unwrap();
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&onnx, &whole[..length]).unwrap();
        let error = refused(&folder);
        assert!(matches!(error, EmbedError::Damaged { .. }), "{length}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(models().join("static-256").join(name), folder.path().join(name)).unwrap();
    }
    let table = folder.path().join("model.safetensors");
    let whole = fs::read(&table).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&table, &whole[..length]).unwrap();
        let error = refused(&folder);
        assert!(matches!(error, EmbedError::Damaged { .. }), "{length}: {error}");
    }
}

#[test]
fn settings_that_would_be_ignored_are_refused_by_name() {
    for (name, content, expected) in [
        ("modules.json", r#"[{"type": "sentence_transformers.models.Dense"}]"#, "\"Dense\""),
        ("1_Pooling/config.json", r#"{"pooling_mode_max_tokens": true}"#, "max_tokens"),
        ("1_Pooling/config.json", r#"{"include_prompt": false}"#, "include_prompt"),
        ("tokenizer.json", r#"{"model": {"type": "Unigram"}}"#, "Unigram"),
        ("config.json", r#"{"model_type": "#, "config.json is damaged"),
    ] {
        let folder = minilm_folder();
        write(&folder, name, content);
        let error = refused(&folder).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

fn fixtures() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/it/fixtures")
}

/// Compares with what `models/reproduce/tiny_bert.py` computed without this crate.
fn agrees_with_the_reference(model: &dyn Embedder, vectors: &Path) {
    for line in fs::read_to_string(vectors).unwrap().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = record["text"].as_str().unwrap();
        let expected: Vec<f32> = serde_json::from_value(record["vector"].clone()).unwrap();
        let vector = model.embed(&[text], Kind::Passage).unwrap().into_data();
        for (a, b) in vector.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4, "{text}: {vector:?} instead of {expected:?}");
        }
    }
}

/// S5: a sentence model in safetensors.
#[test]
fn a_bert_checkpoint_in_safetensors_gives_the_vectors_of_the_reference() {
    let folder = fixtures().join("tiny-bert");
    let model = open_folder(&folder).unwrap();
    assert_eq!((model.identity().dimension, model.identity().tokens_max), (32, 64));
    agrees_with_the_reference(&*model, &folder.join("vectors.jsonl"));
    // f32 weights: short texts share an inference, which changes the last digits at most.
    contract::check(&*model, &Tolerance(1e-5));
}

/// S5: a sentence model in GGUF, with every element type that is read.
#[test]
fn a_bert_model_in_gguf_gives_the_vectors_of_the_reference() {
    let model = open_folder(&fixtures().join("tiny-bert.gguf")).unwrap();
    assert_eq!(model.identity().name, "tiny-bert");
    agrees_with_the_reference(&*model, &fixtures().join("tiny-bert.jsonl"));
    contract::check(&*model, &Tolerance(1e-5));
}

#[test]
fn a_folder_with_one_gguf_file_is_that_model() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixtures().join("tiny-bert.gguf"), folder.path().join("a.gguf")).unwrap();
    assert_eq!(open_folder(folder.path()).unwrap().identity().name, "a");
    fs::copy(fixtures().join("tiny-bert.gguf"), folder.path().join("b.gguf")).unwrap();
    assert!(refused(&folder).to_string().contains("2 models"));
}

#[test]
fn a_checkpoint_that_is_no_plain_bert_is_refused_by_name() {
    for (from, to, expected) in [
        ("\"bert\"", "\"mpnet\"", "model_type mpnet"),
        ("\"gelu\"", "\"relu\"", "hidden_act relu"),
        ("\"hidden_size\": 32", "\"hidden_size\": 33", "impossible"),
        ("\"hidden_size\": 32", "\"hidden_size\": 0", "impossible"),
        ("\"hidden_size\": 32", "\"hidden_size\": 64", "has shape"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "encoder.layer.2"),
        ("\"vocab_size\"", "\"words\"", "vocab_size is null"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for name in ["model.safetensors", "vocab.txt"] {
            fs::copy(fixtures().join("tiny-bert").join(name), folder.path().join(name)).unwrap();
        }
        let config = fs::read_to_string(fixtures().join("tiny-bert/config.json")).unwrap();
        assert!(config.contains(from));
        write(&folder, "config.json", &config.replace(from, to));
        let error = refused(&folder).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Changed and cut files give a model or an error, never a panic and never memory without bound.
#[test]
fn a_damaged_gguf_file_is_refused_or_opened_without_a_panic() {
    let whole = fs::read(fixtures().join("tiny-bert.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    for length in (0..whole.len()).step_by(491) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open_folder(&path).unwrap_err();
        assert!(matches!(error, EmbedError::Damaged { .. }), "{length}: {error}");
    }
    let mut opened = 0;
    for change in 0..200usize {
        let mut damaged = whole.clone();
        // The header ends before byte 3,000; there each change matters most.
        let at = change * 7919 % 3000;
        damaged[at] ^= 1 << (change % 8);
        fs::write(&path, &damaged).unwrap();
        opened += usize::from(open_folder(&path).is_ok());
    }
    assert!(opened < 200, "some change must matter");
}
