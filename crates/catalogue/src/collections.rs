//! [`CollectionReport`]: what each node holds.

use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::database::{Row, Statement};
use crate::error::CatalogueError;
use crate::fault::Fault;

/// Collections in one report: as many as a data directory may hold, with room.
pub const COLLECTIONS_MAX: usize = 10_000;

/// What a node says of one of its collections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionReport {
    /// Its name.
    pub name: String,
    /// Its embedding model.
    pub model: String,
    /// Its settings, as JSON.
    pub settings: String,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Documents in it.
    pub documents: u64,
}

/// A collection as the catalogue knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CollectionRow {
    /// The node that holds it.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its embedding model.
    pub model: String,
    /// Its settings, as JSON.
    pub settings: String,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Documents in it when it was last reported.
    pub documents: u64,
    /// When that was, in milliseconds since 1970.
    pub reported_unix_ms: u64,
}

fn collection(row: &mut Row) -> Result<CollectionRow, Fault> {
    Ok(CollectionRow {
        node: row.text()?,
        name: row.text()?,
        model: row.text()?,
        settings: row.text()?,
        created_unix_ms: row.number()?,
        documents: row.number()?,
        reported_unix_ms: row.number()?,
    })
}

impl Catalogue {
    /// Replaces what is known of a node's collections. The node must have been reported.
    ///
    /// # Errors
    /// There are too many, or the database cannot be asked; what was known still is.
    pub async fn report_collections(
        &self,
        node: &str,
        collections: &[CollectionReport],
    ) -> Result<(), CatalogueError> {
        if collections.len() > COLLECTIONS_MAX {
            let (size, bound) = (collections.len() as u64, COLLECTIONS_MAX as u64);
            let what = format!("the list of collections of {node}");
            return Err(CatalogueError::TooLarge { what, size, bound });
        }
        let mut statements = vec![
            Statement::new("DELETE FROM mainstay_collections WHERE node = $1").bind(node),
            // One more than nothing, so that a report of no collections is a transaction as well.
            Statement::new("SELECT id FROM mainstay_nodes WHERE id = $1").bind(node),
        ];
        let sql = "INSERT INTO mainstay_collections
            (node, name, model, settings, created_ms, documents, reported_ms)
            VALUES ($1, $2, $3, $4, $5, $6, {now})";
        statements.extend(collections.iter().map(|collection| {
            Statement::new(sql)
                .bind(node)
                .bind(collection.name.as_str())
                .bind(collection.model.as_str())
                .bind(collection.settings.as_str())
                .bind(collection.created_unix_ms)
                .bind(collection.documents)
        }));
        self.change("collections.report", statements).await
    }

    /// Every collection of every node, by name and node.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn collections(&self) -> Result<Vec<CollectionRow>, CatalogueError> {
        let sql = "SELECT node, name, model, settings, created_ms, documents, reported_ms
            FROM mainstay_collections ORDER BY name, node";
        let rows = self.ask("collections.list", Statement::new(sql)).await?;
        self.read_all("collections.list", rows, collection)
    }
}
