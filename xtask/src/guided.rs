//! Builds that are guided by a profile: a program is built so that it counts what it does, does some of its
//! work, and is built again by what was counted. What is often run then lies together, apart from what is not,
//! and fits the processor's caches better.
//!
//! How: <https://doc.rust-lang.org/rustc/profile-guided-optimization.html>.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;

/// What is built.
pub(crate) struct Target<'a> {
    /// The manifest of its workspace, from the repository's root.
    pub(crate) manifest: &'a str,
    pub(crate) package: &'a str,
    /// The program.
    pub(crate) program: &'a str,
}

/// Builds it twice, with what `train` has the first program do in between; answers where the second one is.
pub(crate) fn build(
    target: &Target<'_>,
    train: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let host = host()?;
    let merge = merger(&host)?;
    let folder = folder();
    let counts = folder.join("counts").join(target.program);
    // What an earlier program counted fits this one only in part.
    let _ = std::fs::remove_dir_all(&counts);
    std::fs::create_dir_all(&counts)
        .map_err(|e| format!("cannot make {}: {e}", counts.display()))?;
    let program = folder.join(&host).join("release").join(target.program);

    step(1, "building a program that counts what it does");
    compile(target, &host, &format!("-Cprofile-generate={}", counts.display()))?;
    step(2, "having it do some of its work");
    train(&program)?;
    let profile = counts.join("merged.profdata");
    merged(&merge, &counts, &profile)?;
    step(3, "building it again by what was counted");
    compile(target, &host, &format!("-Cprofile-use={}", profile.display()))?;
    Ok(program)
}

fn step(number: u8, what: &str) {
    eprintln!("== {number} of 3: {what}");
}

/// Where cargo puts what it makes.
pub(crate) fn target_folder() -> PathBuf {
    let of_cargo = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    crate::root().join(of_cargo.unwrap_or_else(|| "target".into()))
}

/// Beside what other builds make: each of these is made of everything anew.
pub(crate) fn folder() -> PathBuf {
    target_folder().join("guided")
}

fn compile(target: &Target<'_>, host: &str, flag: &str) -> Result<(), String> {
    // A target that is named keeps the flags away from programs that run while building.
    let arguments = [
        ["build", "--release", "--manifest-path", target.manifest].as_slice(),
        &["--package", target.package, "--bin", target.program, "--target", host],
    ]
    .concat();
    let mut cargo = Command::new("cargo");
    cargo.args(&arguments).arg("--target-dir").arg(folder()).current_dir(crate::root());
    // Separated by a character that no path has.
    let given = std::env::var("CARGO_ENCODED_RUSTFLAGS").ok().or_else(|| {
        std::env::var("RUSTFLAGS")
            .ok()
            .map(|flags| flags.split_whitespace().collect::<Vec<_>>().join("\x1f"))
    });
    let flags = given
        .filter(|given| !given.is_empty())
        .map_or_else(|| flag.to_string(), |given| format!("{given}\x1f{flag}"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
    eprintln!("$ {flag} cargo {}", arguments.join(" "));
    let status = cargo.status().map_err(|e| format!("cannot run cargo: {e}"))?;
    status.success().then_some(()).ok_or_else(|| format!("cargo failed: {status}"))
}

/// Makes one profile of what each process counted.
fn merged(merge: &Path, counts: &Path, profile: &Path) -> Result<(), String> {
    let entries = std::fs::read_dir(counts).map_err(|e| format!("{}: {e}", counts.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let raw: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "profraw")).collect();
    if raw.is_empty() {
        return Err(format!(
            "the program left no counts in {}: they are written when it ends by itself",
            counts.display()
        ));
    }
    let status = Command::new(merge).args(["merge", "-o"]).arg(profile).args(&raw).status();
    let status = status.map_err(|e| format!("cannot run {}: {e}", merge.display()))?;
    status.success().then_some(()).ok_or_else(|| format!("the counts cannot be merged: {status}"))
}

fn host() -> Result<String, String> {
    let told = command::output("rustc", &["-vV"])?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_string())
}

/// The toolchain's own program that merges counts: another version may not read what this compiler writes.
fn merger(host: &str) -> Result<PathBuf, String> {
    let root = command::output("rustc", &["--print", "sysroot"])?;
    let name = format!("llvm-profdata{}", std::env::consts::EXE_SUFFIX);
    let path = Path::new(root.trim()).join("lib/rustlib").join(host).join("bin").join(name);
    if !path.is_file() {
        let add = command::run("rustup", &["component", "add", "llvm-tools"]);
        add.map_err(|e| format!("{e}; a build by profile needs the toolchain's llvm-tools"))?;
    }
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("llvm-tools are installed, and there is no {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"counts\"\nedition = \"2024\"\n[workspace]\n";
    const PROGRAM: &str =
        "fn main() { println!(\"{}\", (0..1_000_000u64).filter(|n| n % 7 == 3).count()) }";

    /// With the compiler and its tools as they are here.
    #[test]
    fn a_program_is_built_by_what_it_counted() {
        if let Err(error) = host().and_then(|host| merger(&host)) {
            eprintln!("SKIPPED builds guided by a profile: {error}");
            return;
        }
        let example = folder().join(format!("example-{}", std::process::id()));
        std::fs::create_dir_all(example.join("src")).unwrap();
        std::fs::write(example.join("Cargo.toml"), MANIFEST).unwrap();
        std::fs::write(example.join("src/main.rs"), PROGRAM).unwrap();
        let manifest = example.join("Cargo.toml");
        let manifest = manifest.to_str().unwrap();
        let target = Target { manifest, package: "counts", program: "counts" };
        let printed = |program: &Path| command::output(&program.to_string_lossy(), &[]);

        let idle = build(&target, |_| Ok(())).unwrap_err();
        assert!(idle.contains("left no counts"), "{idle}");
        let failed = build(&target, |_| Err("no work".into())).unwrap_err();
        assert_eq!(failed, "no work");
        let mut counted = String::new();
        let program = build(&target, |program| {
            counted = printed(program)?;
            Ok(())
        });
        assert_eq!(printed(&program.unwrap()).unwrap(), counted);
        assert_eq!(counted, "142857\n");
        std::fs::remove_dir_all(example).unwrap();
    }
}
