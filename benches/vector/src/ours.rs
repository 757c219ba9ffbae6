//! Our view, through its public door, as a scan and as a graph.

use std::ops::ControlFlow;
use std::sync::Arc;

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::DocNumber;
use mainstay_search::request::{
    Allowed, Pattern, QueryVector, Request, SearchError, Stop, Text, Texts,
};
use mainstay_search::semantic::{
    Options, PassageEntry, SemanticItem, SemanticSearcher, SemanticView, Space, Spaces,
};
use mainstay_search::view::{Searcher, View};

use crate::data::Data;
use crate::{Index, Row, cpu_s, measure};

/// Files that a merge takes at once.
const FILES: usize = 8;

struct NoTexts;

impl Texts for NoTexts {
    fn visit(
        &self,
        _: &[DocNumber],
        _: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        Ok(())
    }
}

struct Ours {
    searcher: Arc<SemanticSearcher>,
    allowed: Allowed,
}

impl Index for Ours {
    fn search(&self, query: &[f32], limit: usize) -> Vec<u32> {
        let request = Request {
            strict: false,
            verified_max: usize::MAX,
            text: "",
            pattern: Pattern::default(),
            vectors: &[QueryVector { space: 0, vector: query.to_vec() }],
            limit,
            allowed: &self.allowed,
            texts: &NoTexts,
            threads: 1,
            stop: &Stop::new(),
        };
        let answer = self.searcher.search(&request).expect("the query is fit");
        answer.hits.iter().map(|hit| hit.number).collect()
    }
}

/// Applies, checkpoints and merges the vectors; answers rows for the table.
pub(crate) fn run(data: &Data, truth: &[Vec<u32>]) -> Vec<Row> {
    let (scan, apply_us) = build(data, usize::MAX);
    let (graph, _) = build(data, 1);
    let mut rows = Vec::new();
    for (name, built) in [("own scan", scan), ("own graph", graph)] {
        let Built { view, build_s } = built;
        let bytes = view.figures().disk_bytes;
        for one_in in [1, 10, 100] {
            let living = Bitmap::full(data.vectors.len() as u32);
            let filter = (one_in > 1)
                .then(|| (0..data.vectors.len() as u32).filter(|n| n % one_in == 0).collect());
            let ours = Ours { searcher: view.snapshot(), allowed: Allowed::new(living, filter) };
            let label = match one_in {
                1 => name.to_string(),
                _ => format!("{name}, 1 in {one_in} allowed"),
            };
            let filtered;
            let truth = match one_in {
                1 => truth,
                _ => {
                    filtered = crate::truth(data, |number| number % one_in == 0);
                    &filtered
                }
            };
            rows.push(measure(label, data, truth, &ours, build_s, bytes));
        }
    }
    rows[0].note = format!("apply {apply_us:.1} µs a document, single");
    rows
}

struct Built {
    view: SemanticView,
    build_s: f64,
}

fn build(data: &Data, graph_rows_min: usize) -> (Built, f64) {
    let spaces = Spaces {
        instant: Some(Space { dimension: data.dimension, model: "bench".into() }),
        refining: None,
    };
    let directory = Arc::new(MemoryDirectory::new());
    let options = Options { graph_rows_min };
    let mut view = SemanticView::open(directory, spaces, options).expect("a new view opens");
    let items: Vec<_> = data
        .vectors
        .iter()
        .enumerate()
        .map(|(number, vector)| SemanticItem {
            number: number as u32,
            passages: vec![PassageEntry { range: 0..100, vector: Some(vector.clone()) }],
            bytes_left_out: 0,
        })
        .collect();
    let mut apply_s = 0.0;
    let started = cpu_s();
    for part in items.chunks(items.len().div_ceil(FILES)) {
        let applied = cpu_s();
        for item in part {
            view.apply(std::slice::from_ref(item), 1).expect("fits");
            let _snapshot = view.searcher();
        }
        apply_s += cpu_s() - applied;
        view.checkpoint().expect("memory does not fail");
    }
    while let Some(merge) = view.plan_merge(&Bitmap::full(items.len() as u32)) {
        let merged = (merge.run)(&Stop::new()).expect("memory does not fail");
        view.install(merged).expect("it is this view's merge");
    }
    view.checkpoint().expect("memory does not fail");
    let build_s = cpu_s() - started;
    (Built { view, build_s }, apply_s * 1e6 / items.len() as f64)
}
