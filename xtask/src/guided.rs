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
    let merge = merger_there(&host)?;
    let counts = emptied(&folder().join("counts").join(target.program))?;
    let within = |folder: &Path| folder.join(&host).join("release").join(target.program);

    step(1, "building a program that counts what it does");
    let counting = folder().join("counting");
    compile(target, &host, &counting, &format!("-Cprofile-generate={}", counts.display()))?;
    step(2, "having it do some of its work");
    train(&within(&counting))?;
    let profile = merged(&merge, &counts)?;
    step(3, "building it again by what was counted");
    // All of it: for crates of a registry cargo looks at the name of a profile, and not at what is in it.
    let built = emptied(&folder().join("built").join(target.program))?;
    compile(target, &host, &built, &format!("-Cprofile-use={}", profile.display()))?;
    Ok(within(&built))
}

/// A folder in which there is nothing.
pub(crate) fn emptied(folder: &Path) -> Result<PathBuf, String> {
    let _ = std::fs::remove_dir_all(folder);
    let made = std::fs::create_dir_all(folder);
    made.map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    Ok(folder.to_path_buf())
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

fn compile(target: &Target<'_>, host: &str, folder: &Path, flag: &str) -> Result<(), String> {
    // A target that is named keeps the flags away from programs that run while building.
    let arguments = [
        ["build", "--release", "--manifest-path", target.manifest].as_slice(),
        &["--package", target.package, "--bin", target.program, "--target", host],
    ]
    .concat();
    let mut cargo = Command::new("cargo");
    cargo.args(&arguments).arg("--target-dir").arg(folder).current_dir(crate::root());
    // Beside those of the environment, separated by a character that no path has. Flags in files of
    // cargo's configuration are not among them.
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
fn merged(merge: &Path, counts: &Path) -> Result<PathBuf, String> {
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
    let profile = counts.join("merged.profdata");
    let status = Command::new(merge).args(["merge", "-o"]).arg(&profile).args(&raw).status();
    let status = status.map_err(|e| format!("cannot run {}: {e}", merge.display()))?;
    match status.success() {
        true => Ok(profile),
        false => Err(format!("the counts cannot be merged: {status}")),
    }
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
    let missing = || format!("llvm-tools are not installed: there is no {}", path.display());
    if path.is_file() { Ok(path) } else { Err(missing()) }
}

/// The same, installed where it is missing.
fn merger_there(host: &str) -> Result<PathBuf, String> {
    merger(host).or_else(|_| {
        let add = command::run("rustup", &["component", "add", "llvm-tools"]);
        add.map_err(|e| format!("{e}; a build by profile needs the toolchain's llvm-tools"))?;
        merger(host)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"counts\"\nedition = \"2024\"\n[workspace]\n";
    const PROGRAM: &str = "fn main() {
        let most = std::env::args().nth(1).unwrap_or_default().parse().unwrap_or(0u64);
        println!(\"{}\", (0..most).filter(|n| n % 7 == 3).count());
    }";

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
        let printed =
            |program: &Path, most: &str| command::output(&program.to_string_lossy(), &[most]);

        let idle = build(&target, |_| Ok(())).unwrap_err();
        assert!(idle.contains("left no counts"), "{idle}");
        let failed = build(&target, |_| Err("no work".into())).unwrap_err();
        assert_eq!(failed, "no work");
        // By other counts it becomes another program, although its source and the profile's name are the same.
        let mut built = Vec::new();
        for most in ["7", "1000000"] {
            let program = build(&target, |program| printed(program, most).map(drop)).unwrap();
            assert_eq!(printed(&program, "1000000").unwrap(), "142857\n");
            built.push(std::fs::read(&program).unwrap());
        }
        assert!(built[0] != built[1], "the counts were not looked at");
        std::fs::remove_dir_all(example).unwrap();
    }
}
