//! [`Unit`]: what a posting points to, about [`UNIT_BYTES`] of text made of whole lines.
//!
//! Documents are a poor grain for trigrams. In a large file almost every trigram occurs somewhere,
//! so it is a candidate for everything; and a thousand short texts would each store all their
//! trigrams. So short documents that follow each other share a unit, and a long document is cut at
//! line ends into several. No match spans lines, so a match always lies inside one unit.
//!
//! Measured on Linux 6.1, postings as compressed (docs/design/native.md has the table): whole files
//! 59 MB, units of 16 KiB 68 MB, 8 KiB 95 MB, 4 KiB 133 MB; the text left to search for
//! `file_operations` (44 MB of files contain it): 498, 68, 24 and 10 MB.

/// The text that one unit aims at, in bytes.
pub(super) const UNIT_BYTES: usize = 4 << 10;

/// Some consecutive short documents, or a run of lines of one long document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Position in the segment of the first (or only) document.
    pub(super) document: u32,
    /// Where in that document's body the unit starts; 0 unless a long document goes on here.
    pub(super) offset: u32,
    /// How many lines of that body end before `offset`.
    pub(super) line: u32,
    /// Bytes of body text in the unit.
    pub(super) bytes: u32,
}

/// Bytes of one unit in a segment file.
pub(super) const UNIT_RECORD: usize = 16;

impl Unit {
    pub(super) fn to_bytes(self) -> [u8; UNIT_RECORD] {
        let mut bytes = [0; UNIT_RECORD];
        for (slot, field) in bytes.as_chunks_mut::<4>().0.iter_mut().zip([
            self.document,
            self.offset,
            self.line,
            self.bytes,
        ]) {
            *slot = field.to_le_bytes();
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; UNIT_RECORD]) -> Self {
        let field =
            |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Self { document: field(0), offset: field(4), line: field(8), bytes: field(12) }
    }
}

/// Cuts a long body into runs of whole lines of about [`UNIT_BYTES`] each: byte range and lines before.
pub(super) fn cut(body: &str) -> Vec<(std::ops::Range<usize>, u32)> {
    let pieces = (body.len() + UNIT_BYTES / 2) / UNIT_BYTES;
    let step = body.len() / pieces.max(1);
    let bytes = body.as_bytes();
    let mut cuts = Vec::with_capacity(pieces);
    let (mut start, mut line) = (0, 0u32);
    while start < bytes.len() {
        let end = match bytes.get(start + step..) {
            Some(rest) if rest.len() >= step / 2 => {
                memchr::memchr(b'\n', rest).map_or(bytes.len(), |at| start + step + at + 1)
            }
            _ => bytes.len(),
        };
        cuts.push((start..end, line));
        line += memchr::memchr_iter(b'\n', &bytes[start..end]).count() as u32;
        start = end;
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_cut_at_line_ends_without_loss() {
        let body: String = (0..3_000).map(|i| format!("line {i} é\n")).collect();
        let cuts = cut(&body);
        assert!(cuts.len() > 5);
        let mut at = 0;
        for (range, line) in cuts {
            assert_eq!(range.start, at);
            assert!(at == 0 || body.as_bytes()[at - 1] == b'\n');
            assert_eq!(line as usize, body[..at].matches('\n').count());
            at = range.end;
        }
        assert_eq!(at, body.len());
        assert_eq!(cut(&"x".repeat(100_000)), [(0..100_000, 0)]);
    }
}
