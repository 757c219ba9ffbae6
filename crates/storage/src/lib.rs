//! The bytes floor: the only door to the disk, and the write-ahead log behind it.
//!
//! - [`fs`]: what the rest of Mainstay may ask of a disk, and the real one.
//! - [`directory`]: a flat folder of immutable files that appear whole or not at all.
//! - [`log`]: one checksummed, hash-chained frame for each group commit; acknowledged means durable.
//! - [`sim`]: a disk in memory that loses power, tears writes, fills up, rots and lies, from a seed.

pub mod fs;

pub mod directory;
pub mod log;
pub mod sim;

pub use directory::{Directory, DirectoryWriter};
pub use fs::{FileHandle, FileSystem, LockError, RealFs};
pub use log::{Entry, Log, LogError, LogOptions, Record};
