//! Gauges that are read off when somebody asks for metrics.

use mainstay_db::{Collection, Db, ViewState};
use mainstay_ops::kernel_files::KernelFiles;

/// Kernel ticks in a second, as `/proc/self/stat` counts them: a constant of Linux's interface.
const TICKS_IN_A_SECOND: f64 = 100.0;
/// Bytes in a page of memory, as `/proc/self/statm` counts them on x86-64 and most of arm64.
const PAGE_BYTES: f64 = 4096.0;

/// Records the present figures of a data directory and of the process.
pub(crate) fn record(db: &Db) {
    for collection in db.collections() {
        of_collection(&collection);
    }
    of_policies(db);
    of_threads(db);
    of_process(&KernelFiles::default());
}

fn of_collection(collection: &Collection) {
    let status = collection.status();
    let name = status.name;
    let gauge = |metric: &'static str, value: f64| {
        metrics::gauge!(metric, "collection" => name.clone()).set(value);
    };
    gauge("mainstay_documents", status.documents as f64);
    gauge("mainstay_log_durable_seq", status.durable_seq as f64);
    gauge("mainstay_log_size_bytes", status.log_bytes as f64);
    gauge("mainstay_log_queue_bytes", status.log_queued_bytes.0 as f64);
    gauge("mainstay_log_refuses_writes", f64::from(u8::from(status.log_refuses_writes)));
    if let Some((done, total)) = status.refined {
        gauge("mainstay_refined_passages", done as f64);
        gauge("mainstay_passages", total as f64);
    }
    for view in status.views {
        let gauge = |metric: &'static str, value: f64| {
            metrics::gauge!(metric, "collection" => name.clone(), "view" => view.view).set(value);
        };
        let lag = status.durable_seq.saturating_sub(view.indexed_through);
        gauge("mainstay_view_indexed_through", view.indexed_through as f64);
        gauge("mainstay_view_lag_records", lag as f64);
        gauge("mainstay_view_ready", f64::from(u8::from(view.state == ViewState::Ready)));
        gauge("mainstay_view_segments", view.figures.segments as f64);
        gauge("mainstay_view_disk_bytes", view.figures.disk_bytes as f64);
        gauge("mainstay_view_memory_bytes", view.figures.memory_bytes as f64);
        gauge("mainstay_view_set_aside", view.set_aside as f64);
    }
}

/// Of every dependency, from its beginning on, and of every endpoint that is in use.
fn of_policies(db: &Db) {
    db.pipelines().export_metrics();
    for breaker in db.pipelines().breakers() {
        let breaker = breaker.snapshot();
        let name = breaker.name.to_string();
        metrics::counter!("mainstay_circuit_breaker_rejected_total", "name" => name)
            .absolute(breaker.rejected);
    }
}

fn of_threads(db: &Db) {
    let figures = db.figures();
    for lane in figures.lanes {
        let gauge = |metric: &'static str, value: usize| {
            metrics::gauge!(metric, "method" => lane.method.name()).set(value as f64);
        };
        gauge("mainstay_search_threads", lane.threads);
        gauge("mainstay_search_threads_busy", lane.busy);
        gauge("mainstay_search_queue_depth", lane.queued);
    }
    let embedding = figures.embedding;
    for (kind, queued) in
        [("query", embedding.queries_queued), ("passage", embedding.passages_queued)]
    {
        metrics::gauge!("mainstay_embedding_queue_depth", "kind" => kind).set(queued as f64);
    }
    metrics::gauge!("mainstay_embedding_workers").set(embedding.workers as f64);
    metrics::gauge!("mainstay_cache_size_bytes", "cache" => "query_vectors")
        .set(figures.query_cache.bytes as f64);
}

/// What the kernel says about the process; what it does not say stays as it was.
fn of_process(kernel: &KernelFiles) {
    metrics::gauge!("mainstay_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    if let Some(handles) = kernel.entries("proc/self/fd") {
        metrics::gauge!("mainstay_process_open_fds").set(handles as f64);
    }
    let memory = kernel.read("proc/self/statm");
    if let Some(pages) = memory.as_deref().and_then(|text| number(text, 1)) {
        metrics::gauge!("mainstay_process_resident_memory_bytes").set(pages * PAGE_BYTES);
    }
    let stat = kernel.read("proc/self/stat");
    // The program's name is in parentheses and may hold spaces; the third field follows it.
    let fields = stat.as_deref().and_then(|text| text.rsplit_once(')')).map(|(_, rest)| rest);
    let Some(fields) = fields else { return };
    let field = |number_of: usize| number(fields, number_of - 3);
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        metrics::gauge!("mainstay_process_cpu_seconds").set((user + system) / TICKS_IN_A_SECOND);
    }
    if let Some(threads) = field(20) {
        metrics::gauge!("mainstay_process_threads").set(threads);
    }
    let booted = kernel.read("proc/stat");
    let booted = booted.as_deref().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())
    });
    if let (Some(booted), Some(ticks)) = (booted, field(22)) {
        metrics::gauge!("mainstay_process_start_time_seconds")
            .set(booted + ticks / TICKS_IN_A_SECOND);
    }
}

fn number(text: &str, at: usize) -> Option<f64> {
    text.split_ascii_whitespace().nth(at)?.parse().ok()
}
