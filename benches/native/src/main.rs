//! `cargo run --release --manifest-path benches/native/Cargo.toml -- --tree DIR [--quick] [--json]`
//!
//! Indexes a tree, checks for each pattern that the hits are ripgrep's, and times both: full
//! enumeration of the matching lines, warm, with the same number of threads.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::Document;
use mainstay_search::native::NativeView;
use mainstay_search::request::{self, Allowed, Pattern, Request, Stop, Syntax};
use mainstay_search::view::{Addition, Searcher, View};

use patterns::{CASES, Case};
use store::Store;

mod patterns;
mod store;

/// Body text in one applied batch, in bytes.
const BATCH_BYTES: usize = 4 << 20;

struct Options {
    tree: PathBuf,
    quick: bool,
    json: bool,
    threads: usize,
    ours: bool,
}

fn main() {
    let options = options();
    let files = read_tree(&options.tree);
    let corpus: u64 = files.iter().map(|(_, body)| body.len() as u64).sum();
    eprintln!("{} files, {} MB", files.len(), corpus >> 20);
    let (view, build) = build(&files);
    let mut stores =
        [Store::new(false, 64 << 10), Store::new(true, 64 << 10), Store::new(true, 16 << 10)];
    for (path, body) in &files {
        stores.iter_mut().for_each(|store| store.add(path, body));
    }
    stores.iter_mut().for_each(Store::close);
    let short = short_documents(&files);
    drop(files);
    let figures = view.figures();
    let index = figures.disk_bytes + figures.memory_bytes;
    eprintln!(
        "build {:.1} s (one core), index {:.1} MB = {:.3} of the corpus, {} segments; \
         LZ4 {:.3} of the corpus in blocks of 64 KiB, {:.3} in blocks of 16 KiB; short documents {:.1} µs each",
        build.as_secs_f64(),
        index as f64 / 1e6,
        index as f64 / corpus as f64,
        figures.segments,
        stores[1].bytes() as f64 / corpus as f64,
        stores[2].bytes() as f64 / corpus as f64,
        short.as_secs_f64() * 1e6,
    );
    let rows: Vec<Row> = CASES
        .iter()
        .step_by(if options.quick { 4 } else { 1 })
        .map(|case| measure(case, &view, &stores, &options))
        .collect();
    report(&rows, options.json);
}

fn options() -> Options {
    let mut options = Options {
        tree: PathBuf::from("."),
        quick: false,
        json: false,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        ours: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--tree" => options.tree = arguments.next().expect("--tree needs a folder").into(),
            "--threads" => {
                let count = arguments.next().and_then(|count| count.parse().ok());
                options.threads = count.expect("--threads needs a number");
            }
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--ours" => options.ours = true,
            other => panic!(
                "unknown option {other}; known are --tree DIR --threads N --quick --json --ours"
            ),
        }
    }
    options
}

/// All regular files in order of path, decoded as the ingest does: BOM off, bad bytes replaced.
fn read_tree(root: &Path) -> Vec<(String, String)> {
    fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let kind = entry.file_type().expect("a file type");
            if kind.is_dir() {
                walk(&entry.path(), paths);
            } else if kind.is_file() {
                paths.push(entry.path());
            }
        }
    }
    let mut paths = Vec::new();
    walk(root, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a readable file");
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        (path.display().to_string(), String::from_utf8_lossy(bytes).into_owned())
    };
    paths.into_iter().map(read).collect()
}

fn build(files: &[(String, String)]) -> (NativeView, Duration) {
    let mut view = NativeView::open(Arc::new(MemoryDirectory::new())).expect("an empty view");
    let mut spent = Duration::ZERO;
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut seq = 0;
    for (number, (_, body)) in files.iter().enumerate() {
        bytes += body.len();
        let document = Document { body: body.clone(), ..Document::default() };
        batch.push(Addition { number: number as u32, document });
        if bytes >= BATCH_BYTES || number + 1 == files.len() {
            seq += 1;
            let started = Instant::now();
            view.apply(&batch, seq).expect("a batch that applies");
            spent += started.elapsed();
            batch.clear();
            bytes = 0;
        }
    }
    let started = Instant::now();
    let living = Bitmap::full(files.len() as u32);
    while let Some(merge) = view.plan_merge(&living) {
        let merged = (merge.run)(&Stop::new()).expect("a merge");
        view.install(merged).expect("a merge that fits");
    }
    view.checkpoint().expect("a checkpoint");
    (view, spent + started.elapsed())
}

/// Time for one document of about 200 bytes, in batches of 500.
fn short_documents(files: &[(String, String)]) -> Duration {
    let mut view = NativeView::open(Arc::new(MemoryDirectory::new())).expect("an empty view");
    let text = files.iter().take(2_000).flat_map(|(_, body)| body.as_bytes().chunks(200));
    let documents: Vec<Addition> = text
        .take(50_000)
        .enumerate()
        .map(|(number, bytes)| {
            let body = String::from_utf8_lossy(bytes).into_owned();
            Addition { number: number as u32, document: Document { body, ..Document::default() } }
        })
        .collect();
    let started = Instant::now();
    for (seq, batch) in documents.chunks(500).enumerate() {
        view.apply(batch, seq as u64 + 1).expect("a batch that applies");
    }
    started.elapsed() / documents.len().max(1) as u32
}

struct Row {
    case: &'static Case,
    lines: u64,
    ripgrep: Duration,
    plain: Duration,
    packed: Duration,
    packed_small: Duration,
    ranked: Duration,
    same: bool,
}

fn measure(case: &'static Case, view: &NativeView, stores: &[Store; 3], options: &Options) -> Row {
    let repeats = if options.quick { 1 } else { 3 };
    let rounds = if options.ours { 5 } else { 2 * repeats };
    let mut times = [const { Vec::new() }; 4];
    let mut hits = Vec::new();
    for _ in 0..rounds {
        for (store, times) in stores.iter().zip(&mut times) {
            let started = Instant::now();
            hits = enumerate(case, view, store, options.threads);
            times.push(started.elapsed());
        }
        times[3].push(ranked(case, view, &stores[1], options.threads));
    }
    let [plain, packed, packed_small, ranked] = times.map(median);
    let lines = hits.len() as u64;
    let (mut ripgrep, mut same) = (Duration::ZERO, true);
    if !options.ours {
        let runs = (0..repeats).map(|_| run_ripgrep(case, options).1).collect();
        ripgrep = median(runs);
        same = same_hits(&hits, &run_ripgrep(case, options).0, &stores[0]);
    }
    let row = Row { case, lines, ripgrep, plain, packed, packed_small, ranked, same };
    eprintln!("{}", row.line());
    row
}

fn with_request<T>(
    case: &Case,
    store: &Store,
    threads: usize,
    with: impl FnOnce(&Request<'_>) -> T,
) -> T {
    let syntax = if case.literal { Syntax::Literal } else { Syntax::Regex };
    let sensitivity =
        if case.insensitive { request::Case::Insensitive } else { request::Case::Sensitive };
    let allowed = Allowed::new(Bitmap::full(store.len() as u32), None);
    with(&Request { strict: false, verified_max: usize::MAX,
        text: case.text,
        pattern: Pattern { syntax, case: sensitivity, word: case.word },
        vectors: &[],
        limit: 10,
        allowed: &allowed,
        texts: store,
        threads,
        stop: &Stop::new(),
    })
}

/// Every matching line as (document, line number).
fn enumerate(case: &Case, view: &NativeView, store: &Store, threads: usize) -> Vec<(u32, u32)> {
    let mut hits = Vec::new();
    let mut bytes = 0;
    with_request(case, store, threads, |request| {
        let answer = view.snapshot().enumerate(request, &mut |found| {
            for line in &found.lines {
                bytes += found.text(line).len();
                hits.push((found.number, line.line));
            }
            ControlFlow::Continue(())
        });
        answer.expect("a pattern that works");
    });
    std::hint::black_box(bytes);
    hits
}

fn ranked(case: &Case, view: &NativeView, store: &Store, threads: usize) -> Duration {
    with_request(case, store, threads, |request| {
        let started = Instant::now();
        view.snapshot().search(request).expect("a pattern that works");
        started.elapsed()
    })
}

fn run_ripgrep(case: &Case, options: &Options) -> (Vec<u8>, Duration) {
    let mut command = Command::new("rg");
    command.args(["-n", "--no-heading", "--no-config", "-uu", "-a", "--color=never"]);
    command.arg(format!("-j{}", options.threads));
    for (flag, wanted) in [("-F", case.literal), ("-i", case.insensitive), ("-w", case.word)] {
        if wanted {
            command.arg(flag);
        }
    }
    command.arg("-e").arg(case.text).arg(&options.tree).stdout(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().expect("ripgrep installed as `rg`");
    let mut output = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut output).expect("output of ripgrep");
    child.wait().expect("ripgrep to end");
    (output, started.elapsed())
}

fn same_hits(hits: &[(u32, u32)], output: &[u8], store: &Store) -> bool {
    let mut theirs: Vec<(String, u32)> = output
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .filter_map(|line| {
            let mut parts = line.splitn(3, |&byte| byte == b':');
            let path = String::from_utf8_lossy(parts.next()?).into_owned();
            let number = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            Some((path, number))
        })
        .collect();
    theirs.sort();
    let mut ours: Vec<(String, u32)> =
        hits.iter().map(|&(number, line)| (store.path(number).to_string(), line)).collect();
    ours.sort();
    if ours != theirs {
        let missing = theirs.iter().find(|hit| ours.binary_search(hit).is_err());
        let extra = ours.iter().find(|hit| theirs.binary_search(hit).is_err());
        eprintln!(
            "DIFFERENT: {} ours, {} theirs; missing {missing:?}, extra {extra:?}",
            ours.len(),
            theirs.len()
        );
    }
    ours == theirs
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Row {
    fn ratio(&self, ours: Duration) -> f64 {
        self.ripgrep.as_secs_f64() / ours.as_secs_f64()
    }

    fn line(&self) -> String {
        let Case { text, insensitive, word, .. } = self.case;
        format!(
            "{:>9} lines  rg {:8.1} ms  plain {:8.2} ms ({:7.1}x)  lz4 {:8.2} ms ({:7.1}x)  lz4/16k {:8.2} ms ({:7.1}x)  top 10 {:8.2} ms  {}{}{text}{}",
            self.lines,
            ms(self.ripgrep),
            ms(self.plain),
            self.ratio(self.plain),
            ms(self.packed),
            self.ratio(self.packed),
            ms(self.packed_small),
            self.ratio(self.packed_small),
            ms(self.ranked),
            if *insensitive { "-i " } else { "" },
            if *word { "-w " } else { "" },
            if self.same { "" } else { "   DIFFERENT HITS" },
        )
    }
}

fn report(rows: &[Row], json: bool) {
    let summary = |ours: &dyn Fn(&Row) -> Duration| {
        let mut ratios: Vec<f64> = rows.iter().map(|row| row.ratio(ours(row))).collect();
        ratios.sort_by(f64::total_cmp);
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        (mean, ratios[ratios.len() / 2], ratios[0])
    };
    let plain = summary(&|row| row.plain);
    let packed = summary(&|row| row.packed);
    let packed_small = summary(&|row| row.packed_small);
    let same = rows.iter().all(|row| row.same);
    if json {
        let row = |row: &Row| {
            format!(
                "{{\"pattern\":{:?},\"lines\":{},\"ripgrep_ms\":{:.3},\"plain_ms\":{:.3},\"lz4_ms\":{:.3},\"lz4_16k_ms\":{:.3},\"top10_ms\":{:.3},\"same\":{}}}",
                row.case.text,
                row.lines,
                ms(row.ripgrep),
                ms(row.plain),
                ms(row.packed),
                ms(row.packed_small),
                ms(row.ranked),
                row.same
            )
        };
        let rows: Vec<String> = rows.iter().map(row).collect();
        let part = |name: &str, (mean, median, least): (f64, f64, f64)| {
            format!(
                "\"{name}\":{{\"geometric_mean\":{mean:.2},\"median\":{median:.2},\"least\":{least:.2}}}"
            )
        };
        println!(
            "{{\"rows\":[{}],{},{},{},\"same\":{same}}}",
            rows.join(","),
            part("plain", plain),
            part("lz4", packed),
            part("lz4_16k", packed_small)
        );
        return;
    }
    for row in rows {
        println!("{}", row.line());
    }
    for (name, (mean, median, least)) in
        [("plain", plain), ("lz4", packed), ("lz4/16k", packed_small)]
    {
        println!("{name}: geometric mean {mean:.1}x, median {median:.1}x, least {least:.1}x");
    }
    println!("hits {}", if same { "identical to ripgrep's" } else { "DIFFER from ripgrep's" });
}
