//! Numbers of 16 bits.

/// IEEE 754 binary16 to binary32, exactly.
pub(crate) fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10 & 0x1F);
    let fraction = u32::from(half & 0x3FF);
    match exponent {
        // Zero and subnormals: the fraction counts units of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        0x1F => f32::from_bits(sign | 0x7F80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_convert_exactly_at_the_edges() {
        for (half, float) in [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x0001, 2f32.powi(-24)),
            (0x03FF, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x7BFF, 65504.0),
            (0xFC00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half_to_f32(half).to_bits(), float.to_bits(), "{half:04x}");
        }
        assert!(half_to_f32(0x7E00).is_nan());
    }
}
