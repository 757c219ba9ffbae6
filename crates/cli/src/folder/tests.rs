//! A generated tree with everything that goes wrong in real ones.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::decode::{Decoded, decode};
use super::extract::{ExtractError, extract};
use super::state::{Change, IndexedFile, Plan, State, StateError, content_hash, document_id, plan};
use super::walk::{Found, FoundFile, Problem, ProblemReason, WalkError, WalkOptions, walk};
use super::watch::{Mode, Watch};

fn write(root: &Path, name: &str, contents: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// What a walk finds: file names, folders and problems, each in order.
#[derive(Default)]
struct Seen {
    files: Vec<FoundFile>,
    folders: Vec<PathBuf>,
    problems: Vec<Problem>,
}

impl Seen {
    fn of(root: &Path, options: &WalkOptions) -> Self {
        let mut seen = Self::default();
        for found in walk(root, options).unwrap() {
            match found {
                Found::File(file) => seen.files.push(file),
                Found::Folder(folder) => seen.folders.push(folder),
                Found::Problem(problem) => seen.problems.push(problem),
            }
        }
        seen.files.sort();
        seen
    }

    fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }
}

fn names(root: &Path, options: &WalkOptions) -> Vec<String> {
    Seen::of(root, options).names().into_iter().map(String::from).collect()
}

fn tree() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::create_dir(root.join(".git")).unwrap();
    write(root, ".gitignore", "target/\n*.tmp\n");
    write(root, "src/main.rs", "fn main() {}\n");
    write(root, "src/lib.rs", "pub fn lib() {}\n");
    write(root, "docs/guide.md", "# Guide\n");
    write(root, "target/out.rs", "generated");
    write(root, "a.tmp", "temporary");
    write(root, ".hidden/x.rs", "hidden");
    write(root, "kept/.ignore", "secret.txt\n");
    write(root, "kept/secret.txt", "secret");
    write(root, "kept/open.txt", "open");
    folder
}

#[test]
fn a_walk_finds_what_ripgrep_finds() {
    let folder = tree();
    let plain = WalkOptions::default();
    let usual = ["docs/guide.md", "kept/open.txt", "src/lib.rs", "src/main.rs"];
    assert_eq!(names(folder.path(), &plain), usual);
    let all = WalkOptions { hidden: true, no_ignore: true, ..plain.clone() };
    assert_eq!(names(folder.path(), &all).len(), 10);
    let rust = WalkOptions { types: vec!["rust".into()], ..plain.clone() };
    assert_eq!(names(folder.path(), &rust), ["src/lib.rs", "src/main.rs"]);
    let not_rust = WalkOptions { types: vec!["!rust".into()], ..plain.clone() };
    assert_eq!(names(folder.path(), &not_rust), ["docs/guide.md", "kept/open.txt"]);
    let globs = WalkOptions { globs: vec!["src/**".into(), "!lib.rs".into()], ..plain };
    assert_eq!(names(folder.path(), &globs), ["src/main.rs"]);
}

#[test]
fn gitignore_counts_only_inside_a_git_repository() {
    let folder = tree();
    fs::remove_dir(folder.path().join(".git")).unwrap();
    let found = names(folder.path(), &WalkOptions::default());
    assert!(found.contains(&"a.tmp".to_string()) && found.contains(&"target/out.rs".to_string()));
}

#[test]
fn a_single_file_is_walked_by_its_own_name() {
    let folder = tree();
    let file = folder.path().join("src/main.rs");
    assert_eq!(names(&file, &WalkOptions::default()), ["main.rs"]);
}

#[test]
fn a_root_that_is_not_there_and_a_wrong_option_are_errors_before_any_work() {
    let folder = tree();
    let missing = walk(&folder.path().join("none"), &WalkOptions::default()).err().unwrap();
    assert!(missing.to_string().contains("none"), "{missing}");
    let globs = WalkOptions { globs: vec!["a[".into()], ..WalkOptions::default() };
    let error = walk(folder.path(), &globs).err().unwrap();
    assert!(matches!(error, WalkError::Option { option: "--glob", .. }), "{error}");
    let types = WalkOptions { types: vec!["nonesuch".into()], ..WalkOptions::default() };
    let error = walk(folder.path(), &types).err().unwrap();
    assert!(error.to_string().contains("nonesuch"), "{error}");
}

#[test]
fn a_file_of_two_gigabytes_is_reported_and_left_out() {
    let folder = tree();
    let big = fs::File::create(folder.path().join("big.txt")).unwrap();
    big.set_len(2 << 30).unwrap();
    let seen = Seen::of(folder.path(), &WalkOptions::default());
    assert_eq!(seen.files.len(), 4);
    let [problem] = &seen.problems[..] else { panic!("{:?}", seen.problems) };
    assert!(matches!(problem.reason, ProblemReason::TooLarge { bytes: 0x8000_0000, .. }));
    assert!(problem.to_string().contains("--max-filesize"), "{problem}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_only_on_request_and_broken_ones_reported_then() {
    use std::os::unix::fs::symlink;
    let folder = tree();
    let root = folder.path();
    symlink(root.join("src/main.rs"), root.join("link.rs")).unwrap();
    symlink(root.join("none"), root.join("dangling.rs")).unwrap();
    symlink(root.join("docs"), root.join("docs/loop")).unwrap();
    let seen = Seen::of(root, &WalkOptions::default());
    assert_eq!((seen.files.len(), seen.problems.len()), (4, 0));
    let follow = WalkOptions { follow: true, ..WalkOptions::default() };
    let seen = Seen::of(root, &follow);
    assert!(seen.names().contains(&"link.rs"));
    let mut places: Vec<_> =
        seen.problems.iter().map(|problem| problem.path.strip_prefix(root).unwrap()).collect();
    places.sort();
    assert_eq!(places, [Path::new("dangling.rs"), Path::new("docs/loop")]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf_8_is_reported_and_odd_names_are_kept() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = tree();
    fs::write(folder.path().join(OsStr::from_bytes(b"bad-\xff.txt")), "x").unwrap();
    for name in ["with space.txt", "new\nline.txt", "日本.txt", "a'b\"c.txt", "-dash.txt"] {
        write(folder.path(), name, "x");
    }
    let seen = Seen::of(folder.path(), &WalkOptions::default());
    assert_eq!(seen.files.len(), 9);
    assert!(matches!(seen.problems[..], [Problem { reason: ProblemReason::NameNotUtf8, .. }]));
}

#[test]
fn deep_folders_are_walked_to_the_end() {
    let folder = TempDir::new().unwrap();
    let deep: String = (0..200).map(|i| format!("d{i}/")).collect();
    write(folder.path(), &format!("{deep}end.txt"), "x");
    let seen = Seen::of(folder.path(), &WalkOptions::default());
    assert_eq!(seen.files.len(), 1);
    assert_eq!(seen.files[0].name, format!("{deep}end.txt"));
    assert_eq!(seen.folders.len(), 201);
}

#[cfg(unix)]
#[test]
fn pipes_are_passed_over_and_folders_without_rights_reported() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    let folder = tree();
    let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
    let closed = folder.path().join("closed");
    write(folder.path(), "closed/x.rs", "x");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let seen = Seen::of(folder.path(), &WalkOptions::default());
    // The superuser reads everything: then the file is found instead.
    let is_superuser = fs::read_dir(&closed).is_ok();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(seen.files.len(), 4 + usize::from(is_superuser));
    assert_eq!(seen.problems.len(), usize::from(!is_superuser));
}

#[test]
fn dropping_a_walk_ends_it() {
    let folder = TempDir::new().unwrap();
    for i in 0..3000 {
        fs::write(folder.path().join(format!("{i}.txt")), "x").unwrap();
    }
    let mut walk = walk(folder.path(), &WalkOptions::default()).unwrap();
    assert!(walk.next().is_some());
    drop(walk);
}

#[test]
fn files_of_any_encoding_become_text_and_binary_ones_do_not() {
    let cases: &[(&str, &[u8], Option<&str>)] = &[
        ("utf8.txt", "Größe".as_bytes(), Some("Größe")),
        ("utf16.txt", b"\xff\xfeG\0r\0\xf6\0", Some("Grö")),
        (
            "latin1.txt",
            b"Die Gr\xf6\xdfe der T\xfcren ist f\xfcr alle gleich.",
            Some("Die Größe der Türen ist für alle gleich."),
        ),
        ("binary.bin", b"\x7fELF\0\0", None),
    ];
    for (name, bytes, expected) in cases {
        let found = extract(name, bytes.to_vec());
        match expected {
            Some(text) => assert_eq!(found.unwrap().body, *text, "{name}"),
            None => assert_eq!(found, Err(ExtractError::Binary), "{name}"),
        }
    }
    assert!(matches!(decode(b"\xff".to_vec()), Decoded::Text { .. }));
}

/// Indexes a folder in the mind: walks, plans, reads, settles. Answers the changes by name.
fn index(root: &Path, state: &mut State, read_ns: i64) -> (Plan, BTreeMap<String, Change>) {
    let files = Seen::of(root, &WalkOptions::default()).files;
    let mut plan = plan(state, files);
    let mut changes = BTreeMap::new();
    let mut next = state.clone();
    for file in plan.read.clone() {
        let hash = content_hash(&fs::read(&file.path).unwrap());
        changes.insert(file.name.clone(), plan.settle(state, &file, hash));
        let known = IndexedFile {
            bytes: file.bytes,
            modified_ns: file.modified_ns,
            read_ns,
            hash,
            ids: vec![document_id("", &file.name)],
        };
        next.files.insert(file.name, known);
    }
    let files = Seen::of(root, &WalkOptions::default()).files;
    next.files.retain(|name, _| files.iter().any(|file| file.name == *name));
    *state = next;
    (plan, changes)
}

const LATER_NS: i64 = i64::MAX;

#[test]
fn a_second_run_reads_only_what_changed() {
    let folder = tree();
    let root = folder.path();
    let mut state = State::default();
    let (first, changes) = index(root, &mut state, LATER_NS);
    assert_eq!((first.read.len(), changes.len()), (4, 4));
    assert!(changes.values().all(|change| *change == Change::Added));
    let (second, _) = index(root, &mut state, LATER_NS);
    assert_eq!((second.unchanged, second.read.len(), second.gone.len()), (4, 0, 0));

    write(root, "src/lib.rs", "pub fn other() {}\n");
    fs::remove_file(root.join("kept/open.txt")).unwrap();
    fs::rename(root.join("src/main.rs"), root.join("src/bin.rs")).unwrap();
    write(root, "src/new.rs", "new");
    let (third, changes) = index(root, &mut state, LATER_NS);
    assert_eq!(third.unchanged, 1);
    assert_eq!(changes["src/lib.rs"], Change::Changed);
    assert_eq!(changes["src/new.rs"], Change::Added);
    let ids = vec!["src/main.rs".to_string()];
    assert_eq!(changes["src/bin.rs"], Change::Renamed { from: "src/main.rs".into(), ids });
    assert_eq!(third.gone.keys().collect::<Vec<_>>(), ["kept/open.txt"]);
}

#[test]
fn a_file_written_while_it_was_read_is_read_again_and_found_touched() {
    let folder = tree();
    let mut state = State::default();
    index(folder.path(), &mut state, 0);
    let (plan, changes) = index(folder.path(), &mut state, LATER_NS);
    assert_eq!(plan.read.len(), 4);
    assert!(changes.values().all(|change| *change == Change::Touched));
}

#[test]
fn a_copy_is_no_rename_and_one_old_name_explains_one_new_name() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "a.txt", "same");
    let mut state = State::default();
    index(folder.path(), &mut state, LATER_NS);
    write(folder.path(), "b.txt", "same");
    let (_, changes) = index(folder.path(), &mut state, LATER_NS);
    assert_eq!(changes["b.txt"], Change::Added, "the old file is still there");
    fs::remove_file(folder.path().join("a.txt")).unwrap();
    fs::rename(folder.path().join("b.txt"), folder.path().join("c.txt")).unwrap();
    write(folder.path(), "d.txt", "same");
    write(folder.path(), "e.txt", "same");
    let (plan, changes) = index(folder.path(), &mut state, LATER_NS);
    let renamed = |name: &str| matches!(&changes[name], Change::Renamed { .. });
    assert!(renamed("c.txt") && renamed("d.txt") && changes["e.txt"] == Change::Added);
    assert!(plan.gone.is_empty());
}

#[test]
fn ids_are_names_after_an_optional_prefix() {
    assert_eq!(document_id("", "a/b.rs"), "a/b.rs");
    assert_eq!(document_id("repo", "a/b.rs"), "repo/a/b.rs");
    assert_eq!(document_id("repo/", "a/b.rs"), "repo/a/b.rs");
}

#[test]
fn the_state_survives_its_file_and_damage_is_an_error() {
    let folder = tree();
    let path = folder.path().join("state");
    assert_eq!(State::load(&path).unwrap(), State::default(), "no file yet");
    let mut state = State::default();
    index(folder.path(), &mut state, LATER_NS);
    state.store(&path).unwrap();
    state.store(&path).unwrap();
    assert_eq!(State::load(&path).unwrap(), state);
    let whole = fs::read(&path).unwrap();
    for at in 12..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(State::load(&path), Err(StateError::Damaged(_))), "byte {at}");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(matches!(State::load(&path), Err(StateError::Damaged(_))), "cut at {at}");
    }
    let mut future = whole;
    future[8] = 9;
    fs::write(&path, &future).unwrap();
    assert!(matches!(State::load(&path), Err(StateError::FutureFormat { found: 9 })));
}

#[test]
fn a_state_that_cannot_be_written_is_an_error() {
    let folder = TempDir::new().unwrap();
    let error = State::default().store(&folder.path().join("none/state")).unwrap_err();
    assert!(matches!(error, StateError::Io(_)), "{error}");
}

/// Waits until a batch names the path; the bound is far beyond what any machine needs.
fn wait_for(watch: &mut Watch, path: &Path) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let batch = watch.next(Duration::from_secs(1));
        if batch.is_some_and(|batch| batch.paths.contains(path)) {
            return true;
        }
    }
    false
}

#[test]
fn a_watch_tells_of_changes_in_the_folders_it_was_given() {
    let folder = tree();
    let root = fs::canonicalize(folder.path()).unwrap();
    let mut watch = Watch::new(Seen::of(&root, &WalkOptions::default()).folders);
    if let Mode::Polling { reason } = watch.mode() {
        assert!(reason.contains("every"), "{reason}");
        return;
    }
    write(&root, "src/main.rs", "fn main() { changed() }\n");
    assert!(wait_for(&mut watch, &root.join("src/main.rs")));
    write(&root, "fresh/new.rs", "new");
    assert!(wait_for(&mut watch, &root.join("fresh")));
    assert!(watch.update(Seen::of(&root, &WalkOptions::default()).folders), "a folder is new");
    write(&root, "fresh/later.rs", "later");
    assert!(wait_for(&mut watch, &root.join("fresh/later.rs")));
    fs::remove_file(root.join("src/lib.rs")).unwrap();
    assert!(wait_for(&mut watch, &root.join("src/lib.rs")));
}
