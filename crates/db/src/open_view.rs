//! Opening views: which generation counts, and what to do when it cannot be read.
//!
//! A view lives in `views/<name>-<generation>`. The generation that counts is named by the file
//! `current/<name>`, which is replaced atomically when a rebuild is complete; any other generation
//! is left over and removed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_search::bm25::Bm25View;
use mainstay_search::directory::Directory as ViewDirectory;
use mainstay_search::documents::Documents;
use mainstay_search::full_text::FullTextView;
use mainstay_search::method::Method;
use mainstay_search::native::NativeView;
use mainstay_search::view::ViewError;
use mainstay_storage::Directory;
use mainstay_storage::fs::FileSystem;

use crate::documents::DocumentsDriven;
use crate::driven::{Driven, MethodDriven, ViewKind};
use crate::embedding::Embedding;
use crate::error::DbError;
use crate::files::ViewFiles;
use crate::semantic::SemanticDriven;
use crate::slot::Held;

/// Opens the generation that counts. A view that cannot be opened is no error: after damage its
/// driver rebuilds it; after anything else it stays absent and says why.
pub(crate) fn open_current(
    fs: &Arc<dyn FileSystem>,
    folder: &Path,
    current: &Directory,
    kind: ViewKind,
    embedding: &Arc<Embedding>,
    is_new: bool,
) -> Result<Held, DbError> {
    let generation = read_current(current, kind);
    remove_others(fs, folder, kind, generation);
    let Some(generation) = generation else {
        if is_new {
            let driven = open_empty(fs, folder, kind, 1, embedding)?;
            set_current(current, kind, 1)?;
            let driven = Some(driven);
            return Ok(Held { driven, generation: 1, checkpointed: 0, foreign: None });
        }
        // A lost record is damage like any other.
        return Ok(Held { driven: None, generation: 0, checkpointed: 0, foreign: None });
    };
    let path = generation_path(folder, kind, generation);
    let present = fs.exists(&path).map_err(DbError::io("look for", &path))?;
    let opened = if present {
        open(fs, &path, kind, embedding)?
    } else {
        Err(ViewError::damaged(path.display().to_string(), "the folder is gone"))
    };
    match opened {
        Ok(driven) => {
            let checkpointed = driven.through();
            Ok(Held { driven: Some(driven), generation, checkpointed, foreign: None })
        }
        Err(error) => {
            tracing::error!(view = %kind, %error, "view cannot be opened");
            // Only damage is answered with a rebuild by itself: a later version's files, or vectors
            // of another model, are left until somebody asks for it.
            let damaged = matches!(error, ViewError::Damaged { .. });
            let foreign = (!damaged).then(|| error.to_string());
            Ok(Held { driven: None, generation, checkpointed: 0, foreign })
        }
    }
}

/// Opens a new, empty generation; what a broken-off attempt left there is removed.
pub(crate) fn open_empty(
    fs: &Arc<dyn FileSystem>,
    folder: &Path,
    kind: ViewKind,
    generation: u64,
    embedding: &Arc<Embedding>,
) -> Result<Box<dyn Driven>, DbError> {
    let path = generation_path(folder, kind, generation);
    if fs.exists(&path).map_err(DbError::io("look for", &path))? {
        fs.remove_dir_all(&path).map_err(DbError::io("remove", &path))?;
    }
    open(fs, &path, kind, embedding)?.map_err(|source| DbError::View { view: kind.name(), source })
}

fn open(
    fs: &Arc<dyn FileSystem>,
    path: &Path,
    kind: ViewKind,
    embedding: &Arc<Embedding>,
) -> Result<Result<Box<dyn Driven>, ViewError>, DbError> {
    let files = Directory::open(Arc::clone(fs), path).map_err(DbError::io("open", path))?;
    let files: Arc<dyn ViewDirectory> = Arc::new(ViewFiles(files));
    let driven: Result<Box<dyn Driven>, ViewError> = match kind {
        ViewKind::Documents => Documents::open(files).map(|v| Box::new(DocumentsDriven(v)) as _),
        ViewKind::Method(Method::Bm25) => {
            Bm25View::open(files).map(|v| Box::new(MethodDriven(v)) as _)
        }
        ViewKind::Method(Method::Tantivy) => {
            FullTextView::open(files).map(|v| Box::new(MethodDriven(v)) as _)
        }
        ViewKind::Method(Method::Native) => {
            NativeView::open(files).map(|v| Box::new(MethodDriven(v)) as _)
        }
        ViewKind::Method(Method::Semantic) => {
            SemanticDriven::open(files, Arc::clone(embedding)).map(|v| Box::new(v) as _)
        }
    };
    Ok(driven)
}

/// Records the generation that counts; durable when it returns.
pub(crate) fn set_current(
    current: &Directory,
    kind: ViewKind,
    generation: u64,
) -> Result<(), DbError> {
    let failed = || DbError::io("write", current.path().join(kind.name()));
    let mut file = current.create(kind.name()).map_err(failed())?;
    file.write_all(generation.to_string().as_bytes()).map_err(failed())?;
    file.finish().map_err(failed())
}

/// Removes a generation that no longer counts. What cannot be removed now is removed at the next
/// open.
pub(crate) fn remove_generation(
    fs: &Arc<dyn FileSystem>,
    folder: &Path,
    kind: ViewKind,
    generation: u64,
) {
    let path = generation_path(folder, kind, generation);
    if fs.exists(&path).unwrap_or(false)
        && let Err(error) = fs.remove_dir_all(&path)
    {
        tracing::warn!(path = %path.display(), %error, "old view folder stays for now");
    }
}

fn read_current(current: &Directory, kind: ViewKind) -> Option<u64> {
    let bytes = current.open_file(kind.name()).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

fn remove_others(fs: &Arc<dyn FileSystem>, folder: &Path, kind: ViewKind, generation: Option<u64>) {
    let Ok(listed) = fs.list(&folder.join("views")) else { return };
    for entry in listed {
        let Some((name, number)) = entry.name.rsplit_once('-') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        if name == kind.name() && Some(number) != generation {
            remove_generation(fs, folder, kind, number);
        }
    }
}

fn generation_path(folder: &Path, kind: ViewKind, generation: u64) -> PathBuf {
    folder.join("views").join(format!("{kind}-{generation}"))
}
