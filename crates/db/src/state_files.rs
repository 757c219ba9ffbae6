//! [`StateFiles`]: small named pieces of state beside the collections: what the process that serves
//! the data directory keeps across restarts.
//!
//! A piece is replaced as a whole, durably. A journal only grows; when it has reached its bound it
//! becomes the previous one, and a new one begins. A line that a crash cut short stays as it is, on a
//! line of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_storage::fs::{self, FileHandle, FileSystem};

/// The largest piece: a thousand flags with their rules stay far below it.
const PIECE_BYTES_MAX: u64 = 16 << 20;
/// A journal that is longer becomes the previous one: some 30,000 lines.
const JOURNAL_BYTES_MAX: u64 = 8 << 20;

/// The folder of small pieces of state. Clones share it.
#[derive(Clone, Debug)]
pub struct StateFiles {
    fs: Arc<dyn FileSystem>,
    folder: PathBuf,
    /// The journal that was written last: its name, its file and its length.
    journal: Arc<Mutex<Option<Journal>>>,
}

#[derive(Debug)]
struct Journal {
    name: String,
    file: Box<dyn FileHandle>,
    bytes: u64,
}

impl Journal {
    /// Ends a line that a crash or a full disk cut short, so that the next one begins on its own. It
    /// is durable with the next line.
    fn end_torn_line(&mut self) -> io::Result<()> {
        let Some(at) = self.bytes.checked_sub(1) else { return Ok(()) };
        let mut last = [0];
        self.file.read_exact_at(&mut last, at)?;
        if last == *b"\n" {
            return Ok(());
        }
        self.file.write_all_at(b"\n", self.bytes)?;
        self.bytes += 1;
        metrics::counter!("mainstay_journal_torn_lines_total").increment(1);
        tracing::warn!(journal = self.name, "the last line was cut short; it stays as it is");
        Ok(())
    }
}

impl StateFiles {
    pub(crate) fn open(fs: Arc<dyn FileSystem>, folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_durable(fs.as_ref(), &folder)?;
        Ok(Self { fs, folder, journal: Arc::default() })
    }

    /// The piece as it was last saved; nothing when there is none. Names are lower-case letters,
    /// digits, `-` and `.`.
    pub fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name)?;
        if !self.fs.exists(&path)? {
            return Ok(None);
        }
        fs::read(self.fs.as_ref(), &path, PIECE_BYTES_MAX).map(Some)
    }

    /// Replaces the piece: after a crash it is the old one or the new one.
    pub fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::write_atomic(self.fs.as_ref(), &self.path(name)?, bytes)
    }

    /// Adds a line to a journal; durable on return.
    pub fn append(&self, name: &str, line: &str) -> io::Result<()> {
        let path = self.path(name)?;
        let mut open = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|journal| journal.name != name) {
            *open = Some(self.open_journal(name, &path)?);
        }
        if open.as_ref().is_some_and(|journal| journal.bytes >= JOURNAL_BYTES_MAX) {
            *open = None;
            self.fs.rename(&path, &self.path(&format!("{name}.1"))?)?;
            let file = self.fs.create(&path)?;
            self.fs.sync_dir(&self.folder)?;
            *open = Some(Journal { name: name.to_string(), file, bytes: 0 });
        }
        let Some(journal) = open.as_mut() else { return Ok(()) };
        let text = format!("{}\n", line.replace('\n', " "));
        let written = journal.file.write_all_at(text.as_bytes(), journal.bytes);
        match written.and_then(|()| journal.file.sync_data()) {
            Ok(()) => {
                journal.bytes += text.len() as u64;
                Ok(())
            }
            // What is there is looked at anew the next time.
            Err(error) => {
                *open = None;
                Err(error)
            }
        }
    }

    /// The last lines of a journal, the oldest first: what lies in its last `bytes_max` bytes, and in
    /// those of the previous one while that is not enough. Lines that are no UTF-8 are left out; one
    /// that was cut short is given as it is.
    pub fn last_lines(&self, name: &str, bytes_max: u64) -> io::Result<Vec<String>> {
        let mut tails = Vec::new();
        let mut left = bytes_max;
        for name in [name.to_string(), format!("{name}.1")] {
            let path = self.path(&name)?;
            if left == 0 || !self.fs.exists(&path)? {
                break;
            }
            let length = self.fs.open(&path)?.len()?;
            tails.push(self.tail(&path, left)?);
            // None of the previous one, once a line of this one did not fit.
            left = left.saturating_sub(length);
        }
        let lines = tails.iter().rev().flat_map(|tail| tail.split(|byte| *byte == b'\n'));
        let texts =
            lines.filter(|line| !line.is_empty()).map(|line| String::from_utf8(line.to_vec()));
        Ok(texts.filter_map(Result::ok).collect())
    }

    /// The whole lines within the last `bytes_max` bytes of a file.
    fn tail(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.fs.open(path)?;
        let from = file.len()?.saturating_sub(bytes_max);
        let mut bytes = vec![0; usize::try_from(file.len()? - from).unwrap_or(0)];
        file.read_exact_at(&mut bytes, from)?;
        if from > 0 {
            let cut = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            bytes.drain(..cut);
        }
        Ok(bytes)
    }

    fn open_journal(&self, name: &str, path: &Path) -> io::Result<Journal> {
        let exists = self.fs.exists(path)?;
        let file = if exists { self.fs.open(path)? } else { self.fs.create(path)? };
        if !exists {
            self.fs.sync_dir(&self.folder)?;
        }
        let mut journal = Journal { name: name.to_string(), bytes: file.len()?, file };
        journal.end_torn_line()?;
        Ok(journal)
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(letter)
        {
            let message = format!("\"{name:.80}\" names no piece of state");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(self.folder.join(name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mainstay_storage::RealFs;

    #[test]
    fn pieces_are_replaced_and_journals_grow_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let open = || StateFiles::open(Arc::new(RealFs), folder.path().join("state")).unwrap();
        let files = open();
        assert_eq!(files.load("flags").unwrap(), None);
        files.save("flags", b"one").unwrap();
        files.save("flags", b"two").unwrap();
        files.append("audit.ndjson", "first").unwrap();
        let again = open();
        again.append("audit.ndjson", "second\nline").unwrap();
        assert_eq!(again.load("flags").unwrap().unwrap(), b"two");
        assert_eq!(again.load("audit.ndjson").unwrap().unwrap(), b"first\nsecond line\n");
        for name in ["", "../x", "a/b", ".hidden", "Ü"] {
            assert!(files.save(name, b"").is_err(), "{name}");
        }
    }

    /// A crash may leave any part of the last line.
    #[test]
    fn a_line_that_was_cut_short_spoils_no_other_and_is_ended_once() {
        let last = "{\"number\":2,\"why\":\"ä\"}\n".as_bytes();
        for cut in 0..=last.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state/audit.ndjson");
            let open = || StateFiles::open(Arc::new(RealFs), folder.path().join("state")).unwrap();
            open().append("audit.ndjson", "first").unwrap();
            let torn = [&b"first\n"[..], &last[..cut]].concat();
            std::fs::write(&path, &torn).unwrap();
            let files = open();
            files.append("audit.ndjson", "third").unwrap();
            open().append("audit.ndjson", "fourth").unwrap();
            let ended = if torn.ends_with(b"\n") { "" } else { "\n" };
            let expected = [&torn[..], ended.as_bytes(), b"third\nfourth\n"].concat();
            assert_eq!(std::fs::read(&path).unwrap(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn the_last_lines_of_a_journal_are_whole_and_reach_into_the_previous_one() {
        let folder = tempfile::tempdir().unwrap();
        let files = StateFiles::open(Arc::new(RealFs), folder.path().join("state")).unwrap();
        let last = |bytes_max| files.last_lines("audit.ndjson", bytes_max).unwrap();
        assert_eq!(last(100), [""; 0]);
        std::fs::write(folder.path().join("state/audit.ndjson.1"), "first\n2\n").unwrap();
        std::fs::write(folder.path().join("state/audit.ndjson"), b"third\n\xff\nfourth\nto")
            .unwrap();
        assert_eq!(last(1000), ["first", "2", "third", "fourth", "to"]);
        // 17 bytes are those of the journal itself; the next ones cut the line before.
        assert_eq!(last(20), ["2", "third", "fourth", "to"]);
        assert_eq!(last(19), ["third", "fourth", "to"]);
        assert_eq!(last(17), ["third", "fourth", "to"]);
        assert_eq!(last(16), ["fourth", "to"], "what lies before a line that is left out is too");
        assert_eq!(last(10), ["fourth", "to"]);
        assert_eq!(last(2), [""; 0]);
    }

    #[test]
    fn a_journal_at_its_bound_becomes_the_previous_one() {
        let folder = tempfile::tempdir().unwrap();
        let files = StateFiles::open(Arc::new(RealFs), folder.path().join("state")).unwrap();
        let line = "x".repeat(1 << 20);
        (0..9).for_each(|_| files.append("audit.ndjson", &line).unwrap());
        let lengths = ["audit.ndjson.1", "audit.ndjson"]
            .map(|name| files.load(name).unwrap().unwrap().len() as u64);
        assert_eq!(lengths, [8 * ((1 << 20) + 1), (1 << 20) + 1]);
    }
}
