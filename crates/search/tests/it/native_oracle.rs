//! The `native` method against the real ripgrep: the same lines of the same files.
//!
//! Environment, all optional: `MAINSTAY_SEED` (default 1), `MAINSTAY_PATTERNS` (how many patterns,
//! default 300), `MAINSTAY_TREE` (a folder that is searched besides the generated one). Without `rg`
//! on the path the tests print that they are skipped, unless `CI=true`, where they fail.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::Document;
use mainstay_search::native::{LineLimits, Matcher, NativeView};
use mainstay_search::request::{Allowed, Case, Pattern, Request, SearchError, Stop, Syntax};
use mainstay_search::view::{Addition, View};

use mainstay_testkit::texts::StoredTexts as Stored;

/// A matching line: file, line number, column of the first match (0 where it is not compared), and
/// a hash of the line.
type Line = (u32, u32, u32, u64);

fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn ripgrep_is_missing() -> bool {
    if Command::new("rg").arg("--version").output().is_ok() {
        return false;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "`rg` is missing; install ripgrep");
    println!("skipped: `rg` is not on the path");
    true
}

/// SplitMix64: small, seeded, good enough to vary patterns.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Files with their decoded text, indexed.
struct Tree {
    root: PathBuf,
    paths: BTreeMap<String, u32>,
    stored: Stored,
    view: NativeView,
}

impl Tree {
    fn index(root: &Path) -> Self {
        let mut files = Vec::new();
        walk(root, &mut files);
        files.sort();
        let mut view = NativeView::open(Arc::new(MemoryDirectory::new())).unwrap();
        let (mut paths, mut stored) = (BTreeMap::new(), Stored::default());
        let mut batch = Vec::new();
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).to_vec();
            // Bytes that are no UTF-8 are replaced on the way in, so lines with them would differ.
            let Ok(body) = String::from_utf8(bytes) else { continue };
            let number = paths.len() as u32;
            paths.insert(file.to_str().unwrap().to_string(), number);
            let document = Document { body, ..Document::default() };
            stored.0.insert(number, document.clone());
            batch.push(Addition { number, document });
            if batch.len() == 50 {
                view.apply(&batch, u64::from(number)).unwrap();
                batch.clear();
            }
        }
        view.apply(&batch, u64::from(u32::MAX)).unwrap();
        Self { root: root.to_path_buf(), paths, stored, view }
    }

    /// A random line of a random file that is not blank.
    fn line(&self, random: &mut Random) -> &str {
        loop {
            let body = &self.stored.0[&(random.below(self.paths.len()) as u32)].body;
            let at = body.floor_char_boundary(random.below(body.len().max(1)));
            let start = body[..at].rfind('\n').map_or(0, |at| at + 1);
            let line = body[start..].lines().next().unwrap_or_default();
            if !line.trim().is_empty() {
                return line;
            }
        }
    }

    fn ours(&self, text: &str, pattern: Pattern) -> Result<BTreeSet<Line>, SearchError> {
        let matcher = Matcher::new(text, pattern)?;
        let allowed = Allowed::new(Bitmap::full(self.paths.len() as u32), None);
        let request = Request {
            strict: false,
            verified_max: usize::MAX,
            text,
            pattern,
            vectors: &[],
            limit: 0,
            allowed: &allowed,
            texts: &self.stored,
            threads: 2,
            stop: &Stop::new(),
        };
        // Columns of sensitive expressions are checked against the engine itself, line by line.
        let plain = pattern.case == Case::Sensitive && !pattern.word;
        let check = regex::Regex::new(text).ok();
        let check = check.filter(|_| plain && pattern.syntax == Syntax::Regex);
        let mut lines = BTreeSet::new();
        self.view.snapshot().enumerate(&request, &mut |found| {
            let body = &self.stored.0[&found.number].body;
            let limits = LineLimits { lines_max: usize::MAX, matches_max: 1 };
            let columns = matcher.lines(body, limits);
            assert_eq!(columns.len(), found.lines.len());
            if let Some(regex) = &check {
                for line in &columns {
                    let first = regex.find(&body[line.range.clone()]).unwrap();
                    assert_eq!(line.column as usize, first.start() + 1, "{text:?}");
                }
            }
            for (line, column) in found.lines.iter().zip(columns) {
                assert_eq!(line.line, column.line);
                let column = if columns_compare(text, pattern) { column.column } else { 0 };
                lines.insert((found.number, line.line, column, hash(found.text(line).as_bytes())));
            }
            ControlFlow::Continue(())
        })?;
        Ok(lines)
    }

    /// What ripgrep finds; `None` when it refuses the pattern.
    fn theirs(&self, text: &str, pattern: Pattern) -> Option<BTreeSet<Line>> {
        let mut command = Command::new("rg");
        command.args(["--no-config", "-uu", "-a", "-n", "--null", "--no-heading"]);
        command.args(["--color=never", "--no-messages"]);
        command.arg(match pattern.case {
            Case::Smart => "-S",
            Case::Sensitive => "-s",
            Case::Insensitive => "-i",
        });
        if pattern.syntax == Syntax::Literal {
            command.arg("-F");
        }
        if pattern.word {
            command.arg("-w");
        }
        let columns = columns_compare(text, pattern);
        if columns {
            command.arg("--column");
        }
        let output = command.arg("-e").arg(text).arg(&self.root).output().unwrap();
        if output.status.code() == Some(2) {
            return None;
        }
        let mut lines = BTreeSet::new();
        for record in output.stdout.split(|&byte| byte == b'\n').filter(|it| !it.is_empty()) {
            let path_end = record.iter().position(|&byte| byte == 0).unwrap();
            let path = std::str::from_utf8(&record[..path_end]).unwrap();
            let Some(&number) = self.paths.get(path) else { continue };
            let parts = if columns { 3 } else { 2 };
            let mut fields = record[path_end + 1..].splitn(parts, |&byte| byte == b':');
            let mut field = || -> u32 {
                let digits = std::str::from_utf8(fields.next().unwrap()).unwrap();
                digits.parse().unwrap_or_else(|_| panic!("{text:?} {pattern:?}: {record:?}"))
            };
            let line = field();
            let column = if columns { field() } else { 0 };
            lines.insert((number, line, column, hash(fields.next().unwrap())));
        }
        Some(lines)
    }

    fn compare(&self, patterns: u64, literal_chars_min: usize) {
        let seed = number_from_environment("MAINSTAY_SEED", 1);
        let (mut hits, mut refused, mut empty) = (0, 0, 0);
        for index in 0..patterns {
            let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(index));
            let (text, pattern) = generate(self, &mut random, literal_chars_min);
            let context = format!("MAINSTAY_SEED={seed}, pattern {index}: {text:?} {pattern:?}");
            match (self.ours(&text, pattern), self.theirs(&text, pattern)) {
                (Ok(ours), Some(theirs)) => {
                    let missing: Vec<_> = theirs.difference(&ours).take(3).collect();
                    let extra: Vec<_> = ours.difference(&theirs).take(3).collect();
                    let files = |lines: &[&Line]| -> Vec<&String> {
                        let path = |line: &&Line| self.paths.iter().find(|it| *it.1 == line.0);
                        lines.iter().filter_map(path).map(|it| it.0).collect()
                    };
                    assert!(
                        missing.is_empty() && extra.is_empty(),
                        "{context}: missing {missing:?} {:?}, extra {extra:?} {:?}",
                        files(&missing),
                        files(&extra),
                    );
                    hits += ours.len();
                    empty += u64::from(ours.is_empty());
                }
                (Err(_), None) => refused += 1,
                (ours, theirs) => panic!(
                    "{context}: ours {:?}, theirs {:?}",
                    ours.map(|lines| lines.len()),
                    theirs.map(|lines| lines.len())
                ),
            }
        }
        println!(
            "{patterns} patterns, {hits} lines equal, {empty} without a hit, {refused} refused"
        );
        assert!(empty * 4 < patterns * 3, "most patterns should match something");
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(&entry.path(), files);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Whether columns are compared: for literals. For an empty match at the end of a line and with `-w`
/// some versions of ripgrep leave the column out, and ripgrep 13 names a later match than the first
/// for some expressions with `.*` in long lines.
fn columns_compare(text: &str, pattern: Pattern) -> bool {
    !pattern.word && !text.is_empty() && pattern.syntax == Syntax::Literal
}

/// A pattern made from a line of the tree, so that most match something; every literal run keeps at
/// least `chars_min` characters.
fn generate(tree: &Tree, random: &mut Random, chars_min: usize) -> (String, Pattern) {
    let case = [Case::Smart, Case::Sensitive, Case::Insensitive][random.below(3)];
    let word = random.one_in(4);
    if random.one_in(3) {
        let text = recase(piece(tree, random, chars_min), random, case);
        return (text, Pattern { syntax: Syntax::Literal, case, word });
    }
    let mut text = expression(tree, random, chars_min);
    if chars_min <= 1 && random.one_in(40) {
        text = random
            .pick(&["", "^", "$", "^$", ".", r"\s$", "[^a]", r"\W", r"\b", r"\B", "a*", ".*"])
            .into();
    }
    let text = recase(text, random, case);
    (text, Pattern { syntax: Syntax::Regex, case, word })
}

/// Some consecutive characters of a line.
fn piece(tree: &Tree, random: &mut Random, chars_min: usize) -> String {
    let chars: Vec<char> = tree.line(random).trim_end_matches('\r').chars().collect();
    let length = chars_min + random.below(14);
    let start = random.below(chars.len());
    chars[start.min(chars.len().saturating_sub(length))..].iter().take(length).collect()
}

/// Changes the case of some letters that are typed as themselves when case does not matter.
fn recase(text: String, random: &mut Random, case: Case) -> String {
    if case != Case::Insensitive || text.contains('\\') || !random.one_in(2) {
        return text;
    }
    let flip = |c: char| {
        let mut other = if c.is_lowercase() {
            c.to_uppercase().collect()
        } else {
            c.to_lowercase().collect::<Vec<_>>()
        };
        if other.len() == 1 { other.remove(0) } else { c }
    };
    text.chars().map(|c| if random.one_in(3) { flip(c) } else { c }).collect()
}

fn expression(tree: &Tree, random: &mut Random, chars_min: usize) -> String {
    let escaped = |random: &mut Random| regex::escape(&piece(tree, random, chars_min));
    match random.below(12) {
        0 => escaped(random),
        1 => format!("{}|{}", escaped(random), escaped(random)),
        2 => format!("({}|{}|{})", escaped(random), escaped(random), escaped(random)),
        3 => format!("^{}", regex::escape(&starts(tree, random, chars_min))),
        4 => format!("{}$", regex::escape(&ends(tree, random, chars_min))),
        5 => format!(
            "{}{}",
            escaped(random),
            random.pick(&[r"\w+", r"\w*\b", r"\s", r"\d", ".", r"\W", r"\pL", "[a-f0-9]", "[^x]"])
        ),
        6 => format!(
            "{}{}",
            random.pick(&[r"\b", r"\B", r"\w+", r"^\s*", r"\S", r"\p{Lu}", r"[[:punct:]]"]),
            escaped(random)
        ),
        7 => format!("{}.*{}", escaped(random), escaped(random)),
        8 => {
            // Some characters of a piece become a wildcard, a class, optional, or repeated.
            let mut text = String::new();
            let chars: Vec<char> = piece(tree, random, chars_min + 3).chars().collect();
            for (at, c) in chars.iter().enumerate() {
                let c = regex::escape(&c.to_string());
                match if at < chars_min { 9 } else { random.below(10) } {
                    0 => text.push('.'),
                    1 if c.chars().count() == 1 => write!(text, "[{c}x]").unwrap(),
                    2 => write!(text, "{c}?").unwrap(),
                    3 => write!(text, "{c}+").unwrap(),
                    4 => write!(text, "{c}{{1,3}}").unwrap(),
                    5 => write!(text, "(?:{c}|zz)").unwrap(),
                    _ => text.push_str(&c),
                }
            }
            text
        }
        9 => format!("(?i){}", escaped(random)),
        10 => format!("(?:{}){}", escaped(random), random.pick(&["+", "{1,2}", "+?", "{1}"])),
        _ => format!("({}).?({})?", escaped(random), escaped(random)),
    }
}

fn starts(tree: &Tree, random: &mut Random, chars_min: usize) -> String {
    let length = chars_min + random.below(8);
    tree.line(random).chars().take(length).filter(|&c| c != '\r').collect()
}

fn ends(tree: &Tree, random: &mut Random, chars_min: usize) -> String {
    let line = tree.line(random);
    let length = chars_min + random.below(8);
    let skip = line.chars().count().saturating_sub(length);
    line.chars().skip(skip).filter(|&c| c != '\r').collect()
}

/// Some hundred small files of many kinds.
fn generate_tree(root: &Path, random: &mut Random) {
    const WORDS: [&str; 48] = [
        "alpha",
        "beta",
        "Gamma",
        "DELTA",
        "foo_bar",
        "fooBar",
        "kmalloc",
        "return",
        "struct",
        "x",
        "if",
        "0x1f",
        "12345",
        "(",
        ")",
        "{",
        "}",
        ";",
        "->",
        "==",
        "// note",
        "\"text\"",
        "a.b",
        "[i]",
        "Straße",
        "STRASSE",
        "Maß",
        "ſkin",
        "skin",
        "\u{212a}elvin",
        "kelvin",
        "Ångström",
        "ångström",
        "\u{212b}",
        "éclair",
        "ÉCLAIR",
        "e\u{301}",
        "日本語",
        "日本",
        "中文字符",
        "한국어",
        "Привет",
        "ПРИВЕТ",
        "σίγμας",
        "ΣΊΓΜΑΣ",
        "مرحبا",
        "İstanbul",
        "🦀",
    ];
    for index in 0..300 {
        let folder = root.join(format!("d{}", index % 7));
        std::fs::create_dir_all(&folder).unwrap();
        let lines = [0, 1, 3, 20, 60, 200][random.below(6)];
        let end = random.pick(&["\n", "\n", "\n", "\r\n"]);
        let mut body = String::new();
        for _ in 0..lines {
            let words = if random.one_in(60) { 400 } else { random.below(9) };
            for at in 0..words {
                if at > 0 {
                    body.push_str(random.pick(&[" ", " ", "\t", "", ", "]));
                }
                body.push_str(random.pick(&WORDS));
            }
            body.push_str(if random.one_in(30) { "\r\n" } else { end });
        }
        if random.one_in(4) {
            body.truncate(body.trim_end_matches(['\n', '\r']).len());
        }
        let mark = if random.one_in(20) { "\u{feff}" } else { "" };
        let name = folder.join(format!("file {index}.{}", random.pick(&["txt", "c", "md"])));
        std::fs::write(name, format!("{mark}{body}")).unwrap();
    }
}

#[test]
fn hits_equal_ripgreps_on_a_generated_tree() {
    if ripgrep_is_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    generate_tree(folder.path(), &mut Random(number_from_environment("MAINSTAY_SEED", 1)));
    let tree = Tree::index(folder.path());
    tree.compare(number_from_environment("MAINSTAY_PATTERNS", 300), 1);
}

#[test]
fn hits_equal_ripgreps_on_a_real_tree() {
    let Ok(root) = std::env::var("MAINSTAY_TREE") else {
        println!("skipped: MAINSTAY_TREE names no folder");
        return;
    };
    if ripgrep_is_missing() {
        return;
    }
    // Short pieces would match most lines of a large tree and compare gigabytes for nothing.
    Tree::index(Path::new(&root)).compare(number_from_environment("MAINSTAY_PATTERNS", 100), 6);
}
