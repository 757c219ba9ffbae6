//! What gives way to what: background work to searches, and searches to whoever lets requests in.

/// What searches add to the process's nice value: what reads, refuses and answers requests gets two
/// and a half times the processor time of a search, so that a server with more to do than it can still
/// says so.
#[cfg(target_os = "linux")]
const SEARCH_NICE: i32 = 4;

/// What work in the background adds to it: a tenth of the processor's time beside busy searches.
#[cfg(target_os = "linux")]
const BACKGROUND_NICE: i32 = 14;

/// The lowest priority that there is.
#[cfg(target_os = "linux")]
const NICE_MAX: i32 = 19;

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

/// Below the process's own, which whoever started it has chosen. Only on Linux is a nice value a
/// thread's own; elsewhere it would slow down the whole process. A refusal leaves the priority as it
/// was, which is no fault.
#[cfg(target_os = "linux")]
fn lower(by: i32) {
    // The process is its first thread, whose priority nothing here lowers.
    let process = rustix::process::getpriority_process(Some(rustix::process::getpid()));
    let _ = process.and_then(|own| {
        rustix::process::setpriority_process(None, own.saturating_add(by).min(NICE_MAX))
    });
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{getpid, getpriority_process};

    #[test]
    fn a_thread_gives_way_from_where_its_process_stands() {
        let process = getpriority_process(Some(getpid()));
        for (give_way, by) in [
            (super::yield_to_requests as fn(), super::SEARCH_NICE),
            (super::yield_to_searches, super::BACKGROUND_NICE),
        ] {
            let thread = std::thread::spawn(move || {
                give_way();
                // Twice is no further down.
                give_way();
                getpriority_process(None)
            });
            let lowered = process.map(|own| (own + by).min(super::NICE_MAX));
            assert_eq!(thread.join().ok(), Some(lowered));
        }
        assert_eq!(getpriority_process(Some(getpid())), process);
    }
}
