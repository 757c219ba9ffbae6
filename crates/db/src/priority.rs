//! Background work gives way to searches and writes.

/// The nice value of work in the background: a tenth of the processor's time beside busy searches.
#[cfg(target_os = "linux")]
const BACKGROUND_NICE: i32 = 10;

/// Lowers the priority of the calling thread, so that work nobody waits for takes the processor
/// time that searches and writes leave: a merge under way cost searches a third of their speed.
pub(crate) fn yield_to_searches() {
    // Only on Linux is a nice value a thread's own; elsewhere it would slow down the whole process.
    // A refusal leaves the priority as it was, which is no fault.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, BACKGROUND_NICE);
}
