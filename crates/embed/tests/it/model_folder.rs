//! Models from folders: what is read of them and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_embed::{BuiltIn, EmbedError, Embedder, Kind, StaticModel, Transformer};
use tempfile::TempDir;

use crate::contract::{self, Tolerance};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
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
    assert!(error.contains("2 ONNX files") && error.contains("model_int8.onnx"), "{error}");
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
