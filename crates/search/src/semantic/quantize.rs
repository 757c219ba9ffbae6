//! Vectors as they are stored and asked: int8 rows with a scale, 13-bit queries, sign bits.
//!
//! A row keeps each component in 8 bits relative to its own largest component; in nDCG@10 over
//! eight open collections that is equal to 32-bit floats (0.5945 against 0.5945). The sign bits of a
//! row are the sign bits of its int8 components, so they can always be made again from the row.

use std::fmt;

use super::kernels::{BLOCK_ROWS, QUERY_MAX, sign_words};

/// Why a vector cannot be stored or asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorError {
    /// Its length is not the dimension of the space.
    Dimension {
        /// Its length.
        found: usize,
        /// The dimension of the space.
        expected: usize,
    },
    /// A component is infinite or not a number.
    NotFinite {
        /// The index of the component.
        index: usize,
    },
    /// Every component is zero: it has no direction.
    ZeroLength,
}

impl fmt::Display for VectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dimension { found, expected } => write!(
                f,
                "vector has {found} components, the space has {expected}; embed with the model of the collection"
            ),
            Self::NotFinite { index } => write!(
                f,
                "vector component {index} is not finite; the embedding model is damaged or overflows"
            ),
            Self::ZeroLength => {
                f.write_str("vector has zero length; the model knows nothing of this text")
            }
        }
    }
}

impl std::error::Error for VectorError {}

/// Checks a vector and answers its Euclidean length.
fn length(vector: &[f32], dimension: usize) -> Result<f64, VectorError> {
    if vector.len() != dimension {
        return Err(VectorError::Dimension { found: vector.len(), expected: dimension });
    }
    if let Some(index) = vector.iter().position(|component| !component.is_finite()) {
        return Err(VectorError::NotFinite { index });
    }
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 { Ok(length) } else { Err(VectorError::ZeroLength) }
}

/// The largest magnitude among the components.
fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(0.0, |largest, component| component.abs().max(largest))
}

/// Appends the int8 components of the vector, brought to unit length, and answers the scale: a
/// component is about its byte times the scale.
pub(crate) fn quantize_row(
    vector: &[f32],
    dimension: usize,
    bytes: &mut Vec<u8>,
) -> Result<f32, VectorError> {
    let length = length(vector, dimension)?;
    let largest = largest(vector);
    bytes.extend(vector.iter().map(|&x| ((x / largest * 127.0).round() as i8).cast_unsigned()));
    Ok((f64::from(largest) / length / 127.0) as f32)
}

/// A query ready for the kernels.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// Components of at most [`QUERY_MAX`].
    pub(crate) components: Vec<i16>,
    /// What one step of a component is worth.
    pub(crate) scale: f32,
    /// One bit for each component, set when it is negative.
    pub(crate) signs: Vec<u64>,
}

impl Query {
    /// Quantises a vector, brought to unit length.
    pub(crate) fn new(vector: &[f32], dimension: usize) -> Result<Self, VectorError> {
        let length = length(vector, dimension)?;
        let largest = largest(vector);
        let most = f32::from(QUERY_MAX);
        let components: Vec<i16> =
            vector.iter().map(|&x| (x / largest * most).round() as i16).collect();
        let mut signs = vec![0; sign_words(dimension)];
        for (index, &component) in components.iter().enumerate() {
            signs[index / 64] |= u64::from(component < 0) << (index % 64);
        }
        let scale = (f64::from(largest) / length / f64::from(most)) as f32;
        Ok(Self { components, scale, signs })
    }

    /// A stored row as a query: exact, for building graphs.
    pub(crate) fn from_row(row: &[u8], scale: f32) -> Self {
        let components = row.iter().map(|&byte| i16::from(byte.cast_signed())).collect();
        Self { components, scale, signs: Vec::new() }
    }
}

/// Writes the sign bits of up to [`BLOCK_ROWS`] rows into one interleaved block of zeros.
pub(crate) fn sign_block<'a>(rows: impl Iterator<Item = &'a [u8]>, block: &mut [u8]) {
    for (lane, row) in rows.take(BLOCK_ROWS).enumerate() {
        for (word, components) in row.chunks(64).enumerate() {
            let mut bits = 0u64;
            for (bit, &component) in components.iter().enumerate() {
                bits |= u64::from(component >> 7) << bit;
            }
            let at = (word * BLOCK_ROWS + lane) * 8;
            if let Some(place) = block.get_mut(at..at + 8) {
                place.copy_from_slice(&bits.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::kernels::{Kernels, block_bytes};
    use super::*;

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    fn vector() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-1.0f32..1.0, 96)
            .prop_filter("has a direction", |v| largest(v) > 0.01)
    }

    proptest! {
        #[test]
        fn scores_are_cosines_whatever_the_length(a in vector(), b in vector(), by in 1e-3f32..1e3) {
            let longer: Vec<f32> = a.iter().map(|x| x * by).collect();
            let mut row = Vec::new();
            let scale = quantize_row(&longer, 96, &mut row).unwrap();
            let query = Query::new(&b, 96).unwrap();
            let score = Kernels::SCALAR.dot(&query.components, &row) as f32 * query.scale * scale;
            prop_assert!((f64::from(score) - cosine(&a, &b)).abs() < 0.01);
        }

        #[test]
        fn sign_distances_count_the_differing_signs(a in vector(), b in vector()) {
            let mut row = Vec::new();
            quantize_row(&a, 96, &mut row).unwrap();
            let query = Query::new(&b, 96).unwrap();
            let mut block = vec![0; block_bytes(96)];
            sign_block([&row[..], &row[..]].into_iter(), &mut block);
            let mut near = Vec::new();
            Kernels::SCALAR.near(&query.signs, &block, u32::MAX, &mut near);
            let expected = row.iter().zip(&query.components)
                .filter(|&(&r, &q)| (r.cast_signed() < 0) != (q < 0)).count() as u32;
            prop_assert_eq!((near[0].distance, near[1].distance), (expected, expected));
        }
    }

    #[test]
    fn a_vector_that_is_not_finite_is_refused_with_its_component() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = quantize_row(&[0.5, bad], 2, &mut Vec::new()).unwrap_err();
            assert_eq!(error, VectorError::NotFinite { index: 1 });
            assert_eq!(
                Query::new(&[bad, 0.5], 2).unwrap_err(),
                VectorError::NotFinite { index: 0 }
            );
        }
    }

    #[test]
    fn a_vector_without_direction_or_of_another_dimension_is_refused() {
        assert_eq!(quantize_row(&[0.0; 3], 3, &mut Vec::new()), Err(VectorError::ZeroLength));
        let wrong = VectorError::Dimension { found: 3, expected: 4 };
        assert_eq!(quantize_row(&[1.0; 3], 4, &mut Vec::new()), Err(wrong));
        assert!(wrong.to_string().contains("3") && wrong.to_string().contains("4"));
    }

    #[test]
    fn the_largest_and_smallest_floats_keep_their_direction() {
        for x in [f32::MAX, f32::MIN_POSITIVE / 4.0] {
            let mut row = Vec::new();
            let scale = quantize_row(&[x, -x], 2, &mut row).unwrap();
            assert_eq!(row, [127, (-127i8).cast_unsigned()]);
            assert!((scale * 127.0 - 0.5f32.sqrt()).abs() < 1e-3);
        }
    }
}
