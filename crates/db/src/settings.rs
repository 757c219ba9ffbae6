//! [`Settings`]: what a collection was created with, in its own small file.

use std::path::Path;

use mainstay_embed::{ModelChoice, ModelIdentity};
use mainstay_search::fusion::Weights;
use mainstay_storage::fs::{self, FileSystem};
use serde::{Deserialize, Serialize};

use crate::error::DbError;

/// The format of the data directory that this program writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The name of the file in the collection's folder.
const FILE_NAME: &str = "collection.json";

/// The longest settings file that is read: the real one has below 2 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What is recorded about a collection besides its log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// What users call it.
    pub(crate) name: String,
    /// When it was created, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// Which embedding model was chosen.
    pub(crate) model: ModelChoice,
    /// The models that made the vectors: the instant one and the refining one. Both `None` until
    /// the collection is opened the first time.
    pub(crate) spaces: [Option<ModelIdentity>; 2],
    /// Fusion weights tuned for this collection; `None` uses the defaults.
    pub(crate) weights: Option<Weights>,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    format_version: u32,
    name: String,
    created_ms: u64,
    model: String,
    spaces: [Option<SpaceOnDisk>; 2],
    weights: Option<[f32; 4]>,
}

#[derive(Serialize, Deserialize)]
struct SpaceOnDisk {
    name: String,
    sha256: String,
    dimension: usize,
    normalised: bool,
    tokens_max: usize,
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

impl Settings {
    /// Reads the settings in a collection's folder.
    pub(crate) fn load(fs: &dyn FileSystem, folder: &Path) -> Result<Self, DbError> {
        let path = folder.join(FILE_NAME);
        let bytes =
            fs::read(fs, &path, FILE_BYTES_MAX).map_err(DbError::io("read settings", &path))?;
        let damaged = |reason: String| DbError::Damaged { path: path.clone(), reason };
        let version: VersionOnly = serde_json::from_slice(&bytes).map_err(|e| {
            damaged(format!("{e}; restore it from a backup or re-create the collection"))
        })?;
        if version.format_version > FORMAT_VERSION {
            return Err(DbError::FutureFormat {
                path,
                found: version.format_version,
                supported: FORMAT_VERSION,
            });
        }
        let found: OnDisk = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let model = found.model.parse().map_err(|e| damaged(format!("model: {e}")))?;
        let spaces = found.spaces.map(|space| {
            space.map(|space| ModelIdentity {
                name: space.name,
                sha256: space.sha256,
                dimension: space.dimension,
                normalised: space.normalised,
                tokens_max: space.tokens_max,
            })
        });
        Ok(Self {
            name: found.name,
            created_ms: found.created_ms,
            model,
            spaces,
            weights: found.weights.map(|[bm25, tantivy, native, semantic]| Weights {
                bm25,
                tantivy,
                native,
                semantic,
            }),
        })
    }

    /// Writes the settings, durable and whole when it returns.
    pub(crate) fn store(&self, directory: &mainstay_storage::Directory) -> Result<(), DbError> {
        let spaces = self.spaces.clone().map(|space| {
            space.map(|space| SpaceOnDisk {
                name: space.name,
                sha256: space.sha256,
                dimension: space.dimension,
                normalised: space.normalised,
                tokens_max: space.tokens_max,
            })
        });
        let on_disk = OnDisk {
            format_version: FORMAT_VERSION,
            name: self.name.clone(),
            created_ms: self.created_ms,
            model: self.model.spelled(),
            spaces,
            weights: self.weights.map(|w| [w.bm25, w.tantivy, w.native, w.semantic]),
        };
        let failed = || DbError::io("write settings", directory.path().join(FILE_NAME));
        let json = serde_json::to_vec_pretty(&on_disk)
            .map_err(|e| DbError::Internal(format!("settings cannot be written as JSON: {e}")))?;
        let mut file = directory.create(FILE_NAME).map_err(failed())?;
        std::io::Write::write_all(&mut file, &json).map_err(failed())?;
        file.finish().map_err(failed())
    }
}
