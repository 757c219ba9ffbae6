//! What any long-running process needs to survive and to be understood.
//!
//! | module | answers |
//! |---|---|
//! | [`health`] | is it up, is it ready, which dependency is in trouble |
//! | [`memory`] | how near is the limit, what gives way first, may this request begin |
//! | [`handles`] | is a file handle left |
//! | [`flags`] | is this switched on for this user |
//! | [`levels`] | how much service is there now, why, and what does that leave out |
//! | [`audit`] | who changed what, and why |
//!
//! Everything here is synchronous and takes its surroundings from outside: time from a
//! [`Clock`](mainstay_resilience::Clock) and a [`WallClock`](wall_clock::WallClock), files of the
//! kernel below a root folder, and a place to keep state in from a [`StateStore`](store::StateStore).
//! Nothing starts a thread unless it says so, and what it starts ends when it is dropped.
#![forbid(unsafe_code)]

pub mod audit;
pub mod flags;
pub mod handles;
pub mod health;
pub mod kernel_files;
pub mod levels;
pub mod memory;
pub mod redact;
pub mod store;
pub mod ticker;
pub mod wall_clock;

mod lock;
