//! Applies migrations: each in one transaction together with the note that it was applied, so that a
//! crash leaves it done or not begun; nodes that start at the same time wait for each other.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::catalogue::Catalogue;
use crate::database::Statement;
use crate::error::CatalogueError;
use crate::schema::{MIGRATIONS, Migration, SCHEMA_VERSION};

const OPERATION: &str = "migrate";

/// SHA-256 of the statements as they stand in this program.
pub(crate) fn checksum(migration: &Migration) -> String {
    let mut digest = Sha256::new();
    for statement in migration.statements {
        digest.update(statement.as_bytes());
        digest.update([0]);
    }
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Catalogue {
    /// Brings the tables to this release's version.
    pub(crate) async fn migrate(&self) -> Result<(), CatalogueError> {
        let table = "SELECT COUNT(*) FROM {tables} WHERE table_name = 'mainstay_migrations'";
        let rows = self.run(OPERATION, vec![Statement::new(table)]).await?;
        if self.first_number(OPERATION, rows)? == 0 {
            let create = "CREATE TABLE IF NOT EXISTS mainstay_migrations (
                version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,
                applied_ms BIGINT NOT NULL)";
            let statements = vec![Statement::new("{lock}"), Statement::new(create)];
            self.run(OPERATION, statements).await?;
        }
        for migration in MIGRATIONS {
            if self.is_applied(migration).await? {
                continue;
            }
            let applied = self.apply(migration).await;
            // Another node may have been quicker: then its note is there, and ours was refused.
            if applied.is_err() && !self.is_applied(migration).await? {
                return applied;
            }
            tracing::info!(version = migration.version, "catalogue migrated: {}", migration.name);
        }
        Ok(())
    }

    /// Whether it was applied; fails when what was applied is not what this release knows.
    async fn is_applied(&self, migration: &Migration) -> Result<bool, CatalogueError> {
        let sql = "SELECT version, checksum FROM mainstay_migrations ORDER BY version";
        let rows = self.run(OPERATION, vec![Statement::new(sql)]).await?;
        let mut applied = Vec::new();
        for mut row in rows.into_iter().flatten() {
            let read = row.number().and_then(|version| Ok((version, row.text()?)));
            applied.push(read.map_err(|fault| self.unreadable(OPERATION, &fault))?);
        }
        let location = || self.location().to_string();
        if let Some((found, _)) = applied.last().filter(|(found, _)| *found > SCHEMA_VERSION) {
            let (found, supported) = (*found, SCHEMA_VERSION);
            return Err(CatalogueError::Newer { location: location(), found, supported });
        }
        let Some((version, there)) = applied.iter().find(|(it, _)| *it == migration.version) else {
            return Ok(false);
        };
        if *there != checksum(migration) {
            return Err(CatalogueError::Altered { location: location(), version: *version });
        }
        Ok(true)
    }

    async fn apply(&self, migration: &Migration) -> Result<(), CatalogueError> {
        let note = "INSERT INTO mainstay_migrations (version, name, checksum, applied_ms)
                    VALUES ($1, $2, $3, {now})";
        let note = Statement::new(note)
            .bind(migration.version)
            .bind(migration.name)
            .bind(checksum(migration).as_str());
        let mut statements = vec![Statement::new("{lock}"), note];
        statements.extend(migration.statements.iter().map(|sql| Statement::new(sql)));
        self.run(OPERATION, statements).await.map(|_| ())
    }
}
