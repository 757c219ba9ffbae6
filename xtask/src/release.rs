//! `cargo xtask release`: the program as it is released, guided by a profile of its own work.

use std::path::{Path, PathBuf};

use crate::{comparison, guided, training};

const USAGE: &str = "usage: cargo xtask release [--out FILE] [--measure]";

/// Builds it, copies it where it is wanted, and measures what that has brought.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (mut out, mut measure, mut rest) = (None, false, arguments.iter());
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--out" => out = Some(PathBuf::from(rest.next().ok_or(USAGE)?)),
            "--measure" => measure = true,
            _ => return Err(USAGE.into()),
        }
    }
    if let Some(out) = &out {
        writable(out)?;
    }
    let target =
        guided::Target { manifest: "Cargo.toml", package: "mainstay", program: "mainstay" };
    let program = guided::build(&target, |program| training::run(program, &training::ALL))?;
    let at = match out {
        Some(out) => copied(&program, &out)?,
        None => program.clone(),
    };
    println!("{}", at.display());
    if measure { comparison::run(&program) } else { Ok(()) }
}

/// Before anything is built, which takes a while.
fn writable(out: &Path) -> Result<(), String> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    match (folder, out.is_dir()) {
        (_, true) => Err(format!("--out: {} is a folder; name a file", out.display())),
        (Some(folder), _) if !folder.is_dir() => {
            Err(format!("--out: there is no folder {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Under another name first: a program that runs is replaced, not written into.
fn copied(program: &Path, out: &Path) -> Result<PathBuf, String> {
    let told = |e: std::io::Error| format!("cannot write {}: {e}", out.display());
    let mut beside = out.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let copied = std::fs::copy(program, &beside).and_then(|_| std::fs::rename(&beside, out));
    copied.map_err(|e| {
        // A disk that is full has a part of it.
        let _ = std::fs::remove_file(&beside);
        told(e)
    })?;
    Ok(out.to_path_buf())
}
