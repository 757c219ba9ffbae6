//! A disk in memory that fails like real ones, deterministic from a seed.
//!
//! It keeps apart what processes see (the page cache and the names in it) and what is on the
//! platter, so that a test can lose power at any call, tear and reorder what was not synced, let
//! a sync fail in the way Linux does (pages marked clean, content lost), fill the disk, rot bits,
//! and then look at what is left. Two ways to die: [`SimFs::kill`] ends the process and keeps the
//! page cache, [`SimFs::crash`] cuts the power.
//!
//! Used by the tests of this crate and of those above it; nothing in it reaches production paths.

mod disk;
mod faults;
mod inode;
mod random;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::fs::{FileHandle, FileSystem, Listed, LockError, LockGuard};
use disk::Disk;

pub use faults::{Failure, Faults, Operation, Rule};
pub use inode::{CrashStyle, SECTOR_BYTES, SyncFailure};
pub use random::Random;

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

impl SimFs {
    /// An empty disk of unlimited size on which nothing goes wrong until told to.
    pub fn new(seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk::new(seed))) }
    }

    /// Replaces what may go wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// Bounds the disk; `None` for no bound. Files that were removed count no more, even while
    /// they are open.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.disk().used_bytes()
    }

    /// Calls counted so far.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Cuts the power at the call with this number (as counted by [`SimFs::operations`], the next
    /// one being `operations() + 1`): that call may still have its effect, it and all later ones
    /// return an error until [`SimFs::crash`] or [`SimFs::kill`].
    pub fn cut_power_at(&self, operation: Option<u64>) {
        self.disk().power_off_at = operation;
    }

    /// Whether the power went off at the call named in [`SimFs::cut_power_at`].
    pub fn is_off(&self) -> bool {
        self.disk().off
    }

    /// Loses power and starts again: what was synced is there, of the rest what chance kept. Open
    /// handles and locks are gone.
    pub fn crash(&self) {
        self.disk().crash(None);
    }

    /// As [`SimFs::crash`], with a stated fate for what was not synced.
    pub fn crash_with(&self, style: CrashStyle) {
        self.disk().crash(Some(style));
    }

    /// Ends the process: open handles and locks are gone, the page cache stays.
    pub fn kill(&self) {
        self.disk().kill();
    }

    /// Inverts one bit of a file, on the platter and in the cache. Returns whether the file has
    /// such a byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut disk = self.disk();
        let Some(inode) = disk.inode_of(path) else { return false };
        let Some(byte) = inode.cached().get(offset as usize).copied() else { return false };
        inode.damage(offset, &[byte ^ (1 << (bit % 8))]);
        true
    }

    /// Puts bytes into a file behind everybody's back, on the platter and in the cache. Returns
    /// whether there is such a file.
    pub fn damage(&self, path: &Path, offset: u64, data: &[u8]) -> bool {
        let mut disk = self.disk();
        let Some(inode) = disk.inode_of(path) else { return false };
        inode.damage(offset, data);
        true
    }

    /// What reads of a file would show, without counting a call.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.disk().inode_of(path).map(|inode| inode.cached().to_vec())
    }

    /// All files, sorted, without counting a call.
    pub fn files(&self) -> Vec<PathBuf> {
        self.disk().files()
    }

    /// A copy of this disk in its present state, with its own future.
    pub fn fork(&self, seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk().fork(seed))) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A panic in a test thread leaves the disk as it was: nothing here is half changed.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, inode: u64, epoch: u64) -> Box<dyn FileHandle> {
        Box::new(SimFile { fs: self.clone(), inode, epoch })
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

impl FileSystem for SimFs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let mut disk = self.disk();
        let inode = disk.create(path)?;
        Ok(self.handle(inode, disk.epoch))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let mut disk = self.disk();
        let inode = disk.open(path)?;
        Ok(self.handle(inode, disk.epoch))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk().remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk().remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk().create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.disk().list(dir)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.disk().len(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk().exists(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().sync_dir(dir)
    }

    fn map(&self, path: &Path) -> io::Result<Bytes> {
        self.disk().map(path)
    }

    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockError> {
        let mut disk = self.disk();
        disk.lock(path)?;
        Ok(Box::new(SimLock { fs: self.clone(), path: path.to_owned(), epoch: disk.epoch }))
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        self.disk().available_bytes()
    }
}

/// An open simulated file. Dead after the next [`SimFs::kill`] or [`SimFs::crash`].
#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    inode: u64,
    epoch: u64,
}

impl FileHandle for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fs.disk().read_at(self.epoch, self.inode, buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.fs.disk().write_at(self.epoch, self.inode, data, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.fs.disk().allocate(self.epoch, self.inode, bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.fs.disk().truncate(self.epoch, self.inode, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.fs.disk().handle_len(self.epoch, self.inode)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.disk().sync(self.epoch, self.inode)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.fs.disk().sync(self.epoch, self.inode)
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.fs.disk().drop_cache(self.epoch, self.inode)
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    path: PathBuf,
    epoch: u64,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.disk().unlock(self.epoch, &self.path);
    }
}
