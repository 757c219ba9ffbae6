//! V5: the database is told whose work it does.

use std::cell::Cell;
use std::time::{Duration, Instant};

use mainstay_resilience::set_header_source;
use mainstay_testkit::postgres::Postgres;

use crate::Place;

/// The headers of a request.
const REQUEST: [(&str, &str); 3] = [
    ("x-correlation-id", "abc-123"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "a='*/"),
];
/// The same as PostgreSQL must see it.
const COMMENT: &str = " /*correlation_id='abc-123',\
                       traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',\
                       tracestate='a%3D%27%2A%2F'*/";

thread_local! {
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

fn headers(visit: &mut dyn FnMut(&'static str, &str)) {
    if WITHIN.get() {
        REQUEST.into_iter().for_each(|(name, value)| visit(name, value));
    }
}

/// The line of PostgreSQL's log that ends like this, once it is there.
fn logged(server: &Postgres, end: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let log = server.log();
        if let Some(line) = log.lines().rev().find(|line| line.ends_with(end)) {
            return line.to_string();
        }
        assert!(Instant::now() < deadline, "no line ends with {end:?}:\n{log}");
        std::thread::yield_now();
    }
}

/// On one thread, which is the one that is within the request.
#[tokio::test]
async fn v5_what_postgresql_is_asked_within_a_request_names_it_and_is_not_kept_prepared() {
    set_header_source(headers);
    let server = Postgres::start();
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    server.sql(name, &format!("ALTER DATABASE {name} SET log_statement = 'all'"));
    let catalogue = Place::at(&url).open();
    let ping = "SELECT COUNT(*) FROM mainstay_nodes";
    catalogue.ping().await.unwrap();
    let without = logged(&server, ping);
    assert!(without.contains("execute sqlx_s_"), "it is kept prepared: {without}");
    WITHIN.set(true);
    catalogue.ping().await.unwrap();
    let within = logged(&server, &format!("{ping}{COMMENT}"));
    assert!(within.contains("execute <unnamed>"), "{within}");
    // So is each statement of a transaction, with its values.
    catalogue.report_collections("n1", &[]).await.unwrap();
    for sql in [
        "DELETE FROM mainstay_collections WHERE node = $1",
        "SELECT id FROM mainstay_nodes WHERE id = $1",
    ] {
        logged(&server, &format!("execute <unnamed>: {sql}{COMMENT}"));
    }
}
