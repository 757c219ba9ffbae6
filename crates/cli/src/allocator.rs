//! The process's allocator, as the memory guard sees it.

use mainstay_server::memory::{Allocator, AllocatorStats};

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

    fn purge(&self) {
        // SAFETY: it may be called from any thread at any time.
        unsafe { libmimalloc_sys::mi_collect(true) }
    }
}
