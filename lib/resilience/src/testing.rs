//! Tools for the tests of whoever uses this crate: virtual time, injected faults, and a simulator
//! that says what a pipeline does to a dependency during an outage. All of it repeatable by seed.

mod faults;
mod simulation;
mod virtual_time;

pub use faults::{Fault, Faults};
pub use simulation::{Dependency, Outage, Report, Simulation};
pub use virtual_time::{VirtualSleep, VirtualSleeper, VirtualTime};
