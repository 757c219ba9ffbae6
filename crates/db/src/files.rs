//! [`ViewFiles`]: storage's folder of immutable files, as the views ask for it.

use std::io::{self, Write};

use bytes::Bytes;
use mainstay_search::directory::{Directory, FileWriter};
use mainstay_storage::DirectoryWriter;

/// Lets a view of crate `search` keep its files in a folder of crate `storage`.
pub(crate) struct ViewFiles(pub(crate) mainstay_storage::Directory);

impl Directory for ViewFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        self.0.open_file(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn FileWriter>> {
        Ok(Box::new(ViewFile(self.0.create(name)?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
}

struct ViewFile(DirectoryWriter);

impl Write for ViewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl FileWriter for ViewFile {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.finish()
    }
}
