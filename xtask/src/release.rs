//! `cargo xtask release`: the program as it is released, guided by a profile of its own work.

use std::path::{Path, PathBuf};

use crate::{guided, training};

/// Builds it, and copies it where it is wanted.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let out = match arguments {
        [] => None,
        [flag, file] if flag == "--out" => Some(PathBuf::from(file)),
        _ => return Err("usage: cargo xtask release [--out FILE]".into()),
    };
    let target =
        guided::Target { manifest: "Cargo.toml", package: "mainstay", program: "mainstay" };
    let program = guided::build(&target, |program| training::run(program, &training::ALL))?;
    let at = match out {
        Some(out) => copied(&program, &out)?,
        None => program,
    };
    println!("{}", at.display());
    Ok(())
}

/// Under another name first: a program that runs is replaced, not written into.
fn copied(program: &Path, out: &Path) -> Result<PathBuf, String> {
    let told = |e: std::io::Error| format!("cannot write {}: {e}", out.display());
    let beside = out.with_extension("new");
    std::fs::copy(program, &beside).map_err(told)?;
    std::fs::rename(&beside, out).map_err(told)?;
    Ok(out.to_path_buf())
}
