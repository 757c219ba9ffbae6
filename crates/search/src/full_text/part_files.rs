//! [`PartFiles`]: the files of one part, as tantivy's `Directory` over ours.
//!
//! A part is written once, by one owner, and never changed, so tantivy's locks, its list of managed
//! files and its watching of commits have nothing to do here. Its `meta.json` is kept in memory:
//! the manifest carries it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use stable_deref_trait::StableDeref;
use tantivy::HasLen;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, Directory as TantivyDirectory, DirectoryLock, FileHandle, Lock, OwnedBytes,
    TerminatingWrite, WatchCallback, WatchHandle, WritePtr,
};
use xxhash_rust::xxh3::Xxh3Default;

use crate::directory::{Directory, FileWriter};
use crate::request::Stop;

const META: &str = "meta.json";

/// What a finished file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSum {
    /// Its length.
    pub(super) bytes: u64,
    /// The xxh3 of its contents.
    pub(super) checksum: u64,
}

/// The files of one part. Clones share them.
#[derive(Clone)]
pub(super) struct PartFiles {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<dyn Directory>,
    part: u32,
    /// Writing fails once it is set: the only way to end a merge inside tantivy.
    stop: Stop,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    meta: Vec<u8>,
    files: BTreeMap<String, FileSum>,
}

impl PartFiles {
    /// The files of a part that is about to be written.
    pub(super) fn create(directory: Arc<dyn Directory>, part: u32, stop: Stop) -> Self {
        Self { inner: Arc::new(Inner { directory, part, stop, state: Mutex::default() }) }
    }

    /// The files of a part that the manifest describes.
    pub(super) fn existing(
        directory: Arc<dyn Directory>,
        part: u32,
        meta: Vec<u8>,
        files: BTreeMap<String, FileSum>,
    ) -> Self {
        let state = Mutex::new(State { meta, files });
        Self { inner: Arc::new(Inner { directory, part, stop: Stop::new(), state }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// tantivy's `meta.json` of this part.
    pub(super) fn meta(&self) -> Vec<u8> {
        self.state().meta.clone()
    }

    /// The finished files, by extension.
    pub(super) fn files(&self) -> BTreeMap<String, FileSum> {
        self.state().files.clone()
    }

    /// The bytes in finished files.
    pub(super) fn bytes(&self) -> u64 {
        self.state().files.values().map(|file| file.bytes).sum()
    }

    /// The name of the file with this extension.
    pub(super) fn name(&self, extension: &str) -> String {
        file_name(self.inner.part, extension)
    }

    /// The contents of the file with this extension.
    pub(super) fn read(&self, extension: &str) -> io::Result<Bytes> {
        self.inner.directory.open(&self.name(extension))
    }

    /// Writes the same files under another number in another directory.
    pub(super) fn copy_to(&self, directory: Arc<dyn Directory>, part: u32) -> io::Result<Self> {
        let state = self.state();
        for extension in state.files.keys() {
            let contents = self.read(extension)?;
            crate::directory::write_file(
                directory.as_ref(),
                &file_name(part, extension),
                &contents,
            )?;
        }
        Ok(Self::existing(directory, part, state.meta.clone(), state.files.clone()))
    }

    fn resolve(&self, path: &Path) -> String {
        self.name(&extension(path))
    }
}

/// The name of a part's file: its number in eight hexadecimal digits and tantivy's extension.
pub(super) fn file_name(part: u32, extension: &str) -> String {
    format!("{part:08x}.{extension}")
}

/// The part that a file name belongs to, if it is one of ours.
pub(super) fn part_of(name: &str) -> Option<u32> {
    let (stem, _) = name.split_once('.')?;
    (stem.len() == 8).then(|| u32::from_str_radix(stem, 16).ok()).flatten()
}

fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_meta(path: &Path) -> bool {
    path == Path::new(META)
}

/// tantivy's own notes (`.managed.json`, lock files) begin with a dot.
fn is_note(path: &Path) -> bool {
    path.to_string_lossy().starts_with('.')
}

impl fmt::Debug for PartFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartFiles({:08x})", self.inner.part)
    }
}

impl TantivyDirectory for PartFiles {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        match self.inner.directory.open(&self.resolve(path)) {
            Ok(contents) => Ok(Arc::new(Handle(Mapped(contents)))),
            Err(error) => Err(read_error(error, path)),
        }
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        if is_note(path) || is_meta(path) {
            return Ok(());
        }
        self.state().files.remove(&extension(path));
        self.inner.directory.remove(&self.resolve(path)).map_err(|error| DeleteError::IoError {
            io_error: Arc::new(error),
            filepath: path.to_path_buf(),
        })
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        let state = self.state();
        Ok(if is_meta(path) {
            !state.meta.is_empty()
        } else {
            !is_note(path) && state.files.contains_key(&extension(path))
        })
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let file = self
            .inner
            .directory
            .create(&self.resolve(path))
            .map_err(|error| OpenWriteError::wrap_io_error(error, path.to_path_buf()))?;
        let writer = PartFile {
            files: self.clone(),
            extension: extension(path),
            file: Some(file),
            bytes: 0,
            checksum: Xxh3Default::new(),
        };
        Ok(BufWriter::new(Box::new(writer)))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let meta = self.meta();
        if is_meta(path) && !meta.is_empty() {
            return Ok(meta);
        }
        Err(OpenReadError::FileDoesNotExist(PathBuf::from(path)))
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        if is_meta(path) {
            self.state().meta = data.to_vec();
        }
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn acquire_lock(&self, _: &Lock) -> Result<DirectoryLock, LockError> {
        Ok(DirectoryLock::from(Box::new(())))
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

fn read_error(error: io::Error, path: &Path) -> OpenReadError {
    if error.kind() == io::ErrorKind::NotFound {
        OpenReadError::FileDoesNotExist(path.to_path_buf())
    } else {
        OpenReadError::wrap_io_error(error, path.to_path_buf())
    }
}

/// A file on its way.
struct PartFile {
    files: PartFiles,
    extension: String,
    file: Option<Box<dyn FileWriter>>,
    bytes: u64,
    checksum: Xxh3Default,
}

impl Write for PartFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.files.inner.stop.is_set() {
            // Not `Interrupted`: `write_all` would try again for ever.
            return Err(io::Error::other("the merge was asked to stop"));
        }
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("the file is finished"))?;
        let written = file.write(data)?;
        self.checksum.update(&data[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TerminatingWrite for PartFile {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        let file = self.file.take().ok_or_else(|| io::Error::other("the file is finished"))?;
        file.finish()?;
        let sum = FileSum { bytes: self.bytes, checksum: self.checksum.digest() };
        self.files.state().files.insert(std::mem::take(&mut self.extension), sum);
        Ok(())
    }
}

#[derive(Debug)]
struct Handle(Mapped);

impl HasLen for Handle {
    fn len(&self) -> usize {
        self.0.0.len()
    }
}

impl FileHandle for Handle {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        if range.start > range.end || range.end > self.0.0.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("bytes {range:?} of a file of {}", self.0.0.len()),
            ));
        }
        Ok(OwnedBytes::new(Mapped(self.0.0.slice(range))))
    }
}

/// [`Bytes`] as tantivy takes them. Without it every read would copy: 0.3 GB for a million documents
/// at opening.
#[derive(Debug)]
struct Mapped(Bytes);

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

// SAFETY: `Bytes` is a pointer to memory that it keeps alive and unchanged and that is not inside
// the value itself, so the slice stays where it is when the value moves; `Mapped` gives no way to
// change which memory that is.
unsafe impl StableDeref for Mapped {}
