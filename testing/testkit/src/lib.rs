//! Contract suites: what every implementation of a trait must do, run by the tests of each.
//!
//! A new file system or view is right when its suite passes; its own tests add what is special.
//! A failed check panics with the name of the rule.

pub mod file_system;
pub mod postgres;
pub mod redis;
pub mod texts;
pub mod view;
