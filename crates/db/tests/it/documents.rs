use mainstay_db::{DbError, Document, Filter, Method, SearchRequest, SortKey, Value};

use crate::{Fixture, document, found, put};

#[test]
fn a_document_is_there_when_its_write_returns() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    let stored = Document {
        title: "Title".into(),
        path: "a/b.md".into(),
        tags: vec!["x".into()],
        attributes: [("price".to_string(), Value::Number(3.0))].into(),
        ..document("1", "body text")
    };
    docs.put(vec![stored.clone()]).unwrap();
    assert_eq!(docs.get("1").unwrap(), stored);
    assert!(matches!(docs.get("2"), Err(DbError::NoDocument { .. })));
}

#[test]
fn a_replaced_document_is_found_by_its_new_text_alone() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", "the quick zebra")]);
    put(&docs, vec![document("1", "the quick walrus")]);
    for method in [Method::Bm25, Method::Tantivy, Method::Native] {
        assert!(found(&docs, "zebra", &[method]).is_empty(), "{method}");
        assert_eq!(found(&docs, "walrus", &[method]), ["1"], "{method}");
    }
    assert_eq!(docs.status().documents, 1);
}

#[test]
fn a_deleted_document_is_found_by_no_method() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", "a lonely zebra"), document("2", "another zebra")]);
    assert_eq!(docs.delete(&["1".into(), "nobody".into()]).unwrap(), [true, false]);
    for method in Method::ALL {
        assert_eq!(found(&docs, "zebra", &[method]), ["2"], "{method}");
    }
    assert!(matches!(docs.get("1"), Err(DbError::NoDocument { .. })));
}

#[test]
fn valid_documents_of_a_bulk_are_stored_beside_invalid_ones() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    let written =
        docs.put(vec![document("1", "a"), document("", "b"), document("3", "c")]).unwrap();
    let valid: Vec<bool> = written.documents.iter().map(Result::is_ok).collect();
    assert_eq!(valid, [true, false, true]);
    assert_eq!(docs.ids().unwrap(), ["1", "3"]);
}

#[test]
fn documents_are_listed_in_order_of_id_page_by_page() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, ["d", "a", "c", "b"].map(|id| document(id, "x")).into());
    let page: Vec<_> = docs.list(Some("a"), 2).unwrap().into_iter().map(|d| d.id).collect();
    assert_eq!(page, ["b", "c"]);
}

#[test]
fn filters_facets_and_sort_orders_read_attributes() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    let priced = |id: &str, price: f64, colour: &str| Document {
        attributes: [
            ("price".to_string(), Value::Number(price)),
            ("colour".to_string(), Value::String(colour.into())),
        ]
        .into(),
        ..document(id, "zebra")
    };
    put(&docs, vec![priced("a", 3.0, "red"), priced("b", 1.0, "red"), priced("c", 2.0, "blue")]);
    let mut request = SearchRequest::new("zebra");
    request.facets = vec!["colour".into()];
    request.sort = vec![SortKey { field: "price".into(), descending: false }];
    let answer = docs.search(&request).unwrap();
    let ids: Vec<_> = answer.hits.iter().map(|hit| hit.document.id.as_str()).collect();
    assert_eq!(ids, ["b", "c", "a"]);
    assert_eq!(answer.facets[0].values, [("red".to_string(), 2), ("blue".to_string(), 1)]);
    request.filter = Some(Filter::parse("price>=2 colour:red").unwrap());
    let answer = docs.search(&request).unwrap();
    assert_eq!(answer.hits.len(), 1);
    assert_eq!(answer.hits[0].document.id, "a");
    // Without a query: every document that passes the filter.
    request.query = String::new();
    assert_eq!(docs.search(&request).unwrap().total, 1);
}

#[test]
fn collections_are_created_listed_and_dropped() {
    let mut fixture = Fixture::new();
    fixture.db().create_collection("one", "static".parse().unwrap()).unwrap();
    fixture.db().create_collection("two", "static".parse().unwrap()).unwrap();
    let again = fixture.db().create_collection("one", "static".parse().unwrap());
    assert!(matches!(again, Err(DbError::CollectionExists { .. })));
    fixture.db().drop_collection("one").unwrap();
    fixture.reopen();
    let names: Vec<_> = fixture.db().collections().iter().map(|c| c.name().to_string()).collect();
    assert_eq!(names, ["two"]);
    assert!(matches!(fixture.db().drop_collection("one"), Err(DbError::NoCollection { .. })));
}
