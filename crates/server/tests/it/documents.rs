use serde_json::json;

use crate::Running;

const DOCS: &str = "/collections/default/documents";

#[test]
fn a_document_is_put_got_replaced_listed_and_deleted() {
    let server = Running::start();
    let document = json!({
        "id": "a/b c.md", "title": "T", "body": "text", "tags": ["x"],
        "attributes": {"price": 3.5, "new": true, "who": "me", "at": {"date": "2026-01-31T10:00:00Z"}}
    });
    let put = server.put(&format!("{DOCS}/a/b%20c.md"), &document);
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(server.get(&format!("{DOCS}/a/b%20c.md")).json(), document);
    let replaced = json!({"id": "a/b c.md", "body": "new"});
    server.put(DOCS, &replaced);
    assert_eq!(server.get(&format!("{DOCS}/a/b%20c.md")).json(), replaced);
    assert_eq!(server.get(DOCS).json()["documents"], json!([replaced]));
    assert_eq!(server.delete(&format!("{DOCS}/a/b%20c.md")).status, 204);
    let again = server.delete(&format!("{DOCS}/a/b%20c.md"));
    assert_eq!((again.status, again.problem().as_str()), (404, "document_not_found"));
}

#[test]
fn a_stream_of_ndjson_stores_the_valid_lines_and_names_the_others() {
    let server = Running::start();
    let mut lines = String::new();
    for i in 0..2500 {
        lines.push_str(&format!("{{\"id\":\"{i}\",\"body\":\"zebra {i}\"}}\n"));
    }
    lines.push_str("not json\n\n{\"id\":\"\"}\n{\"id\":\"x\",\"colour\":1}");
    let answer = server.send("PUT", DOCS, "application/x-ndjson", lines.as_bytes());
    let json = answer.json();
    assert_eq!(json["stored"], 2500, "{}", answer.body);
    assert_eq!(json["failed_total"], 3);
    let places: Vec<_> =
        json["failed"].as_array().unwrap().iter().map(|f| f["index"].as_u64().unwrap()).collect();
    assert_eq!(places, [2500, 2501, 2502]);
    assert!(json["failed"][2]["errors"][0].as_str().unwrap().contains("colour"));
}

#[test]
fn pages_are_followed_by_their_cursor() {
    let server = Running::start();
    let documents: Vec<_> = (0..5).map(|i| json!({"id": format!("{i}")})).collect();
    server.put(DOCS, &json!(documents));
    let mut ids = Vec::new();
    let mut path = format!("{DOCS}?limit=2");
    loop {
        let page = server.get(&path).json();
        for document in page["documents"].as_array().unwrap() {
            ids.push(document["id"].as_str().unwrap().to_string());
        }
        match page["next"].as_str() {
            Some(next) => path = format!("{DOCS}?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids, ["0", "1", "2", "3", "4"]);
}

#[test]
fn many_documents_are_deleted_at_once() {
    let server = Running::start();
    server.put(DOCS, &json!([{"id": "1"}, {"id": "2"}]));
    let answer = server.post(&format!("{DOCS}/delete"), &json!({"ids": ["1", "3"]}));
    assert_eq!(answer.json(), json!({"deleted": 1, "not_found": ["3"]}));
}

#[test]
fn collections_are_created_listed_and_dropped() {
    let server = Running::start();
    let created = server.post("/collections", &json!({"name": "docs", "model": "static"}));
    assert_eq!(created.status, 201, "{}", created.body);
    let again = server.post("/collections", &json!({"name": "docs"}));
    assert_eq!((again.status, again.problem().as_str()), (409, "collection_exists"));
    let listed = server.get("/collections").json();
    let names: Vec<_> =
        listed["collections"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["default", "docs"]);
    assert_eq!(server.delete("/collections/docs").status, 204);
    assert_eq!(server.get("/collections/docs").problem(), "collection_not_found");
}
