//! What any long-running process needs to survive and to be understood.
//!
//! | module | answers |
//! |---|---|
//! | [`health`] | is it up, is it ready, which dependency is in trouble |
//! | [`active_probe`] | does a dependency work that nobody calls |
//! | [`memory`] | how near is the limit, what gives way first, may this request begin |
//! | [`admission`] | is this request begun, does it wait, when shall it come again |
//! | [`handles`] | is a file handle left |
//! | [`flags`] | is this switched on for this user |
//! | [`keys`] | who is that, and what may they do |
//! | [`levels`] | how much service is there now, why, and what does that leave out |
//! | [`slo`] | is it as good as was promised, and how fast is the error budget used up |
//! | [`incidents`] | what went wrong, for how long, how often |
//! | [`shutdown`], [`notify`] | how does it end in order, and who is told |
//! | [`metric_table`], [`meter`], [`exposition`] | what is counted, and how it is told |
//! | [`correlation`], [`spans`], [`span_export`], [`otlp`] | whose work is this, and where in its trace |
//! | [`log_lines`], [`telemetry`] | what is said, and who hears it |
//! | [`audit`] | who changed what, and why |
//!
//! Everything here is synchronous and takes its surroundings from outside: time from a
//! [`Clock`](mainstay_resilience::Clock) and a [`WallClock`](wall_clock::WallClock), files of the
//! kernel below a root folder, and a place to keep state in from a [`StateStore`](store::StateStore).
//! Nothing starts a thread unless it says so, and what it starts ends when it is dropped.
#![forbid(unsafe_code)]

pub mod active_probe;
pub mod admission;
pub mod audit;
pub mod correlation;
pub mod exposition;
pub mod flags;
pub mod handles;
pub mod health;
pub mod incidents;
pub mod kernel_files;
pub mod keys;
pub mod levels;
pub mod log_lines;
pub mod memory;
pub mod meter;
pub mod metric;
pub mod metric_table;
pub mod notify;
pub mod otlp;
pub mod redact;
pub mod shutdown;
pub mod slo;
pub mod span_export;
pub mod spans;
pub mod store;
pub mod telemetry;
pub mod ticker;
pub mod wall_clock;

mod buffer;
mod entered;
mod lock;
mod receivers;
mod said;
mod series;
mod slab;
mod trace;
mod trace_ids;
