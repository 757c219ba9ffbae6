//! A log on the simulated disk, the model of what it must hold, and the faults of one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mainstay_storage::fs::FileSystem;
use mainstay_storage::log::{
    Appended, Class, Entry, LogError, LogOptions, Mutation, OpenCheck, Record, Recovery, SyncLog,
    receipt_hash,
};
use mainstay_storage::sim::{Random, SimFs};

/// What went wrong, as the test found it.
pub(crate) type Verdict<T> = Result<T, String>;

/// A known-bad variant under test: of the log, or of the file system below it.
pub(crate) type Break = Option<Mutation>;

/// What must be in the log.
#[derive(Clone, Default)]
pub(crate) struct Model {
    /// Records that were acknowledged or that a later open showed, by number.
    pub(crate) settled: BTreeMap<u64, Record>,
    /// Records of the one frame whose outcome is unknown; they would follow the settled ones.
    pub(crate) unknown: Vec<Record>,
    /// Numbers that compaction may leave out.
    pub(crate) dead: BTreeSet<u64>,
    /// Numbers whose loss was accepted.
    pub(crate) lost: BTreeSet<u64>,
    receipts: Vec<Appended>,
}

impl Model {
    pub(crate) fn last_seq(&self) -> u64 {
        self.settled.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn acknowledge(
        &mut self,
        groups: &[Vec<Record>],
        appended: &[Appended],
    ) -> Verdict<()> {
        let mut next = self.last_seq() + 1;
        for (records, appended) in groups.iter().zip(appended) {
            if appended.first_seq != next {
                return Err(format!("numbered {}, expected {next}", appended.first_seq));
            }
            for record in records {
                self.settled.insert(next, record.clone());
                next += 1;
            }
            self.receipts.push(*appended);
        }
        Ok(())
    }

    /// After an open: decides the unknown frame for good.
    pub(crate) fn settle(&mut self, durable_seq: u64) -> Verdict<()> {
        let last_seq = self.last_seq();
        let unknown = std::mem::take(&mut self.unknown);
        if durable_seq == last_seq {
            return Ok(());
        }
        if durable_seq != last_seq + unknown.len() as u64 {
            return Err(format!(
                "opened at {durable_seq}, acknowledged up to {last_seq}, {} unknown",
                unknown.len()
            ));
        }
        for (record, seq) in unknown.into_iter().zip(last_seq + 1..) {
            self.settled.insert(seq, record);
        }
        Ok(())
    }

    /// Compares everything that can be read with what must be there.
    pub(crate) fn check(&self, log: &SyncLog, random: &mut Random) -> Verdict<()> {
        let mut found: BTreeMap<u64, Entry> = BTreeMap::new();
        let mut from = 1;
        while from <= log.durable_seq() {
            let batch = log
                .read_batch(from, 1 + random.below(4096))
                .map_err(|error| format!("reading from {from}: {error}"))?;
            if batch.next_seq <= from {
                return Err(format!("reading from {from} does not move on"));
            }
            for entry in batch.entries {
                if found.keys().next_back().is_some_and(|last| *last >= entry.seq) {
                    return Err(format!("record {} is out of order", entry.seq));
                }
                found.insert(entry.seq, entry);
            }
            from = batch.next_seq;
        }
        for (seq, record) in &self.settled {
            match found.get(seq) {
                Some(entry) if entry.kind == record.kind && entry.payload == record.payload => {}
                Some(_) => return Err(format!("record {seq} is not what was appended")),
                None if self.dead.contains(seq) || self.lost.contains(seq) => {}
                None => return Err(format!("record {seq} was acknowledged and is gone")),
            }
        }
        if let Some(seq) = found.keys().find(|seq| !self.settled.contains_key(seq)) {
            return Err(format!("record {seq} was never appended"));
        }
        self.check_receipts(&found)
    }

    fn check_receipts(&self, found: &BTreeMap<u64, Entry>) -> Verdict<()> {
        for receipt in &self.receipts {
            let range = receipt.first_seq..=receipt.last_seq;
            let entries: Vec<&Entry> = found.range(range.clone()).map(|(_, e)| e).collect();
            if entries.len() as u64 != receipt.last_seq + 1 - receipt.first_seq {
                continue;
            }
            let hash = receipt_hash(entries.iter().map(|e| (e.seq, e.kind, e.payload.as_ref())));
            if hash != receipt.hash {
                return Err(format!("the receipt of {range:?} does not match"));
            }
        }
        Ok(())
    }
}

/// Everything that one seed decides.
pub(crate) struct World {
    pub(crate) fs: SimFs,
    pub(crate) dir: PathBuf,
    pub(crate) random: Random,
    pub(crate) model: Model,
    pub(crate) options: LogOptions,
    ids: u64,
}

impl World {
    pub(crate) fn new(seed: u64, broken: Break) -> Self {
        let mut random = Random::new(seed);
        let fs = SimFs::new(random.next_u64());
        let segment_bytes = (8 << 10) << random.below(3);
        let clock = Arc::new(AtomicU64::new(1));
        let entropy = Arc::new(AtomicU64::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1));
        let options = LogOptions {
            segment_bytes_min: segment_bytes,
            segment_bytes_max: segment_bytes << random.below(2),
            frame_bytes_max: 6 << 10,
            reserve_bytes: if random.coin() { segment_bytes } else { 0 },
            cache_bytes: random.below(3) * 2048,
            compacted_bytes_max: (16 << 10) << random.below(3),
            check: if random.coin() { OpenCheck::Full } else { OpenCheck::Tail },
            on_fatal: Arc::new(|_| {}),
            clock: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
            entropy: Arc::new(move || {
                Random::new(entropy.fetch_add(1, Ordering::Relaxed)).next_u64()
            }),
            mutation: broken,
            ..LogOptions::small()
        };
        let dir = PathBuf::from("/data/collection/log");
        Self { fs, dir, random, model: Model::default(), options, ids: 0 }
    }

    pub(crate) fn open(&self) -> Result<(SyncLog, Recovery), LogError> {
        let fs: Arc<dyn FileSystem> = Arc::new(self.fs.clone());
        SyncLog::open(fs, &self.dir, self.options.clone())
    }

    /// A record that no other equals.
    pub(crate) fn record(&mut self) -> Record {
        self.ids += 1;
        let filler = match self.random.below(8) {
            0 => self.random.below(2000),
            1 => 0,
            _ => self.random.below(200),
        };
        let mut payload = self.ids.to_le_bytes().to_vec();
        // Half of it compresses, half does not.
        let compressible = self.random.coin();
        for _ in 0..filler {
            payload.push(if compressible { b'x' } else { self.random.next_u64() as u8 });
        }
        Record { kind: self.ids as u8, payload: Bytes::from(payload) }
    }

    /// What several waiting callers append at once.
    pub(crate) fn groups(&mut self) -> Vec<Vec<Record>> {
        let callers = 1 + self.random.below(3);
        (0..callers)
            .map(|_| {
                let records = 1 + self.random.below(3);
                (0..records).map(|_| self.record()).collect()
            })
            .collect()
    }

    /// Commits what several callers wait for, keeping the model up to date.
    pub(crate) fn commit(&mut self, log: &SyncLog, class: Class) -> Verdict<Commit> {
        let groups = self.groups();
        self.commit_groups(log, class, groups)
    }

    /// Commits one record, small enough for any frame.
    pub(crate) fn commit_one(&mut self, log: &SyncLog) -> Verdict<Commit> {
        let record = self.record();
        self.commit_groups(log, Class::Ordinary, vec![vec![record]])
    }

    fn commit_groups(
        &mut self,
        log: &SyncLog,
        class: Class,
        groups: Vec<Vec<Record>>,
    ) -> Verdict<Commit> {
        let slices: Vec<&[Record]> = groups.iter().map(Vec::as_slice).collect();
        match log.commit(&slices, class) {
            Ok(appended) => {
                self.model.acknowledge(&groups, &appended)?;
                Ok(Commit::Acknowledged)
            }
            Err(LogError::OutcomeUnknown { .. }) => {
                if self.model.unknown.is_empty() {
                    self.model.unknown = groups.into_iter().flatten().collect();
                }
                Ok(Commit::Ended)
            }
            Err(LogError::Poisoned { .. }) => Ok(Commit::Ended),
            Err(
                LogError::DiskFull { .. }
                | LogError::SegmentUnavailable { .. }
                | LogError::TooLarge { .. },
            ) => Ok(Commit::Refused),
            Err(error) => Err(format!("commit: {error}")),
        }
    }

    /// Marks some settled records as no longer needed.
    pub(crate) fn bury(&mut self) {
        let share = self.random.below(4);
        let seqs: Vec<u64> = self.model.settled.keys().copied().collect();
        for seq in seqs {
            if self.random.below(4) < share {
                self.model.dead.insert(seq);
            }
        }
    }

    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let is_segment = |path: &Path| path.extension().is_some_and(|e| e == "seg");
        self.fs.files().into_iter().filter(|path| is_segment(path)).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Acknowledged,
    Refused,
    Ended,
}
