//! What every [`View`] of the log must do, whatever it searches with.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::sync::Arc;

use mainstay_search::bitmap::Bitmap;
use mainstay_search::directory::memory::MemoryDirectory;
use mainstay_search::directory::{Directory, write_file};
use mainstay_search::document::{DocNumber, Document};
use mainstay_search::request::{
    Allowed, MethodAnswer, Pattern, QueryVector, Request, SearchError, Stop,
};
use mainstay_search::view::{Searcher, View, ViewError};

use crate::texts::StoredTexts;

/// Documents in one batch of the suite.
const BATCH: u32 = 60;
/// Places at which each file is damaged.
const DAMAGES: usize = 40;

/// A kind of view, as the suite needs to know it.
pub struct Subject<V: View> {
    /// Opens the view in a directory, with merges as early as it can be asked for.
    pub open: fn(Arc<dyn Directory>) -> Result<V, ViewError>,
    /// What the view consumes for a document.
    pub item: fn(DocNumber, &Document) -> V::Item,
    /// The query's vectors, for a view that searches by them.
    pub vectors: fn(&str) -> Vec<QueryVector>,
    /// Whether an answer holds only documents that have the word, and all of them.
    pub exact: bool,
}

/// The suite's world: a view, its files, and what was put in.
struct World<'a, V: View> {
    subject: &'a Subject<V>,
    directory: MemoryDirectory,
    view: V,
    texts: StoredTexts,
    living: Bitmap,
    next: DocNumber,
}

/// The document of a number: every third has the word `walrus`, others have `zebra`.
fn document(number: DocNumber) -> Document {
    let word = if number.is_multiple_of(3) { "walrus" } else { "zebra" };
    Document {
        id: format!("id-{number}"),
        title: format!("title {number}"),
        body: format!("the {word} of row {number}\nand a second line of text\n"),
        path: format!("folder/{number}.txt"),
        ..Document::default()
    }
}

impl<'a, V: View> World<'a, V> {
    fn new(subject: &'a Subject<V>) -> Self {
        let directory = MemoryDirectory::new();
        let view = (subject.open)(Arc::new(directory.clone())).unwrap();
        Self {
            subject,
            directory,
            view,
            texts: StoredTexts::default(),
            living: Bitmap::new(),
            next: 1,
        }
    }

    /// Applies the next batch.
    fn grow(&mut self) {
        let numbers = self.next..self.next + BATCH;
        self.next = numbers.end;
        for number in numbers.clone() {
            self.texts.0.insert(number, document(number));
            self.living.insert(number);
        }
        self.apply(numbers);
    }

    fn apply(&mut self, numbers: std::ops::Range<DocNumber>) {
        let through = u64::from(numbers.end) - 1;
        let items: Vec<V::Item> =
            numbers.map(|number| (self.subject.item)(number, &document(number))).collect();
        let refused = self.view.apply(&items, through).unwrap();
        assert_eq!(refused, [], "a sound document is applied");
        assert_eq!(self.view.through(), through, "apply moves through");
    }

    fn ask(&self, searcher: &dyn Searcher, word: &str) -> Result<MethodAnswer, SearchError> {
        self.ask_until(searcher, word, &Stop::new())
    }

    fn ask_until(
        &self,
        searcher: &dyn Searcher,
        word: &str,
        stop: &Stop,
    ) -> Result<MethodAnswer, SearchError> {
        searcher.search(&Request {
            text: word,
            pattern: Pattern::default(),
            strict: false,
            vectors: &(self.subject.vectors)(word),
            limit: 10_000,
            allowed: &Allowed::new(self.living.clone(), None),
            texts: &self.texts,
            verified_max: usize::MAX,
            threads: 1,
            stop,
        })
    }

    /// The documents that a word finds, rising.
    fn found(&self, word: &str) -> Vec<DocNumber> {
        let answer = self.ask(&*self.view.searcher(), word).unwrap();
        assert!(answer.complete, "nothing ended this search early");
        let mut numbers: Vec<_> = answer.hits.iter().map(|hit| hit.number).collect();
        numbers.sort_unstable();
        numbers
    }

    fn expected(&self, word: &str) -> Vec<DocNumber> {
        let has = |number: &DocNumber| self.texts.0[number].body.contains(word);
        self.living.iter().filter(|number| !self.subject.exact || has(number)).collect()
    }

    fn check(&self, when: &str) {
        for word in ["walrus", "zebra"] {
            assert_eq!(self.found(word), self.expected(word), "{word}, {when}");
        }
    }

    fn merge_all(&mut self) {
        while let Some(merge) = self.view.plan_merge(&self.living) {
            let merged = (merge.run)(&Stop::new()).unwrap();
            self.view.install(merged).unwrap();
        }
    }

    fn reopen(&mut self) {
        self.view = (self.subject.open)(Arc::new(self.directory.clone())).unwrap();
    }
}

/// Runs the whole suite.
pub fn check<V: View>(subject: &Subject<V>) {
    a_new_view_is_empty(subject);
    batches_are_found_at_once_and_an_empty_one_moves_through(subject);
    a_searcher_shows_one_state_for_ever(subject);
    what_is_checkpointed_is_there_after_opening_and_the_rest_is_applied_again(subject);
    merges_change_nothing_that_readers_see_and_drop_what_was_removed(subject);
    a_merge_that_is_stopped_leaves_the_view_as_it_was(subject);
    a_set_stop_flag_ends_a_search_without_a_false_claim(subject);
    damage_is_an_error_or_harmless_and_never_a_panic(subject);
}

fn a_new_view_is_empty<V: View>(subject: &Subject<V>) {
    let world = World::new(subject);
    assert_eq!(world.view.through(), 0);
    assert!(world.view.numbers().unwrap().is_empty());
    assert!(world.found("walrus").is_empty());
}

fn batches_are_found_at_once_and_an_empty_one_moves_through<V: View>(subject: &Subject<V>) {
    let mut world = World::new(subject);
    for _ in 0..4 {
        world.grow();
        world.check("after a batch");
    }
    let through = world.view.through();
    world.view.apply(&[], through + 5).unwrap();
    assert_eq!(world.view.through(), through + 5);
    assert_eq!(world.view.numbers().unwrap(), world.living);
    assert_eq!(world.view.figures().documents, world.living.len());
}

fn a_searcher_shows_one_state_for_ever<V: View>(subject: &Subject<V>) {
    let mut world = World::new(subject);
    world.grow();
    let early = world.view.searcher();
    let before = world.ask(&*early, "walrus").unwrap();
    world.grow();
    world.view.checkpoint().unwrap();
    world.merge_all();
    let after = world.ask(&*early, "walrus").unwrap();
    assert_eq!(before, after, "a searcher is immutable");
}

fn what_is_checkpointed_is_there_after_opening_and_the_rest_is_applied_again<V: View>(
    subject: &Subject<V>,
) {
    let mut world = World::new(subject);
    world.grow();
    world.grow();
    world.view.checkpoint().unwrap();
    let durable = world.view.through();
    world.grow();
    world.reopen();
    let through = world.view.through();
    assert!(through >= durable, "{through} is below the checkpoint at {durable}");
    world.apply(through as DocNumber + 1..world.next);
    world.check("after opening and applying again");
    assert_eq!(world.view.numbers().unwrap(), world.living);
    // Opened with nothing applied since, a checkpoint has nothing to lose.
    world.view.checkpoint().unwrap();
    world.reopen();
    world.check("after a second opening");
}

fn merges_change_nothing_that_readers_see_and_drop_what_was_removed<V: View>(subject: &Subject<V>) {
    let mut world = World::new(subject);
    for _ in 0..12 {
        world.grow();
        world.view.checkpoint().unwrap();
    }
    for number in (1..world.next).step_by(2) {
        world.living.remove(number);
    }
    world.check("with removed documents");
    world.merge_all();
    world.check("after merges");
    let held = world.view.numbers().unwrap();
    assert!(world.living.iter().all(|number| held.contains(number)), "a merge lost a document");
    world.view.checkpoint().unwrap();
    world.reopen();
    world.check("after merges and opening");
}

fn a_merge_that_is_stopped_leaves_the_view_as_it_was<V: View>(subject: &Subject<V>) {
    let mut world = World::new(subject);
    for _ in 0..12 {
        world.grow();
        world.view.checkpoint().unwrap();
    }
    let stop = Stop::new();
    stop.set();
    if let Some(merge) = world.view.plan_merge(&world.living) {
        match (merge.run)(&stop) {
            Err(ViewError::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::Interrupted),
            // So small that it was done before it looked.
            Ok(merged) => world.view.install(merged).unwrap(),
            Err(other) => panic!("a stopped merge fails otherwise: {other}"),
        }
    }
    world.check("after a stopped merge");
    world.grow();
    world.merge_all();
    world.check("after the next merge");
}

fn a_set_stop_flag_ends_a_search_without_a_false_claim<V: View>(subject: &Subject<V>) {
    let mut world = World::new(subject);
    world.grow();
    let stop = Stop::new();
    stop.set();
    let answer = world.ask_until(&*world.view.searcher(), "walrus", &stop).unwrap();
    let whole = answer.hits.len() == world.expected("walrus").len();
    assert!(whole || !answer.complete, "a part claims to be complete");
}

fn damage_is_an_error_or_harmless_and_never_a_panic<V: View>(subject: &Subject<V>) {
    let mut world = World::new(subject);
    for _ in 0..3 {
        world.grow();
        world.view.checkpoint().unwrap();
    }
    for name in world.directory.list().unwrap() {
        let whole = world.directory.open(&name).unwrap();
        for at in (0..whole.len()).step_by((whole.len() / DAMAGES).max(1)) {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 0x20;
            for contents in [&flipped[..], &whole[..at]] {
                let damaged = MemoryDirectory::new();
                for other in world.directory.list().unwrap() {
                    let bytes = world.directory.open(&other).unwrap();
                    write_file(&damaged, &other, if other == name { contents } else { &bytes })
                        .unwrap();
                }
                look_at(&world, Arc::new(damaged));
            }
        }
    }
}

/// Opens and asks; every outcome but a panic or an undocumented error is fine.
fn look_at<V: View>(world: &World<'_, V>, directory: Arc<dyn Directory>) {
    match (world.subject.open)(directory) {
        Ok(view) => match world.ask(&*view.searcher(), "walrus") {
            Ok(_) | Err(SearchError::Damaged { .. } | SearchError::Failed(_)) => {}
            Err(other) => panic!("damage is not the user's fault: {other}"),
        },
        Err(ViewError::Damaged { .. } | ViewError::FutureFormat { .. } | ViewError::Failed(_)) => {}
        Err(other) => panic!("damage is told as such: {other}"),
    }
}
