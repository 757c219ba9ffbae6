//! The active probe of a method: a tiny search by that method alone.
//!
//! It takes the way of every search (breaker, lane, fault point, figures) and bypasses what may keep
//! searches away from the method: the level of service, and remembered query vectors. It costs no
//! call to a remote provider of embeddings, which is a dependency with a probe of its own.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mainstay_search::method::Method;
use mainstay_search::request::Allowed;

use crate::collection::Collection;
use crate::engine::Engine;
use crate::error::DbError;
use crate::query::Asked;
use crate::question::Question;
use crate::search_request::{SearchRequest, Service};

/// Words of no one's documents in particular: what counts is that an answer comes.
const QUERY: &str = "mainstay probe";
/// What a user's search has when nobody says otherwise.
const TIMEOUT: Duration = crate::search_request::TIMEOUT_DEFAULT;

/// Says how each method of the collection is probed.
pub(crate) fn declare(collection: &Collection) {
    for method in Method::ALL {
        let engine = Arc::downgrade(&collection.inner);
        collection.dependency(method).probe_by(move || probe(&engine, method));
    }
}

fn probe(engine: &Weak<Engine>, method: Method) -> Result<(), String> {
    let engine = engine.upgrade().ok_or("the collection is closed")?;
    ask(&engine, method).map_err(|error| error.to_string())
}

fn ask(engine: &Arc<Engine>, method: Method) -> Result<(), DbError> {
    let request = SearchRequest {
        limit: 1,
        timeout: TIMEOUT,
        methods: vec![method],
        service: Service { refine: false, ..Service::default() },
        ..SearchRequest::new(QUERY)
    };
    let documents = engine.documents()?;
    let allowed = Allowed::new(documents.living().clone(), None);
    let methods = [method];
    let mut question = Question::new(&request, &methods, documents, allowed, Instant::now());
    question.from_cache = false;
    let question = Arc::new(question);
    let mut asked = Asked::start(engine, &question, &methods);
    asked.collect();
    asked.check(&request)
}
