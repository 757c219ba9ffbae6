//! The `semantic` view against a naive model: every vector compared in 32-bit floats.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::directory::{Directory, write_file};
use mainstay_search::document::DocNumber;
use mainstay_search::request::{
    Allowed, MethodAnswer, Pattern, QueryVector, Request, SearchError, Stop, Text, Texts,
};
use mainstay_search::semantic::{
    INSTANT, Options, PassageEntry, Progress, REFINING, Refinement, SemanticItem, SemanticView,
    Space, Spaces,
};
use mainstay_search::view::{View, ViewError};
use proptest::prelude::*;

/// The dimensions of the two spaces in these tests.
const DIMENSIONS: [usize; 2] = [16, 72];
/// How far a quantised score may be from the exact one.
const ROUNDING: f32 = 0.02;

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

/// Numbers that look random, the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// About normally distributed, mean 0, deviation 1.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..6).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum::<f32>()
            * 2f32.sqrt()
    }

    pub(crate) fn direction(&mut self, dimension: usize) -> Vec<f32> {
        unit((0..dimension).map(|_| self.normal()).collect())
    }
}

pub(crate) fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(crate) fn spaces(dimensions: [Option<usize>; 2]) -> Spaces {
    let [instant, refining] = dimensions.map(|dimension| {
        dimension.map(|dimension| Space { dimension, model: format!("model-{dimension}") })
    });
    Spaces { instant, refining }
}

pub(crate) fn ask(
    view: &SemanticView,
    vectors: &[QueryVector],
    limit: usize,
    allowed: &Allowed,
) -> MethodAnswer {
    request(vectors, limit, allowed, |request| view.searcher().search(request).unwrap())
}

pub(crate) fn request<T>(
    vectors: &[QueryVector],
    limit: usize,
    allowed: &Allowed,
    answer: impl FnOnce(&Request<'_>) -> T,
) -> T {
    answer(&Request {
        strict: false,
        verified_max: usize::MAX,
        text: "",
        pattern: Pattern::default(),
        vectors,
        limit,
        allowed,
        texts: &NoTexts,
        threads: 2,
        stop: &Stop::new(),
    })
}

/// Runs merges until none pays.
pub(crate) fn merge_all(view: &mut SemanticView, living: &Bitmap) {
    while let Some(merge) = view.plan_merge(living) {
        view.install((merge.run)(&Stop::new()).unwrap()).unwrap();
    }
}

/// What a document holds: for each passage its vectors in both spaces.
type Passages = Vec<[Vec<f32>; 2]>;

/// The view beside what it should be.
struct Pair {
    directory: MemoryDirectory,
    options: Options,
    view: SemanticView,
    dice: Dice,
    documents: BTreeMap<DocNumber, Passages>,
    living: Bitmap,
    refined: BTreeSet<(DocNumber, u32)>,
    seq: u64,
    /// What the last checkpoint made durable: `seq`, documents, refinements.
    durable: (u64, BTreeSet<DocNumber>, BTreeSet<(DocNumber, u32)>),
    numbers: DocNumber,
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<usize>),
    Remove(usize),
    Refine(usize, bool),
    Checkpoint,
    Reopen,
    Merge,
    Search { limit: usize, one_in: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(0usize..5, 0..12).prop_map(Step::Put),
        2 => any::<usize>().prop_map(Step::Remove),
        3 => (1usize..40, any::<bool>()).prop_map(|(count, mixed)| Step::Refine(count, mixed)),
        4 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        2 => Just(Step::Merge),
        4 => (1usize..30, 1usize..4).prop_map(|(limit, one_in)| Step::Search { limit, one_in }),
    ]
}

impl Pair {
    fn new(seed: u64, graph_rows_min: usize) -> Self {
        let directory = MemoryDirectory::new();
        let options = Options { graph_rows_min };
        let view = Self::open(&directory, options);
        Self {
            directory,
            options,
            view,
            dice: Dice(seed),
            documents: BTreeMap::new(),
            living: Bitmap::new(),
            refined: BTreeSet::new(),
            seq: 0,
            durable: Default::default(),
            numbers: 0,
        }
    }

    fn open(directory: &MemoryDirectory, options: Options) -> SemanticView {
        let spaces = spaces(DIMENSIONS.map(Some));
        SemanticView::open(Arc::new(directory.clone()), spaces, options).unwrap()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Put(counts) => self.put(&counts),
            Step::Remove(which) => {
                let held: Vec<_> = self.living.iter().collect();
                if !held.is_empty() {
                    self.living.remove(held[which % held.len()]);
                }
            }
            Step::Refine(count, mixed) => self.refine(count, mixed),
            Step::Checkpoint => {
                self.view.checkpoint().unwrap();
                let held = self.documents.keys().copied().collect();
                self.durable = (self.seq, held, self.refined.clone());
            }
            Step::Reopen => self.reopen(),
            Step::Merge => merge_all(&mut self.view, &self.living),
            Step::Search { limit, one_in } => self.search(limit, one_in),
        }
    }

    fn put(&mut self, counts: &[usize]) {
        for &count in counts {
            let passages = (0..count)
                .map(|_| DIMENSIONS.map(|dimension| self.dice.direction(dimension)))
                .collect();
            self.documents.insert(self.numbers, passages);
            self.living.insert(self.numbers);
            self.numbers += 1 + (self.dice.below(3) / 2) as u32;
        }
        self.seq += counts.len() as u64;
        let from = self.documents.len() - counts.len();
        let numbers: Vec<_> = self.documents.keys().copied().skip(from).collect();
        self.apply(&numbers);
    }

    fn apply(&mut self, numbers: &[DocNumber]) {
        let items: Vec<_> =
            numbers.iter().map(|&number| item(number, &self.documents[&number])).collect();
        assert_eq!(self.view.apply(&items, self.seq).unwrap(), []);
    }

    fn refine(&mut self, count: usize, mixed: bool) {
        let mut batch = Vec::new();
        for waiting in self.view.unrefined(count, &self.living) {
            for (passage, range) in waiting.passages {
                assert_eq!(range, range_of(passage));
                let vector = self.documents[&waiting.number][passage as usize][REFINING].clone();
                batch.push(Refinement { number: waiting.number, passage, vector });
            }
        }
        if mixed {
            batch.reverse();
            let third = batch.len() / 3;
            batch.drain(..third);
        }
        let new = self.view.refine(&batch).unwrap();
        assert_eq!(new, batch.len());
        self.refined.extend(batch.iter().map(|one| (one.number, one.passage)));
        assert_eq!(self.view.refine(&batch).unwrap(), 0, "a refined passage is passed over");
    }

    /// A crash: what was not checkpointed is applied again, and refinements since then are lost.
    fn reopen(&mut self) {
        self.view = Self::open(&self.directory, self.options);
        assert_eq!(self.view.through(), self.durable.0);
        self.refined = self.durable.2.clone();
        let lost: Vec<_> = self
            .documents
            .keys()
            .copied()
            .filter(|number| !self.durable.1.contains(number))
            .collect();
        self.apply(&lost);
    }

    fn search(&mut self, limit: usize, one_in: usize) {
        let filter = (one_in > 1).then(|| {
            self.documents
                .keys()
                .copied()
                .filter(|n| (*n as usize).is_multiple_of(one_in))
                .collect()
        });
        let allowed = Allowed::new(self.living.clone(), filter);
        let queries = [INSTANT, REFINING]
            .map(|space| QueryVector { space, vector: self.dice.direction(DIMENSIONS[space]) });
        let expected = |space: usize| self.naive(space, &queries[space].vector, &allowed);
        let answer = ask(&self.view, &queries[..1], limit, &allowed);
        check(&answer, &expected(INSTANT), limit);
        let answer = ask(&self.view, &queries, limit, &allowed);
        let waiting: Vec<_> =
            self.waiting().into_iter().filter(|&(n, _)| allowed.contains(n)).collect();
        if waiting.is_empty() {
            check(&answer, &expected(REFINING), limit);
        } else {
            self.check_partial(&answer, &queries, &allowed, limit);
        }
        let exact = request(&queries, limit, &allowed, |r| self.view.snapshot().exact(r).unwrap());
        assert_eq!(answer, exact, "so few rows are always found exactly");
    }

    /// Passages of living documents without a refined vector.
    fn waiting(&self) -> Vec<(DocNumber, u32)> {
        let all = self.documents.iter().filter(|&(&number, _)| self.living.contains(number));
        all.flat_map(|(&number, passages)| (0..passages.len() as u32).map(move |p| (number, p)))
            .filter(|key| !self.refined.contains(key))
            .collect()
    }

    /// While refinement is partial every document is there, and refined ones have their refined score.
    fn check_partial(
        &self,
        answer: &MethodAnswer,
        queries: &[QueryVector; 2],
        allowed: &Allowed,
        limit: usize,
    ) {
        let all = self.naive(INSTANT, &queries[INSTANT].vector, allowed);
        assert_eq!(answer.hits.len(), all.len().min(limit), "no document vanishes");
        assert!(answer.hits.is_sorted_by(|a, b| a.score >= b.score));
        let refined = self.naive(REFINING, &queries[REFINING].vector, allowed);
        for hit in &answer.hits {
            let count = self.documents[&hit.number].len() as u32;
            if (0..count).all(|passage| self.refined.contains(&(hit.number, passage))) {
                let expected = refined.iter().find(|(_, number, _)| *number == hit.number).unwrap();
                assert!((hit.score - expected.0).abs() < ROUNDING, "{hit:?} {expected:?}");
            }
        }
    }

    /// (score, document, range) of the best passage of each allowed document, best first.
    fn naive(&self, space: usize, query: &[f32], allowed: &Allowed) -> Vec<(f32, DocNumber, u32)> {
        let mut all: Vec<_> = self
            .documents
            .iter()
            .filter(|&(&number, passages)| allowed.contains(number) && !passages.is_empty())
            .map(|(&number, passages)| {
                let scores = passages.iter().map(|vectors| dot(&vectors[space], query));
                let best = scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
                (best.1, number, best.0 as u32)
            })
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all
    }

    fn check_figures(&self) {
        let held = self.view.numbers().unwrap();
        assert!(self.documents.keys().all(|&n| held.contains(n) || !self.living.contains(n)));
        assert_eq!(self.view.figures().documents, held.len());
        let waiting = self.view.unrefined(usize::MAX, &self.living);
        let waiting: Vec<_> = waiting
            .into_iter()
            .flat_map(|w| w.passages.into_iter().map(move |(passage, _)| (w.number, passage)))
            .collect();
        assert_eq!(waiting, self.waiting());
        let Progress { done, total } = self.view.refined();
        let passages = held.iter().map(|number| self.documents[&number].len() as u64).sum::<u64>();
        let refined = self.refined.iter().filter(|(number, _)| held.contains(*number)).count();
        assert_eq!((done, total), (refined as u64, passages));
    }
}

fn range_of(passage: u32) -> std::ops::Range<u32> {
    passage * 10..passage * 10 + 7
}

fn item(number: DocNumber, passages: &Passages) -> SemanticItem {
    let entry = |(index, vectors): (usize, &[Vec<f32>; 2])| PassageEntry {
        range: range_of(index as u32),
        vector: Some(vectors[INSTANT].clone()),
    };
    let passages = passages.iter().enumerate().map(entry).collect();
    SemanticItem { number, passages, bytes_left_out: 0 }
}

/// Compares an answer with the naive one, within rounding.
fn check(answer: &MethodAnswer, expected: &[(f32, DocNumber, u32)], limit: usize) {
    assert!(answer.complete);
    assert_eq!(answer.hits.len(), expected.len().min(limit));
    for (hit, place) in answer.hits.iter().zip(expected) {
        let (score, _, passage) = expected.iter().find(|(_, n, _)| *n == hit.number).unwrap();
        assert!((hit.score - score).abs() < ROUNDING, "{hit:?} scores {score}");
        assert!(
            (hit.score - place.0).abs() < ROUNDING * 2.0,
            "{hit:?} stands where {place:?} should"
        );
        let found = hit.passage.clone().unwrap();
        assert!(found == range_of(*passage) || (found.start % 10 == 0), "{found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn answers_equal_the_naive_ones_through_any_history(
        seed: u64,
        graph_rows_min in prop_oneof![Just(10usize), Just(usize::MAX)],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut pair = Pair::new(seed, graph_rows_min);
        for step in steps {
            pair.run(step);
        }
        pair.search(10, 1);
        pair.check_figures();
        pair.run(Step::Refine(usize::MAX, false));
        pair.search(10, 1);
        pair.run(Step::Checkpoint);
        pair.run(Step::Reopen);
        pair.search(10, 2);
        pair.check_figures();
    }
}

/// A view with one checkpointed document, and its directory.
fn small() -> (MemoryDirectory, Vec<f32>) {
    let mut pair = Pair::new(7, 1);
    for _ in 0..9 {
        pair.put(&[2, 1]);
        pair.refine(2, false);
        pair.run(Step::Checkpoint);
    }
    pair.run(Step::Merge);
    pair.run(Step::Checkpoint);
    let vector = pair.documents[&0][0][REFINING].clone();
    (pair.directory, vector)
}

#[test]
fn other_models_than_the_stored_ones_are_refused_with_both_named() {
    let (directory, _) = small();
    let asked = spaces([Some(16), Some(768)]);
    let error = SemanticView::open(Arc::new(directory), asked, Options::default()).err().unwrap();
    let message = error.to_string();
    for part in ["model-72", "model-768", "mainstay rebuild --method semantic"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn damaged_files_are_an_error_at_opening_or_verifying_and_never_a_panic() {
    let (directory, vector) = small();
    let mut dice = Dice(11);
    let names = directory.list().unwrap();
    assert!(names.len() >= 3, "{names:?}");
    let mut noticed = 0;
    for round in 0..600 {
        let copy = MemoryDirectory::new();
        for name in &names {
            write_file(&copy, name, &directory.open(name).unwrap()).unwrap();
        }
        let name = &names[round % names.len()];
        let mut bytes = directory.open(name).unwrap().to_vec();
        let at = dice.below(bytes.len());
        match dice.below(4) {
            0 => bytes.truncate(at),
            1 => bytes[at..].fill(0xff),
            _ => bytes[at] ^= 1 << dice.below(8),
        }
        if bytes == directory.open(name).unwrap() {
            continue;
        }
        write_file(&copy, name, &bytes).unwrap();
        let opened =
            SemanticView::open(Arc::new(copy), spaces(DIMENSIONS.map(Some)), Options::default());
        match opened {
            Err(ViewError::Damaged { file, .. } | ViewError::FutureFormat { file, .. }) => {
                assert_eq!(file, *name);
                noticed += 1;
            }
            Err(ViewError::Failed(_)) => noticed += 1,
            Err(error) => panic!("{error}"),
            Ok(view) => {
                let queries = [QueryVector { space: REFINING, vector: vector.clone() }];
                ask(&view, &queries, 10, &Allowed::new(Bitmap::full(100), None));
                noticed += usize::from(matches!(view.numbers(), Err(ViewError::Damaged { .. })));
            }
        }
    }
    // What goes unnoticed is padding between columns.
    assert!(noticed > 400, "{noticed}");
}

#[test]
fn a_missing_file_is_damage_and_an_unknown_one_is_removed() {
    let (directory, _) = small();
    let open = || {
        SemanticView::open(
            Arc::new(directory.clone()),
            spaces(DIMENSIONS.map(Some)),
            Options::default(),
        )
    };
    write_file(&directory, "vectors-0-9999999999.seg", b"half a merge").unwrap();
    let view = open().unwrap();
    assert!(!directory.list().unwrap().iter().any(|name| name.contains("9999999999")));
    drop(view);
    let segment =
        directory.list().unwrap().into_iter().find(|name| name.starts_with("vectors")).unwrap();
    directory.remove(&segment).unwrap();
    assert!(matches!(open(), Err(ViewError::Damaged { file, .. }) if file == segment));
}

#[test]
fn vectors_that_are_not_finite_or_of_another_length_refuse_their_document_alone() {
    let mut view = Pair::new(1, 1).view;
    let entry = |vector: Vec<f32>| PassageEntry { range: 0..1, vector: Some(vector) };
    let item = |number, vector| SemanticItem {
        number,
        passages: vec![entry(vec![0.5; 16]), entry(vector)],
        bytes_left_out: 3,
    };
    let mut nan = vec![0.5; 16];
    nan[3] = f32::NAN;
    let items =
        [item(0, vec![0.25; 16]), item(1, nan), item(2, vec![1.0; 5]), item(3, vec![0.0; 16])];
    let refused = view.apply(&items, 4).unwrap();
    assert_eq!(refused.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2]);
    assert!(refused[0].reason.contains("component 3"), "{}", refused[0].reason);
    assert_eq!(view.numbers().unwrap().iter().collect::<Vec<_>>(), [0, 3]);
    assert_eq!((view.through(), view.semantic_figures().documents_cut), (4, 2));
    let number = 0;
    let bad = [Refinement { number, passage: 0, vector: vec![f32::INFINITY; 72] }];
    assert!(matches!(view.refine(&bad), Err(ViewError::Failed(_))));
    assert_eq!(view.refined(), Progress { done: 0, total: 4 });
}

#[test]
fn a_query_without_a_fitting_vector_is_an_error_that_names_the_models() {
    let mut pair = Pair::new(3, 1);
    pair.put(&[1]);
    let searcher = pair.view.searcher();
    let allowed = Allowed::new(pair.living.clone(), None);
    let fails = |vectors: &[QueryVector]| {
        request(vectors, 1, &allowed, |request| searcher.search(request).unwrap_err().to_string())
    };
    assert!(fails(&[]).contains("model-16"));
    assert!(fails(&[QueryVector { space: 7, vector: vec![1.0] }]).contains("model-72"));
    assert!(fails(&[QueryVector { space: 1, vector: vec![1.0; 3] }]).contains("72"));
    assert!(fails(&[QueryVector { space: 0, vector: vec![f32::NAN; 16] }]).contains("not finite"));
    let zero = [QueryVector { space: 0, vector: vec![0.0; 16] }];
    assert_eq!(ask(&pair.view, &zero, 5, &allowed).hits, []);
}

#[test]
fn a_collection_with_only_the_refining_model_is_found_once_refined() {
    let directory = Arc::new(MemoryDirectory::new());
    let open =
        || SemanticView::open(directory.clone(), spaces([None, Some(8)]), Options::default());
    let mut view = open().unwrap();
    let entry = |start| PassageEntry { range: start..start + 5, vector: None };
    let item = |number, passages| SemanticItem { number, passages, bytes_left_out: 0 };
    view.apply(&[item(0, vec![entry(0), entry(9)]), item(1, vec![])], 2).unwrap();
    let allowed = Allowed::new(Bitmap::full(2), None);
    let query = [QueryVector { space: REFINING, vector: vec![0.5; 8] }];
    assert_eq!(ask(&view, &query, 5, &allowed).hits, []);
    view.checkpoint().unwrap();
    view = open().unwrap();
    let waiting = view.unrefined(10, &Bitmap::full(2));
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].passages, [(0, 0..5), (1, 9..14)]);
    view.refine(&[Refinement { number: 0, passage: 1, vector: vec![0.5; 8] }]).unwrap();
    let hits = ask(&view, &query, 5, &allowed).hits;
    assert_eq!((hits.len(), hits[0].number, hits[0].passage.clone()), (1, 0, Some(9..14)));
    assert!((hits[0].score - 1.0).abs() < 0.01);
    assert_eq!(view.numbers().unwrap().len(), 2);
}

#[test]
fn a_set_stop_flag_ends_the_search_and_the_answer_says_so() {
    let mut pair = Pair::new(5, 1);
    for _ in 0..20 {
        pair.put(&[4; 30]);
    }
    let query = [QueryVector { space: INSTANT, vector: pair.dice.direction(16) }];
    let allowed = Allowed::new(pair.living.clone(), None);
    let stop = Stop::new();
    stop.set();
    let answer = request(&query, 10, &allowed, |request| {
        pair.view.searcher().search(&Request { stop: &stop, ..request.clone() }).unwrap()
    });
    assert!(!answer.complete);
}

#[test]
fn a_merge_asked_to_stop_leaves_no_file_and_the_view_as_it_was() {
    let (directory, _) = small();
    let options = Options { graph_rows_min: 1 };
    let mut view = Pair::open(&directory, options);
    let mut pair = Pair::new(9, 1);
    pair.numbers = 1000;
    for _ in 0..9 {
        pair.put(&[1]);
        let number = *pair.documents.keys().next_back().unwrap();
        view.apply(&[item(number, &pair.documents[&number])], 100).unwrap();
        view.checkpoint().unwrap();
    }
    let before = directory.list().unwrap();
    let stop = Stop::new();
    stop.set();
    let merge = view.plan_merge(&Bitmap::full(2000)).unwrap();
    let error = (merge.run)(&stop).err().unwrap();
    assert!(
        matches!(error, ViewError::Io { source, .. } if source.kind() == std::io::ErrorKind::Interrupted)
    );
    assert_eq!(directory.list().unwrap(), before);
}
