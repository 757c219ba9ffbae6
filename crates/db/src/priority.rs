//! What gives way to what: background work to searches, and searches to whoever lets requests in.

/// The nice value of searches: what reads, refuses and answers requests gets two and a half times
/// the processor time of a search, so that a server with more to do than it can still says so.
#[cfg(target_os = "linux")]
const SEARCH_NICE: i32 = 4;

/// The nice value of work in the background: a tenth of the processor's time beside busy searches.
#[cfg(target_os = "linux")]
const BACKGROUND_NICE: i32 = 14;

/// Lowers the priority of the calling thread, so that work nobody waits for takes the processor
/// time that searches and writes leave: a merge under way cost searches a third of their speed.
pub(crate) fn yield_to_searches() {
    #[cfg(target_os = "linux")]
    lower(BACKGROUND_NICE);
}

/// Lowers the priority of a thread that works on requests, so that those who wait to be let in or
/// turned away wait for no search.
pub fn yield_to_requests() {
    #[cfg(target_os = "linux")]
    lower(SEARCH_NICE);
}

/// Only on Linux is a nice value a thread's own; elsewhere it would slow down the whole process. A
/// refusal leaves the priority as it was, which is no fault.
#[cfg(target_os = "linux")]
fn lower(nice: i32) {
    let _ = rustix::process::setpriority_process(None, nice);
}
