//! The documents view against a plain map: whatever is put, replaced, deleted, checkpointed, merged
//! and reopened, it answers what the map answers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use mainstay_search::directory::Directory;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::document::{DocNumber, Document, Value};
use mainstay_search::documents::{DocumentChange, Documents, DocumentsSnapshot};
use mainstay_search::request::{Stop, Texts};
use mainstay_search::view::Addition;
use proptest::prelude::*;

use crate::documents_columns as columns;

/// What the view should know.
#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) documents: BTreeMap<String, (DocNumber, Document)>,
    next: DocNumber,
    through: u64,
}

impl Model {
    /// Applies the changes to both.
    pub(crate) fn apply(&mut self, view: &mut Documents, steps: &[Step]) {
        let mut removed = Vec::new();
        let mut changes = Vec::new();
        for step in steps {
            match step {
                Step::Put(document) => {
                    let number = self.next;
                    self.next += 1;
                    let pair = (number, document.clone());
                    removed
                        .extend(self.documents.insert(document.id.clone(), pair).map(|old| old.0));
                    changes
                        .push(DocumentChange::Put(Addition { number, document: document.clone() }));
                }
                Step::Delete(id) => {
                    removed.extend(self.documents.remove(id).map(|old| old.0));
                    changes.push(DocumentChange::Delete { id: id.clone() });
                }
            }
        }
        self.through += steps.len() as u64 + 1;
        let applied = view.apply(&changes, self.through).unwrap();
        assert_eq!((applied.removed, applied.refused), (removed, Vec::new()));
    }

    /// Compares all that can be read without columns.
    pub(crate) fn check(&self, snapshot: &DocumentsSnapshot) {
        assert_eq!(snapshot.through(), self.through);
        assert_eq!(snapshot.count(), self.documents.len() as u64);
        let mut numbers: Vec<_> = self.documents.values().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        assert_eq!(snapshot.living().iter().collect::<Vec<_>>(), numbers);
        for (id, (number, document)) in &self.documents {
            assert_eq!(snapshot.number_of(id).unwrap(), Some(*number), "{id}");
            assert_eq!(snapshot.get(*number).unwrap().as_ref(), Some(document));
        }
        assert_eq!(snapshot.get_by_id("nobody").unwrap(), None);
        let expected = |after: &str, limit: usize| -> Vec<(String, DocNumber)> {
            let behind = self.documents.iter().filter(|(id, _)| id.as_str() > after);
            behind.map(|(id, (number, _))| (id.clone(), *number)).take(limit).collect()
        };
        assert_eq!(snapshot.list(None, usize::MAX).unwrap(), expected("", usize::MAX));
        assert_eq!(snapshot.list(Some("d5"), 3).unwrap(), expected("d5", 3));
        let by_number: BTreeMap<_, _> = self.documents.values().map(|(n, d)| (*n, d)).collect();
        let mut seen = Vec::new();
        let visit = &mut |number: DocNumber, text: mainstay_search::request::Text<'_>| {
            let document = by_number[&number];
            assert_eq!((text.body, text.path), (document.body.as_str(), document.path.as_str()));
            assert_eq!(text.title, document.title);
            assert_eq!(text.language, document.language);
            seen.push(number);
            ControlFlow::Continue(())
        };
        snapshot.visit(&numbers, visit).unwrap();
        assert_eq!(seen, numbers);
    }
}

/// One change, as tests write it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(Document),
    Delete(String),
}

/// Something to do with a view.
#[derive(Clone, Debug)]
enum Action {
    Apply(Vec<Step>),
    Checkpoint,
    Reopen,
    Merge,
}

pub(crate) fn documents() -> impl Strategy<Value = Document> {
    let value = prop_oneof![
        "[a-c]{0,2}".prop_map(Value::String),
        (-3i32..4).prop_map(|n| Value::Number(f64::from(n) / 2.0)),
        (-2i64..3).prop_map(|day| Value::Date(day * 86_400_000)),
        any::<bool>().prop_map(Value::Boolean),
    ];
    let body =
        prop_oneof![4 => "[a-z ]{0,40}", 1 => "[a-z]{3}".prop_map(|word| word.repeat(30_000))];
    (
        0u32..12,
        "[A-C]{0,1}",
        body,
        "([ab]/){0,2}[ab]\\.(rs|c)|",
        prop_oneof![Just(""), Just("rust"), Just("c")],
        prop::collection::vec("[x-z]", 0..3),
        prop::collection::btree_map("[pq]|language", value, 0..3),
    )
        .prop_map(|(id, title, body, path, language, tags, attributes)| Document {
            id: format!("d{id}"),
            title,
            body,
            path,
            language: language.to_string(),
            tags,
            attributes,
        })
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => documents().prop_map(Step::Put),
        1 => (0u32..12).prop_map(|id| Step::Delete(format!("d{id}"))),
    ];
    prop::collection::vec(step, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_view_answers_what_a_map_answers_and_reopens_at_its_last_checkpoint(
        actions in prop::collection::vec(
            prop_oneof![
                6 => steps().prop_map(Action::Apply),
                1 => Just(Action::Checkpoint),
                1 => Just(Action::Reopen),
                1 => Just(Action::Merge),
            ],
            0..24,
        ),
    ) {
        let directory = Arc::new(MemoryDirectory::new());
        let mut view = Documents::open(directory.clone()).unwrap();
        let mut model = Model::default();
        let mut checkpoint = model.clone();
        for action in &actions {
            match action {
                Action::Apply(steps) => model.apply(&mut view, steps),
                Action::Checkpoint => {
                    view.checkpoint().unwrap();
                    checkpoint = model.clone();
                }
                Action::Reopen => {
                    view = Documents::open(directory.clone()).unwrap();
                    model = checkpoint.clone();
                }
                Action::Merge => merge(&mut view),
            }
            model.check(&view.snapshot());
            columns::check(&model, &view.snapshot());
        }
        view.snapshot().verify().unwrap();
    }
}

/// Runs one planned merge, if there is one.
fn merge(view: &mut Documents) {
    if let Some(merge) = view.plan_merge() {
        let merged = (merge.run)(&Stop::new()).unwrap();
        view.install(merged).unwrap();
    }
}

#[test]
fn a_snapshot_stays_as_it_was_while_the_view_goes_on() {
    let mut view = Documents::open(Arc::new(MemoryDirectory::new())).unwrap();
    let mut model = Model::default();
    let put = |id: &str| Step::Put(Document { id: id.into(), ..Document::default() });
    model.apply(&mut view, &[put("a"), put("b")]);
    let (before, then) = (view.snapshot(), model.clone());
    model.apply(&mut view, &[put("a"), Step::Delete("b".into()), put("c")]);
    view.checkpoint().unwrap();
    then.check(&before);
    model.check(&view.snapshot());
}

#[test]
fn what_can_never_be_stored_is_refused_and_the_rest_is_applied() {
    let mut view = Documents::open(Arc::new(MemoryDirectory::new())).unwrap();
    let put = |number: DocNumber, id: &str| {
        let document = Document { id: id.into(), ..Document::default() };
        DocumentChange::Put(Addition { number, document })
    };
    let applied = view.apply(&[put(3, "a"), put(4, ""), put(2, "b"), put(5, "c")], 9).unwrap();
    let refused: Vec<_> = applied.refused.iter().map(|r| (r.number, r.reason.as_str())).collect();
    assert_eq!(
        refused,
        [
            (4, "id: is empty; give every document a key of its own"),
            (2, "document number 2 is not above all before; the next is 4"),
        ]
    );
    assert_eq!(view.snapshot().living().iter().collect::<Vec<_>>(), [3, 5]);
    assert!(view.apply(&[], 8).is_err(), "the log never goes back");
}

fn numbered(count: u32) -> impl Iterator<Item = Step> {
    (0..count).map(|i| {
        let body = format!("document {i} {}", "text ".repeat(i as usize % 400));
        Step::Put(Document { id: format!("d{i:05}"), body, ..Document::default() })
    })
}

#[test]
fn merges_drop_the_dead_and_change_no_answer() {
    let directory = Arc::new(MemoryDirectory::new());
    let mut view = Documents::open(directory.clone()).unwrap();
    let mut model = Model::default();
    let steps: Vec<Step> = numbered(2000).collect();
    for part in steps.chunks(100) {
        model.apply(&mut view, part);
        view.checkpoint().unwrap();
    }
    model.apply(&mut view, &numbered(1500).skip(100).collect::<Vec<_>>());
    let held = view.figures().documents;
    while let Some(merge) = view.plan_merge() {
        let merged = (merge.run)(&Stop::new()).unwrap();
        view.install(merged).unwrap();
    }
    view.checkpoint().unwrap();
    model.check(&view.snapshot());
    view.snapshot().verify().unwrap();
    let figures = view.figures();
    assert!(figures.segments <= 8, "{figures:?}");
    assert!(figures.documents < held && figures.documents < 3000, "{figures:?} of {held}");
    let files = directory.list().unwrap().len() as u64;
    assert_eq!(files, figures.segments + 1, "no file is left over");
    assert_eq!(view.numbers().unwrap().len(), figures.documents);
    model.check(&Documents::open(directory).unwrap().snapshot());
}

#[test]
fn what_happens_while_a_merge_runs_is_not_lost() {
    let directory = Arc::new(MemoryDirectory::new());
    let mut view = Documents::open(directory.clone()).unwrap();
    let mut model = Model::default();
    model.apply(&mut view, &numbered(300).collect::<Vec<_>>());
    view.checkpoint().unwrap();
    let dead: Vec<Step> = (0..200).map(|i| Step::Delete(format!("d{i:05}"))).collect();
    model.apply(&mut view, &dead);
    let merge = view.plan_merge().expect("two thirds of the only segment are dead");
    let merged = (merge.run)(&Stop::new()).unwrap();
    model.apply(&mut view, &[Step::Delete("d00250".into())]);
    model.apply(&mut view, &numbered(202).skip(200).collect::<Vec<_>>());
    view.checkpoint().unwrap();
    view.install(merged).unwrap();
    model.check(&view.snapshot());
    view.checkpoint().unwrap();
    model.check(&Documents::open(directory).unwrap().snapshot());
}

#[test]
fn a_merge_that_is_asked_to_stop_ends_early_and_leaves_no_trace() {
    let directory = Arc::new(MemoryDirectory::new());
    let mut view = Documents::open(directory.clone()).unwrap();
    let mut model = Model::default();
    model.apply(&mut view, &numbered(300).collect::<Vec<_>>());
    view.checkpoint().unwrap();
    model.apply(&mut view, &(0..200).map(|i| Step::Delete(format!("d{i:05}"))).collect::<Vec<_>>());
    let stop = Stop::new();
    stop.set();
    let error = (view.plan_merge().unwrap().run)(&stop).err().unwrap();
    assert_eq!(error.to_string(), "merge segment-1: asked to stop");
    assert_eq!(directory.list().unwrap(), ["manifest", "segment-1"]);
    model.check(&view.snapshot());
}

#[test]
fn texts_are_visited_in_order_until_the_visitor_breaks() {
    let mut view = Documents::open(Arc::new(MemoryDirectory::new())).unwrap();
    let mut model = Model::default();
    model.apply(&mut view, &numbered(400).collect::<Vec<_>>());
    view.checkpoint().unwrap();
    model.apply(&mut view, &numbered(410).skip(400).collect::<Vec<_>>());
    let mut seen = Vec::new();
    let numbers = [3, 50, 51, 399, 404, 1_000_000];
    let visit = &mut |number: DocNumber, text: mainstay_search::request::Text<'_>| {
        assert!(text.body.starts_with(&format!("document {number} ")));
        seen.push(number);
        if number == 404 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    view.snapshot().visit(&numbers, visit).unwrap();
    assert_eq!(seen, [3, 50, 51, 399, 404]);
}

#[test]
fn attribute_names_are_bounded_and_the_bound_is_named() {
    let mut view = Documents::open(Arc::new(MemoryDirectory::new())).unwrap();
    let changes: Vec<_> = (0..65u32)
        .map(|number| {
            let name = |i: u32| (format!("name{}", number * 64 + i), Value::Boolean(true));
            let attributes = (0..64).map(name).collect();
            let document = Document { id: number.to_string(), attributes, ..Document::default() };
            DocumentChange::Put(Addition { number, document })
        })
        .collect();
    let refused = view.apply(&changes, 1).unwrap().refused;
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].reason.contains("4160 different names in the collection, the bound is 4096")
    );
    assert_eq!(view.snapshot().count(), 64);
    assert_eq!(view.snapshot().fields().len(), 4096 + 8);
}
