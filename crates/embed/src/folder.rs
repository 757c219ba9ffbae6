//! A model from a folder, in the layout of sentence-transformers or of Model2Vec.
//!
//! | file | what is read of it |
//! |---|---|
//! | `model.onnx`, `onnx/model.onnx` or one `onnx/model*.onnx` | the graph |
//! | `tokenizer.json`, or `vocab.txt` with `tokenizer_config.json` | the tokeniser |
//! | `modules.json` | whether vectors are normalised; modules that are unknown are refused |
//! | `1_Pooling/config.json` | mean or first token |
//! | `sentence_bert_config.json`, `config.json` | how many tokens are read |
//! | `config_sentence_transformers.json` | what is put before queries and passages |
//! | `model.safetensors` with a tensor `embeddings` | a static table instead of a graph |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::embedder::Embedder;
use crate::error::EmbedError;
use crate::model_file::{self, ModelBytes, SETTINGS_BYTES_MAX, WEIGHTS_BYTES_MAX, fingerprint};
use crate::static_model::StaticModel;
use crate::tokenizer_file::{TokenizerFile, case_of};
use crate::transformer::{Pooling, Transformer, TransformerSettings};

/// Tokens read of a text at most, whatever the model allows: passages are shorter, and the cost of
/// attention grows with the square.
const TOKENS_MAX: usize = 512;

/// What sentence-transformers calls the modules that are understood here, without their package.
const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// What a folder held.
#[derive(Debug)]
pub enum FolderModel {
    /// A token table: fast enough to embed passages while they are written.
    Static(StaticModel),
    /// A transformer.
    Transformer(Transformer),
}

impl FolderModel {
    /// The model, whichever it is.
    pub fn into_embedder(self) -> Arc<dyn Embedder> {
        match self {
            Self::Static(model) => Arc::new(model),
            Self::Transformer(model) => Arc::new(model),
        }
    }
}

/// Opens the model at `path`: a folder, or one of its `.onnx` files when there are several.
///
/// # Errors
/// [`EmbedError::Missing`], [`EmbedError::Unreadable`], [`EmbedError::TooLarge`],
/// [`EmbedError::Damaged`], [`EmbedError::UnsupportedTokenizer`], [`EmbedError::UnsupportedModel`].
pub fn open_folder(path: &Path) -> Result<FolderModel, EmbedError> {
    let folder = ModelFolder::find(path)?;
    let tokenizer = folder.tokenizer()?;
    match &folder.weights {
        Weights::Onnx(file) => folder.transformer(file, tokenizer).map(FolderModel::Transformer),
        Weights::Table(file) => folder.table(file, tokenizer).map(FolderModel::Static),
    }
}

struct ModelFolder {
    root: PathBuf,
    weights: Weights,
    /// `config.json`; null when there is none.
    config: Value,
}

enum Weights {
    Onnx(PathBuf),
    Table(PathBuf),
}

/// A tokeniser and the bytes that decided it.
struct FoundTokenizer {
    tokenizer: TokenizerFile,
    bytes: Vec<u8>,
}

impl ModelFolder {
    fn find(path: &Path) -> Result<Self, EmbedError> {
        let named = path.extension().is_some_and(|extension| extension == "onnx");
        let root = match named {
            true => root_of(path),
            false => path.to_owned(),
        };
        if !model_file::is_folder(&root) {
            return Err(EmbedError::Missing { path: root, wanted: "model folder" });
        }
        let mut folder =
            Self { root, weights: Weights::Onnx(path.to_owned()), config: Value::Null };
        folder.config = folder.json("config.json")?;
        if !named {
            folder.weights = folder.find_weights()?;
        }
        Ok(folder)
    }

    fn find_weights(&self) -> Result<Weights, EmbedError> {
        let table = self.root.join("model.safetensors");
        if self.config["model_type"] == "model2vec" && model_file::is_file(&table) {
            return Ok(Weights::Table(table));
        }
        for name in ["model.onnx", "onnx/model.onnx"] {
            let file = self.root.join(name);
            if model_file::is_file(&file) {
                return Ok(Weights::Onnx(file));
            }
        }
        let mut others = onnx_files(&self.root.join("onnx"))?;
        match others.len() {
            0 => Err(EmbedError::Missing {
                path: self.root.clone(),
                wanted: "model.onnx, onnx/model*.onnx or Model2Vec model.safetensors",
            }),
            1 => Ok(Weights::Onnx(others.remove(0))),
            _ => Err(EmbedError::UnsupportedModel {
                file: self.root.display().to_string(),
                reason: format!(
                    "it has {} ONNX files and none is called model.onnx: give the path of one, \
                     such as {}",
                    others.len(),
                    others[0].display()
                ),
            }),
        }
    }

    fn tokenizer(&self) -> Result<FoundTokenizer, EmbedError> {
        let wanted = "tokenizer.json or vocab.txt";
        let path = self.root.join("tokenizer.json");
        if let Some(bytes) = model_file::read_optional(&path, wanted, SETTINGS_BYTES_MAX)? {
            let tokenizer = TokenizerFile::from_json(&path.display().to_string(), &bytes)?;
            return Ok(FoundTokenizer { tokenizer, bytes });
        }
        let path = self.root.join("vocab.txt");
        let mut bytes = model_file::read(&path, wanted, SETTINGS_BYTES_MAX)?;
        let config = self.json("tokenizer_config.json")?;
        let lowercase = config["do_lower_case"].as_bool().unwrap_or(true);
        let strip_accents = config["strip_accents"].as_bool().unwrap_or(lowercase);
        let case = case_of(lowercase, strip_accents);
        let tokenizer = TokenizerFile::from_vocabulary(&path.display().to_string(), &bytes, case)?;
        bytes.extend([u8::from(lowercase), u8::from(strip_accents)]);
        Ok(FoundTokenizer { tokenizer, bytes })
    }

    fn table(&self, file: &Path, found: FoundTokenizer) -> Result<StaticModel, EmbedError> {
        let weights = model_file::read(file, "Model2Vec table", WEIGHTS_BYTES_MAX)?;
        let config = format!(
            "normalize {} seq_length {}",
            self.config["normalize"], self.config["seq_length"]
        );
        let sha256 = fingerprint(&[
            ("weights", &weights),
            ("tokenizer", &found.bytes),
            ("config", config.as_bytes()),
        ]);
        StaticModel::open(
            &self.name(),
            sha256,
            ModelBytes::Owned(weights),
            &self.config,
            found.tokenizer.wordpiece,
        )
    }

    fn transformer(&self, file: &Path, found: FoundTokenizer) -> Result<Transformer, EmbedError> {
        let weights = model_file::read(file, "ONNX model", WEIGHTS_BYTES_MAX)?;
        let mut settings = self.settings()?;
        settings.sha256 = fingerprint(&[
            ("weights", &weights),
            ("tokenizer", &found.bytes),
            ("pooling", settings.pooling.as_str().as_bytes()),
            ("normalised", &[u8::from(settings.normalised)]),
            ("tokens_max", &(settings.tokens_max as u64).to_le_bytes()),
            ("query_prompt", settings.query_prompt.as_bytes()),
            ("passage_prompt", settings.passage_prompt.as_bytes()),
        ]);
        settings.name = self.name();
        Transformer::open(settings, ModelBytes::Owned(weights), found.tokenizer)
    }

    /// What the configuration files say; name and hash are left empty.
    fn settings(&self) -> Result<TransformerSettings, EmbedError> {
        let prompts = self.json("config_sentence_transformers.json")?;
        let fallback = prompts["default_prompt_name"].as_str().unwrap_or("");
        let prompt = |names: &[&str]| -> String {
            let named = names.iter().find_map(|name| prompts["prompts"][*name].as_str());
            named.or(prompts["prompts"][fallback].as_str()).unwrap_or("").to_owned()
        };
        Ok(TransformerSettings {
            name: String::new(),
            sha256: String::new(),
            pooling: self.pooling()?,
            normalised: self.normalised()?,
            tokens_max: self.tokens_max()?,
            query_prompt: prompt(&["query"]),
            passage_prompt: prompt(&["document", "passage"]),
        })
    }

    fn pooling(&self) -> Result<Pooling, EmbedError> {
        let config = self.json("1_Pooling/config.json")?;
        let unsupported = |reason: String| EmbedError::UnsupportedModel {
            file: self.root.join("1_Pooling/config.json").display().to_string(),
            reason,
        };
        if config["include_prompt"].as_bool() == Some(false) {
            return Err(unsupported("include_prompt false is not supported".into()));
        }
        let modes: Vec<&str> = match config["pooling_mode"].as_str() {
            Some(mode) => vec![mode],
            None => config.as_object().map_or_else(Vec::new, |settings| {
                let chosen = settings.iter().filter(|(_, value)| value.as_bool() == Some(true));
                chosen.filter_map(|(name, _)| name.strip_prefix("pooling_mode_")).collect()
            }),
        };
        match modes[..] {
            [] | ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
            ["cls_token" | "cls"] => Ok(Pooling::First),
            _ => Err(unsupported(format!("pooling {modes:?} is not supported, only mean and cls"))),
        }
    }

    /// Whether vectors are scaled to length 1: as `modules.json` says, and yes without one.
    fn normalised(&self) -> Result<bool, EmbedError> {
        let modules = self.json("modules.json")?;
        let Some(modules) = modules.as_array() else { return Ok(true) };
        let names = modules.iter().map(|module| {
            let name = module["type"].as_str().unwrap_or("");
            name.rsplit('.').next().unwrap_or(name)
        });
        match names.clone().find(|name| !MODULES.contains(name)) {
            Some(unknown) => Err(EmbedError::UnsupportedModel {
                file: self.root.join("modules.json").display().to_string(),
                reason: format!("the module {unknown:?} is not supported"),
            }),
            None => Ok(names.clone().any(|name| name == "Normalize")),
        }
    }

    fn tokens_max(&self) -> Result<usize, EmbedError> {
        let stated = self.json("sentence_bert_config.json")?["max_seq_length"].as_u64();
        let positions = self.config["max_position_embeddings"].as_u64();
        let tokens = [stated, positions].into_iter().flatten().min().unwrap_or(u64::MAX);
        // Below this, nothing is left between the tokens around a text.
        const TOKENS_MIN: usize = 8;
        Ok(usize::try_from(tokens).unwrap_or(TOKENS_MAX).clamp(TOKENS_MIN, TOKENS_MAX))
    }

    fn json(&self, name: &str) -> Result<Value, EmbedError> {
        let path = self.root.join(name);
        match model_file::read_optional(&path, "configuration", SETTINGS_BYTES_MAX)? {
            Some(bytes) => model_file::json(&path.display().to_string(), &bytes),
            None => Ok(Value::Null),
        }
    }

    /// The folder's own name: the rest of the path differs between machines.
    fn name(&self) -> String {
        let name = self.root.file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.root.display().to_string())
    }
}

/// The model folder of an ONNX file, which may lie in its subfolder `onnx`.
fn root_of(file: &Path) -> PathBuf {
    let parent = file.parent().unwrap_or(Path::new("."));
    match parent.file_name().is_some_and(|name| name == "onnx") {
        true => parent.parent().unwrap_or(parent).to_owned(),
        false => parent.to_owned(),
    }
}

/// Files `model*.onnx` in `folder`, sorted by name.
fn onnx_files(folder: &Path) -> Result<Vec<PathBuf>, EmbedError> {
    let mut files = model_file::list(folder)?;
    files.retain(|file| {
        let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        name.starts_with("model") && name.ends_with(".onnx")
    });
    Ok(files)
}
