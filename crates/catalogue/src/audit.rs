//! [`AuditRow`]: who changed what, of all nodes in one place.

use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::database::{Row, Statement};
use crate::error::CatalogueError;
use crate::fault::Fault;

/// Events shown at once.
const SHOWN_MAX: u64 = 1_000;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    /// The node on which it happened.
    pub node: String,
    /// When that node's process began, in milliseconds since 1970: a node that lost its data
    /// directory counts from 1 again.
    pub started_unix_ms: u64,
    /// Rising on each node.
    pub number: u64,
    /// When the catalogue got it, in milliseconds since 1970.
    pub kept_unix_ms: u64,
    /// The event as JSON.
    pub event: String,
}

fn row(row: &mut Row) -> Result<AuditRow, Fault> {
    Ok(AuditRow {
        node: row.text()?,
        started_unix_ms: row.number()?,
        number: row.number()?,
        kept_unix_ms: row.number()?,
        event: row.text()?,
    })
}

impl Catalogue {
    /// Keeps events of one run of a node: number and JSON. One that is there already stays as it is.
    ///
    /// # Errors
    /// The database cannot be asked; none of them is kept then.
    pub async fn keep_audit(
        &self,
        node: &str,
        started_unix_ms: u64,
        events: &[(u64, String)],
    ) -> Result<(), CatalogueError> {
        let sql = "INSERT INTO mainstay_audit (node, started_ms, number, kept_ms, event)
            VALUES ($1, $2, $3, {now}, $4) ON CONFLICT (node, started_ms, number) DO NOTHING";
        let statements = events.iter().map(|(number, event)| {
            Statement::new(sql).bind(node).bind(started_unix_ms).bind(*number).bind(event.as_str())
        });
        self.change("audit.keep", statements.collect()).await
    }

    /// The newest events, at most 1000.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn recent_audit(&self, count: u64) -> Result<Vec<AuditRow>, CatalogueError> {
        let sql = "SELECT node, started_ms, number, kept_ms, event FROM mainstay_audit
            ORDER BY kept_ms DESC, started_ms DESC, number DESC LIMIT $1";
        let statement = Statement::new(sql).bind(count.min(SHOWN_MAX));
        let rows = self.ask("audit.recent", statement).await?;
        self.read_all("audit.recent", rows, row)
    }

    /// Forgets events that are older than `age_ms`; answers how many.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn forget_audit(&self, age_ms: u64) -> Result<u64, CatalogueError> {
        let sql = "DELETE FROM mainstay_audit WHERE kept_ms < {now} - $1 RETURNING number";
        let rows = self.ask("audit.forget", Statement::new(sql).bind(age_ms)).await?;
        Ok(rows.len() as u64)
    }
}
