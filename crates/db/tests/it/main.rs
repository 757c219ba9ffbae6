//! The database as its callers see it, without sockets: one binary, one module a theme.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod degrade;
mod documents;
mod recovery;
mod search;

use std::time::Duration;

use mainstay_db::{Collection, Db, Document, Method, Options, SearchRequest};
use tempfile::TempDir;

/// A data directory that is removed when the test ends.
struct Fixture {
    folder: TempDir,
    options: Options,
    db: Option<Db>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Some(Db::open(folder.path(), options.clone()).unwrap());
        Self { folder, options, db }
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    /// The collection that most tests use; with the instant model alone, so that answers do not
    /// depend on how far refinement has come.
    fn docs(&self) -> Collection {
        self.db().collection_or_create("docs", "static".parse().unwrap()).unwrap()
    }

    /// Closes and opens the data directory.
    fn reopen(&mut self) {
        self.db.take().unwrap().close().unwrap();
        self.db = Some(Db::open(self.folder.path(), self.options.clone()).unwrap());
    }
}

fn document(id: &str, body: &str) -> Document {
    Document { id: id.into(), body: body.into(), ..Document::default() }
}

/// Stores documents and waits until every method has indexed them.
fn put(docs: &Collection, documents: Vec<Document>) -> u64 {
    let written = docs.put(documents).unwrap();
    assert!(written.documents.iter().all(Result::is_ok), "{:?}", written.documents);
    settle(docs, written.seq);
    written.seq
}

fn settle(docs: &Collection, seq: u64) {
    assert!(
        docs.wait_indexed(seq, &Method::ALL, Duration::from_secs(60)),
        "not indexed in time: {:#?}",
        docs.status()
    );
}

/// The ids that one method finds, best first.
fn found(docs: &Collection, query: &str, methods: &[Method]) -> Vec<String> {
    let request = SearchRequest { methods: methods.to_vec(), ..SearchRequest::new(query) };
    let answer = docs.search(&request).unwrap();
    answer.hits.into_iter().map(|hit| hit.document.id).collect()
}
