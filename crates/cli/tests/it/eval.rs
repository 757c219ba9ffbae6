use crate::{mainstay, text, write};

#[test]
fn relevance_is_measured_for_each_method_each_pair_and_the_fusion() {
    let folder = tempfile::tempdir().unwrap();
    let documents: String =
        ["zebra crossing", "walrus on ice", "engine repair", "lynx in the wood"]
            .iter()
            .enumerate()
            .map(|(at, body)| format!("{{\"id\":\"{at}\",\"title\":\"\",\"text\":\"{body}\"}}\n"))
            .collect();
    write(folder.path(), "docs.jsonl", &documents);
    write(
        folder.path(),
        "queries.jsonl",
        "{\"id\":\"a\",\"text\":\"zebra\"}\n{\"id\":\"b\",\"text\":\"engine\"}\n",
    );
    write(folder.path(), "qrels.tsv", "a\t0\t1\nb\t2\t1\n");
    let report =
        mainstay(&["eval", text(folder.path()), "--model", "static", "--json"]).ok().json();
    let rows = report[0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4 + 6 + 2);
    for row in rows {
        assert_eq!(row["ndcg_10"], 1.0, "{row}");
    }
}
