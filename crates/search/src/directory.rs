//! [`Directory`]: how a view reaches its files without knowing where they are.

use std::io::{self, Write};

use bytes::Bytes;

/// A flat folder of immutable files, all of one view.
///
/// The caller implements it over its file system (real or simulated). Names are plain file names of
/// ASCII letters, digits, `.`, `-` and `_`, never paths.
pub trait Directory: Send + Sync + 'static {
    /// The names of all finished files, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The contents of a finished file, memory-mapped where the platform can: cheap to clone and slice.
    fn open(&self, name: &str) -> io::Result<Bytes>;

    /// Starts a file. It is not visible under `name` before [`FileWriter::finish`] has returned; a
    /// file of that name that exists already is replaced at that moment.
    fn create(&self, name: &str) -> io::Result<Box<dyn FileWriter>>;

    /// Removes a file. A reader that has it open keeps its contents.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A file being written.
pub trait FileWriter: Write + Send + Sync {
    /// Makes the file durable and visible, both or neither: after a crash at any moment it is
    /// there whole or not at all.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Writes `contents` as one file, durable when it returns.
pub fn write_file(directory: &dyn Directory, name: &str, contents: &[u8]) -> io::Result<()> {
    let mut file = directory.create(name)?;
    file.write_all(contents)?;
    file.finish()
}

/// A directory in memory, for tests and for collections that live only as long as the process.
pub mod memory {
    use std::collections::BTreeMap;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use bytes::Bytes;

    use super::{Directory, FileWriter};

    type Files = Arc<Mutex<BTreeMap<String, Bytes>>>;

    /// Files in memory. Clones share their files.
    #[derive(Clone, Default)]
    pub struct MemoryDirectory {
        files: Files,
    }

    impl MemoryDirectory {
        /// An empty directory.
        pub fn new() -> Self {
            Self::default()
        }

        fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
            self.files.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Directory for MemoryDirectory {
        fn list(&self) -> io::Result<Vec<String>> {
            Ok(self.lock().keys().cloned().collect())
        }

        fn open(&self, name: &str) -> io::Result<Bytes> {
            self.lock().get(name).cloned().ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("no file named {name}"))
            })
        }

        fn create(&self, name: &str) -> io::Result<Box<dyn FileWriter>> {
            let files = Arc::clone(&self.files);
            Ok(Box::new(MemoryFile { files, name: name.to_string(), contents: Vec::new() }))
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.lock().remove(name);
            Ok(())
        }
    }

    struct MemoryFile {
        files: Files,
        name: String,
        contents: Vec<u8>,
    }

    impl Write for MemoryFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.contents.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl FileWriter for MemoryFile {
        fn finish(self: Box<Self>) -> io::Result<()> {
            let Self { files, name, contents } = *self;
            files
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name, Bytes::from(contents));
            Ok(())
        }
    }
}
