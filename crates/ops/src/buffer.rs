//! [`Buffer`]: what is written to, and [`Short`], one for little.

use std::ops::{Deref, DerefMut, Range};

/// What is written to: what a span says, and a batch of spans.
pub(crate) trait Buffer: DerefMut<Target = [u8]> {
    /// Adds bytes behind what is there.
    fn put(&mut self, bytes: &[u8]);
    /// Puts bytes in the place of others.
    fn replace(&mut self, place: Range<usize>, bytes: &[u8]);
}

impl Buffer for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn replace(&mut self, place: Range<usize>, bytes: &[u8]) {
        self.splice(place, bytes.iter().copied());
    }
}

/// Bytes that need memory of their own only where they are more than usual.
pub(crate) struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
    /// All of them, once they do not go in there.
    long: Vec<u8>,
}

impl<const N: usize> Short<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0, long: Vec::new() }
    }

    /// All of them in memory of their own, from now on.
    #[cold]
    fn lengthen(&mut self) -> &mut Vec<u8> {
        if self.len > 0 {
            self.long.extend_from_slice(&self.bytes[..self.len]);
            self.len = 0;
        }
        &mut self.long
    }
}

impl<const N: usize> Deref for Short<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.long.is_empty() { &self.bytes[..self.len] } else { &self.long }
    }
}

impl<const N: usize> DerefMut for Short<N> {
    fn deref_mut(&mut self) -> &mut [u8] {
        if self.long.is_empty() { &mut self.bytes[..self.len] } else { &mut self.long }
    }
}

impl<const N: usize> Buffer for Short<N> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.bytes.get_mut(self.len..end) {
            Some(place) if self.long.is_empty() => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.lengthen().put(bytes),
        }
    }

    fn replace(&mut self, place: Range<usize>, bytes: &[u8]) {
        self.lengthen().replace(place, bytes);
    }
}
