//! The program as its users run it: one binary, one module a theme.
#![allow(clippy::unwrap_used)]

mod browser;
mod config;
mod console;
mod embedder;
mod eval;
mod index;
mod kill;
mod load;
mod memory;
mod operate;
mod search;
mod secrets;
mod server;
mod shutdown;
mod telemetry;
mod tls;
mod unreadable;
mod watch;

use std::path::Path;
use std::process::{Command, Output};

/// Runs the program; answers what it printed.
fn mainstay(arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(arguments)
        .env_remove("MAINSTAY_DATA")
        .env_remove("MAINSTAY_URL")
        .env_remove("MODEL_PATH")
        .output()
        .unwrap();
    Ran::of(output)
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
