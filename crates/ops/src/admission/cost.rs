//! What requests cost, before they begin: in units of a rate limit, and in bytes of memory.

/// Hits of a search that cost one unit more.
const HITS_PER_UNIT: usize = 100;
/// Bytes of a write that cost one unit: a long document.
const WRITE_BYTES_PER_UNIT: u64 = 64 << 10;

/// Bytes of a search whatever it asks for: candidates of four methods, their scores, the answer.
const SEARCH_BYTES: u64 = 256 << 10;
/// Bytes of each hit: the stored fields, a snippet, matching lines.
const HIT_BYTES: u64 = 4 << 10;
/// Bytes of each hit with its whole body: a long document, twice while the answer is written.
const BODY_HIT_BYTES: u64 = 128 << 10;
/// A document stands in memory as text, as a value, as a record and in the log's queue.
const WRITE_COPIES: u64 = 4;

/// What a search asks for, as far as it decides what it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchCost {
    /// Methods that run.
    pub methods: usize,
    /// Whether `semantic` is one of them: it embeds the query.
    pub semantic: bool,
    /// Whether the query is read as a regular expression.
    pub regex: bool,
    /// Hits that are computed: offset and limit.
    pub hits: usize,
    /// Whether hits carry the whole body.
    pub bodies: bool,
}

impl SearchCost {
    /// Units: one for each method, one more for `semantic`, two more for a regular expression, one
    /// for each full hundred of hits. A search by all four methods for ten hits costs 5, one by
    /// `bm25` alone 1.
    #[must_use]
    pub fn units(&self) -> u32 {
        let methods = self.methods.max(1);
        let extra = usize::from(self.semantic) + 2 * usize::from(self.regex);
        u32::try_from(methods + extra + self.hits / HITS_PER_UNIT).unwrap_or(u32::MAX)
    }

    /// Bytes that it will need at most, as a rule: 256 KiB, and for each hit 4 KiB or, with bodies,
    /// 128 KiB.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let each = if self.bodies { BODY_HIT_BYTES } else { HIT_BYTES };
        (self.hits as u64).saturating_mul(each).saturating_add(SEARCH_BYTES)
    }
}

/// Units of a write: one for each 64 KiB of its documents that is begun, at least one.
#[must_use]
pub fn write_units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(WRITE_BYTES_PER_UNIT).max(1)).unwrap_or(u32::MAX)
}

/// Bytes that a write of so many bytes will need: four times as many.
#[must_use]
pub fn write_bytes(bytes: u64) -> u64 {
    bytes.saturating_mul(WRITE_COPIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o4_a_search_costs_what_it_asks_for() {
        let plain = SearchCost { methods: 1, hits: 10, ..SearchCost::default() };
        let all = SearchCost { methods: 4, semantic: true, ..plain };
        let dear = SearchCost { regex: true, hits: 1_000, bodies: true, ..all };
        assert_eq!((plain.units(), all.units(), dear.units()), (1, 5, 17));
        assert!(plain.bytes() < 1 << 20 && dear.bytes() > 100 << 20, "{}", dear.bytes());
        let absurd = SearchCost { hits: usize::MAX, bodies: true, ..all };
        assert_eq!((absurd.units(), absurd.bytes()), (u32::MAX, u64::MAX), "it saturates");
    }

    #[test]
    fn o4_a_write_costs_by_its_bytes() {
        assert_eq!([0, 1, 65_536, 65_537].map(write_units), [1, 1, 1, 2]);
        assert_eq!((write_units(u64::MAX), write_bytes(u64::MAX)), (u32::MAX, u64::MAX));
    }
}
