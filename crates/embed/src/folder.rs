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
//! | `model.safetensors` | a BERT checkpoint when there is no graph; a static table when `config.json` says `model2vec` |
//! | `*.gguf` | a BERT model with its tokeniser; no other file is read then |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::bert::{BertSizes, onnx_from};
use crate::checkpoint::Checkpoint;
use crate::embedder::Embedder;
use crate::error::EmbedError;
use crate::gguf::Gguf;
use crate::model_file::{self, ModelBytes, SETTINGS_BYTES_MAX, WEIGHTS_BYTES_MAX, fingerprint};
use crate::safetensors::Safetensors;
use crate::static_model::StaticModel;
use crate::tokenizer_file::{TokenizerFile, case_of};
use crate::transformer::{Pooling, Transformer, TransformerSettings};

/// Tokens read of a text at most, whatever the model allows: passages are shorter, and the cost of
/// attention grows with the square.
const TOKENS_MAX: usize = 512;

/// Tokens read of a text at least: below this, nothing is left between the tokens around it.
const TOKENS_MIN: usize = 8;

/// What sentence-transformers calls the modules that are understood here, without their package.
const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// What a folder held.
#[derive(Debug)]
pub enum FolderModel {
    /// A token table: fast enough to embed passages while they are written.
    Static(Arc<StaticModel>),
    /// A transformer.
    Transformer(Arc<Transformer>),
}

impl FolderModel {
    /// The model, whichever it is.
    pub fn into_embedder(self) -> Arc<dyn Embedder> {
        match self {
            Self::Static(model) => model,
            Self::Transformer(model) => model,
        }
    }
}

/// Opens the model at `path`: a folder, one of its `.onnx` files when there are several, or a
/// `.gguf` file.
///
/// # Errors
/// [`EmbedError::Missing`], [`EmbedError::Unreadable`], [`EmbedError::TooLarge`],
/// [`EmbedError::Damaged`], [`EmbedError::UnsupportedTokenizer`], [`EmbedError::UnsupportedModel`].
pub fn open_folder(path: &Path) -> Result<FolderModel, EmbedError> {
    let folder = ModelFolder::find(path)?;
    if let Weights::Gguf(file) = &folder.weights {
        return open_gguf(file).map(|model| FolderModel::Transformer(Arc::new(model)));
    }
    let tokenizer = folder.tokenizer()?;
    match &folder.weights {
        Weights::Table(file) => {
            folder.table(file, tokenizer).map(|model| FolderModel::Static(Arc::new(model)))
        }
        weights => {
            let model = folder.transformer(weights, tokenizer)?;
            Ok(FolderModel::Transformer(Arc::new(model)))
        }
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
    Checkpoint(PathBuf),
    Gguf(PathBuf),
}

/// A tokeniser and the bytes that decided it.
struct FoundTokenizer {
    tokenizer: TokenizerFile,
    bytes: Vec<u8>,
}

impl ModelFolder {
    fn find(path: &Path) -> Result<Self, EmbedError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let (root, weights) = match extension {
            Some("onnx") => (root_of(path), Some(Weights::Onnx(path.to_owned()))),
            Some("gguf") => (root_of(path), Some(Weights::Gguf(path.to_owned()))),
            _ => (path.to_owned(), None),
        };
        if !model_file::is_folder(&root) {
            return Err(EmbedError::Missing { path: root, wanted: "model folder" });
        }
        let named = weights.is_some();
        let weights = weights.unwrap_or(Weights::Table(PathBuf::new()));
        let mut folder = Self { root, weights, config: Value::Null };
        folder.config = folder.json("config.json")?;
        if !named {
            folder.weights = folder.find_weights()?;
        }
        Ok(folder)
    }

    fn find_weights(&self) -> Result<Weights, EmbedError> {
        let safetensors = self.root.join("model.safetensors");
        let has_safetensors = model_file::is_file(&safetensors);
        if self.config["model_type"] == "model2vec" && has_safetensors {
            return Ok(Weights::Table(safetensors));
        }
        for name in ["model.onnx", "onnx/model.onnx"] {
            let file = self.root.join(name);
            if model_file::is_file(&file) {
                return Ok(Weights::Onnx(file));
            }
        }
        let onnx = self.files("onnx", "model", ".onnx")?;
        let gguf = self.files("", "", ".gguf")?;
        match (&onnx[..], has_safetensors, &gguf[..]) {
            ([one], _, _) => Ok(Weights::Onnx(one.clone())),
            (_, true, _) => Ok(Weights::Checkpoint(safetensors)),
            ([], false, [one]) => Ok(Weights::Gguf(one.clone())),
            ([], false, []) => Err(EmbedError::Missing {
                path: self.root.clone(),
                wanted: "model.onnx, onnx/model*.onnx, model.safetensors or *.gguf",
            }),
            ([first, ..], ..) | ([], false, [first, ..]) => Err(EmbedError::UnsupportedModel {
                file: self.root.display().to_string(),
                reason: format!(
                    "it has {} models and none is called model.onnx: give the path of one, such \
                     as {}",
                    onnx.len().max(gguf.len()),
                    first.display()
                ),
            }),
        }
    }

    /// Files in the folder `inner` whose names begin and end so, sorted by name.
    fn files(&self, inner: &str, begin: &str, end: &str) -> Result<Vec<PathBuf>, EmbedError> {
        let mut files = model_file::list(&self.root.join(inner))?;
        files.retain(|file| {
            let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            name.starts_with(begin) && name.ends_with(end)
        });
        Ok(files)
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

    fn transformer(
        &self,
        weights: &Weights,
        found: FoundTokenizer,
    ) -> Result<Transformer, EmbedError> {
        let (Weights::Onnx(file)
        | Weights::Checkpoint(file)
        | Weights::Table(file)
        | Weights::Gguf(file)) = weights;
        let bytes = model_file::read(file, "model weights", WEIGHTS_BYTES_MAX)?;
        let mut settings = self.settings()?;
        settings.sha256 = hash(&bytes, &found.bytes, &settings);
        settings.name = self.name();
        let graph = match weights {
            Weights::Checkpoint(_) => self.checkpoint_graph(file, bytes)?,
            _ => bytes,
        };
        Transformer::open(settings, ModelBytes::Owned(graph), found.tokenizer)
    }

    fn checkpoint_graph(&self, file: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, EmbedError> {
        let config = self.root.join("config.json").display().to_string();
        let sizes = BertSizes::from_config(&config, &self.config)?;
        let tensors = Safetensors::parse(&file.display().to_string(), ModelBytes::Owned(bytes))?;
        onnx_from(&sizes, &Checkpoint { tensors })
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

/// Opens a BERT model in GGUF.
fn open_gguf(path: &Path) -> Result<Transformer, EmbedError> {
    let bytes = model_file::read(path, "GGUF model", WEIGHTS_BYTES_MAX)?;
    let stem = path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let mut settings = TransformerSettings {
        name: stem.unwrap_or_else(|| path.display().to_string()),
        sha256: String::new(),
        pooling: Pooling::Mean,
        normalised: true,
        tokens_max: TOKENS_MAX,
        query_prompt: String::new(),
        passage_prompt: String::new(),
    };
    settings.sha256 = hash(&bytes, b"", &settings);
    let gguf = Gguf::parse(&path.display().to_string(), bytes)?;
    let sizes = gguf.sizes()?;
    settings.pooling = gguf.pooling()?;
    settings.tokens_max = sizes.positions.clamp(TOKENS_MIN, TOKENS_MAX);
    let graph = onnx_from(&sizes, &gguf)?;
    Transformer::open(settings, ModelBytes::Owned(graph), gguf.tokenizer()?)
}

/// The identity of a transformer: everything that decides its vectors.
fn hash(weights: &[u8], tokenizer: &[u8], settings: &TransformerSettings) -> String {
    fingerprint(&[
        ("weights", weights),
        ("tokenizer", tokenizer),
        ("pooling", settings.pooling.as_str().as_bytes()),
        ("normalised", &[u8::from(settings.normalised)]),
        ("tokens_max", &(settings.tokens_max as u64).to_le_bytes()),
        ("query_prompt", settings.query_prompt.as_bytes()),
        ("passage_prompt", settings.passage_prompt.as_bytes()),
    ])
}
