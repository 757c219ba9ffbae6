//! Versions of the tables.

use mainstay_catalogue::{CatalogueError, Location, SCHEMA_VERSION};
use mainstay_testkit::postgres::Postgres;

use crate::Place;

/// A database that a later release has changed is refused, and both versions are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_database_is_refused_with_both_versions() {
    let server = Postgres::shared();
    let place = Place::at(&server.database());
    place.open().prepare().await.unwrap();
    let name = place.location.to_string().rsplit('/').next().unwrap().to_string();
    server.sql(&name, "INSERT INTO mainstay_migrations VALUES (99, 'from the future', 'x', 0)");
    let refused = place.open().ping().await.unwrap_err();
    let newer =
        matches!(refused, CatalogueError::Newer { found: 99, supported: SCHEMA_VERSION, .. });
    assert!(newer && refused.is_lasting(), "{refused}");
    assert!(refused.to_string().contains("99"), "{refused}");
    assert!(!refused.to_string().contains(mainstay_testkit::postgres::PASSWORD), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_altered_is_refused() {
    let server = Postgres::shared();
    let place = Place::at(&server.database());
    place.open().prepare().await.unwrap();
    let name = place.location.to_string().rsplit('/').next().unwrap().to_string();
    server.sql(&name, "UPDATE mainstay_migrations SET checksum = 'other' WHERE version = 1");
    let refused = place.open().ping().await.unwrap_err();
    assert!(matches!(refused, CatalogueError::Altered { version: 1, .. }), "{refused}");
}

/// A crash in the middle leaves a migration done or not begun: a table of one that is in the way makes
/// it fail as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_is_applied_whole_or_not_at_all() {
    let server = Postgres::shared();
    let place = Place::at(&server.database());
    let name = place.location.to_string().rsplit('/').next().unwrap().to_string();
    server.sql(&name, "CREATE TABLE mainstay_audit (in_the_way TEXT)");
    let refused = place.open().prepare().await.unwrap_err().to_string();
    assert!(refused.contains("mainstay_audit"), "{refused}");
    // Fails if the tables made before the obstacle had stayed.
    server.sql(&name, "CREATE TABLE mainstay_nodes (x TEXT); DROP TABLE mainstay_nodes");
    server.sql(&name, "DROP TABLE mainstay_audit");
    place.open().prepare().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_a_file_outlives_the_process() {
    let place = Place::sqlite();
    let first = place.open();
    first.save_state("keys", 0, b"kept", "n1").await.unwrap();
    first.close().await;
    let second = place.open();
    assert_eq!(second.load_state("keys").await.unwrap().unwrap().bytes, b"kept");
    assert!(matches!(place.location, Location::Sqlite(_)));
}
