//! [`Column`]: the values of one field and type in one segment, read in place.
//!
//! Every value is a whole number, its *raw* form, whose order is the order of the values: the rank in
//! a dictionary, a date or number less the lowest one of the column, or the bits of a float made
//! sortable. Comparing is therefore the same loop for all types.
//!
//! ```text
//! form u8, width u8 (bytes a value: 0, 1, 2, 4, 8), encoding u8, zero u8, values u32, base i64
//! form 0  every document has one value
//! form 1  some have one: a bitmap of documents, then a slot for every document
//! form 2  few have one, or some have several: the ordinal of each value u32, rising
//! values
//! ```

use super::little_endian::u32_at;

const HEADER_BYTES: usize = 16;
const EVERY: u8 = 0;
const SOME: u8 = 1;
const PLACED: u8 = 2;

/// A set of ordinals, one bit each.
pub(super) type Words = Vec<u64>;

/// How a raw value becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `base + raw`.
    Integer,
    /// The bits of an `f64`, made sortable.
    Float,
}

/// The raw form of a float: its order as an integer is its order as a float.
pub(super) fn float_to_raw(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits(); // -0.0 becomes 0.0
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

pub(super) fn raw_to_float(raw: u64) -> f64 {
    f64::from_bits(if raw >> 63 == 1 { raw & !(1 << 63) } else { !raw })
}

/// Makes the binary form of a column. `ordinals` rise; one that comes twice has several values,
/// which then rise too.
pub(super) fn encode(documents: u32, ordinals: &[u32], raws: &Raws) -> Vec<u8> {
    let width = match raws.values.iter().max().copied().unwrap_or(0) {
        0 => 0u8,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    let several = ordinals.windows(2).any(|pair| pair[0] == pair[1]);
    let slots_bytes = documents as usize * usize::from(width) + documents as usize / 8;
    let placed_bytes = ordinals.len() * (4 + usize::from(width));
    let form = match () {
        () if several || placed_bytes < slots_bytes => PLACED,
        () if ordinals.len() == documents as usize => EVERY,
        () => SOME,
    };
    let encoding = u8::from(raws.encoding == Encoding::Float);
    let mut out = vec![form, width, encoding, 0];
    out.extend((ordinals.len() as u32).to_le_bytes());
    out.extend(raws.base.to_le_bytes());
    let put = |out: &mut Vec<u8>, raw: u64| {
        out.extend_from_slice(&raw.to_le_bytes()[..usize::from(width)]);
    };
    if form == SOME {
        let mut present = vec![0u64; documents.div_ceil(64) as usize];
        ordinals.iter().for_each(|&o| present[o as usize / 64] |= 1 << (o % 64));
        present.iter().for_each(|word| out.extend(word.to_le_bytes()));
        let mut pairs = ordinals.iter().zip(&raws.values).peekable();
        for ordinal in 0..documents {
            let value = pairs.next_if(|(at, _)| **at == ordinal);
            put(&mut out, value.map_or(0, |(_, &raw)| raw));
        }
        return out;
    }
    if form == PLACED {
        ordinals.iter().for_each(|ordinal| out.extend(ordinal.to_le_bytes()));
    }
    raws.values.iter().for_each(|&raw| put(&mut out, raw));
    out
}

/// Values in raw form.
pub(super) struct Raws {
    pub(super) encoding: Encoding,
    pub(super) base: i64,
    pub(super) values: Vec<u64>,
}

impl Raws {
    /// Ranks: they are raw already.
    pub(super) fn ranks(values: Vec<u64>) -> Self {
        Self { encoding: Encoding::Integer, base: 0, values }
    }

    /// Whole numbers, less the lowest.
    pub(super) fn integers(values: &[i64]) -> Self {
        let base = values.iter().min().copied().unwrap_or(0);
        let values = values.iter().map(|value| value.wrapping_sub(base) as u64).collect();
        Self { encoding: Encoding::Integer, base, values }
    }

    /// Numbers: as integers where all of them are.
    pub(super) fn numbers(values: &[f64]) -> Self {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: every integer up to it is an f64
        if values.iter().all(|value| value.fract() == 0.0 && value.abs() <= EXACT) {
            return Self::integers(&values.iter().map(|&value| value as i64).collect::<Vec<_>>());
        }
        let values = values.iter().map(|&value| float_to_raw(value)).collect();
        Self { encoding: Encoding::Float, base: 0, values }
    }
}

/// A column in its binary form.
#[derive(Clone, Copy)]
pub(super) struct Column<'a> {
    documents: u32,
    width: u8,
    encoding: Encoding,
    base: i64,
    form: Form<'a>,
    values: &'a [u8],
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Every,
    Some(&'a [[u8; 8]]),
    Placed(&'a [[u8; 4]]),
}

impl<'a> Column<'a> {
    /// Reads the header; `None` when the lengths do not fit.
    pub(super) fn parse(bytes: &'a [u8], documents: u32) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let (form, width) = (header[0], header[1]);
        let encoding = if header[2] == 1 { Encoding::Float } else { Encoding::Integer };
        let count = u32_at(header, 4)? as usize;
        let base = i64::from_le_bytes(*header.last_chunk()?);
        let (form, values, slots) = match form {
            EVERY => (Form::Every, rest, documents as usize),
            SOME => {
                let (bits, values) = rest.split_at_checked(documents.div_ceil(64) as usize * 8)?;
                (Form::Some(bits.as_chunks().0), values, documents as usize)
            }
            PLACED => {
                let (places, values) = rest.split_at_checked(count.checked_mul(4)?)?;
                (Form::Placed(places.as_chunks().0), values, count)
            }
            _ => return None,
        };
        let fits = matches!(width, 0 | 1 | 2 | 4 | 8)
            && slots.checked_mul(usize::from(width)) == Some(values.len());
        fits.then_some(Self { documents, width, encoding, base, form, values })
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(super) fn base(&self) -> i64 {
        self.base
    }

    #[inline]
    fn value(&self, slot: usize) -> u64 {
        let width = usize::from(self.width);
        let mut raw = [0; 8];
        if let Some(value) = self.values.get(slot * width..(slot + 1) * width) {
            raw[..width].copy_from_slice(value);
        }
        u64::from_le_bytes(raw)
    }

    /// The lowest and the highest value of a document.
    pub(super) fn of(&self, ordinal: u32) -> Option<(u64, u64)> {
        match self.form {
            Form::Every => {}
            Form::Some(present) => {
                let word = u64::from_le_bytes(*present.get(ordinal as usize / 64)?);
                (word >> (ordinal % 64) & 1 == 1).then_some(())?;
            }
            Form::Placed(places) => {
                let start = places.partition_point(|place| u32::from_le_bytes(*place) < ordinal);
                let mine = |place: &&[u8; 4]| u32::from_le_bytes(**place) == ordinal;
                let count = places[start..].iter().take_while(mine).count();
                let last = start + count.checked_sub(1)?;
                return Some((self.value(start), self.value(last)));
            }
        }
        let value = self.value(ordinal as usize);
        Some((value, value))
    }

    /// The documents that have a value.
    pub(super) fn present(&self) -> Words {
        match self.form {
            Form::Every => every(self.documents),
            Form::Some(present) => present.iter().map(|word| u64::from_le_bytes(*word)).collect(),
            Form::Placed(_) => self.select(|_| true),
        }
    }

    /// The documents with a value in `low..=high`.
    pub(super) fn select_range(&self, low: u64, high: u64) -> Words {
        if low > high {
            return vec![0; self.documents.div_ceil(64) as usize];
        }
        let span = high - low;
        self.select(|raw| raw.wrapping_sub(low) <= span)
    }

    /// The documents with a value that is a member of `set`, a bit for each raw value.
    pub(super) fn select_members(&self, set: &[u64]) -> Words {
        self.select(|raw| set.get((raw / 64) as usize).is_some_and(|w| w >> (raw % 64) & 1 == 1))
    }

    fn select(&self, test: impl Fn(u64) -> bool + Copy) -> Words {
        let Form::Placed(places) = self.form else {
            let mut words = match self.width {
                0 if test(0) => every(self.documents),
                0 => vec![0; self.documents.div_ceil(64) as usize],
                1 => scan(self.values.as_chunks::<1>().0, |raw| test(u64::from(raw[0]))),
                2 => scan(self.values.as_chunks::<2>().0, |raw| {
                    test(u64::from(u16::from_le_bytes(*raw)))
                }),
                4 => scan(self.values.as_chunks::<4>().0, |raw| {
                    test(u64::from(u32::from_le_bytes(*raw)))
                }),
                _ => scan(self.values.as_chunks::<8>().0, |raw| test(u64::from_le_bytes(*raw))),
            };
            if let Form::Some(present) = self.form {
                let present = present.iter().map(|word| u64::from_le_bytes(*word));
                words.iter_mut().zip(present).for_each(|(word, present)| *word &= present);
            }
            return words;
        };
        let mut words = vec![0; self.documents.div_ceil(64) as usize];
        for (slot, place) in places.iter().enumerate() {
            let place = u32::from_le_bytes(*place);
            if test(self.value(slot))
                && let Some(word) = words.get_mut(place as usize / 64)
            {
                *word |= 1 << (place % 64);
            }
        }
        words
    }

    /// Calls `visit` with every value of the documents in `among`.
    pub(super) fn each(&self, among: &[u64], mut visit: impl FnMut(u64)) {
        let member =
            |at: u32| among.get(at as usize / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
        match self.form {
            Form::Placed(places) => {
                for (slot, place) in places.iter().enumerate() {
                    if member(u32::from_le_bytes(*place)) {
                        visit(self.value(slot));
                    }
                }
            }
            Form::Every => ones(among, |at| visit(self.value(at as usize))),
            Form::Some(present) => {
                let both = present.iter().zip(among).map(|(p, a)| u64::from_le_bytes(*p) & a);
                ones(&both.collect::<Words>(), |at| visit(self.value(at as usize)));
            }
        }
    }
}

/// One bit for each element that passes.
fn scan<T>(values: &[T], test: impl Fn(&T) -> bool) -> Words {
    let word = |chunk: &[T]| {
        chunk.iter().enumerate().fold(0, |word, (i, value)| word | u64::from(test(value)) << i)
    };
    let (whole, rest) = values.as_chunks::<64>();
    let mut words: Words = whole.iter().map(|chunk| word(chunk)).collect();
    if !rest.is_empty() {
        words.push(word(rest));
    }
    words
}

/// All ordinals below `documents`.
pub(super) fn every(documents: u32) -> Words {
    let mut words = vec![u64::MAX; documents.div_ceil(64) as usize];
    if let Some(last) = words.last_mut()
        && !documents.is_multiple_of(64)
    {
        *last = (1 << (documents % 64)) - 1;
    }
    words
}

/// Calls `visit` with each member in order.
pub(super) fn ones(words: &[u64], mut visit: impl FnMut(u32)) {
    for (at, &word) in words.iter().enumerate() {
        let mut word = word;
        while word != 0 {
            visit(at as u32 * 64 + word.trailing_zeros());
            word &= word - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_keep_their_order_in_raw_form() {
        let floats = [f64::MIN, -1.5, -f64::MIN_POSITIVE, 0.0, f64::MIN_POSITIVE, 2.5, f64::MAX];
        assert!(floats.windows(2).all(|pair| float_to_raw(pair[0]) < float_to_raw(pair[1])));
        assert!(floats.iter().all(|&value| raw_to_float(float_to_raw(value)) == value));
        assert_eq!(float_to_raw(-0.0), float_to_raw(0.0));
    }

    proptest! {
        #[test]
        fn every_form_selects_what_a_walk_over_the_pairs_selects(
            documents in 1u32..200,
            pairs in prop::collection::btree_set((0u32..200, 0u64..70_000), 0..250),
            once: bool, wide in prop_oneof![Just(1u64), Just(1 << 20), Just(1 << 40)],
            low in 0u64..70_000, high in 0u64..70_000,
        ) {
            let mut pairs: Vec<_> =
                pairs.into_iter().filter(|pair| pair.0 < documents).collect();
            if once {
                pairs.dedup_by_key(|pair| pair.0);
            }
            let ordinals: Vec<u32> = pairs.iter().map(|pair| pair.0).collect();
            let values: Vec<u64> = pairs.iter().map(|pair| pair.1 * wide).collect();
            let bytes = encode(documents, &ordinals, &Raws::ranks(values.clone()));
            let column = Column::parse(&bytes, documents).unwrap();
            let expected = |test: &dyn Fn(u64) -> bool| {
                let mut words = vec![0u64; documents.div_ceil(64) as usize];
                for (ordinal, _) in ordinals.iter().zip(&values).filter(|(_, v)| test(**v)) {
                    words[*ordinal as usize / 64] |= 1 << (ordinal % 64);
                }
                words
            };
            let (low, high) = (low * wide, high * wide);
            prop_assert_eq!(
                column.select_range(low, high), expected(&|v| (low..=high).contains(&v))
            );
            prop_assert_eq!(column.present(), expected(&|_| true));
            let mut seen = Vec::new();
            column.each(&every(documents), |raw| seen.push(raw));
            prop_assert_eq!(&seen, &values);
            for ordinal in 0..documents {
                let mine: Vec<u64> =
                    pairs.iter().filter(|p| p.0 == ordinal).map(|p| p.1 * wide).collect();
                let ends = mine.first().copied().zip(mine.last().copied());
                prop_assert_eq!(column.of(ordinal), ends);
            }
        }
    }
}
