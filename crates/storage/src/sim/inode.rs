//! One simulated file: what the page cache shows against what the platter holds.
//!
//! Invariants:
//! - `cached` is what reads see. `durable` is what a power loss leaves for certain.
//! - With nothing pending the two are equal, unless a failed sync dropped pages: then `cached`
//!   shows, as clean, bytes that the platter never got.

use super::random::Random;

/// The largest piece that the simulated device writes all or nothing.
pub const SECTOR_BYTES: u64 = 512;

/// The piece in which the page cache tracks clean and dirty.
const PAGE_BYTES: u64 = 4096;

/// What a failed sync does to the pages it should have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFailure {
    /// Marks them clean without writing them: reads still show them until the cache is dropped
    /// or the machine restarts (what Linux file systems do).
    DropPages,
    /// Leaves them dirty: a later sync writes them.
    KeepPages,
    /// Writes some sectors and marks all pages clean.
    WriteSome,
}

/// How unsynced changes fare in one power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashStyle {
    /// None survives.
    LoseAll,
    /// All survive.
    KeepAll,
    /// Each survives or not, whole.
    EachChange,
    /// Each survives or not, and of a surviving write each sector does or does not.
    EachSector,
}

impl CrashStyle {
    pub(super) fn pick(random: &mut Random) -> Self {
        match random.below(6) {
            0 => Self::LoseAll,
            1 => Self::KeepAll,
            2 => Self::EachChange,
            _ => Self::EachSector,
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl Inode {
    pub(super) fn cached(&self) -> &[u8] {
        &self.cached
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        apply_write(&mut self.cached, offset, data);
        self.pending.push(Change::Write { offset, data: data.to_vec() });
    }

    pub(super) fn set_length(&mut self, bytes: u64) {
        self.cached.resize(bytes as usize, 0);
        self.pending.push(Change::Length(bytes));
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    pub(super) fn fail_sync(&mut self, how: SyncFailure, random: &mut Random) {
        match how {
            SyncFailure::KeepPages => {}
            SyncFailure::DropPages => self.pending.clear(),
            SyncFailure::WriteSome => self.settle(CrashStyle::EachSector, random),
        }
    }

    /// Forgets clean pages, so that the next read shows the platter.
    pub(super) fn drop_cache(&mut self) {
        let mut truth = self.durable.clone();
        for change in &self.pending {
            if let Change::Length(bytes) = change {
                truth.resize(*bytes as usize, 0);
            }
        }
        let mut dirty = vec![false; self.cached.len().div_ceil(PAGE_BYTES as usize)];
        for change in &self.pending {
            if let Change::Write { offset, data } = change {
                let first = (offset / PAGE_BYTES) as usize;
                let last = (offset + data.len() as u64).div_ceil(PAGE_BYTES) as usize;
                let last = last.min(dirty.len());
                dirty[first.min(last)..last].fill(true);
            }
        }
        if self.pending.is_empty() {
            self.cached = truth;
            return;
        }
        for (page, _) in dirty.iter().enumerate().filter(|(_, dirty)| !**dirty) {
            let from = page * PAGE_BYTES as usize;
            let to = (from + PAGE_BYTES as usize).min(self.cached.len());
            for at in from..to {
                self.cached[at] = truth.get(at).copied().unwrap_or(0);
            }
        }
    }

    /// Power loss and restart.
    pub(super) fn crash(&mut self, style: CrashStyle, random: &mut Random) {
        self.settle(style, random);
        self.cached = self.durable.clone();
    }

    /// Changes bytes on the platter and in the cache, as rot or a misdirected write does.
    pub(super) fn damage(&mut self, offset: u64, data: &[u8]) {
        apply_write(&mut self.durable, offset, data);
        apply_write(&mut self.cached, offset, data);
    }

    fn settle(&mut self, style: CrashStyle, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            let survives = match style {
                CrashStyle::LoseAll => false,
                CrashStyle::KeepAll => true,
                CrashStyle::EachChange | CrashStyle::EachSector => random.coin(),
            };
            match &change {
                Change::Write { offset, data } if style == CrashStyle::EachSector => {
                    // Also a write that "survives" is torn half of the time, so that prefixes,
                    // suffixes and middles all occur.
                    let torn = random.coin();
                    if survives || torn {
                        self.write_torn(*offset, data, random);
                    }
                }
                _ if survives => apply(&mut self.durable, &change),
                _ => {}
            }
        }
    }

    fn write_torn(&mut self, offset: u64, data: &[u8], random: &mut Random) {
        let end = offset + data.len() as u64;
        let mut from = offset;
        while from < end {
            let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            if random.coin() {
                let piece = &data[(from - offset) as usize..(to - offset) as usize];
                apply_write(&mut self.durable, from, piece);
            }
            from = to;
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => apply_write(content, *offset, data),
        Change::Length(bytes) => content.resize(*bytes as usize, 0),
    }
}

fn apply_write(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(data);
}
