//! The tables, as migrations: numbered, never changed once released, only added to.
//!
//! Times are milliseconds since 1970 by the database's clock, because nodes' clocks differ. Columns
//! are never null: zero and the empty text say "none".

/// One step from a version of the tables to the next.
pub(crate) struct Migration {
    /// The version that it leads to.
    pub(crate) version: u64,
    /// What it is about.
    pub(crate) name: &'static str,
    /// Its statements, made in one transaction.
    pub(crate) statements: &'static [&'static str],
}

/// The version of the tables that this release works with.
pub const SCHEMA_VERSION: u64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Every migration, in order.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "nodes, collections, state, leases, audit",
    statements: &[
        "CREATE TABLE mainstay_nodes (
            id TEXT PRIMARY KEY,
            address TEXT NOT NULL,
            version TEXT NOT NULL,
            state TEXT NOT NULL,
            started_ms BIGINT NOT NULL,
            heartbeat_ms BIGINT NOT NULL
        )",
        "CREATE TABLE mainstay_collections (
            node TEXT NOT NULL REFERENCES mainstay_nodes (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            model TEXT NOT NULL,
            settings TEXT NOT NULL,
            created_ms BIGINT NOT NULL,
            documents BIGINT NOT NULL,
            reported_ms BIGINT NOT NULL,
            PRIMARY KEY (node, name)
        )",
        "CREATE TABLE mainstay_state (
            name TEXT PRIMARY KEY,
            version BIGINT NOT NULL,
            bytes {bytes} NOT NULL,
            changed_ms BIGINT NOT NULL,
            changed_by TEXT NOT NULL
        )",
        "CREATE TABLE mainstay_leases (
            name TEXT PRIMARY KEY,
            holder TEXT NOT NULL,
            fencing BIGINT NOT NULL,
            expires_ms BIGINT NOT NULL
        )",
        "CREATE TABLE mainstay_audit (
            node TEXT NOT NULL,
            started_ms BIGINT NOT NULL,
            number BIGINT NOT NULL,
            kept_ms BIGINT NOT NULL,
            event TEXT NOT NULL,
            PRIMARY KEY (node, started_ms, number)
        )",
        "CREATE INDEX mainstay_audit_kept ON mainstay_audit (kept_ms)",
    ],
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_by_one() {
        let versions: Vec<u64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=MIGRATIONS.len() as u64).collect::<Vec<_>>());
        assert_eq!(SCHEMA_VERSION, MIGRATIONS.len() as u64);
    }
}
