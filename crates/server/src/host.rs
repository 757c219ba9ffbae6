//! [`Host`]: what the process has of the machine, found out before anything is opened.

use std::path::Path;
use std::sync::Arc;

use mainstay_db::file_system::{FileHandle, FileSystem, Listed, LockError, LockGuard, RealFs};
use mainstay_ops::handles::{HandleClass, HandleConfig, HandlePermit, HandlePool};
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_ops::memory::Allocator;
use mainstay_ops::wall_clock::WallClock;
use mainstay_resilience::{Clock, ConfigError};

/// What the process has of the machine.
#[derive(Clone)]
pub struct Host {
    /// The pool of file handles that files and connections draw on.
    pub handles: HandlePool,
    /// The process's allocator; without it free pages are not given back on demand.
    pub allocator: Option<Arc<dyn Allocator>>,
    /// The kernel's figures that the memory guard reads.
    pub kernel: KernelFiles,
    /// What durations are measured with by all that watches the server: health, levels, the memory
    /// guard, objectives, probes.
    pub clock: Clock,
    /// The time of day of the same, and of keys, flags and the audit trail.
    pub wall: WallClock,
}

impl Host {
    /// On the machine's clocks. Raises the process's limit of file handles as far as it may, and divides it.
    ///
    /// # Errors
    /// A setting out of its range, or a limit that leaves too few handles.
    pub fn new(
        handles: &HandleConfig,
        allocator: Option<Arc<dyn Allocator>>,
    ) -> Result<Self, ConfigError> {
        // What it became shows in the pool's size.
        let _ = mainstay_ops::handles::raise_soft_limit();
        let (kernel, clock, wall) = (KernelFiles::default(), Clock::system(), WallClock::system());
        Ok(Self { handles: HandlePool::new(handles)?, allocator, kernel, clock, wall })
    }

    /// The real disk, where each open file takes a handle from the pool.
    #[must_use]
    pub fn file_system(&self) -> Arc<dyn FileSystem> {
        Arc::new(Pooled { inner: RealFs, handles: self.handles.clone() })
    }
}

#[derive(Debug)]
struct Pooled {
    inner: RealFs,
    handles: HandlePool,
}

/// A file and the handle that it holds.
#[derive(Debug)]
struct PooledFile {
    inner: Box<dyn FileHandle>,
    _permit: HandlePermit,
}

#[derive(Debug)]
struct PooledLock {
    _inner: Box<dyn LockGuard>,
    _permit: HandlePermit,
}

impl LockGuard for PooledLock {}

impl Pooled {
    fn permit(&self) -> std::io::Result<HandlePermit> {
        // Said as the kernel says it, so that it is handled like the kernel's own refusal.
        self.handles.try_acquire(HandleClass::Files).map_err(std::io::Error::other)
    }
}

impl FileSystem for Pooled {
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn FileHandle>> {
        let permit = self.permit()?;
        Ok(Box::new(PooledFile { inner: self.inner.create(path)?, _permit: permit }))
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn FileHandle>> {
        let permit = self.permit()?;
        Ok(Box::new(PooledFile { inner: self.inner.open(path)?, _permit: permit }))
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> std::io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> std::io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> std::io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> std::io::Result<Vec<Listed>> {
        let _permit = self.permit()?;
        self.inner.list(dir)
    }

    fn len(&self, path: &Path) -> std::io::Result<u64> {
        self.inner.len(path)
    }

    fn exists(&self, path: &Path) -> std::io::Result<bool> {
        self.inner.exists(path)
    }

    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        let _permit = self.permit()?;
        self.inner.sync_dir(dir)
    }

    /// The mapping outlives its handle, so the permit is needed for a moment only.
    fn map(&self, path: &Path) -> std::io::Result<mainstay_db::file_system::Bytes> {
        let _permit = self.permit()?;
        self.inner.map(path)
    }

    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockError> {
        let permit =
            self.permit().map_err(|source| LockError::Io { path: path.to_path_buf(), source })?;
        let inner = self.inner.lock_exclusive(path)?;
        Ok(Box::new(PooledLock { _inner: inner, _permit: permit }))
    }

    fn available_bytes(&self, path: &Path) -> std::io::Result<u64> {
        self.inner.available_bytes(path)
    }
}

impl FileHandle for PooledFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> std::io::Result<usize> {
        self.inner.write_at(data, offset)
    }

    fn allocate(&self, bytes: u64) -> std::io::Result<()> {
        self.inner.allocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> std::io::Result<()> {
        self.inner.truncate(bytes)
    }

    fn len(&self) -> std::io::Result<u64> {
        self.inner.len()
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.inner.sync_data()
    }

    fn sync_all(&self) -> std::io::Result<()> {
        self.inner.sync_all()
    }

    fn drop_cache(&self) -> std::io::Result<()> {
        self.inner.drop_cache()
    }
}
