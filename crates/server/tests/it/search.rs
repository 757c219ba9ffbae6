use mainstay_db::{InjectedFault, Method};
use serde_json::json;

use crate::with_documents;

/// S2, S4: the answer has what was asked for and says what it is worth.
#[test]
fn a_search_answers_results_total_and_duration_and_what_they_are_worth() {
    let server = with_documents();
    let answer = server.post("/search", &json!({"query": "zebra"}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!(json["results"][0]["id"], "1");
    assert!(json["total"].as_u64().unwrap() >= 1);
    assert!(json["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(json["complete"], true);
    assert_eq!(json["level"], "full");
    let methods: Vec<&str> =
        json["methods"].as_array().unwrap().iter().map(|m| m["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["bm25", "tantivy", "native", "semantic"]);
    for method in json["methods"].as_array().unwrap() {
        assert_eq!(method["status"], "ok");
        assert_eq!(method["indexed_through"], json["durable_seq"]);
        assert!(method["took_ms"].is_number());
    }
    assert_eq!(json["results"][0]["lines"][0]["line"], 1);
}

/// S1: methods are chosen by name for each request.
#[test]
fn methods_are_chosen_by_name() {
    let server = with_documents();
    let answer = server.post("/search", &json!({"query": "walrus", "methods": ["native"]}));
    let json = answer.json();
    assert_eq!(json["results"][0]["id"], "src/b.rs");
    assert_eq!(json["results"][0]["methods"], json!(["native"]));
    let unknown = server.post("/search", &json!({"query": "x", "methods": ["bm26"]}));
    assert_eq!(unknown.status, 400);
    assert!(unknown.json()["detail"].as_str().unwrap().contains("bm25, tantivy, native, semantic"));
}

#[test]
fn filters_and_facets_go_over_the_wire() {
    let server = with_documents();
    let query = json!({"query": "zebra", "filter": "price>=3 new:true", "facets": ["language"]});
    let json = server.post("/search", &query).json();
    assert_eq!(json["results"].as_array().unwrap().len(), 1);
    assert_eq!(json["facets"]["language"][0], json!({"value": "en", "count": 1}));
    let wrong = server.post("/search", &json!({"query": "zebra", "filter": "price>="}));
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    wrong.problem();
}

/// S3, D6: with a method broken the answer is 200 and names it; strict gets 503 and a time to wait.
#[test]
fn a_broken_method_degrades_the_answer_and_a_strict_caller_is_told() {
    let server = with_documents();
    server.break_method(Method::Semantic, InjectedFault::Error);
    let json = server.post("/search", &json!({"query": "zebra"})).json();
    assert_eq!(
        (json["complete"].clone(), json["level"].clone()),
        (json!(false), json!("degraded"))
    );
    assert_eq!(json["methods"][3]["status"], "failed");
    assert_eq!(json["results"][0]["id"], "1");
    let strict = server.post("/search", &json!({"query": "zebra", "strict": true}));
    assert_eq!(strict.status, 503);
    assert_eq!(strict.problem(), "unanswered");
    let most = |least: u32| {
        server.post("/search", &json!({"query": "zebra", "methods_min": least})).status
    };
    assert_eq!([most(3), most(4), most(5)], [200, 503, 400], "D3: three of four answer");
    for _ in 0..5 {
        server.post("/search", &json!({"query": "zebra"}));
    }
    let open = server.post("/search", &json!({"query": "zebra", "strict": true}));
    assert!(open.retry_after.is_some(), "{}", open.body);
    let health = server.get("/health?fresh=true").json();
    assert_eq!(health["state"], "degraded");
    let semantic = &health["checks"]["search/semantic:responseTime"][0];
    assert_eq!(semantic["state"], "unhealthy");
    assert_eq!(semantic["output"], "default: its breaker is open");
}

#[test]
fn a_method_is_rebuilt_and_verified_over_http() {
    let server = with_documents();
    let rebuilt = server.post("/admin/collections/default/rebuild", &json!({"method": "bm25"}));
    assert_eq!(rebuilt.status, 204, "{}", rebuilt.body);
    let report = server.post("/admin/collections/default/verify", &json!({})).json();
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(server.get("/admin/collections/default/set-aside").json(), json!([]));
}
