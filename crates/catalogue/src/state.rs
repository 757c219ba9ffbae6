//! Small named pieces of state with a version, changed only by who has seen the newest.

use std::collections::BTreeMap;

use crate::catalogue::Catalogue;
use crate::database::{Row, Statement};
use crate::error::CatalogueError;
use crate::fault::Fault;

/// The longest piece: ten thousand API keys fill some megabytes.
pub const PIECE_BYTES_MAX: usize = 16 << 20;

/// A piece of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Rises by one with each change, from 1.
    pub version: u64,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Which node changed it last.
    pub changed_by: String,
    /// When, in milliseconds since 1970.
    pub changed_unix_ms: u64,
}

fn piece(row: &mut Row) -> Result<Piece, Fault> {
    Ok(Piece {
        version: row.number()?,
        bytes: row.bytes()?,
        changed_by: row.text()?,
        changed_unix_ms: row.number()?,
    })
}

impl Catalogue {
    /// A piece by name; nothing when there is none.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn load_state(&self, name: &str) -> Result<Option<Piece>, CatalogueError> {
        let sql =
            "SELECT version, bytes, changed_by, changed_ms FROM mainstay_state WHERE name = $1";
        let rows = self.ask("state.load", Statement::new(sql).bind(name)).await?;
        Ok(self.read_all("state.load", rows, piece)?.pop())
    }

    /// The version of every piece: what is asked often, because it is small.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn state_versions(&self) -> Result<BTreeMap<String, u64>, CatalogueError> {
        let sql = "SELECT name, version FROM mainstay_state";
        let rows = self.ask("state.versions", Statement::new(sql)).await?;
        let read = |row: &mut Row| Ok((row.text()?, row.number()?));
        Ok(self.read_all("state.versions", rows, read)?.into_iter().collect())
    }

    /// Replaces a piece that has the version `expected`, 0 for one that is not there yet. Answers its
    /// new version.
    ///
    /// # Errors
    /// Somebody else has changed it meanwhile, it is too long, or the database cannot be asked; then
    /// it may have been replaced nevertheless, and doing it again is harmless.
    pub async fn save_state(
        &self,
        name: &str,
        expected: u64,
        bytes: &[u8],
        node: &str,
    ) -> Result<u64, CatalogueError> {
        if bytes.len() > PIECE_BYTES_MAX {
            let (size, bound) = (bytes.len() as u64, PIECE_BYTES_MAX as u64);
            return Err(CatalogueError::TooLarge { what: format!("state {name}"), size, bound });
        }
        let statement = match expected {
            0 => Statement::new(
                "INSERT INTO mainstay_state (name, version, bytes, changed_ms, changed_by)
                 VALUES ($1, 1, $2, {now}, $3) ON CONFLICT (name) DO NOTHING RETURNING version",
            ),
            _ => Statement::new(
                "UPDATE mainstay_state
                 SET version = version + 1, bytes = $2, changed_ms = {now}, changed_by = $3
                 WHERE name = $1 AND version = $4 RETURNING version",
            ),
        };
        let statement = statement.bind(name).bind(bytes).bind(node);
        let statement = if expected == 0 { statement } else { statement.bind(expected) };
        let rows = self.ask("state.save", statement).await?;
        if let Some(version) = self.read_all("state.save", rows, Row::number)?.pop() {
            return Ok(version);
        }
        // An attempt whose answer was lost may have done it.
        let there = self.load_state(name).await?;
        match there {
            Some(piece)
                if piece.version == expected + 1
                    && piece.bytes == bytes
                    && piece.changed_by == node =>
            {
                Ok(piece.version)
            }
            other => {
                let (name, found) = (name.to_string(), other.map_or(0, |piece| piece.version));
                Err(CatalogueError::Conflict { name, expected, found })
            }
        }
    }
}
