//! The floor as others see it.
#![allow(clippy::unwrap_used)]

mod analysis;
