//! The kernel's figures: small text files below `/proc` and `/sys`, with no disk behind them.
//!
//! The root folder is a parameter, so that tests can stand any machine beside this one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes read of one file. The longest one read here, `memory.stat`, has about 2 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A root folder with `proc` and `sys` in it.
#[derive(Clone, Debug)]
pub struct KernelFiles {
    root: PathBuf,
}

impl Default for KernelFiles {
    fn default() -> Self {
        KernelFiles::at("/")
    }
}

impl KernelFiles {
    /// The machine whose root folder this is; `/` for this one.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        KernelFiles { root: root.into() }
    }

    /// The text of a file, by its path without the leading `/`. Nothing when it is not there, is
    /// not readable or is not text.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut text = String::new();
        let file = File::open(self.root.join(path)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// How many entries a folder has.
    #[must_use]
    pub fn entries(&self, path: impl AsRef<Path>) -> Option<u64> {
        let entries = std::fs::read_dir(self.root.join(path)).ok()?;
        u64::try_from(entries.count()).ok()
    }
}
