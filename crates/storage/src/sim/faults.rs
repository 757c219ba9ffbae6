//! Which calls of the simulated disk fail, and how.

use std::io;

use super::inode::SyncFailure;
use super::random::Random;

/// Every kind of call that the simulated disk counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file created or emptied.
    Create,
    /// A file opened.
    Open,
    /// A name changed.
    Rename,
    /// A file or folder removed.
    Remove,
    /// A folder created.
    CreateDir,
    /// A folder synced.
    SyncDir,
    /// A file read or mapped.
    Read,
    /// Bytes written.
    Write,
    /// Space reserved.
    Allocate,
    /// A length set.
    Truncate,
    /// A file's content synced, with or without its metadata.
    Sync,
    /// A question: list, length, existence, space, lock, cache advice.
    Ask,
}

/// The error a failing call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    NoSpace,
}

impl Failure {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
            Self::NoSpace => io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()),
        }
    }
}

/// Fails certain calls: of those of a kind, lets `skip` pass, then fails `times` of them.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The kind of call; `None` counts every call.
    pub on: Option<Operation>,
    /// Calls that pass first.
    pub skip: u64,
    /// Calls that then fail; `u64::MAX` for all.
    pub times: u64,
    /// How they fail.
    pub failure: Failure,
}

/// What may go wrong, apart from power loss.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Calls that fail by count.
    pub rules: Vec<Rule>,
    /// Writes of 1,000 that take only a part.
    pub short_write_per_mille: u32,
    /// Reads of 1,000 that fail with `EIO`.
    pub read_error_per_mille: u32,
    /// Writes of 1,000 that fail with `EIO`.
    pub write_error_per_mille: u32,
    /// Syncs (of files and folders) of 1,000 that fail with `EIO`.
    pub sync_error_per_mille: u32,
    /// What a failing sync does to the pages.
    pub sync_failure: SyncFailure,
    /// Whether advice to drop the cache has an effect (it is only advice).
    pub drop_cache_works: bool,
}

impl Default for Faults {
    /// Nothing goes wrong.
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            short_write_per_mille: 0,
            read_error_per_mille: 0,
            write_error_per_mille: 0,
            sync_error_per_mille: 0,
            sync_failure: SyncFailure::DropPages,
            drop_cache_works: true,
        }
    }
}

impl Faults {
    /// Decides about one call.
    pub(super) fn strike(&mut self, operation: Operation, random: &mut Random) -> Option<Failure> {
        for rule in &mut self.rules {
            if rule.on.is_some_and(|on| on != operation) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times = if rule.times == u64::MAX { u64::MAX } else { rule.times - 1 };
                return Some(rule.failure);
            }
        }
        let chance = match operation {
            Operation::Read => self.read_error_per_mille,
            Operation::Write => self.write_error_per_mille,
            Operation::Sync | Operation::SyncDir => self.sync_error_per_mille,
            _ => 0,
        };
        (chance > 0 && random.per_mille(chance)).then_some(Failure::Io)
    }
}
