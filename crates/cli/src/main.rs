//! The program `mainstay`: one file for each subcommand.

mod config;
mod data;
mod eval;
mod failure;
mod folder;
mod index;
mod load;
mod print;
mod rebuild;
mod search;
mod serve;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mainstay_server::telemetry::Telemetry;

/// Returns freed memory to the system and is quicker than the system's under many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hybrid search for documents and code that degrades instead of failing.
///
/// Four methods answer every query, fused: bm25 (words), tantivy (query language), native (strings
/// and regular expressions, line by line) and semantic (meaning). Nothing is downloaded.
#[derive(Parser)]
#[command(name = "mainstay", version, max_term_width = 100)]
struct Program {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as
    /// `mainstay_db=debug`
    /// [default: warn, and info for serve]
    #[arg(long, global = true, env = "MAINSTAY_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Index a folder, or a file of documents as NDJSON
    Index(index::Arguments),
    /// Search a data directory or a running server
    Search(search::Arguments),
    /// Serve a data directory over HTTP
    Serve(serve::Arguments),
    /// Show or check the settings of the server
    Config(config::Arguments),
    /// Measure relevance on test collections
    Eval(eval::Arguments),
    /// Make the index of a method anew from the log
    Rebuild(rebuild::Arguments),
    /// Compare the log, the documents and every index
    Verify(verify::Arguments),
    /// Send searches to a server at a steady rate and measure the answers
    Load(load::Arguments),
}

fn main() -> ExitCode {
    folder::extract::quiet_reader_panics();
    let program = Program::parse();
    // A server says in its settings how it logs.
    let serves = matches!(program.command, Command::Serve(_));
    if !serves && let Err(fault) = Telemetry::of_command(program.log.as_deref().unwrap_or("warn")) {
        return failure::Failure::usage(format!("--log: {fault}")).report();
    }
    let outcome = match program.command {
        Command::Index(arguments) => index::run(&arguments),
        Command::Search(arguments) => search::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments, program.log),
        Command::Config(arguments) => config::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Rebuild(arguments) => rebuild::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
