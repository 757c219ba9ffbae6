//! [`walk`]: the files of a folder, by ripgrep's rules.
//!
//! The `ignore` crate is ripgrep's own walker, so `.gitignore` (inside git repositories), `.ignore`,
//! `.rgignore`, global excludes, hidden files, types and globs mean exactly what they mean there.
//! Differences: a file beyond the size bound is reported instead of passed over in silence, and a
//! name that is not UTF-8 is reported, because it cannot be part of a document's id.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::UNIX_EPOCH;

use ignore::overrides::OverrideBuilder;
use ignore::types::TypesBuilder;
use ignore::{DirEntry, WalkBuilder, WalkParallel, WalkState};

/// The largest file that is indexed, unless told otherwise: the bound of a document's body.
pub(crate) const FILE_BYTES_MAX: u64 = 32 << 20;
/// Files found ahead of their reader: enough to keep it busy, 200 KB of paths.
const AHEAD_MAX: usize = 1024;

/// What to find. The default is ripgrep's.
#[derive(Clone, Debug)]
pub(crate) struct WalkOptions {
    /// Also hidden files and folders.
    pub(crate) hidden: bool,
    /// Regardless of ignore files.
    pub(crate) no_ignore: bool,
    /// Through symbolic links.
    pub(crate) follow: bool,
    /// Larger files are reported and left out.
    pub(crate) file_bytes_max: u64,
    /// As `rg --glob`: only what matches, or with `!` in front, not that.
    pub(crate) globs: Vec<String>,
    /// As `rg --type`: names such as `rust`; with `!` in front as `rg --type-not`.
    pub(crate) types: Vec<String>,
    /// Threads that read folders; 0 lets the walker choose by the number of cores.
    pub(crate) threads: usize,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self {
            hidden: false,
            no_ignore: false,
            follow: false,
            file_bytes_max: FILE_BYTES_MAX,
            globs: Vec::new(),
            types: Vec::new(),
            threads: 0,
        }
    }
}

/// A file to index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FoundFile {
    /// Its path below the root, with `/` between the parts: the document's id and path.
    pub(crate) name: String,
    /// Where to open it.
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// When it was last written, in nanoseconds since 1970; 0 where the system does not tell.
    pub(crate) modified_ns: i64,
}

/// What the walk comes across.
#[derive(Debug)]
pub(crate) enum Found {
    /// A file to index.
    File(FoundFile),
    /// A folder that was entered, for watching.
    Folder(PathBuf),
    /// Something that is left out and reported.
    Problem(Problem),
}

/// Something that is left out, with the reason; never ends a walk.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The file or folder; empty where the walker does not say.
    pub(crate) path: PathBuf,
    /// Why.
    pub(crate) reason: ProblemReason,
}

/// Why something is left out.
#[derive(Debug)]
pub(crate) enum ProblemReason {
    /// It cannot be read: permission, a dangling or circular link, a failing disk.
    Unreadable(String),
    /// It is larger than the bound.
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// Its name is not UTF-8.
    NameNotUtf8,
    /// It is a document of a kind that could not be taken apart.
    Unextractable(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.reason {
            ProblemReason::Unreadable(why) | ProblemReason::Unextractable(why) => {
                write!(f, "{path}: {why}")
            }
            ProblemReason::TooLarge { bytes, bytes_max } => write!(
                f,
                "{path}: has {bytes} bytes, the bound is {bytes_max}; raise it with --max-filesize \
                 or leave the file out with --glob"
            ),
            ProblemReason::NameNotUtf8 => {
                write!(f, "{path}: the name is not UTF-8, so it cannot be an id; rename the file")
            }
        }
    }
}

impl Problem {
    /// A file that cannot be read.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let reason = ProblemReason::Unreadable(error.to_string());
        Self { path: path.to_path_buf(), reason }
    }
}

/// Why a walk cannot begin.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// The root cannot be read.
    Root {
        /// The root.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A glob or type is wrong.
    Option {
        /// Which option.
        option: &'static str,
        /// The cause.
        source: ignore::Error,
    },
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root { path, source } => {
                write!(f, "cannot read {}: {source}; check the path and its rights", path.display())
            }
            Self::Option { option, source } => write!(f, "{option}: {source}"),
        }
    }
}

impl std::error::Error for WalkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Root { source, .. } => Some(source),
            Self::Option { source, .. } => Some(source),
        }
    }
}

/// A walk under way: yields what it finds, in no particular order. Dropping it ends it.
pub(crate) struct Walk {
    found: Option<Receiver<Found>>,
    thread: Option<JoinHandle<()>>,
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        self.found.as_ref()?.recv().ok()
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // Without a receiver every send fails, and the walker quits.
        self.found = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Begins to walk a folder, or a single file, on threads of its own.
pub(crate) fn walk(root: &Path, options: &WalkOptions) -> Result<Walk, WalkError> {
    let unreadable = |source| WalkError::Root { path: root.to_path_buf(), source };
    let metadata = std::fs::metadata(root).map_err(unreadable)?;
    if metadata.is_dir() {
        std::fs::read_dir(root).map_err(unreadable)?;
    }
    let walker = builder(root, options)?.build_parallel();
    let (sender, found) = sync_channel(AHEAD_MAX);
    let root = Arc::new(root.to_path_buf());
    let file_bytes_max = options.file_bytes_max;
    let thread = std::thread::Builder::new()
        .name("walk".into())
        .spawn(move || run(walker, &root, file_bytes_max, &sender))
        .map_err(|source| WalkError::Root { path: PathBuf::from("thread"), source })?;
    Ok(Walk { found: Some(found), thread: Some(thread) })
}

fn builder(root: &Path, options: &WalkOptions) -> Result<WalkBuilder, WalkError> {
    let mut builder = WalkBuilder::new(root);
    builder.hidden(!options.hidden).follow_links(options.follow).threads(options.threads);
    if options.no_ignore {
        builder.parents(false).ignore(false).git_global(false).git_ignore(false).git_exclude(false);
    } else {
        builder.add_custom_ignore_filename(".rgignore");
    }
    if !options.globs.is_empty() {
        let failed = |source| WalkError::Option { option: "--glob", source };
        let mut globs = OverrideBuilder::new(root);
        for glob in &options.globs {
            globs.add(glob).map_err(failed)?;
        }
        builder.overrides(globs.build().map_err(failed)?);
    }
    if !options.types.is_empty() {
        let failed = |source| WalkError::Option { option: "--type", source };
        let mut types = TypesBuilder::new();
        types.add_defaults();
        for name in &options.types {
            match name.strip_prefix('!') {
                Some(name) => types.negate(name),
                None => types.select(name),
            };
        }
        builder.types(types.build().map_err(failed)?);
    }
    Ok(builder)
}

fn run(walker: WalkParallel, root: &Path, file_bytes_max: u64, sender: &SyncSender<Found>) {
    walker.run(|| {
        let sender = sender.clone();
        Box::new(move |entry| {
            let found = match entry {
                Ok(entry) => look_at(&entry, root, file_bytes_max),
                Err(error) => Some(Found::Problem(unreadable(&error))),
            };
            let is_wanted = found.is_none_or(|found| sender.send(found).is_ok());
            if is_wanted { WalkState::Continue } else { WalkState::Quit }
        })
    });
}

fn look_at(entry: &DirEntry, root: &Path, file_bytes_max: u64) -> Option<Found> {
    let kind = entry.file_type()?;
    if kind.is_dir() {
        return Some(Found::Folder(entry.path().to_path_buf()));
    }
    let problem =
        |reason| Some(Found::Problem(Problem { path: entry.path().to_path_buf(), reason }));
    // A root that is a link to a file is followed; pipes, sockets and devices are passed over.
    let metadata = match entry.metadata() {
        Ok(metadata) if entry.depth() > 0 || metadata.is_file() => metadata,
        Ok(_) => match std::fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            Err(error) => return problem(ProblemReason::Unreadable(error.to_string())),
        },
        Err(error) => return Some(Found::Problem(unreadable(&error))),
    };
    if !metadata.is_file() {
        return None;
    }
    let Some(name) = name_below(entry.path(), root) else {
        return problem(ProblemReason::NameNotUtf8);
    };
    let bytes = metadata.len();
    if bytes > file_bytes_max {
        return problem(ProblemReason::TooLarge { bytes, bytes_max: file_bytes_max });
    }
    let modified_ns = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0);
    Some(Found::File(FoundFile { name, path: entry.path().to_path_buf(), bytes, modified_ns }))
}

/// The path below the root with `/` between its parts; the file's own name when it is the root.
/// `None` when a part is not UTF-8.
fn name_below(path: &Path, root: &Path) -> Option<String> {
    let below = path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
    let below = below.or_else(|| path.file_name().map(Path::new))?;
    let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}

fn unreadable(error: &ignore::Error) -> Problem {
    let (path, why) = place(error, PathBuf::new());
    Problem { path, reason: ProblemReason::Unreadable(why) }
}

/// The path and the cause inside the walker's nested errors.
fn place(error: &ignore::Error, path: PathBuf) -> (PathBuf, String) {
    match error {
        ignore::Error::WithPath { path, err } => place(err, path.clone()),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            place(err, path)
        }
        ignore::Error::Loop { ancestor, child } => {
            (child.clone(), format!("is a link back to {}", ancestor.display()))
        }
        other => (path, other.to_string()),
    }
}
