use std::time::{Duration, Instant};

use mainstay_db::search_answer::{Level, MethodStatus};
use mainstay_db::{BreakerState, DbError, InjectedFault as Fault, Method, SearchRequest};

use crate::{Fixture, document, put};

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    put(&fixture.docs(), vec![document("1", "a zebra"), document("2", "a walrus")]);
    fixture
}

fn request() -> SearchRequest {
    SearchRequest { timeout: Duration::from_millis(1500), ..SearchRequest::new("zebra") }
}

/// S3, S4: each method in turn is broken in each way; the others answer, and the answer says so.
#[test]
fn with_any_method_broken_in_any_way_the_others_answer_and_say_so() {
    let fixture = fixture();
    let docs = fixture.docs();
    for method in Method::ALL {
        for (fault, status) in [
            (Fault::Error, MethodStatus::Failed),
            (Fault::Panic, MethodStatus::Failed),
            (Fault::Hang, MethodStatus::TimedOut),
        ] {
            docs.dependency(method).faults().set(fault, None);
            // Only a method that hangs is waited for; a panic prints its stack, which may take a while.
            let timeout = Duration::from_millis(if fault == Fault::Hang { 1_500 } else { 30_000 });
            let answer = docs.search(&SearchRequest { timeout, ..request() }).unwrap();
            docs.dependency(method).faults().clear();
            assert_eq!(answer.hits[0].document.id, "1", "{method} {fault:?}");
            assert!(!answer.complete);
            assert_eq!(answer.level, Level::Degraded);
            let report = answer.methods.iter().find(|report| report.method == method).unwrap();
            assert_eq!(report.status, status, "{method} {fault:?}");
            assert!(!report.reason.is_empty());
            docs.breaker(method).reset();
        }
    }
}

/// B1, B3: after five failures in a row the method is not asked any more; reset lets it answer.
#[test]
fn a_method_that_keeps_failing_is_skipped_by_its_breaker_until_it_is_reset() {
    let fixture = fixture();
    let docs = fixture.docs();
    docs.dependency(Method::Bm25).faults().set(Fault::Error, None);
    for _ in 0..5 {
        docs.search(&request()).unwrap();
    }
    docs.dependency(Method::Bm25).faults().clear();
    assert_eq!(docs.breaker(Method::Bm25).state(), BreakerState::Open);
    let answer = docs.search(&request()).unwrap();
    let report = &answer.methods[0];
    assert_eq!((report.method, report.status), (Method::Bm25, MethodStatus::Skipped));
    assert!(report.retry_after_ms.is_some());
    docs.breaker(Method::Bm25).reset();
    assert!(docs.search(&request()).unwrap().complete);
}

#[test]
fn a_strict_caller_gets_an_error_instead_of_a_part() {
    let fixture = fixture();
    let docs = fixture.docs();
    docs.dependency(Method::Native).faults().set(Fault::Error, None);
    let strict = SearchRequest { strict: true, ..request() };
    match docs.search(&strict) {
        Err(DbError::Unanswered { reasons, .. }) => assert!(reasons.contains("native")),
        other => panic!("{other:?}"),
    }
}

/// D3: at least so many of the methods asked must answer.
#[test]
fn d3_a_caller_that_needs_so_many_methods_gets_an_error_with_fewer() {
    let fixture = fixture();
    let docs = fixture.docs();
    let need = |methods_min| docs.search(&SearchRequest { methods_min, ..request() });
    assert!(need(4).unwrap().complete);
    docs.dependency(Method::Native).faults().set(Fault::Error, None);
    docs.dependency(Method::Semantic).faults().set(Fault::Error, None);
    assert_eq!(need(2).unwrap().hits[0].document.id, "1");
    let error = need(3).unwrap_err();
    assert_eq!(error.code(), "unanswered");
    for part in ["methods_min is 3, 2 answered", "native", "semantic"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    for wrong in [0, 5] {
        let error = need(wrong).unwrap_err().to_string();
        assert!(error.contains(&format!("methods_min is {wrong}; allowed is 1 to 4")), "{error}");
    }
}

#[test]
fn when_every_method_fails_there_is_one_clear_error() {
    let fixture = fixture();
    let docs = fixture.docs();
    for method in Method::ALL {
        docs.dependency(method).faults().set(Fault::Error, None);
    }
    let error = docs.search(&request()).unwrap_err();
    assert_eq!(error.code(), "unanswered");
    for method in Method::ALL {
        assert!(error.to_string().contains(method.name()), "{error}");
    }
}

#[test]
fn a_method_serves_its_old_index_while_it_is_rebuilt() {
    let fixture = fixture();
    let docs = fixture.docs();
    for method in Method::ALL {
        let mut seen = 0;
        docs.rebuild(method, &mut |_, total| {
            seen = total;
            let answer = docs.search(&request()).unwrap();
            assert_eq!(answer.hits[0].document.id, "1");
            assert!(answer.complete, "{method}: {:?}", answer.methods);
        })
        .unwrap();
        assert_eq!(seen, 2);
        assert!(docs.search(&request()).unwrap().complete);
    }
    assert!(docs.verify().unwrap().is_clean(), "{:#?}", docs.verify());
}

/// V1, B3: each method is probed alone, on the way of every search, whether there are documents or not;
/// its breaker counts what the probe finds, and keeps it away when it is isolated.
#[test]
fn v1_each_method_is_probed_by_itself_through_its_breaker() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    for documents in [vec![], vec![document("1", "a zebra")]] {
        put(&docs, documents);
        for method in Method::ALL {
            let dependency = docs.dependency(method);
            let calls = |method| docs.dependency(method).figures().counts();
            let before = Method::ALL.map(calls);
            let probe = dependency.probe().unwrap();
            assert_eq!(probe(), Ok(()), "{method}");
            dependency.faults().set(Fault::Error, None);
            for _ in 0..5 {
                assert!(probe().unwrap_err().contains("injected error"), "{method}");
            }
            assert_eq!(dependency.breaker().state(), BreakerState::Open);
            let mut expected = before;
            let (calls_before, failures_before) = expected[method as usize];
            expected[method as usize] = (calls_before + 6, failures_before + 5);
            assert_eq!(Method::ALL.map(calls), expected, "{method} alone was asked");
            dependency.breaker().isolate();
            let struck = dependency.faults().struck();
            assert!(probe().unwrap_err().contains("isolated"), "{method}");
            assert_eq!(dependency.faults().struck(), struck);
            dependency.faults().clear();
            dependency.breaker().reset();
        }
    }
    let probe = docs.dependency(Method::Bm25).probe().unwrap();
    drop(docs);
    drop(fixture);
    // Threads that end hold on to it for a moment.
    let deadline = Instant::now() + Duration::from_secs(60);
    while probe() != Err("the collection is closed".to_string()) {
        assert!(Instant::now() < deadline, "it is kept alive by how it is probed");
        std::thread::yield_now();
    }
}
