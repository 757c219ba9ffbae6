//! The pool: bounds, priorities, deadlines, cancellation, failure.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use mainstay_embed::{EmbedError, Embedder, HashModel, Kind, Pool, PoolSettings, Vectors};

use crate::gate::{Liar, gate};

const LONG: Duration = Duration::from_secs(60);

fn pool(settings: PoolSettings) -> Pool {
    Pool::start(PoolSettings { workers: 1, ..settings }).unwrap()
}

fn hash() -> Arc<dyn Embedder> {
    Arc::new(HashModel::new(4, 1))
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn vectors_come_back_in_the_order_of_the_texts_whatever_their_length() {
    let pool = Pool::start(PoolSettings { workers: 3, ..PoolSettings::default() }).unwrap();
    let lengths = [9usize, 1, 300, 0, 7, 40, 2];
    let passages: Vec<String> =
        (0..1000).map(|n| format!("{n} ").repeat(lengths[n % lengths.len()])).collect();
    let borrowed: Vec<&str> = passages.iter().map(String::as_str).collect();
    let expected = hash().embed(&borrowed, Kind::Passage).unwrap();
    assert_eq!(pool.embed_passages(&hash(), passages.clone()).unwrap(), expected);
    assert_eq!(pool.counters().passages_embedded, 1000);
    assert_eq!(pool.counters().passages_queued, 0);
    assert_eq!(pool.counters().passage_bytes_queued, 0);
}

#[test]
fn no_passages_are_done_at_once() {
    let ticket = pool(PoolSettings::default()).submit(&hash(), Vec::new()).unwrap();
    assert!(ticket.is_done());
    assert!(ticket.wait().unwrap().is_empty());
}

#[test]
fn a_query_is_answered_while_every_worker_is_busy_with_passages() {
    let pool = pool(PoolSettings::default());
    let (model, calls) = gate(1);
    let ticket = pool.submit(&model, texts(&["a", "bb"])).unwrap();
    let passage = calls.recv().unwrap();
    assert_eq!(passage.kind, Kind::Passage);
    thread::scope(|scope| {
        let query = scope.spawn(|| pool.embed_query(&model, "question", LONG));
        let call = calls.recv().unwrap();
        assert_eq!((call.kind, &call.texts[..]), (Kind::Query, &texts(&["question"])[..]));
        call.pass();
        assert!(query.join().unwrap().is_ok());
    });
    passage.pass();
    calls.recv().unwrap().pass();
    assert_eq!(ticket.wait().unwrap().len(), 2);
}

#[test]
fn waiting_queries_are_taken_before_waiting_passages() {
    let pool = pool(PoolSettings::default());
    let (model, calls) = gate(1);
    let ticket = pool.submit(&model, texts(&["a", "bb", "ccc"])).unwrap();
    let passage = calls.recv().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| pool.embed_query(&model, "q1", LONG));
        let first_call = calls.recv().unwrap();
        let second = scope.spawn(|| pool.embed_query(&model, "q2", LONG));
        while pool.counters().queries_queued == 0 {
            thread::yield_now();
        }
        passage.pass();
        let next = calls.recv().unwrap();
        assert_eq!((next.kind, &next.texts[0][..]), (Kind::Query, "q2"));
        next.pass();
        first_call.pass();
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
    calls.iter().take(2).for_each(|call| call.pass());
    assert!(ticket.wait().is_ok());
}

#[test]
fn a_query_gives_up_at_its_deadline_and_is_not_begun_later() {
    let pool = pool(PoolSettings::default());
    let (model, calls) = gate(1);
    thread::scope(|scope| {
        let lane = scope.spawn(|| pool.embed_query(&model, "q1", LONG));
        let worker = scope.spawn(|| pool.embed_query(&model, "q2", LONG));
        let busy = [calls.recv().unwrap(), calls.recv().unwrap()];
        let error = pool.embed_query(&model, "late", Duration::from_millis(1)).unwrap_err();
        assert!(matches!(error, EmbedError::Timeout { waited_ms: 1.. }), "{error}");
        assert_eq!(pool.counters().queries_queued, 0);
        busy.into_iter().for_each(|call| call.pass());
        lane.join().unwrap().unwrap();
        worker.join().unwrap().unwrap();
    });
    assert!(calls.try_recv().is_err());
    assert_eq!(pool.counters().queries_timed_out, 1);
}

#[test]
fn over_a_bound_nothing_is_queued_and_the_error_says_which() {
    let limits = PoolSettings {
        passages_max: 4,
        passage_bytes_max: 10,
        queries_max: 0,
        ..PoolSettings::default()
    };
    let pool = pool(limits);
    let (model, calls) = gate(1);
    let ticket = pool.submit(&model, texts(&["a", "bb", "ccc"])).unwrap();
    let running = calls.recv().unwrap();
    assert_eq!(pool.counters().passages_queued, 2);
    assert_eq!(pool.counters().passage_bytes_queued, 5);
    let error = pool.submit(&model, texts(&["1", "2", "3"])).unwrap_err();
    assert_eq!(error.to_string(), "embedding queue is full with 2 of 4 passages: try again later");
    let error = pool.submit(&model, texts(&["123456"])).unwrap_err();
    assert!(matches!(error, EmbedError::QueueFull { what: "passage bytes", queued: 5, .. }));
    let error = pool.embed_query(&model, "q", LONG).unwrap_err();
    assert!(matches!(error, EmbedError::QueueFull { what: "queries", queued_max: 0, .. }));
    assert_eq!(pool.counters().rejected, 3);
    running.pass();
    calls.iter().take(2).for_each(|call| call.pass());
    assert!(ticket.wait().is_ok());
}

#[test]
fn dropping_a_ticket_gives_up_what_was_not_begun() {
    let pool = pool(PoolSettings::default());
    let (model, calls) = gate(2);
    let dropped = pool.submit(&model, texts(&["a", "b", "c", "d", "e"])).unwrap();
    let kept = pool.submit(&model, texts(&["kept"])).unwrap();
    let running = calls.recv().unwrap();
    drop(dropped);
    assert_eq!(pool.counters().passages_queued, 1);
    running.pass();
    let next = calls.recv().unwrap();
    assert_eq!(next.texts, texts(&["kept"]));
    next.pass();
    assert!(kept.wait().is_ok());
}

#[test]
fn a_failure_or_panic_in_the_model_fails_its_own_job_only() {
    let pool = pool(PoolSettings::default());
    let (model, calls) = gate(1);
    let failing = pool.submit(&model, texts(&["a", "b"])).unwrap();
    let panicking = pool.submit(&model, texts(&["c", "d"])).unwrap();
    let fine = pool.submit(&model, texts(&["e"])).unwrap();
    calls.recv().unwrap().fail();
    calls.recv().unwrap().panic();
    calls.recv().unwrap().pass();
    assert!(matches!(failing.wait(), Err(EmbedError::Inference { .. })));
    assert!(matches!(panicking.wait(), Err(EmbedError::Panicked { .. })));
    assert!(fine.wait().is_ok());
    let counters = pool.counters();
    assert_eq!((counters.failures, counters.passages_queued), (2, 0));
    assert_eq!(counters.passages_embedded, 1);
}

#[test]
fn a_model_that_breaks_its_own_promise_is_refused() {
    let pool = pool(PoolSettings::default());
    let vectors = |dimension: usize, count: usize| {
        Vectors::from_data("liar", dimension, vec![1.0; dimension * count]).unwrap()
    };
    let model: Arc<dyn Embedder> = Arc::new(Liar {
        identity: hash().identity().clone(),
        vectors: Mutex::new(vec![vectors(4, 2), vectors(8, 1), vectors(4, 3)]),
    });
    let error = pool.embed_passages(&model, texts(&["a", "b"])).unwrap_err();
    assert!(matches!(error, EmbedError::WrongCount { expected: 2, found: 3, .. }), "{error}");
    let error = pool.embed_passages(&model, texts(&["a"])).unwrap_err();
    assert!(matches!(error, EmbedError::WrongDimension { expected: 4, found: 8, .. }), "{error}");
    let error = pool.embed_query(&model, "a", LONG).unwrap_err();
    assert!(matches!(error, EmbedError::WrongDimension { expected: 4, found: 8, .. }), "{error}");
}

#[test]
fn dropping_the_pool_fails_what_waits_and_finishes_what_runs() {
    let pool = pool(PoolSettings::default());
    let (model, calls) = gate(1);
    let waiting = pool.submit(&model, texts(&["a", "b"])).unwrap();
    let running = calls.recv().unwrap();
    thread::scope(|scope| {
        let dropping = scope.spawn(move || drop(pool));
        assert!(matches!(waiting.wait(), Err(EmbedError::Closed)));
        running.pass();
        dropping.join().unwrap();
    });
    assert!(calls.try_recv().is_err());
}

#[test]
fn a_query_asked_twice_is_embedded_once() {
    let pool = pool(PoolSettings::default());
    let first = pool.embed_query(&hash(), "same question", LONG).unwrap();
    let again = pool.embed_query(&hash(), "same question", LONG).unwrap();
    assert_eq!(first, again);
    assert_eq!(pool.counters().queries_embedded, 1);
    assert_eq!((pool.cache().counters().hits, pool.cache().counters().misses), (1, 1));
}

/// For finding out whether a model works: what is remembered says nothing of it.
#[test]
fn a_query_asked_anew_is_embedded_whatever_is_remembered() {
    let pool = pool(PoolSettings::default());
    let first = pool.embed_query(&hash(), "same question", LONG).unwrap();
    for embedded in 2..4 {
        let anew = pool.embed_query_anew(&hash(), "same question", LONG).unwrap();
        assert_eq!((first.clone(), pool.counters().queries_embedded), (anew, embedded));
    }
    pool.embed_query_anew(&hash(), "another question", LONG).unwrap();
    assert_eq!(pool.cache().counters().entries, 1, "nor is it remembered");
}

#[test]
fn a_background_share_outside_1_to_100_is_refused() {
    let pool = pool(PoolSettings::default());
    for percent in [0, 101] {
        let error = pool.set_background_percent(percent).unwrap_err();
        assert!(error.to_string().contains("1 to 100"), "{error}");
        let settings = PoolSettings { background_percent: percent, ..PoolSettings::default() };
        assert!(Pool::start(settings).is_err());
    }
}
