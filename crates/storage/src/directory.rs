//! A flat folder of immutable files that appear whole or not at all.
//!
//! Invariants:
//! - A name that [`Directory::list`] shows belongs to a finished file: its content was durable
//!   before it got the name.
//! - When [`DirectoryWriter::finish`] returned without an error, content and name are durable.
//! - A file is never changed after it was finished, so it may be mapped. Writing the same name
//!   again replaces it; maps of the old one stay valid.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::fs::{FileHandle, FileSystem, TEMP_SUFFIX, create_dir_durable};

/// Bytes gathered before they are handed to the file: a few of these per megabyte cost nothing,
/// and a writer per view stays small.
const WRITE_BUFFER_BYTES: usize = 128 << 10;

/// A flat folder of immutable files.
#[derive(Clone, Debug)]
pub struct Directory {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
}

impl Directory {
    /// Opens a folder, creating it where it is missing, and removes the unfinished files that a
    /// crash left behind. One `Directory` (or its clones) per folder at a time: a second one would
    /// remove what the first is writing.
    pub fn open(fs: Arc<dyn FileSystem>, path: &Path) -> io::Result<Self> {
        create_dir_durable(fs.as_ref(), path)?;
        for listed in fs.list(path)? {
            if !listed.is_dir && listed.name.ends_with(TEMP_SUFFIX) {
                fs.remove_file(&path.join(&listed.name))?;
            }
        }
        Ok(Self { fs, path: path.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the finished files, sorted.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let listed = self.fs.list(&self.path)?;
        Ok(listed
            .into_iter()
            .filter(|listed| !listed.is_dir && !listed.name.ends_with(TEMP_SUFFIX))
            .map(|listed| listed.name)
            .collect())
    }

    /// Maps a finished file. The bytes stay valid after the file was removed or replaced.
    pub fn open_file(&self, name: &str) -> io::Result<Bytes> {
        check_name(name)?;
        self.fs.map(&self.path.join(name))
    }

    /// Starts a file. It gets its name in [`DirectoryWriter::finish`].
    pub fn create(&self, name: &str) -> io::Result<DirectoryWriter> {
        check_name(name)?;
        let temp = self.path.join(format!("{name}{TEMP_SUFFIX}"));
        let file = self.fs.create(&temp)?;
        Ok(DirectoryWriter {
            fs: Arc::clone(&self.fs),
            folder: self.path.clone(),
            target: self.path.join(name),
            temp,
            file: Some(file),
            offset: 0,
            buffer: Vec::with_capacity(WRITE_BUFFER_BYTES),
        })
    }

    /// Removes a file. Durable with the next finished file or [`Directory::sync`]: a file that
    /// comes back after a crash is one that the owner's manifest no longer names.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.fs.remove_file(&self.path.join(name))
    }

    /// Makes removals durable.
    pub fn sync(&self) -> io::Result<()> {
        self.fs.sync_dir(&self.path)
    }
}

/// A name is one component and never looks like an unfinished file.
fn check_name(name: &str) -> io::Result<()> {
    let plain = !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', '\0'])
        && !name.ends_with(TEMP_SUFFIX);
    if plain {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name:?} is no file name: use one path component that does not end in .tmp"),
    ))
}

/// Writes one file of a [`Directory`]. Dropped without [`DirectoryWriter::finish`] it leaves
/// nothing behind.
pub struct DirectoryWriter {
    fs: Arc<dyn FileSystem>,
    folder: PathBuf,
    target: PathBuf,
    temp: PathBuf,
    file: Option<Box<dyn FileHandle>>,
    offset: u64,
    buffer: Vec<u8>,
}

impl DirectoryWriter {
    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Gives the file its name. On return it is durable, whole and visible. After an error the
    /// file may or may not be there, but if it is, it is whole.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let file = self.file.take().expect("only finish and drop take the file");
        let named = file.sync_all().and_then(|()| self.fs.rename(&self.temp, &self.target));
        if let Err(error) = named {
            self.file = Some(file);
            return Err(error);
        }
        self.fs.sync_dir(&self.folder)
    }
}

impl Write for DirectoryWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + data.len() > WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        if data.len() >= WRITE_BUFFER_BYTES {
            let file = self.file.as_ref().expect("only finish and drop take the file");
            file.write_all_at(data, self.offset)?;
            self.offset += data.len() as u64;
        } else {
            self.buffer.extend_from_slice(data);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = self.file.as_ref().expect("only finish and drop take the file");
        file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for DirectoryWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Left behind it would be removed when the folder is opened the next time.
            let _ = self.fs.remove_file(&self.temp);
        }
    }
}

impl fmt::Debug for DirectoryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryWriter")
            .field("target", &self.target)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}
