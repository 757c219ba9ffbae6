use std::sync::{Arc, Mutex};

use mainstay_db::search_answer::{Level, MethodStatus};
use mainstay_db::{DbError, Document, Fusion, Method, Pattern, SearchRequest, Syntax};

use crate::{Fixture, document, found, put};

fn code(id: &str, body: &str) -> Document {
    Document { path: id.into(), language: "rust".into(), ..document(id, body) }
}

#[test]
fn each_method_answers_its_own_question() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(
        &docs,
        vec![
            code(
                "src/http.rs",
                "pub fn parse_http_request(input: &str) -> Request {\n    todo\n}\n",
            ),
            document("pets.md", "A kitten is a young cat. It plays with the dog all day long."),
            document("cars.md", "The engine of the car was repaired by the mechanic yesterday."),
        ],
    );
    assert_eq!(found(&docs, "http request", &[Method::Bm25]), ["src/http.rs"]);
    assert_eq!(found(&docs, "\"young cat\" AND NOT engine", &[Method::Tantivy]), ["pets.md"]);
    assert_eq!(found(&docs, "parse_http_request(input", &[Method::Native]), ["src/http.rs"]);
    assert_eq!(found(&docs, "automobile motor", &[Method::Semantic])[0], "cars.md");
}

#[test]
fn a_fused_answer_says_which_method_gave_what_and_shows_where() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(
        &docs,
        vec![
            document("1", "first line\nthe zebra stands here\nlast line\n"),
            document("2", "nothing of the kind"),
        ],
    );
    let mut request = SearchRequest::new("zebra");
    request.explain = true;
    request.context_lines = 1;
    let answer = docs.search(&request).unwrap();
    assert!(answer.complete);
    assert_eq!(answer.level, Level::Full);
    assert_eq!(answer.methods.len(), 4);
    assert!(answer.methods.iter().all(|report| report.status == MethodStatus::Ok));
    assert!(answer.methods.iter().all(|report| report.indexed_through == answer.durable_seq));
    let hit = &answer.hits[0];
    assert_eq!(hit.document.id, "1");
    assert!(hit.document.body.is_empty());
    assert!(hit.explanation.iter().any(|part| part.method == Method::Native && part.rank == 1));
    let numbers: Vec<_> = hit.lines.iter().map(|line| (line.line, line.column)).collect();
    assert_eq!(numbers, [(1, 0), (2, 5), (3, 0)]);
    let highlight = &hit.lines[1].highlights[0];
    assert_eq!((highlight.start, highlight.end), (4, 9));
    assert!(hit.snippet.as_ref().unwrap().text.contains("zebra"));
}

#[test]
fn pages_follow_each_other_without_gap_or_overlap() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, (0..25).map(|i| document(&format!("{i:02}"), "zebra crossing")).collect());
    let mut all = Vec::new();
    for page in 0..3 {
        let mut request = SearchRequest::new("zebra");
        request.offset = page * 10;
        all.extend(docs.search(&request).unwrap().hits.into_iter().map(|hit| hit.document.id));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 25);
}

#[test]
fn rank_fusion_is_there_on_request() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", "zebra"), document("2", "zebra zebra crossing")]);
    let mut request = SearchRequest::new("zebra");
    request.fusion = Fusion::ReciprocalRank { k: 60 };
    assert_eq!(docs.search(&request).unwrap().hits.len(), 2);
}

#[test]
fn everyday_text_never_fails_for_its_punctuation_in_a_fused_search() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", "what's up? C++ (maybe")]);
    for query in ["what's up?", "C++ (", "foo: bar", "\"unclosed", "[a TO", "NOT", "*", "\\"] {
        docs.search(&SearchRequest::new(query)).unwrap_or_else(|e| panic!("{query}: {e}"));
    }
}

#[test]
fn a_fault_in_the_query_language_is_told_with_its_position_when_tantivy_is_asked_alone() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", "zebra")]);
    let request =
        SearchRequest { methods: vec![Method::Tantivy], ..SearchRequest::new("zebra AND (") };
    match docs.search(&request) {
        Err(DbError::Query { method: Some(Method::Tantivy), position, .. }) => {
            assert!(position.is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_regular_expression_finds_lines_and_a_broken_one_is_told() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", "alpha 42\nbeta 7\n")]);
    let mut request = SearchRequest::new(r"\b\d{2}\b");
    request.methods = vec![Method::Native];
    request.pattern = Pattern { syntax: Syntax::Regex, ..Pattern::default() };
    let answer = docs.search(&request).unwrap();
    assert_eq!(answer.hits[0].lines[0].line, 1);
    request.query = "(".into();
    assert!(matches!(docs.search(&request), Err(DbError::Query { .. })));
}

#[test]
fn a_write_can_be_read_at_once_by_passing_its_sequence_number() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    for round in 0..20 {
        let id = format!("doc-{round}");
        let written = docs.put(vec![document(&id, &format!("needle{round}"))]).unwrap();
        let mut request = SearchRequest::new(format!("needle{round}"));
        request.methods = vec![Method::Bm25, Method::Tantivy, Method::Native];
        request.min_seq = written.seq;
        let answer = docs.search(&request).unwrap();
        assert_eq!(answer.hits[0].document.id, id);
        assert!(answer.complete);
    }
}

#[test]
fn the_lines_shown_are_those_that_say_most_of_the_query() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    let body = "the first line\nthe second line\nhow the torn tail is cut\nthe tail\n";
    put(&docs, vec![document("1", body)]);
    let mut request = SearchRequest::new("cut the torn tail");
    request.methods = vec![Method::Bm25];
    request.lines = 1;
    let answer = docs.search(&request).unwrap();
    assert_eq!(answer.hits[0].lines[0].line, 3);
}

#[test]
fn a_line_without_end_is_shown_around_its_first_match() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    let body = format!("{} zebra {}", "é".repeat(100_000), "x".repeat(100_000));
    put(&docs, vec![document("1", &body)]);
    for (methods, from) in [(vec![Method::Native], 200_001), (vec![Method::Bm25], 200_001)] {
        let request = SearchRequest { methods, ..SearchRequest::new("zebra") };
        let answer = docs.search(&request).unwrap();
        for line in &answer.hits[0].lines {
            assert!(line.text.len() <= 4 << 10, "{} bytes", line.text.len());
            for highlight in &line.highlights {
                assert_eq!(&line.text[highlight.clone()], "zebra");
                assert_eq!(line.offset + highlight.start, from);
            }
        }
    }
    let request = SearchRequest { methods: vec![Method::Native], ..SearchRequest::new("zebra") };
    assert_eq!(docs.search(&request).unwrap().hits[0].lines[0].highlights.len(), 1);
}

/// Follows the spans of methods: what they say after they began, and that they are closed.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl tracing::field::Visit for Spans {
    fn record_debug(&mut self, field: &tracing::field::Field, _: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push(field.name().to_string());
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.name() == "search.method"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::Id) {}
    fn exit(&self, _: &tracing::Id) {}

    fn try_close(&self, _: tracing::Id) -> bool {
        self.0.lock().unwrap().push("closed".to_string());
        true
    }
}

/// V5: each method's span says when its work was done, and is closed by the time of the answer.
#[test]
fn v5_the_span_of_a_method_is_closed_with_its_answer_and_says_when_it_ended() {
    let fixture = Fixture::new();
    let docs = fixture.docs();
    put(&docs, vec![document("1", "a zebra")]);
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), || {
        let request = SearchRequest::new("zebra");
        assert!(docs.search(&request).unwrap().complete);
    });
    assert_eq!(*spans.0.lock().unwrap(), ["otel.ended_ns_ago", "closed"].repeat(4));
}
