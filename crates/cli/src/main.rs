//! The `mainstay` program.

// The subcommands that index folders are the callers.
#[allow(dead_code)]
mod folder;

fn main() {}
