//! [`Node`]: who is there.

use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::database::{Row, Statement};
use crate::error::CatalogueError;
use crate::fault::Fault;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its id, which stays the same over restarts.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Its release.
    pub version: String,
    /// Its level of service.
    pub state: String,
    /// When it started, in milliseconds since 1970 by its own clock.
    pub started_unix_ms: u64,
}

/// A node as the catalogue knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Its release.
    pub version: String,
    /// Its level of service.
    pub state: String,
    /// When it started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long ago it was last heard of, in milliseconds by the database's clock.
    pub heard_ms_ago: u64,
}

fn node(row: &mut Row) -> Result<Node, Fault> {
    Ok(Node {
        id: row.text()?,
        address: row.text()?,
        version: row.text()?,
        state: row.text()?,
        started_unix_ms: row.number()?,
        heard_ms_ago: row.number()?,
    })
}

impl Catalogue {
    /// Says that a node is there.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn report_node(&self, report: &NodeReport) -> Result<(), CatalogueError> {
        let sql =
            "INSERT INTO mainstay_nodes (id, address, version, state, started_ms, heartbeat_ms)
            VALUES ($1, $2, $3, $4, $5, {now})
            ON CONFLICT (id) DO UPDATE SET address = excluded.address, version = excluded.version,
                state = excluded.state, started_ms = excluded.started_ms,
                heartbeat_ms = excluded.heartbeat_ms";
        let statement = Statement::new(sql)
            .bind(report.id.as_str())
            .bind(report.address.as_str())
            .bind(report.version.as_str())
            .bind(report.state.as_str())
            .bind(report.started_unix_ms);
        self.ask("nodes.report", statement).await.map(|_| ())
    }

    /// Every node, by id.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn nodes(&self) -> Result<Vec<Node>, CatalogueError> {
        let sql = "SELECT id, address, version, state, started_ms,
                CASE WHEN heartbeat_ms > {now} THEN 0 ELSE {now} - heartbeat_ms END
            FROM mainstay_nodes ORDER BY id";
        let rows = self.ask("nodes.list", Statement::new(sql)).await?;
        self.read_all("nodes.list", rows, node)
    }

    /// Forgets nodes that were not heard of for `silent_ms`, with what they had reported. Answers
    /// their ids.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn forget_nodes(&self, silent_ms: u64) -> Result<Vec<String>, CatalogueError> {
        let sql = "DELETE FROM mainstay_nodes WHERE heartbeat_ms < {now} - $1 RETURNING id";
        let rows = self.ask("nodes.forget", Statement::new(sql).bind(silent_ms)).await?;
        self.read_all("nodes.forget", rows, Row::text)
    }
}
