//! What Mainstay asks of a disk.
//!
//! Everything that touches a disk goes through [`FileSystem`], so that the same code runs on the
//! real one ([`RealFs`]) and on the simulated one ([`crate::sim::SimFs`]).
//!
//! What a caller may rely on, and no more:
//! - Bytes written are durable when [`FileHandle::sync_data`] or [`FileHandle::sync_all`] returned
//!   without an error, not before. When it returned an error nothing is known about them, and
//!   calling it again proves nothing.
//! - A name created, renamed or removed is durable when [`FileSystem::sync_dir`] of its folder
//!   returned without an error.
//! - A write or a read may be short; the `_all` and `_exact` forms loop.

mod real;

pub use real::RealFs;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// A disk: names, folders and the files behind them.
pub trait FileSystem: fmt::Debug + Send + Sync + 'static {
    /// Creates a file for reading and writing, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>>;

    /// Gives a file another name, replacing what has that name; atomic, durable after
    /// [`FileSystem::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Handles and maps that are open stay readable.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates a folder and those above it that are missing; an existing one is left alone.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// What is directly in a folder, sorted by name. Names that are not UTF-8 are left out: none
    /// of ours is.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;

    /// Length of a file in bytes.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Whether a file or folder of that name is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Maps a whole file for reading. The caller promises that nobody changes the file while the
    /// map lives; removing or replacing its name is allowed.
    fn map(&self, path: &Path) -> io::Result<Bytes>;

    /// Takes the exclusive lock on a file (creating it), for as long as the guard lives. Does not
    /// wait: a lock held by somebody else is an error that names the holder.
    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockError>;

    /// Bytes that an ordinary user may still write on the disk that holds `path`.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file, addressed by position, so that readers and the one writer need no shared cursor.
pub trait FileHandle: fmt::Debug + Send + Sync + 'static {
    /// Reads at a position; may be short, 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at a position; may be short.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize>;

    /// Reserves the first `bytes` of the file on the disk and fills them with zeros, so that a
    /// later write there neither runs out of space nor changes the file's metadata. Content that
    /// was there is lost.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Sets the length of the file.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes the content durable, and of the metadata only what is needed to read it.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the content and all metadata durable.
    fn sync_all(&self) -> io::Result<()>;

    /// Asks the system to forget its cached copy of the file's clean pages, so that the next read
    /// comes from the disk: after a failed sync the cache may show as clean what the disk never
    /// got. Best effort; dirty pages stay.
    fn drop_cache(&self) -> io::Result<()>;

    /// Reads exactly the length of `buffer`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    buffer = &mut buffer[bytes..];
                    offset += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `data`.
    fn write_all_at(&self, mut data: &[u8], mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            match self.write_at(data, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    data = &data[bytes..];
                    offset += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Holds a lock; dropping it gives the lock back.
pub trait LockGuard: fmt::Debug + Send + Sync {}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name, without the folder.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else holds it.
    Held {
        /// The lock file.
        path: PathBuf,
        /// Process id that the holder wrote into the file, where it could be read.
        pid: Option<u32>,
    },
    /// The lock file could not be opened or locked.
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { path, pid: Some(pid) } => {
                write!(f, "{} is locked by process {pid}: stop it first", path.display())
            }
            Self::Held { path, pid: None } => {
                write!(f, "{} is locked by another process: stop it first", path.display())
            }
            Self::Io { path, source } => write!(f, "locking {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

/// Reads a whole file into memory. Fails with `FileTooLarge` beyond `bytes_max`, before reading.
pub fn read(fs: &dyn FileSystem, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = fs.open(path)?;
    let bytes = file.len()?;
    if bytes > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{} has {bytes} bytes, at most {bytes_max} are read", path.display()),
        ));
    }
    let mut content = vec![0; bytes as usize];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

/// Writes a whole file so that it appears whole or not at all, durable on return. The temporary
/// name is the file's with `.tmp` behind; a file left there by a crash is overwritten.
pub fn write_atomic(fs: &dyn FileSystem, path: &Path, content: &[u8]) -> io::Result<()> {
    let temp = temp_path(path);
    let written = (|| {
        let file = fs.create(&temp)?;
        file.write_all_at(content, 0)?;
        file.sync_all()?;
        fs.rename(&temp, path)
    })();
    if let Err(error) = written {
        // The error that matters is the first; a temporary file left behind is removed later.
        let _ = fs.remove_file(&temp);
        return Err(error);
    }
    fs.sync_dir(parent(path))
}

/// Creates a folder with those above it that are missing, and makes the names of all of them
/// durable. Also of those that are there: the process that created them may have died before it
/// got that far.
pub fn create_dir_durable(fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
    if !fs.exists(dir)? {
        fs.create_dir_all(dir)?;
    }
    for folder in dir.ancestors().take_while(|folder| !folder.as_os_str().is_empty()) {
        match fs.sync_dir(parent(folder)) {
            // A folder that others administer may be closed to us; its names are their concern.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            other => other?,
        }
    }
    Ok(())
}

/// The temporary name a file is written under before it gets its own.
pub(crate) fn temp_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMP_SUFFIX);
    PathBuf::from(name)
}

/// Marks files that a crash may leave behind and that nobody misses.
pub(crate) const TEMP_SUFFIX: &str = ".tmp";

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
