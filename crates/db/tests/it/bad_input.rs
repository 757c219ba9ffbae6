use std::time::Duration;

use mainstay_db::{DbError, Filter, Fusion, Method, Pattern, SearchRequest, Syntax, Weights};

use crate::{Fixture, document, put};

fn refused(change: impl FnOnce(&mut SearchRequest)) -> String {
    let mut request = SearchRequest::new("x");
    change(&mut request);
    request.validate().expect_err("is beyond a bound").to_string()
}

#[test]
fn every_bound_of_a_request_is_told_with_its_figure() {
    assert!(refused(|r| r.query = "x".repeat(10 << 20)).contains("16384"));
    assert!(refused(|r| r.limit = 0).contains("1 to 1000"));
    assert!(refused(|r| r.limit = 1001).contains("1 to 1000"));
    assert!(refused(|r| r.offset = 10_000).contains("10000"));
    assert!(refused(|r| r.offset = usize::MAX).contains("10000"));
    assert!(refused(|r| r.timeout = Duration::from_secs(3600)).contains("30s"));
    assert!(refused(|r| r.facets = vec!["a".into(); 17]).contains("16"));
    assert!(refused(|r| r.fusion = Fusion::ReciprocalRank { k: 0 }).contains("k of rank fusion"));
    let nan = Weights { bm25: f32::NAN, ..Weights::REFINED };
    assert!(refused(|r| r.fusion = Fusion::Weighted(Some(nan))).contains("bm25"));
}

#[test]
fn a_regex_bomb_is_refused_in_bounded_time() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", &"a".repeat(10_000))]);
    for bomb in ["(a{1000}){1000}", r"\pL{500}{500}", "((((((a*)*)*)*)*)*)*$"] {
        let mut request = SearchRequest::new(bomb);
        request.methods = vec![Method::Native];
        request.pattern = Pattern { syntax: Syntax::Regex, ..Pattern::default() };
        match docs.search(&request) {
            Ok(_) | Err(DbError::Query { .. } | DbError::Bound { .. }) => {}
            Err(other) => panic!("{bomb}: {other}"),
        }
    }
}

#[test]
fn an_unknown_field_in_a_filter_is_told_with_those_that_exist() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", "zebra")]);
    let mut request = SearchRequest::new("zebra");
    request.filter = Some(Filter::parse("langage:rust").unwrap());
    let error = docs.search(&request).unwrap_err().to_string();
    assert!(error.contains("language"), "{error}");
}

#[test]
fn unknown_methods_are_told_with_those_that_exist() {
    let error = "bm26".parse::<Method>().unwrap_err().to_string();
    assert!(error.contains("bm25, tantivy, native, semantic"), "{error}");
}
