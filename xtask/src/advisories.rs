//! Known vulnerabilities of the versions in every `Cargo.lock`, from a list that is checked in: CI needs
//! no network for it, and the same commit gives the same answer. The benchmarks and the fuzzer have
//! locks of their own.
//!
//! `cargo xtask audit --refresh FOLDER` makes the list anew from a clone of
//! <https://github.com/rustsec/advisory-db>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use semver::{Version, VersionReq};
use toml_edit::{DocumentMut, Item};

use crate::command;

/// Where the list lies, from the repository's root.
const LIST: &str = "xtask/advisories.tsv";
/// The age from which on the list says little of today.
const OLD_DAYS: i64 = 180;
/// Advisories that are accepted, each with the reason.
const ACCEPTED: &[(&str, &str)] = &[];

/// One advisory: which versions of a package it is about.
struct Advisory {
    id: String,
    package: String,
    /// `vulnerability`, or what else is known: `unmaintained`, `unsound`, `notice`.
    kind: String,
    /// Versions that it is not about.
    safe: Vec<VersionReq>,
}

/// Looks up every package that is locked.
///
/// # Errors
/// Each vulnerability that is not accepted, and lines of the list that cannot be read.
pub(crate) fn run() -> Result<(), String> {
    let list = read(&crate::root().join(LIST))?;
    let date = list.lines().find_map(|line| line.strip_prefix("# date: ")).unwrap_or("unknown");
    let mut advisories: BTreeMap<String, Vec<Advisory>> = BTreeMap::new();
    for (number, line) in list.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let advisory = parse(line).map_err(|fault| format!("{LIST}:{}: {fault}", number + 1))?;
        advisories.entry(advisory.package.clone()).or_default().push(advisory);
    }
    let known: usize = advisories.values().map(Vec::len).sum();
    let (mut faults, locked) = (Vec::new(), locked()?);
    let packages = locked.len();
    for ((name, version), lock) in locked {
        for advisory in advisories.get(&name).into_iter().flatten() {
            if advisory.safe.iter().any(|safe| safe.matches(&version)) {
                continue;
            }
            let found = format!("{name} {version}: {} ({}), in {lock}", advisory.id, advisory.kind);
            if let Some((_, why)) = ACCEPTED.iter().find(|(id, _)| *id == advisory.id) {
                println!("audit: {found}, accepted: {why}");
            } else if advisory.kind == "vulnerability" {
                faults.push(found);
            } else {
                println!("audit: {found}");
            }
        }
    }
    if !faults.is_empty() {
        return Err(format!(
            "known vulnerabilities:\n  {}\nraise the versions (cargo update -p NAME), or accept an id with \
             its reason in xtask/src/advisories.rs",
            faults.join("\n  ")
        ));
    }
    println!("audit: {packages} packages have none of {known} known vulnerabilities (of {date})");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let today = now.map_or(0, |now| (now.as_secs() / 86_400) as i64);
    if let Some(warning) = age_warning(date, today) {
        println!("audit: {warning}");
    }
    Ok(())
}

/// What to say of a list of this date, so many days after 1970-01-01; nothing while it is young.
fn age_warning(date: &str, today: i64) -> Option<String> {
    const REFRESH: &str = "cargo xtask audit --refresh FOLDER makes it anew";
    let Some(made) = day(date) else {
        return Some(format!("WARNING: nobody knows how old the list is; {REFRESH}"));
    };
    let age = today - made;
    (age > OLD_DAYS).then(|| format!("WARNING: the list is {age} days old; {REFRESH}"))
}

/// The days from 1970-01-01 to a date such as 2026-01-31, in the Gregorian calendar.
fn day(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is their last one.
    let year = if month < 3 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_years = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(of_years + of_year - 719_468)
}

/// Makes the list anew from a clone of the database.
///
/// # Errors
/// What cannot be read or understood, by file.
pub(crate) fn refresh(folder: &str) -> Result<(), String> {
    let folder = PathBuf::from(folder);
    let at = folder.to_string_lossy();
    let commit = command::output("git", &["-C", &at, "log", "-1", "--format=%H %cs"])?;
    let (commit, date) = commit.trim().split_once(' ').ok_or("git printed no commit")?;
    let mut lines = Vec::new();
    for package in entries(&folder.join("crates"))? {
        for file in entries(&package)? {
            let text = read(&file)?;
            let told = |fault: &str| format!("{}: {fault}", file.display());
            let front = text.split("```").nth(1).and_then(|front| front.strip_prefix("toml\n"));
            let front = front.ok_or_else(|| told("no front matter"))?;
            let front: DocumentMut = front.parse().map_err(|e| told(&format!("{e}")))?;
            if front["advisory"].get("withdrawn").is_none() {
                lines.push(line(&front).ok_or_else(|| told("an advisory without id or package"))?);
            }
        }
    }
    lines.sort();
    let head = format!(
        "# Made by `cargo xtask audit --refresh FOLDER` from https://github.com/rustsec/advisory-db,\n\
         # whose data is in the public domain (CC0-1.0), or CC-BY-4.0 where it comes from GitHub's database.\n\
         # commit: {commit}\n# date: {date}\n# id, package, kind, versions that it is not about\n"
    );
    let path = crate::root().join(LIST);
    std::fs::write(&path, head + &lines.join("\n") + "\n")
        .map_err(|e| format!("{}: {e}", path.display()))?;
    println!("{} advisories of {date} are in {LIST}", lines.len());
    Ok(())
}

fn line(front: &DocumentMut) -> Option<String> {
    let text = |key: &str| front["advisory"].get(key).and_then(Item::as_str);
    let (id, package) = (text("id")?, text("package")?);
    let kind = text("informational").unwrap_or("vulnerability");
    let versions = |key: &str| front.get("versions").and_then(|versions| versions.get(key));
    let safe: Vec<&str> = ["patched", "unaffected"]
        .into_iter()
        .filter_map(versions)
        .filter_map(Item::as_array)
        .flat_map(|ranges| ranges.iter().filter_map(|range| range.as_str()))
        .collect();
    Some(format!("{id}\t{package}\t{kind}\t{}", safe.join(" | ")))
}

fn parse(line: &str) -> Result<Advisory, String> {
    let parts: Vec<&str> = line.split('\t').collect();
    let [id, package, kind, safe] = parts[..] else {
        return Err("four parts between tabs are expected".into());
    };
    let ranges = safe.split(" | ").filter(|range| !range.is_empty());
    let safe = ranges.map(|range| range.parse().map_err(|e| format!("{id}: \"{range}\": {e}")));
    let (id, package, kind) = (id.to_owned(), package.to_owned(), kind.to_owned());
    Ok(Advisory { id, package, kind, safe: safe.collect::<Result<_, _>>()? })
}

/// Name and version of every package that is locked, once, with the first lock that has it.
fn locked() -> Result<BTreeMap<(String, Version), String>, String> {
    let root = crate::root();
    let listed =
        command::output("git", &["-C", &root.to_string_lossy(), "ls-files", "*Cargo.lock"])?;
    let mut packages = BTreeMap::new();
    for lock in listed.lines() {
        let packed = packages_of(&read(&root.join(lock))?);
        for package in packed.map_err(|fault| format!("{lock}: {fault}"))? {
            packages.entry(package).or_insert_with(|| lock.to_string());
        }
    }
    match packages.is_empty() {
        true => Err("git lists no Cargo.lock".into()),
        false => Ok(packages),
    }
}

fn packages_of(lock: &str) -> Result<Vec<(String, Version)>, String> {
    let lock: DocumentMut = lock.parse().map_err(|e| format!("{e}"))?;
    let packages = lock.get("package").and_then(Item::as_array_of_tables);
    let packages = packages.ok_or("there are no packages")?;
    let of = |package: &toml_edit::Table| {
        let text = |key: &str| package.get(key).and_then(Item::as_str);
        Some((text("name")?.to_owned(), text("version")?.parse().ok()?))
    };
    packages
        .iter()
        .map(|package| of(package).ok_or_else(|| "a package is not understood".into()))
        .collect()
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let told = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::read_dir(folder)
        .map_err(told)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(told))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// C5: a version is met by an advisory unless one of its ranges names it as safe.
    #[test]
    fn c5_an_advisory_is_about_every_version_that_it_does_not_name_as_safe() {
        let front = "[advisory]\nid = \"RUSTSEC-1\"\npackage = \"p\"\n\
                     [versions]\npatched = [\">= 1.2.3\", \"^0.9.4\"]\nunaffected = [\"< 0.5.0\"]\n";
        let line = line(&front.parse().unwrap()).unwrap();
        assert_eq!(line, "RUSTSEC-1\tp\tvulnerability\t>= 1.2.3 | ^0.9.4 | < 0.5.0");
        let advisory = parse(&line).unwrap();
        let is_safe = |version: &str| {
            let version = version.parse().unwrap();
            advisory.safe.iter().any(|safe| safe.matches(&version))
        };
        assert!(["0.4.9", "0.9.4", "1.2.3", "2.0.0"].into_iter().all(is_safe));
        assert!(!["0.5.0", "0.9.3", "1.0.0", "1.2.2"].into_iter().any(is_safe));
        assert!(parse("RUSTSEC-1\tp").is_err() && parse("RUSTSEC-1\tp\tk\tnonsense").is_err());
    }

    /// C5: benchmarks and the fuzzer link code too, and lock it by themselves.
    #[test]
    fn c5_every_lock_of_the_repository_is_looked_up() {
        let locked = locked().unwrap();
        let of = |package: &str| locked.keys().any(|(name, _)| name == package);
        for package in ["mainstay-server", "libfuzzer-sys", "criterion"] {
            assert!(of(package), "{package}");
        }
    }

    #[test]
    fn c5_a_list_that_is_old_is_said_to_be() {
        let days = ["1970-01-01", "1970-03-01", "2000-02-29", "2026-01-31"].map(day);
        assert_eq!(days, [Some(0), Some(59), Some(11_016), Some(20_484)]);
        let today = 20_484;
        assert_eq!(age_warning("2025-08-04", today), None);
        let warning = age_warning("2025-08-03", today).unwrap();
        assert!(warning.starts_with("WARNING: the list is 181 days old"), "{warning}");
        for unreadable in ["unknown", "2026-13-01", "2026-01", "2026-01-01-01"] {
            assert!(age_warning(unreadable, today).is_some(), "{unreadable}");
        }
    }
}
