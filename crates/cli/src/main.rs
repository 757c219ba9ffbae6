//! The program `mainstay`: one file for each subcommand.

mod allocator;
mod config;
mod data;
mod dependencies;
mod ending;
mod eval;
mod failure;
mod flags;
mod folder;
mod health;
mod index;
mod keys;
mod level;
mod load;
mod load_client;
mod load_curve;
mod print;
mod rebuild;
mod remote;
mod search;
mod serve;
mod slo;
mod table;
mod tls_files;
mod trust;
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
    /// Ask a running server how it is: exit code 0 healthy, 1 degraded, 2 unhealthy, 3 unknown
    Health(health::Arguments),
    /// What a running server depends on, and manual control of it
    Dependencies(dependencies::Arguments),
    /// How much service a running server gives, and holding it by hand
    Level(level::Arguments),
    /// Feature flags of a running server
    Flags(flags::Arguments),
    /// API keys: made, listed, rotated, revoked
    Keys(keys::Arguments),
    /// How good a running server is against what it promises
    Slo(slo::Arguments),
    /// Who changed what on a running server
    Audit(slo::AuditArguments),
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

/// What the shell says of a program whose reader has gone: 128 and the number of SIGPIPE.
const READER_GONE: i32 = 141;

/// A reader that has seen enough, such as `head`, is no fault, and no reason for a backtrace.
fn end_with_the_reader() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let told = panic.payload_as_str().unwrap_or_default();
        if told.starts_with("failed printing to stdout") && told.contains("Broken pipe") {
            std::process::exit(READER_GONE);
        }
        others(panic);
    }));
}

fn main() -> ExitCode {
    end_with_the_reader();
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
        Command::Health(arguments) => health::run(&arguments),
        Command::Dependencies(arguments) => dependencies::run(&arguments),
        Command::Level(arguments) => level::run(&arguments),
        Command::Flags(arguments) => flags::run(&arguments),
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Slo(arguments) => slo::run(&arguments),
        Command::Audit(arguments) => slo::audit(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Rebuild(arguments) => rebuild::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Load(arguments) if arguments.curve.is_empty() => load::run(&arguments),
        Command::Load(arguments) => load_curve::run(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
