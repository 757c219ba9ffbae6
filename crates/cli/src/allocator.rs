//! The process's allocator, as the memory guard sees it.

use std::ffi::c_long;
use std::sync::OnceLock;

use mainstay_server::memory::{Allocator, AllocatorStats};

/// The place of `mi_option_purge_delay` in `mi_option_t` of mimalloc 3; the crate does not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long free pages are kept when memory is plentiful, in ms: what mimalloc began with.
static PURGE_DELAY_MS: OnceLock<c_long> = OnceLock::new();

/// mimalloc.
pub(crate) struct Mimalloc;

impl Allocator for Mimalloc {
    fn stats(&self) -> AllocatorStats {
        let (mut committed, mut peak) = (0usize, 0usize);
        let (mut elapsed, mut user, mut system) = (0, 0, 0);
        let (mut rss, mut rss_peak, mut faults) = (0, 0, 0);
        // SAFETY: the function writes one number behind each pointer and keeps none of them.
        unsafe {
            libmimalloc_sys::mi_process_info(
                &raw mut elapsed,
                &raw mut user,
                &raw mut system,
                &raw mut rss,
                &raw mut rss_peak,
                &raw mut committed,
                &raw mut peak,
                &raw mut faults,
            );
        }
        AllocatorStats { committed_bytes: committed as u64, peak_bytes: peak as u64 }
    }

    fn set_thrifty(&self, thrifty: bool) {
        // SAFETY: an option may be read and set at any time; this one counts from the next free on.
        unsafe {
            let usual_ms =
                *PURGE_DELAY_MS.get_or_init(|| libmimalloc_sys::mi_option_get(PURGE_DELAY));
            libmimalloc_sys::mi_option_set(PURGE_DELAY, if thrifty { 0 } else { usual_ms });
        }
    }

    fn purge(&self) {
        // SAFETY: it may be called from any thread at any time.
        unsafe { libmimalloc_sys::mi_collect(true) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Resident bytes of this process that no file backs.
    fn resident_bytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
    }

    /// Of 128 MiB that were filled and freed, what was given back at once.
    fn given_back_bytes(piece_bytes: usize) -> u64 {
        let filled: Vec<Vec<u8>> =
            (0..(128 << 20) / piece_bytes).map(|_| vec![1; piece_bytes]).collect();
        let full = resident_bytes();
        drop(filled);
        full.saturating_sub(resident_bytes())
    }

    /// O2: were the option another one in a later version of the allocator, this would show it.
    #[test]
    fn o2_a_thrifty_allocator_gives_back_at_once() {
        for piece_bytes in [64 << 10, 1 << 20, 4 << 20] {
            let usual = given_back_bytes(piece_bytes);
            Mimalloc.set_thrifty(true);
            let thrifty = given_back_bytes(piece_bytes);
            Mimalloc.set_thrifty(false);
            println!("pieces of {piece_bytes} bytes: {usual}, with thrift {thrifty}");
            assert!(thrifty > 96 << 20, "{thrifty} bytes came back, {usual} without thrift");
        }
    }
}
