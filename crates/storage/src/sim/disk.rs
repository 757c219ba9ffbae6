//! The state of the simulated disk: names, files, faults and the power switch.
//!
//! Invariants:
//! - `seen` is what processes see; `durable` is what a power loss leaves for certain. They differ
//!   by `changes`, in the order in which they were made.
//! - A name's durability and its content's durability are independent: syncing a file does not
//!   make its name durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::faults::{Failure, Faults, Operation};
use super::inode::{CrashStyle, Inode};
use super::random::Random;
use crate::fs::{Listed, LockError};

/// The process id that locks on the simulated disk name as their holder.
const SIM_PID: u32 = 4242;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { path: PathBuf, node: Node },
    Rename { from: PathBuf, to: PathBuf, node: Node },
    Unlink { path: PathBuf },
}

impl NameChange {
    fn concerns(&self, dir: &Path) -> bool {
        match self {
            Self::Link { path, .. } | Self::Unlink { path } => parent(path) == dir,
            Self::Rename { from, to, .. } => parent(from) == dir || parent(to) == dir,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Link { path, node } => {
                names.insert(path.clone(), *node);
            }
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
                if *node == Node::Dir {
                    let inside = names.keys().filter(|name| name.starts_with(from));
                    for name in inside.cloned().collect::<Vec<_>>() {
                        if let (Ok(rest), Some(node)) =
                            (name.strip_prefix(from), names.remove(&name))
                        {
                            names.insert(to.join(rest), node);
                        }
                    }
                }
            }
            Self::Unlink { path } => {
                names.remove(path);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) faults: Faults,
    pub(super) capacity: Option<u64>,
    pub(super) operations: u64,
    pub(super) power_off_at: Option<u64>,
    pub(super) off: bool,
    pub(super) epoch: u64,
    random: Random,
    seen: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    changes: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    locks: BTreeSet<PathBuf>,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            faults: Faults::default(),
            capacity: None,
            operations: 0,
            power_off_at: None,
            off: false,
            epoch: 0,
            random: Random::new(seed),
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
            changes: Vec::new(),
            inodes: BTreeMap::new(),
            inode_next: 1,
            locks: BTreeSet::new(),
        }
    }

    pub(super) fn fork(&self, seed: u64) -> Self {
        Self {
            faults: self.faults.clone(),
            random: Random::new(seed),
            seen: self.seen.clone(),
            durable: self.durable.clone(),
            changes: self.changes.clone(),
            inodes: self.inodes.clone(),
            locks: self.locks.clone(),
            ..*self
        }
    }

    pub(super) fn crash(&mut self, style: Option<CrashStyle>) {
        for change in std::mem::take(&mut self.changes) {
            let style = style.unwrap_or_else(|| CrashStyle::pick(&mut self.random));
            let survives = match style {
                CrashStyle::LoseAll => false,
                CrashStyle::KeepAll => true,
                CrashStyle::EachChange | CrashStyle::EachSector => self.random.coin(),
            };
            if survives {
                change.apply(&mut self.durable);
            }
        }
        let names = std::mem::take(&mut self.durable);
        for (path, node) in names {
            // Parents sort before what is in them, so one pass finds every orphan.
            if is_root(parent(&path)) || self.durable.get(parent(&path)) == Some(&Node::Dir) {
                self.durable.insert(path, node);
            }
        }
        self.seen = self.durable.clone();
        let live: BTreeSet<u64> = self.seen.values().filter_map(Node::file).collect();
        self.inodes.retain(|id, _| live.contains(id));
        for inode in self.inodes.values_mut() {
            let style = style.unwrap_or_else(|| CrashStyle::pick(&mut self.random));
            inode.crash(style, &mut self.random);
        }
        self.kill();
    }

    pub(super) fn kill(&mut self) {
        self.epoch += 1;
        self.locks.clear();
        self.off = false;
        self.power_off_at = None;
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.seen.iter().filter(|(_, node)| **node != Node::Dir).map(|(p, _)| p.clone()).collect()
    }

    pub(super) fn inode_of(&mut self, path: &Path) -> Option<&mut Inode> {
        let id = self.seen.get(path)?.file()?;
        self.inodes.get_mut(&id)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let ids: BTreeSet<u64> = self.seen.values().filter_map(Node::file).collect();
        ids.iter().filter_map(|id| self.inodes.get(id)).map(|i| i.cached().len() as u64).sum()
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |bytes| bytes.saturating_sub(self.used_bytes()))
    }

    /// Counts a call and decides its fate. `Ok(true)`: the power goes off in this call, which may
    /// or may not still have its effect.
    fn begin(&mut self, operation: Operation) -> io::Result<bool> {
        if self.off {
            return Err(power_is_off());
        }
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| self.operations >= at) {
            self.off = true;
            return if self.random.coin() { Ok(true) } else { Err(power_is_off()) };
        }
        match self.faults.strike(operation, &mut self.random) {
            Some(failure) => Err(failure.error()),
            None => Ok(false),
        }
    }

    /// A call that only looks: losing power in it has no effect to keep.
    fn look(&mut self, operation: Operation) -> io::Result<()> {
        if self.begin(operation)? { Err(power_is_off()) } else { Ok(()) }
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.seen);
        self.changes.push(change);
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        let dying = self.begin(Operation::Create)?;
        if !is_root(parent(path)) && self.seen.get(parent(path)) != Some(&Node::Dir) {
            return Err(not_found(parent(path)));
        }
        let id = match self.seen.get(path) {
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(id)) => {
                let id = *id;
                self.inode(id)?.set_length(0);
                id
            }
            None => {
                let id = self.inode_next;
                self.inode_next += 1;
                self.inodes.insert(id, Inode::default());
                self.change(NameChange::Link { path: path.to_owned(), node: Node::File(id) });
                id
            }
        };
        if dying { Err(power_is_off()) } else { Ok(id) }
    }

    pub(super) fn open(&mut self, path: &Path) -> io::Result<u64> {
        self.look(Operation::Open)?;
        self.seen.get(path).and_then(Node::file).ok_or_else(|| not_found(path))
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let dying = self.begin(Operation::Rename)?;
        let node = *self.seen.get(from).ok_or_else(|| not_found(from))?;
        // What a crash may leave of both is not modelled; a careful caller syncs what is inside first.
        let inside = |change: &NameChange| {
            let (NameChange::Link { path, .. }
            | NameChange::Unlink { path }
            | NameChange::Rename { to: path, .. }) = change;
            path != from && path.starts_with(from)
        };
        if node == Node::Dir && self.changes.iter().any(inside) {
            let message = "renaming a folder before the names in it are synced";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        self.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), node });
        if dying { Err(power_is_off()) } else { Ok(()) }
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let dying = self.begin(Operation::Remove)?;
        if self.seen.get(path).and_then(Node::file).is_none() {
            return Err(not_found(path));
        }
        self.change(NameChange::Unlink { path: path.to_owned() });
        if dying { Err(power_is_off()) } else { Ok(()) }
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let dying = self.begin(Operation::Remove)?;
        if self.seen.get(path) != Some(&Node::Dir) {
            return Err(not_found(path));
        }
        let inside: Vec<PathBuf> =
            self.seen.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for path in inside.into_iter().rev() {
            self.change(NameChange::Unlink { path });
        }
        if dying { Err(power_is_off()) } else { Ok(()) }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let dying = self.begin(Operation::CreateDir)?;
        let mut folders: Vec<&Path> = path.ancestors().filter(|folder| !is_root(folder)).collect();
        folders.reverse();
        for folder in folders {
            match self.seen.get(folder) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    self.change(NameChange::Link { path: folder.to_owned(), node: Node::Dir });
                }
            }
        }
        if dying { Err(power_is_off()) } else { Ok(()) }
    }

    pub(super) fn list(&mut self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.look(Operation::Ask)?;
        if !is_root(dir) && self.seen.get(dir) != Some(&Node::Dir) {
            return Err(not_found(dir));
        }
        let inside = self.seen.iter().filter(|(path, _)| parent(path) == dir);
        Ok(inside
            .filter_map(|(path, node)| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some(Listed { name, is_dir: *node == Node::Dir })
            })
            .collect())
    }

    pub(super) fn len(&mut self, path: &Path) -> io::Result<u64> {
        self.look(Operation::Ask)?;
        self.inode_of(path).map(|i| i.cached().len() as u64).ok_or_else(|| not_found(path))
    }

    pub(super) fn exists(&mut self, path: &Path) -> io::Result<bool> {
        self.look(Operation::Ask)?;
        Ok(is_root(path) || self.seen.contains_key(path))
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if self.begin(Operation::SyncDir)? {
            return Err(power_is_off());
        }
        if !is_root(dir) && self.seen.get(dir) != Some(&Node::Dir) {
            return Err(not_found(dir));
        }
        let (done, left): (Vec<_>, Vec<_>) =
            self.changes.drain(..).partition(|change| change.concerns(dir));
        for change in &done {
            change.apply(&mut self.durable);
        }
        self.changes = left;
        Ok(())
    }

    pub(super) fn map(&mut self, path: &Path) -> io::Result<Bytes> {
        self.look(Operation::Read)?;
        let inode = self.inode_of(path).ok_or_else(|| not_found(path))?;
        Ok(Bytes::copy_from_slice(inode.cached()))
    }

    pub(super) fn lock(&mut self, path: &Path) -> Result<(), LockError> {
        self.look(Operation::Ask)
            .map_err(|source| LockError::Io { path: path.to_owned(), source })?;
        if self.locks.insert(path.to_owned()) {
            return Ok(());
        }
        Err(LockError::Held { path: path.to_owned(), pid: Some(SIM_PID) })
    }

    pub(super) fn unlock(&mut self, epoch: u64, path: &Path) {
        if epoch == self.epoch {
            self.locks.remove(path);
        }
    }

    pub(super) fn available_bytes(&mut self) -> io::Result<u64> {
        self.look(Operation::Ask)?;
        Ok(self.room())
    }

    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::Error::other("a file of an earlier life"))
    }

    fn alive(&self, epoch: u64) -> io::Result<()> {
        if epoch == self.epoch {
            return Ok(());
        }
        Err(io::Error::other("a handle of a process that is dead"))
    }

    pub(super) fn read_at(
        &mut self,
        epoch: u64,
        id: u64,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        self.alive(epoch)?;
        self.look(Operation::Read)?;
        let content = self.inode(id)?.cached();
        let from = (offset as usize).min(content.len());
        let bytes = buffer.len().min(content.len() - from);
        buffer[..bytes].copy_from_slice(&content[from..from + bytes]);
        Ok(bytes)
    }

    pub(super) fn write_at(
        &mut self,
        epoch: u64,
        id: u64,
        data: &[u8],
        offset: u64,
    ) -> io::Result<usize> {
        self.alive(epoch)?;
        let dying = self.begin(Operation::Write)?;
        let room = self.room();
        let length = self.inode(id)?.cached().len() as u64;
        let writable = length.saturating_add(room).saturating_sub(offset).min(data.len() as u64);
        if writable == 0 && !data.is_empty() {
            return Err(Failure::NoSpace.error());
        }
        let mut bytes = writable as usize;
        if bytes > 1 && self.random.per_mille(self.faults.short_write_per_mille) {
            bytes = 1 + self.random.below(bytes as u64 - 1) as usize;
        }
        self.inode(id)?.write(offset, &data[..bytes]);
        if dying { Err(power_is_off()) } else { Ok(bytes) }
    }

    pub(super) fn allocate(&mut self, epoch: u64, id: u64, bytes: u64) -> io::Result<()> {
        self.alive(epoch)?;
        let dying = self.begin(Operation::Allocate)?;
        let room = self.room();
        let length = self.inode(id)?.cached().len() as u64;
        if bytes.saturating_sub(length) > room {
            return Err(Failure::NoSpace.error());
        }
        self.inode(id)?.write(0, &vec![0; bytes as usize]);
        if dying { Err(power_is_off()) } else { Ok(()) }
    }

    pub(super) fn truncate(&mut self, epoch: u64, id: u64, bytes: u64) -> io::Result<()> {
        self.alive(epoch)?;
        let dying = self.begin(Operation::Truncate)?;
        self.inode(id)?.set_length(bytes);
        if dying { Err(power_is_off()) } else { Ok(()) }
    }

    pub(super) fn handle_len(&mut self, epoch: u64, id: u64) -> io::Result<u64> {
        self.alive(epoch)?;
        self.look(Operation::Ask)?;
        Ok(self.inode(id)?.cached().len() as u64)
    }

    pub(super) fn sync(&mut self, epoch: u64, id: u64) -> io::Result<()> {
        self.alive(epoch)?;
        match self.begin(Operation::Sync) {
            Ok(false) => {
                self.inode(id)?.sync();
                Ok(())
            }
            Ok(true) => Err(power_is_off()),
            Err(error) => {
                if !self.off {
                    let how = self.faults.sync_failure;
                    let inode = self.inodes.get_mut(&id);
                    if let Some(inode) = inode {
                        inode.fail_sync(how, &mut self.random);
                    }
                }
                Err(error)
            }
        }
    }

    pub(super) fn drop_cache(&mut self, epoch: u64, id: u64) -> io::Result<()> {
        self.alive(epoch)?;
        self.look(Operation::Ask)?;
        if self.faults.drop_cache_works {
            self.inode(id)?.drop_cache();
        }
        Ok(())
    }
}

impl Node {
    fn file(&self) -> Option<u64> {
        match self {
            Self::File(id) => Some(*id),
            Self::Dir => None,
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn is_root(path: &Path) -> bool {
    path == Path::new("") || path == Path::new("/") || path == Path::new(".")
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}
