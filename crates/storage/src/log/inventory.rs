//! Which segment files a folder holds, which of them count, and which are missing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::check::{Limit, Verification, check_segment};
use super::error::{LogError, io_error};
use super::frame::{FRAME_HEADER_BYTES, FrameError, decode, decode_header};
use super::options::LogOptions;
use super::segment::{
    FORMAT_VERSION, HeaderError, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SegmentName,
};
use crate::fs::{FileSystem, TEMP_SUFFIX};

/// The segments of a log, in order, as far as they can be read.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Names of segments whose headers were rebuilt from their first frame.
    pub(crate) headers_rebuilt: Vec<String>,
    /// Files with a segment's name whose header is lost.
    pub(crate) unreadable: Vec<SegmentName>,
}

/// Reads the folder: removes what a crash left unfinished, sets aside what was replaced.
pub(crate) fn take_inventory(
    fs: &dyn FileSystem,
    dir: &Path,
    options: &LogOptions,
) -> Result<Inventory, LogError> {
    let mut names = Vec::new();
    for listed in fs.list(dir).map_err(io_error("listing", dir))? {
        let path = dir.join(&listed.name);
        if listed.name.ends_with(TEMP_SUFFIX) {
            fs.remove_file(&path).map_err(io_error("removing", &path))?;
        } else if let Some(name) = SegmentName::parse(&listed.name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    let mut inventory =
        Inventory { segments: Vec::new(), headers_rebuilt: Vec::new(), unreadable: Vec::new() };
    let mut store_id = options.store_id;
    let mut headless = Vec::new();
    for name in names {
        let path = name.path(dir);
        match Segment::open(fs, &path)? {
            Ok(segment) if segment.header.file_name() == name => {
                check_store(&segment, &mut store_id)?;
                inventory.segments.push(Arc::new(segment));
            }
            Ok(_) | Err(HeaderError::Damaged) => headless.push((name, path)),
            Err(HeaderError::FutureVersion(found)) => {
                return Err(LogError::FutureVersion { path, found, supported: FORMAT_VERSION });
            }
        }
    }
    for (name, path) in headless {
        match rebuild_header(fs, name, &path, store_id)? {
            Some(segment) => {
                inventory.headers_rebuilt.push(name.to_string());
                inventory.segments.push(Arc::new(segment));
            }
            None => inventory.unreadable.push(name),
        }
    }
    inventory.segments.sort_by_key(|segment| segment.header.file_name());
    drop_replaced(fs, dir, &mut inventory)?;
    Ok(inventory)
}

fn check_store(segment: &Segment, store_id: &mut Option<u128>) -> Result<(), LogError> {
    let found = segment.header.store_id;
    let expected = *store_id.get_or_insert(found);
    if found == expected {
        return Ok(());
    }
    Err(LogError::ForeignSegment { path: segment.path.clone(), found, expected })
}

/// Both copies of a header are lost: the first frame knows the seed, the first number and the
/// chain, the file name the rest.
fn rebuild_header(
    fs: &dyn FileSystem,
    name: SegmentName,
    path: &Path,
    store_id: Option<u128>,
) -> Result<Option<Segment>, LogError> {
    let file = fs.open(path).map_err(io_error("opening", path))?;
    let file_bytes = file.len().map_err(io_error("measuring", path))?;
    let mut head = vec![0; FRAME_HEADER_BYTES];
    let from = SEGMENT_HEADER_BYTES as u64;
    match file.read_exact_at(&mut head, from) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map_err(io_error("reading", path))?,
    }
    let Ok(header) = decode_header(&head) else { return Ok(None) };
    if from + u64::from(header.frame_bytes) > file_bytes || name.generation > 0 {
        return Ok(None);
    }
    let mut stored = vec![0; header.frame_bytes as usize];
    file.read_exact_at(&mut stored, from).map_err(io_error("reading", path))?;
    let whole: Result<_, FrameError> = decode(&Bytes::from(stored), header.seed);
    let (Ok(_), Some(store_id)) = (whole, store_id) else { return Ok(None) };
    let header = SegmentHeader {
        store_id,
        first_number: name.first_number,
        last_number: name.last_number,
        generation: name.generation,
        first_seq: header.first_seq,
        last_seq: 0,
        seed: header.seed,
        file_bytes,
        prev_hash: header.prev_hash,
        created_at_ms: header.written_at_ms,
    };
    Ok(Some(Segment::new(header, path.to_owned(), file)))
}

/// A crash between naming a rewritten segment and removing those it replaces leaves both. The
/// rewritten one counts if it is whole; its name is durable by now, so the others may go.
fn drop_replaced(
    fs: &dyn FileSystem,
    dir: &Path,
    inventory: &mut Inventory,
) -> Result<(), LogError> {
    let mut kept: Vec<Arc<Segment>> = Vec::new();
    let mut replaced: Vec<Arc<Segment>> = Vec::new();
    let mut broken: Vec<SegmentName> = Vec::new();
    for segment in &inventory.segments {
        let name = segment.header.file_name();
        let replaces = |other: &Arc<Segment>| name.replaces(&other.header.file_name());
        if inventory.segments.iter().any(replaces) && !is_whole(segment)? {
            broken.push(name);
        }
    }
    for segment in inventory.segments.drain(..) {
        let name = segment.header.file_name();
        if !broken.contains(&name) {
            kept.push(segment);
        }
    }
    let names: Vec<SegmentName> = kept.iter().map(|s| s.header.file_name()).collect();
    kept.retain(|segment| {
        let name = segment.header.file_name();
        let stays = !names.iter().any(|other| other.replaces(&name));
        if !stays {
            replaced.push(Arc::clone(segment));
        }
        stays
    });
    let mut gone: Vec<SegmentName> = replaced.iter().map(|s| s.header.file_name()).collect();
    inventory.unreadable.retain(|name| {
        let stays = !names.iter().any(|other| other.replaces(name));
        if !stays {
            gone.push(*name);
        }
        stays
    });
    for path in gone.iter().map(|name| name.path(dir)) {
        fs.remove_file(&path).map_err(io_error("removing", &path))?;
    }
    inventory.segments = kept;
    Ok(())
}

/// Whether a rewritten segment can be read to its end.
fn is_whole(segment: &Segment) -> Result<bool, LogError> {
    let mut found = Verification::default();
    let limit = Some(Limit::seq(segment.header.last_seq + 1));
    check_segment(segment, segment.end(), limit, &mut found)?;
    Ok(found.damage.is_empty())
}
