//! [`decode`]: bytes to text, and binary files told apart.
//!
//! As ripgrep: a byte-order mark decides for UTF-8 and UTF-16 and is taken off; a NUL byte makes a
//! file binary. Differences, because a document is text and ripgrep searches bytes:
//!
//! - ripgrep looks for NUL as it goes and shows matches before the first one when that comes late;
//!   here one NUL anywhere makes the file binary.
//! - ripgrep takes everything without a mark as bytes that are mostly UTF-8; here a file that is not
//!   is read in the encoding that detection finds (as browsers do), so that `Größe` in Latin-1 is
//!   found by `Größe`. A file that is UTF-8 but for few bytes stays UTF-8, with U+FFFD for those.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8};
use memchr::memchr;

/// Detection reads this much from the first byte that is not UTF-8 on; more changes no guess.
const DETECT_BYTES_MAX: usize = 64 << 10;
/// A file counts as UTF-8 with errors when it has this many times more characters of several bytes
/// than errors: in any other encoding, bytes form such characters only by chance.
const CHARACTERS_PER_ERROR: usize = 8;

/// What the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// Text.
    Text {
        /// The text, without byte-order mark.
        text: String,
        /// The encoding it was read in, such as `UTF-8` or `windows-1252`.
        encoding: &'static str,
        /// Whether some bytes made no character and became U+FFFD.
        has_errors: bool,
    },
    /// Not text.
    Binary {
        /// Where the first NUL byte stands.
        at: usize,
    },
}

/// Makes text of the bytes of a file.
pub(crate) fn decode(bytes: Vec<u8>) -> Decoded {
    if let Some((encoding, mark_bytes)) = Encoding::for_bom(&bytes) {
        return read(&bytes[mark_bytes..], encoding);
    }
    if let Some(at) = memchr(0, &bytes) {
        return Decoded::Binary { at };
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Decoded::Text { text, encoding: UTF_8.name(), has_errors: false },
        Err(error) => error.into_bytes(),
    };
    read(&bytes, if is_damaged_utf8(&bytes) { UTF_8 } else { detect(&bytes) })
}

/// Whether the bytes are UTF-8 with some errors, rather than another encoding.
fn is_damaged_utf8(bytes: &[u8]) -> bool {
    let (mut characters, mut errors) = (0usize, 0usize);
    for chunk in bytes.utf8_chunks() {
        characters += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        errors += usize::from(!chunk.invalid().is_empty());
    }
    characters >= errors * CHARACTERS_PER_ERROR
}

fn detect(bytes: &[u8]) -> &'static Encoding {
    let from = match std::str::from_utf8(bytes) {
        Ok(_) => 0,
        Err(error) => error.valid_up_to(),
    };
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    let to = bytes.len().min(from + DETECT_BYTES_MAX);
    detector.feed(&bytes[from..to], to == bytes.len());
    detector.guess(None, Utf8Detection::Deny)
}

fn read(bytes: &[u8], encoding: &'static Encoding) -> Decoded {
    let (text, has_errors): (Cow<'_, str>, bool) = encoding.decode_without_bom_handling(bytes);
    if let Some(at) = memchr(0, text.as_bytes()) {
        return Decoded::Binary { at };
    }
    Decoded::Text { text: text.into_owned(), encoding: encoding.name(), has_errors }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> (String, &'static str, bool) {
        match decode(bytes.to_vec()) {
            Decoded::Text { text, encoding, has_errors } => (text, encoding, has_errors),
            Decoded::Binary { at } => panic!("binary at {at}"),
        }
    }

    #[test]
    fn marks_decide_and_are_taken_off() {
        assert_eq!(text(b"\xef\xbb\xbfa"), ("a".into(), "UTF-8", false));
        assert_eq!(text(b"\xff\xfea\0\xe9\0"), ("aé".into(), "UTF-16LE", false));
        assert_eq!(text(b"\xfe\xff\0a\0\xe9"), ("aé".into(), "UTF-16BE", false));
    }

    #[test]
    fn a_nul_byte_makes_a_file_binary() {
        assert_eq!(decode(b"ab\0c".to_vec()), Decoded::Binary { at: 2 });
        assert_eq!(decode(b"\xff\xfe\0\0".to_vec()), Decoded::Binary { at: 0 });
    }

    #[test]
    fn another_encoding_is_found_and_few_errors_leave_utf_8() {
        let latin = b"Die Gr\xf6\xdfe der T\xfcr und die Stra\xdfe sind sch\xf6n.";
        let expected = "Die Größe der Tür und die Straße sind schön.";
        assert_eq!(text(latin), (expected.into(), "windows-1252", false));
        let (sjis, _, _) = encoding_rs::SHIFT_JIS.encode("これは日本語のテキストです。");
        assert_eq!(text(&sjis).1, "Shift_JIS");
        let damaged = [expected.repeat(4).as_bytes(), b"\xff", b"end"].concat();
        let (found, encoding, has_errors) = text(&damaged);
        assert_eq!((encoding, has_errors), ("UTF-8", true));
        assert!(found.ends_with("\u{fffd}end"));
    }

    #[test]
    fn no_bytes_are_empty_text() {
        assert_eq!(text(b""), (String::new(), "UTF-8", false));
    }
}
