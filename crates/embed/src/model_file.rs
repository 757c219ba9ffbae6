//! This crate's one door to the disk: model files, read whole, never written.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::EmbedError;

/// Weights over this size are refused: at 2 GiB a sentence model takes longer than a second for a
/// passage on one core, and protobuf, the container of ONNX, ends there too.
pub(crate) const WEIGHTS_BYTES_MAX: u64 = 2 << 30;

/// Configuration and vocabularies: the largest published vocabulary, with 250,000 entries, has
/// 17 MB as JSON.
pub(crate) const SETTINGS_BYTES_MAX: u64 = 64 << 20;

/// Reads `path` whole; `wanted` says in errors what it should be.
///
/// # Errors
/// [`EmbedError::Missing`], [`EmbedError::Unreadable`], [`EmbedError::TooLarge`].
pub(crate) fn read(
    path: &Path,
    wanted: &'static str,
    bytes_max: u64,
) -> Result<Vec<u8>, EmbedError> {
    let unreadable = |source| EmbedError::Unreadable { path: path.to_owned(), source };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(EmbedError::Missing { path: path.to_owned(), wanted });
        }
        Err(error) => return Err(unreadable(error)),
    };
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err(unreadable(io::Error::new(ErrorKind::InvalidInput, "it is no regular file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    let bytes = metadata.len();
    let too_large = |bytes| EmbedError::TooLarge { path: path.to_owned(), bytes, bytes_max };
    if bytes > bytes_max {
        return Err(too_large(bytes));
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    // A file that grows meanwhile is cut at the bound, not at its stated size.
    file.take(bytes_max + 1).read_to_end(&mut content).map_err(unreadable)?;
    match content.len() as u64 > bytes_max {
        true => Err(too_large(content.len() as u64)),
        false => Ok(content),
    }
}

/// As [`read`], with `None` for a file that is not there.
///
/// # Errors
/// [`EmbedError::Unreadable`], [`EmbedError::TooLarge`].
pub(crate) fn read_optional(
    path: &Path,
    wanted: &'static str,
    bytes_max: u64,
) -> Result<Option<Vec<u8>>, EmbedError> {
    match read(path, wanted, bytes_max) {
        Ok(content) => Ok(Some(content)),
        Err(EmbedError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there is a folder at `path`.
pub(crate) fn is_folder(path: &Path) -> bool {
    path.is_dir()
}

/// Whether there is a file at `path`.
pub(crate) fn is_file(path: &Path) -> bool {
    path.is_file()
}

/// The entries of `folder`, sorted by name; none when it does not exist.
///
/// # Errors
/// [`EmbedError::Unreadable`].
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, EmbedError> {
    let unreadable = |source| EmbedError::Unreadable { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// SHA-256 of `bytes` in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 over labelled parts: what decides a model's vectors, in one figure. Each part enters
/// with the lengths of label and content, so no two lists of parts give the same input.
pub(crate) fn fingerprint(parts: &[(&str, &[u8])]) -> String {
    let mut sha256 = Sha256::new();
    for (label, content) in parts {
        sha256.update((label.len() as u64).to_le_bytes());
        sha256.update(label);
        sha256.update((content.len() as u64).to_le_bytes());
        sha256.update(content);
    }
    hex(&sha256.finalize())
}

/// Refuses `bytes` unless their SHA-256 is `expected`.
///
/// # Errors
/// [`EmbedError::WrongHash`].
pub(crate) fn require_sha256(file: &str, bytes: &[u8], expected: &str) -> Result<(), EmbedError> {
    let found = sha256_hex(bytes);
    match found == expected {
        true => Ok(()),
        false => Err(EmbedError::WrongHash {
            file: file.to_owned(),
            expected: expected.to_owned(),
            found,
        }),
    }
}

/// `bytes` as text.
///
/// # Errors
/// [`EmbedError::Damaged`] with the position of the first byte that is not UTF-8.
pub(crate) fn text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, EmbedError> {
    std::str::from_utf8(bytes).map_err(|error| EmbedError::Damaged {
        file: file.to_owned(),
        reason: format!("byte {} is not UTF-8", error.valid_up_to()),
    })
}

/// `bytes` as JSON.
///
/// # Errors
/// [`EmbedError::Damaged`] with line and column.
pub(crate) fn json(file: &str, bytes: &[u8]) -> Result<serde_json::Value, EmbedError> {
    serde_json::from_slice(bytes).map_err(|error| EmbedError::Damaged {
        file: file.to_owned(),
        reason: format!("it is no JSON: {error}"),
    })
}

/// Model weights, part of the program or read from disk.
pub(crate) type ModelBytes = Cow<'static, [u8]>;

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_over_the_bound_is_refused_with_both_figures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, [0; 11]).unwrap();
        let error = read(&path, "weights", 10).unwrap_err();
        assert!(matches!(error, EmbedError::TooLarge { bytes: 11, bytes_max: 10, .. }), "{error}");
        assert_eq!(read(&path, "weights", 11).unwrap().len(), 11);
    }

    #[test]
    fn a_missing_file_and_a_folder_in_its_place_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read(&folder.path().join("x"), "weights", 10).unwrap_err();
        assert!(matches!(missing, EmbedError::Missing { wanted: "weights", .. }), "{missing}");
        let unreadable = read(folder.path(), "weights", u64::MAX - 1).unwrap_err();
        assert!(matches!(unreadable, EmbedError::Unreadable { .. }), "{unreadable}");
    }

    #[test]
    fn a_wrong_hash_is_refused_with_both_hashes() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(require_sha256("m", b"", empty).is_ok());
        let error = require_sha256("m", b"x", empty).unwrap_err();
        assert!(error.to_string().contains(empty), "{error}");
    }

    #[test]
    fn parts_that_join_to_the_same_bytes_have_different_fingerprints() {
        assert_ne!(
            fingerprint(&[("a", b"bc"), ("d", b"")]),
            fingerprint(&[("a", b"b"), ("d", b"c")])
        );
    }
}
