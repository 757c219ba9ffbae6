//! Which model a collection uses, and opening it.
//!
//! Invariant: what a choice prints, and what an error says of one, holds no login and no query of an
//! address, since either may be a secret; only [`ModelChoice::spelled`] has them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use mainstay_resilience::Pipelines;

use crate::address::shown;
use crate::embedder::Embedder;
use crate::error::EmbedError;
use crate::folder::{FolderModel, open_folder};
use crate::openai::{ApiKey, Endpoint};
use crate::remote::{Remote, RemoteSettings};
use crate::static_model::StaticModel;
use crate::transformer::Transformer;

/// What to embed with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ModelChoice {
    /// Both built-in models: the static table at once, MiniLM behind it.
    #[default]
    Auto,
    /// The built-in static table alone.
    Static,
    /// The built-in MiniLM alone.
    MiniLm,
    /// A model folder.
    Folder(PathBuf),
    /// A provider that speaks the OpenAI protocol, behind the built-in static table.
    Remote(RemoteChoice),
}

/// A remote model.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteChoice {
    /// Base address, such as `https://api.openai.com/v1`.
    pub url: String,
    /// The provider's name of the model.
    pub model: String,
    /// The environment variable that holds the key; empty: no key is sent.
    pub key_env: String,
    /// Numbers in a vector.
    pub dimension: usize,
}

/// The embedders of a choice; at least one is there.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Fast enough to embed passages while they are written.
    pub first: Option<Arc<dyn Embedder>>,
    /// Better, and too slow for that: it fills in behind and embeds queries.
    pub refined: Option<Arc<dyn Embedder>>,
}

/// Opens the embedders of `choice`; keys come from the environment, and a remote provider gets a
/// pipeline of its own.
///
/// # Errors
/// Whatever opening the model returns, and [`EmbedError::KeyMissing`].
pub fn open(choice: &ModelChoice) -> Result<Opened, EmbedError> {
    open_with(choice, Remote::new, |variable| std::env::var(variable).ok())
}

/// As [`open`], with the pipelines of the process and `key_of` in place of the environment.
///
/// # Errors
/// As [`open`].
pub fn open_within(
    choice: &ModelChoice,
    pipelines: &Pipelines,
    key_of: impl Fn(&str) -> Option<String>,
) -> Result<Opened, EmbedError> {
    let remote = |settings| Remote::with_pipelines(settings, pipelines.clone());
    open_with(choice, remote, key_of)
}

fn open_with(
    choice: &ModelChoice,
    remote: impl Fn(RemoteSettings) -> Result<Remote, EmbedError>,
    key_of: impl Fn(&str) -> Option<String>,
) -> Result<Opened, EmbedError> {
    match choice {
        ModelChoice::Auto => Ok(Opened {
            first: Some(StaticModel::built_in()?),
            refined: Some(Transformer::built_in()?),
        }),
        ModelChoice::Static => Ok(Opened::first(StaticModel::built_in()?)),
        ModelChoice::MiniLm => Ok(Opened::refined(Transformer::built_in()?)),
        ModelChoice::Folder(path) => Ok(match open_folder(path)? {
            FolderModel::Static(model) => Opened::first(model),
            FolderModel::Transformer(model) => Opened::refined(model),
        }),
        // While the provider is away, the built-in model answers alone.
        ModelChoice::Remote(choice) => {
            let remote = Arc::new(remote(choice.settings(key_of)?)?);
            remote.declare_probe();
            Ok(Opened { first: Some(StaticModel::built_in()?), refined: Some(remote) })
        }
    }
}

impl Opened {
    fn first(model: Arc<dyn Embedder>) -> Self {
        Self { first: Some(model), refined: None }
    }

    fn refined(model: Arc<dyn Embedder>) -> Self {
        Self { first: None, refined: Some(model) }
    }
}

impl ModelChoice {
    /// Whether the choice can be opened, as far as its words tell: an address with a login or a key
    /// in it cannot. No file is read and no connection made.
    ///
    /// # Errors
    /// [`EmbedError::Setting`], which does not show the address.
    pub fn check(&self) -> Result<(), EmbedError> {
        match self {
            Self::Remote(RemoteChoice { url, model, .. }) => {
                Endpoint::new(url, model, None).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// The text that is read back as this choice, with whatever secret its address holds: for the
    /// disk, never for people. What people see is what the choice displays.
    #[must_use]
    pub fn spelled(&self) -> String {
        match self {
            Self::Remote(choice) => choice.text(&choice.url),
            other => other.to_string(),
        }
    }
}

impl RemoteChoice {
    fn text(&self, url: &str) -> String {
        let Self { model, key_env, dimension, .. } = self;
        let text = format!("remote:{url},{model},{dimension}");
        if key_env.is_empty() { text } else { format!("{text},{key_env}") }
    }

    fn settings(
        &self,
        key_of: impl Fn(&str) -> Option<String>,
    ) -> Result<RemoteSettings, EmbedError> {
        let mut settings = RemoteSettings::new(&self.url, &self.model, self.dimension);
        if !self.key_env.is_empty() {
            let key = key_of(&self.key_env).filter(|key| !key.trim().is_empty());
            let missing = || EmbedError::KeyMissing { variable: self.key_env.clone() };
            settings.key = Some(ApiKey::new(&key.ok_or_else(missing)?)?);
        }
        Ok(settings)
    }
}

/// Reads `auto`, `static`, `minilm`, `folder:PATH` (or a path with a separator in it), and
/// `remote:URL,MODEL,DIMENSION` with `,VARIABLE` behind for the environment variable of the key.
impl FromStr for ModelChoice {
    type Err = EmbedError;

    fn from_str(text: &str) -> Result<Self, EmbedError> {
        match text {
            "auto" => Ok(Self::Auto),
            "static" => Ok(Self::Static),
            "minilm" => Ok(Self::MiniLm),
            other => match (other.strip_prefix("folder:"), other.strip_prefix("remote:")) {
                (Some(path), _) if !path.is_empty() => Ok(Self::Folder(path.into())),
                (_, Some(parts)) => remote(parts).map(Self::Remote),
                // An address without `remote:` in front, not a folder with a strange name.
                (None, None) if other.contains("://") => Err(refused(other)),
                (None, None) if other.contains(std::path::is_separator) => {
                    Ok(Self::Folder(other.into()))
                }
                _ => Err(EmbedError::UnknownModel { found: shown(other) }),
            },
        }
    }
}

fn refused(text: &str) -> EmbedError {
    EmbedError::Setting {
        name: "model",
        value: shown(text),
        allowed: "remote:URL,MODEL,DIMENSION, and ,VARIABLE behind for the key's variable",
    }
}

/// Reads `URL,MODEL,DIMENSION` or `URL,MODEL,DIMENSION,VARIABLE`.
fn remote(parts: &str) -> Result<RemoteChoice, EmbedError> {
    let refused = || refused(&format!("remote:{parts}"));
    let mut parts_of = parts.split(',');
    let mut next = || parts_of.next().filter(|part| !part.is_empty());
    let (Some(url), Some(model), Some(dimension)) = (next(), next(), next()) else {
        return Err(refused());
    };
    let key_env = next().unwrap_or_default().to_owned();
    let dimension = dimension.parse().map_err(|_| refused())?;
    match parts_of.next() {
        None => Ok(RemoteChoice { url: url.into(), model: model.into(), key_env, dimension }),
        Some(_) => Err(refused()),
    }
}

impl fmt::Display for ModelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Static => f.write_str("static"),
            Self::MiniLm => f.write_str("minilm"),
            Self::Folder(path) => write!(f, "folder:{}", path.display()),
            Self::Remote(choice) => f.write_str(&choice.text(&shown(&choice.url))),
        }
    }
}

/// As it is displayed.
impl fmt::Debug for RemoteChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteChoice({})", self.text(&shown(&self.url)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn remote(key_env: &str) -> ModelChoice {
        ModelChoice::Remote(RemoteChoice {
            url: "http://127.0.0.1:1/v1".into(),
            model: "some-model".into(),
            key_env: key_env.into(),
            dimension: 8,
        })
    }

    #[test]
    fn words_and_paths_are_read_and_written_alike() {
        for text in [
            "auto",
            "static",
            "minilm",
            "folder:./model",
            "folder:/models/a/model.onnx",
            "remote:http://127.0.0.1:1/v1,some-model,8",
            "remote:http://127.0.0.1:1/v1,some-model,8,SOME_KEY",
        ] {
            assert_eq!(text.parse::<ModelChoice>().unwrap().to_string(), text);
        }
        let error = "bert".parse::<ModelChoice>().unwrap_err().to_string();
        assert!(error.contains("\"bert\"") && error.contains("auto, static, minilm"), "{error}");
    }

    /// C5: whatever a choice or its error is printed into shows no secret, and none is opened.
    #[test]
    fn a_secret_in_an_address_is_kept_and_neither_printed_nor_opened() {
        for text in [
            "remote:http://u:hunter2@h/v1,m,8",
            "remote:http://hunter2@h/v1,m,8,KEY",
            "remote:http://h/v1?key=hunter2,m,8",
            "remote:http://h/v1#hunter2,m,8",
        ] {
            let choice = text.parse::<ModelChoice>().unwrap();
            assert_eq!(choice.spelled(), text);
            let pipelines = Pipelines::new(Default::default()).unwrap();
            let refused = open_within(&choice, &pipelines, |_| Some("k".into())).unwrap_err();
            assert_eq!(choice.check().unwrap_err().to_string(), refused.to_string());
            let printed = format!("{choice} {choice:?} {refused} {refused:?}");
            assert!(!printed.contains("hunter2") && printed.contains("h/v1"), "{printed}");
        }
        for text in [
            "remote:http://u:hunter2@h/v1,m",
            "remote:http://u:hun,hunter2@h/v1,m,8",
            "remote:http://h/v1?key=hunter2,m,eight",
            "http://u:hunter2@h/v1",
            "remot:http://u:hunter2@h/v1,m,8",
            "remote:u:hunter2@h",
            "u:hunter2@h",
        ] {
            let refused = text.parse::<ModelChoice>().unwrap_err();
            assert!(!format!("{refused} {refused:?}").contains("hunter2"), "{refused}");
        }
        let unreadable = "remote:http://u:hunter2[@h/v1,m,8".parse::<ModelChoice>().unwrap();
        assert!(!unreadable.check().unwrap_err().to_string().contains("hunter2"));
        remote("").check().unwrap();
        ModelChoice::Auto.check().unwrap();
    }

    #[cfg(feature = "builtin")]
    #[test]
    fn auto_opens_both_built_in_models() {
        let opened = open(&ModelChoice::Auto).unwrap();
        assert_eq!(opened.first.unwrap().identity().dimension, 256);
        assert_eq!(opened.refined.unwrap().identity().dimension, 384);
    }

    #[cfg(feature = "builtin")]
    #[test]
    fn a_single_built_in_model_stands_in_its_own_place() {
        let opened = open(&ModelChoice::Static).unwrap();
        assert!(opened.first.is_some() && opened.refined.is_none());
        let opened = open(&ModelChoice::MiniLm).unwrap();
        assert!(opened.first.is_none() && opened.refined.is_some());
    }

    #[cfg(not(feature = "builtin"))]
    #[test]
    fn without_built_in_models_the_error_says_what_to_do() {
        for choice in [ModelChoice::Auto, ModelChoice::Static, ModelChoice::MiniLm] {
            let error = open(&choice).unwrap_err();
            assert!(error.to_string().contains("feature `builtin`"), "{error}");
        }
    }

    #[test]
    fn the_key_comes_from_the_variable_that_was_named() {
        let key_of = |variable: &str| (variable == "THE_KEY").then(|| "secret".to_owned());
        let pipelines = Pipelines::new(Default::default()).unwrap();
        let open = |variable: &str| open_within(&remote(variable), &pipelines, key_of);
        assert!(open("THE_KEY").is_ok());
        let error = open("OTHER_KEY").unwrap_err();
        assert!(error.to_string().contains("OTHER_KEY"), "{error}");
        assert!(open("").is_ok());
        let blank = |_: &str| Some(" ".to_owned());
        assert!(open_within(&remote("BLANK"), &pipelines, blank).is_err());
    }
}
