//! `mainstay index`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mainstay_db::{
    COLLECTION_DEFAULT, Collection, Db, Document, ModelChoice, Options, Value, date,
};

use crate::data;
use crate::failure::Failure;
use crate::folder::extract::{ExtractError, Record, RecordValue, extract, records};
use crate::folder::state::{Change, IndexedFile, Plan, State, content_hash, document_id, plan};
use crate::folder::walk::{Found, FoundFile, Problem, ProblemReason, WalkOptions, walk};
use crate::folder::watch::{Mode, Watch};
use crate::print::{QUIET, WARNING, styled};

/// Documents written at once.
const BATCH_DOCUMENTS: usize = 1000;
/// Bytes of text written at once.
const BATCH_BYTES: usize = 4 << 20;
/// Problems that are printed one by one; all are counted.
const PROBLEMS_SHOWN: usize = 50;
/// How long --watch waits for a change before it looks whether it should end.
const WATCH_WAIT: Duration = Duration::from_secs(10);

/// Index a folder, or a file of documents as NDJSON
///
/// Walks like ripgrep: ignore files are heeded, hidden and binary files left out. A second run
/// reads only what changed, and removes what is gone.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder, a single file, or a file of documents (.ndjson, .jsonl)
    path: PathBuf,
    /// The data directory; created when it is missing
    #[arg(long, env = "MAINSTAY_DATA", value_name = "DIR")]
    data: PathBuf,
    /// The collection; created when it is missing
    #[arg(long, short, default_value = COLLECTION_DEFAULT)]
    collection: String,
    /// The embedding model of a new collection: auto, static, minilm, folder:PATH, or
    /// remote:URL,MODEL,DIMENSION[,VARIABLE of the key]
    #[arg(long, default_value = "auto")]
    model: String,
    /// Put this in front of every document's id and path
    #[arg(long, default_value = "", value_name = "PREFIX")]
    prefix: String,
    /// Also hidden files and folders
    #[arg(long)]
    hidden: bool,
    /// Regardless of ignore files
    #[arg(long)]
    no_ignore: bool,
    /// Through symbolic links
    #[arg(long)]
    follow: bool,
    /// Leave larger files out, in bytes; at most 32 MiB
    #[arg(long, value_name = "BYTES", default_value_t = crate::folder::walk::FILE_BYTES_MAX)]
    max_filesize: u64,
    /// Only files that match, or with '!' in front, that do not
    #[arg(long, short, value_name = "GLOB")]
    glob: Vec<String>,
    /// Only files of this type, such as rust
    #[arg(long, short = 't', value_name = "TYPE")]
    r#type: Vec<String>,
    /// Go on and follow changes until interrupted
    #[arg(long)]
    watch: bool,
    /// Also wait until the refining model has embedded every passage
    #[arg(long)]
    wait_refined: bool,
}

/// Exit code 0 also when single files could not be read: they are listed at the end.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let options = Options { refine_percent: 100, ..Options::default() };
    // Told before the data directory is touched.
    std::fs::metadata(&arguments.path)
        .map_err(|e| Failure::new(format!("{}: {e}", arguments.path.display())))?;
    let db = Db::open(&arguments.data, options)?;
    let model = data::model(&arguments.model)?;
    let collection = db.collection_or_create(&arguments.collection, model)?;
    let mut indexer = Indexer::new(&db, collection, &arguments.path, arguments.walk_options());
    indexer.prefix.clone_from(&arguments.prefix);
    if is_ndjson(&arguments.path) {
        indexer.ndjson()?;
    } else {
        indexer.folder()?;
    }
    indexer.report();
    if arguments.wait_refined {
        wait_refined(&indexer.collection);
    }
    if arguments.watch {
        indexer.watch()?;
    }
    db.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Indexes a folder with every default, for `mainstay serve --index`.
pub(crate) fn folder(
    db: &Db,
    collection: &str,
    path: &Path,
    model: ModelChoice,
) -> Result<(), Failure> {
    let collection = db.collection_or_create(collection, model)?;
    let mut indexer = Indexer::new(db, collection, path, WalkOptions::default());
    indexer.folder()?;
    indexer.report();
    Ok(())
}

impl Arguments {
    fn walk_options(&self) -> WalkOptions {
        WalkOptions {
            hidden: self.hidden,
            no_ignore: self.no_ignore,
            follow: self.follow,
            file_bytes_max: self.max_filesize.min(crate::folder::walk::FILE_BYTES_MAX),
            globs: self.glob.clone(),
            types: self.r#type.clone(),
            threads: 0,
        }
    }
}

fn is_ndjson(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    path.is_file() && matches!(extension, Some("ndjson" | "jsonl"))
}

/// One run over a folder.
struct Indexer {
    collection: Collection,
    root: PathBuf,
    options: WalkOptions,
    prefix: String,
    state_path: PathBuf,
    batch: Vec<Document>,
    batch_bytes: usize,
    problems: Vec<Problem>,
    problem_count: u64,
    counts: Counts,
    begun: Instant,
}

#[derive(Default)]
struct Counts {
    indexed: u64,
    removed: u64,
    renamed: u64,
    unchanged: u64,
    binary: u64,
    bytes: u64,
}

impl Indexer {
    fn new(db: &Db, collection: Collection, root: &Path, options: WalkOptions) -> Self {
        let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
        let key = content_hash(absolute.as_os_str().as_encoded_bytes());
        let state_path =
            db.folder().join("folders").join(format!("{}-{key:016x}", collection.name()));
        Self {
            collection,
            root: root.to_path_buf(),
            options,
            prefix: String::new(),
            state_path,
            batch: Vec::new(),
            batch_bytes: 0,
            problems: Vec::new(),
            problem_count: 0,
            counts: Counts::default(),
            begun: Instant::now(),
        }
    }

    /// Brings the collection in line with the folder; answers the folders that were walked.
    fn folder(&mut self) -> Result<BTreeSet<PathBuf>, Failure> {
        self.begun = Instant::now();
        let previous = match State::load(&self.state_path) {
            Ok(state) => state,
            Err(error) => {
                anstream::eprintln!(
                    "{} {error}; every file is read again",
                    styled(WARNING, "note")
                );
                State::default()
            }
        };
        let mut files = Vec::new();
        let mut folders = BTreeSet::new();
        let spinner = indicatif::ProgressBar::new_spinner();
        let walk = walk(&self.root, &self.options).map_err(|e| Failure::new(e.to_string()))?;
        for found in walk {
            match found {
                Found::File(file) => files.push(file),
                Found::Folder(folder) => drop(folders.insert(folder)),
                Found::Problem(problem) => self.problem(problem),
            }
            spinner.set_message(format!("{} files found", files.len()));
            spinner.tick();
        }
        spinner.finish_and_clear();
        let mut plan = plan(&previous, files);
        self.counts.unchanged += plan.unchanged as u64;
        let mut next = previous.clone();
        self.read(&mut plan, &previous, &mut next)?;
        let gone: Vec<String> =
            plan.gone.values().flat_map(|known| known.ids.iter().cloned()).collect();
        self.remove(&gone)?;
        for name in plan.gone.keys() {
            next.files.remove(name);
        }
        self.flush()?;
        // Remembered only when all of it is durable in the log.
        if let Some(parent) = self.state_path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        next.store(&self.state_path).map_err(|e| Failure::new(e.to_string()))?;
        if !data::wait_indexed(&self.collection, "indexing") {
            anstream::eprintln!(
                "{} a method does not keep up; it says why in every answer",
                styled(WARNING, "note")
            );
        }
        Ok(folders)
    }

    fn read(&mut self, plan: &mut Plan, previous: &State, next: &mut State) -> Result<(), Failure> {
        let files = std::mem::take(&mut plan.read);
        let bar = data::bar(files.len() as u64, "reading", "files");
        for file in &files {
            bar.inc(1);
            let read_ns = now_ns();
            let bytes = match std::fs::read(&file.path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.problem(Problem::unreadable(&file.path, &error));
                    // Removed between walk and reading, or locked: what is indexed of it stays.
                    plan.gone.remove(&file.name);
                    continue;
                }
            };
            let hash = content_hash(&bytes);
            let mut indexed = IndexedFile {
                bytes: file.bytes,
                modified_ns: file.modified_ns,
                read_ns,
                hash,
                ids: Vec::new(),
            };
            match plan.settle(previous, file, hash) {
                Change::Touched => {
                    self.counts.unchanged += 1;
                    let known = previous.files.get(&file.name);
                    indexed.ids = known.map(|known| known.ids.clone()).unwrap_or_default();
                }
                Change::Renamed { from, ids } => {
                    self.counts.renamed += 1;
                    self.remove(&ids)?;
                    next.files.remove(&from);
                    indexed.ids = self.add(file, bytes)?;
                }
                Change::Added => indexed.ids = self.add(file, bytes)?,
                Change::Changed => {
                    indexed.ids = self.add(file, bytes)?;
                    let known = previous.files.get(&file.name);
                    let old: Vec<String> = known.map(|known| known.ids.clone()).unwrap_or_default();
                    let stale: Vec<String> =
                        old.into_iter().filter(|id| !indexed.ids.contains(id)).collect();
                    self.remove(&stale)?;
                }
            }
            next.files.insert(file.name.clone(), indexed);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Queues the document of a file; answers its id, or none for a binary file.
    fn add(&mut self, file: &FoundFile, bytes: Vec<u8>) -> Result<Vec<String>, Failure> {
        let length = bytes.len() as u64;
        let extracted = match extract(&file.name, bytes) {
            Ok(extracted) => extracted,
            Err(ExtractError::Binary) => {
                self.counts.binary += 1;
                return Ok(Vec::new());
            }
            Err(ExtractError::Failed(why)) => {
                let reason = ProblemReason::Unextractable(why);
                self.problem(Problem { path: file.path.clone(), reason });
                return Ok(Vec::new());
            }
        };
        self.counts.bytes += length;
        let id = document_id(&self.prefix, &file.name);
        let document = Document {
            id: id.clone(),
            title: extracted.title,
            body: extracted.body,
            path: id.clone(),
            language: extracted.language.to_string(),
            ..Document::default()
        };
        if self.queue(document, &file.path)? { Ok(vec![id]) } else { Ok(Vec::new()) }
    }

    /// Queues a document; answers whether it is valid.
    fn queue(&mut self, document: Document, path: &Path) -> Result<bool, Failure> {
        if let Err(faults) = document.validate() {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let reason = ProblemReason::Unextractable(faults.join("; "));
            self.problem(Problem { path: path.to_path_buf(), reason });
            return Ok(false);
        }
        self.batch_bytes += document.body.len();
        self.batch.push(document);
        if self.batch.len() >= BATCH_DOCUMENTS || self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.batch.is_empty() {
            let written = self.collection.put(std::mem::take(&mut self.batch))?;
            self.counts.indexed += written.documents.len() as u64;
            self.batch_bytes = 0;
        }
        Ok(())
    }

    fn remove(&mut self, ids: &[String]) -> Result<(), Failure> {
        if !ids.is_empty() {
            self.flush()?;
            let lived = self.collection.delete(ids)?;
            self.counts.removed += lived.into_iter().filter(|lived| *lived).count() as u64;
        }
        Ok(())
    }

    /// Indexes a file of documents, one a line.
    fn ndjson(&mut self) -> Result<(), Failure> {
        use std::io::BufRead;
        let path = self.root.clone();
        let file = std::fs::File::open(&path)?;
        let bytes = file.metadata()?.len();
        let bar = data::bar(bytes, "reading", "bytes");
        for (at, line) in std::io::BufReader::with_capacity(1 << 20, file).lines().enumerate() {
            let line = match line {
                Ok(line) => line,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    self.line_problem(&path, at + 1, "is not UTF-8".into());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            bar.inc(line.len() as u64 + 1);
            let Some((_, record)) = records(&line).next() else { continue };
            match record {
                Ok(record) => match document(record) {
                    Ok(document) => {
                        self.counts.bytes += document.body.len() as u64;
                        let name = PathBuf::from(format!("{}:{}", path.display(), at + 1));
                        self.queue(document, &name)?;
                    }
                    Err(why) => self.line_problem(&path, at + 1, why),
                },
                Err(why) => self.line_problem(&path, at + 1, why),
            }
        }
        self.flush()?;
        bar.finish_and_clear();
        data::wait_indexed(&self.collection, "indexing");
        Ok(())
    }

    fn line_problem(&mut self, path: &Path, line: usize, why: String) {
        let path = PathBuf::from(format!("{}:{line}", path.display()));
        self.problem(Problem { path, reason: ProblemReason::Unextractable(why) });
    }

    fn problem(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_SHOWN {
            self.problems.push(problem);
        }
    }

    fn report(&mut self) {
        for problem in self.problems.drain(..) {
            anstream::eprintln!("{} {problem}", styled(WARNING, "left out"));
        }
        if self.problem_count > PROBLEMS_SHOWN as u64 {
            let more = self.problem_count - PROBLEMS_SHOWN as u64;
            anstream::eprintln!("{} {more} more", styled(WARNING, "left out"));
        }
        let counts = std::mem::take(&mut self.counts);
        let seconds = self.begun.elapsed().as_secs_f64();
        eprintln!(
            "{} indexed, {} unchanged, {} renamed, {} removed, {} binary, {} left out; \
             {:.1} MB in {seconds:.1} s ({:.0} documents/s)",
            counts.indexed,
            counts.unchanged,
            counts.renamed,
            counts.removed,
            counts.binary,
            std::mem::take(&mut self.problem_count),
            counts.bytes as f64 / 1e6,
            counts.indexed as f64 / seconds.max(1e-9),
        );
    }

    /// Follows changes until interrupted.
    fn watch(&mut self) -> Result<(), Failure> {
        let folders = self.folder()?;
        self.report();
        let mut watch = Watch::new(folders);
        if let Mode::Polling { reason } = watch.mode() {
            anstream::eprintln!("{} {reason}", styled(WARNING, "polling"));
        }
        anstream::eprintln!("{}", styled(QUIET, "following changes; interrupt to end"));
        loop {
            if watch.next(WATCH_WAIT).is_none() {
                continue;
            }
            // A folder that was added may have changed before it was watched: once more then.
            loop {
                let folders = self.folder()?;
                if self.counts.indexed + self.counts.removed > 0 {
                    self.report();
                } else {
                    self.counts = Counts::default();
                    self.problems.clear();
                    self.problem_count = 0;
                }
                if !watch.update(folders) {
                    break;
                }
            }
        }
    }
}

/// The document of a line of NDJSON.
fn document(record: Record) -> Result<Document, String> {
    let mut attributes = std::collections::BTreeMap::new();
    for (name, value) in record.attributes {
        let value = match value {
            RecordValue::Boolean(truth) => Value::Boolean(truth),
            RecordValue::Number(number) => Value::Number(number),
            // Only the full form is a date here: a plain `2024-01-31` may be any text.
            RecordValue::String(text) => match date::parse(&text) {
                Some(span) if text.contains('T') => Value::Date(span.start_ms),
                _ => Value::String(text),
            },
        };
        attributes.insert(name, value);
    }
    Ok(Document {
        id: record.id,
        title: record.title,
        body: record.body,
        path: record.path,
        language: record.language,
        tags: record.tags,
        attributes,
    })
}

/// Waits until every passage has the refining model's vector.
pub(crate) fn wait_refined(collection: &Collection) {
    let Some((done, total)) = collection.status().refined else { return };
    let bar = data::bar(total, "refining", "passages");
    bar.set_position(done);
    while let Some((done, total)) = collection.status().refined {
        bar.set_length(total);
        bar.set_position(done);
        if done >= total {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bar.finish_and_clear();
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
