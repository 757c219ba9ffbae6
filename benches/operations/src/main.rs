//! What a server costs and keeps up while its dependencies fail, measured over loopback.

mod faults;
mod load;
mod overheads;
mod provider;
mod receiver;
mod served;
mod switch;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: cargo xtask bench operations faults [--seconds N] [--rate N] [--only TEXT]

  faults   each dependency hung, refusing, slow and flapping in turn, under a steady load
           --seconds  length of each fault, 2 to 600 (default 6)
           --rate     searches a second, 1 to 1000 (default 40)
           --only     dependencies whose name contains this text

           needs PostgreSQL's server and redis-server

usage: cargo xtask bench operations overheads [--seconds N]

  overheads  what every request goes through, beside the same requests without it
             --seconds  for each kind of request, 2 to 600 (default 30)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64, least: u64, most: u64| -> Result<u64, String> {
        let Some(at) = arguments.iter().position(|argument| argument == name) else {
            return Ok(default);
        };
        let given = arguments.get(at + 1).and_then(|text| text.parse().ok());
        let within = given.filter(|number| (least..=most).contains(number));
        within.ok_or_else(|| format!("{name} needs a number from {least} to {most}"))
    };
    let only = arguments.iter().position(|argument| argument == "--only");
    let only = only.and_then(|at| arguments.get(at + 1)).map_or("", String::as_str);
    let outcome = match arguments.first().map(String::as_str) {
        Some("faults") => number("--seconds", 6, 2, 600)
            .and_then(|seconds| Ok((seconds, number("--rate", 40, 1, 1000)?)))
            .and_then(|(seconds, rate)| faults::run(seconds, rate, only)),
        Some("overheads-on") => {
            let text = |at: usize| arguments.get(at).map_or("", String::as_str);
            overheads::run_on(text(1), text(2), text(3), text(4).parse().unwrap_or(30))
        }
        Some("overheads") => number("--seconds", 30, 2, 600).and_then(overheads::run),
        _ => Err(USAGE.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}
