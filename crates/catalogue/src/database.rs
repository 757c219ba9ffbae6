//! [`Database`]: the same statements for SQLite and PostgreSQL.
//!
//! Statements use what both understand: numbered parameters, `ON CONFLICT`, `RETURNING`, texts, whole
//! numbers and bytes. The few words that differ stand in braces and are replaced. Several statements
//! given at once are one transaction.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Column, Connection, Executor, Postgres, Row as _, Sqlite, TypeInfo, ValueRef};

use crate::config::PoolConfig;
use crate::fault::Fault;
use crate::location::Location;
use crate::pool::{Measured, PoolFigures};

/// SQLite lets one write at a time; a few connections read beside it.
const SQLITE_CONNECTIONS: u32 = 4;
/// How long SQLite waits for another process's lock before it says so.
const SQLITE_BUSY: Duration = Duration::from_secs(1);
/// How long PostgreSQL works on one statement: longer than anybody waits for it here.
const STATEMENT_LIMITS: &str =
    "SET statement_timeout = '10s'; SET idle_in_transaction_session_timeout = '30s'";
/// What nodes that apply migrations at the same time wait for: `mainstay` in ASCII.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7881706567116513657)";

/// A value that goes in.
#[derive(Clone, Debug)]
pub(crate) enum Argument {
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        // PostgreSQL stores no NUL in a text.
        Argument::Text(text.replace('\0', "\u{fffd}"))
    }
}

impl From<u64> for Argument {
    fn from(number: u64) -> Self {
        Argument::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&[u8]> for Argument {
    fn from(bytes: &[u8]) -> Self {
        Argument::Bytes(bytes.to_vec())
    }
}

/// A statement with its values.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    sql: String,
    arguments: Vec<Argument>,
}

impl Statement {
    pub(crate) fn new(sql: &str) -> Self {
        Self { sql: sql.to_string(), arguments: Vec::new() }
    }

    pub(crate) fn bind(mut self, argument: impl Into<Argument>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// As it is asked: with a comment at its end, unless that is empty.
    fn asked(&self, comment: &str) -> Asked<'_> {
        let text = match comment {
            "" => Cow::Borrowed(self.sql.as_str()),
            comment => Cow::Owned(format!("{}{comment}", self.sql)),
        };
        Asked { text, arguments: &self.arguments, is_prepared: comment.is_empty() }
    }
}

/// A statement on its way.
struct Asked<'a> {
    text: Cow<'a, str>,
    arguments: &'a [Argument],
    /// Whether the connection keeps it for the next time. A comment is another one each time, and
    /// would drive out of its cache what is asked often.
    is_prepared: bool,
}

/// A value that comes out.
#[derive(Clone, Debug)]
enum Cell {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row, read from its first cell to its last.
#[derive(Debug)]
pub(crate) struct Row(std::vec::IntoIter<Cell>);

impl Row {
    fn next(&mut self, wanted: &str) -> Result<Cell, Fault> {
        self.0.next().ok_or_else(|| Fault::Row(format!("it ends where {wanted} is expected")))
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&mut self) -> Result<u64, Fault> {
        match self.next("a number")? {
            Cell::Int(number) => {
                u64::try_from(number).map_err(|_| Fault::Row(format!("{number} is negative")))
            }
            other => Err(Fault::Row(format!("{} stands where a number is expected", other.kind()))),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, Fault> {
        match self.next("a text")? {
            Cell::Text(text) => Ok(text),
            other => Err(Fault::Row(format!("{} stands where a text is expected", other.kind()))),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Fault> {
        match self.next("bytes")? {
            Cell::Bytes(bytes) => Ok(bytes),
            other => Err(Fault::Row(format!("{} stands where bytes are expected", other.kind()))),
        }
    }
}

impl Cell {
    fn kind(&self) -> &'static str {
        match self {
            Cell::Null => "nothing",
            Cell::Int(_) => "a number",
            Cell::Text(_) => "a text",
            Cell::Bytes(_) => "bytes",
        }
    }
}

/// Either database, behind its pool.
pub(crate) enum Database {
    Sqlite(Measured<Sqlite>),
    Postgres(Measured<Postgres>),
}

/// The same text for both drivers, whose types have no trait in common that would say all this.
macro_rules! backend {
    ($run:ident, $query:ident, $driver:ty, $row:ty, $decode:ident, $begin:literal, [$($number:literal),*], $bytes:literal) => {
        async fn $run(
            pool: &Measured<$driver>,
            statements: &[Statement],
            comment: &str,
        ) -> Result<Vec<Vec<Row>>, Fault> {
            let asked: Vec<Asked<'_>> = statements.iter().map(|it| it.asked(comment)).collect();
            let mut checkout = pool.checkout().await?;
            let result = async {
                let connection = checkout.connection()?;
                let mut results = Vec::with_capacity(asked.len());
                if let [alone] = &asked[..] {
                    let rows = $query(alone).fetch_all(&mut **connection).await?;
                    results.push(rows);
                } else {
                    let mut transaction = connection.begin_with($begin).await?;
                    for asked in &asked {
                        results.push($query(asked).fetch_all(&mut *transaction).await?);
                    }
                    transaction.commit().await?;
                }
                let decode = |rows: Vec<$row>| rows.iter().map($decode).collect();
                results.into_iter().map(decode).collect()
            }
            .await;
            checkout.finish(&result);
            result
        }

        fn $query<'a>(asked: &'a Asked<'_>) -> Query<'a, $driver, <$driver as sqlx::Database>::Arguments<'a>> {
            let mut query = sqlx::query::<$driver>(&asked.text).persistent(asked.is_prepared);
            for argument in asked.arguments {
                query = match argument {
                    Argument::Int(number) => query.bind(*number),
                    Argument::Text(text) => query.bind(text.as_str()),
                    Argument::Bytes(bytes) => query.bind(bytes.as_slice()),
                };
            }
            query
        }

        fn $decode(row: &$row) -> Result<Row, Fault> {
            let mut cells = Vec::with_capacity(row.columns().len());
            for column in row.columns() {
                let at = column.ordinal();
                let value = row.try_get_raw(at)?;
                let kind = value.type_info();
                let is_null = value.is_null();
                let cell = match kind.name() {
                    _ if is_null => Cell::Null,
                    $($number)|* => Cell::Int(row.try_get::<i64, _>(at)?),
                    "TEXT" | "VARCHAR" | "NAME" => Cell::Text(row.try_get(at)?),
                    $bytes => Cell::Bytes(row.try_get(at)?),
                    _ => Cell::Null,
                };
                cells.push(cell);
            }
            Ok(Row(cells.into_iter()))
        }
    };
}

backend!(
    run_sqlite,
    sqlite_query,
    Sqlite,
    SqliteRow,
    sqlite_row,
    "BEGIN IMMEDIATE",
    ["INTEGER"],
    "BLOB"
);
backend!(run_postgres, postgres_query, Postgres, PgRow, postgres_row, "BEGIN", ["INT8"], "BYTEA");

impl Database {
    /// Opens nothing yet. Needs a tokio runtime.
    pub(crate) fn new(location: &Location, config: &PoolConfig) -> Self {
        match location {
            Location::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .foreign_keys(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    // What is answered is on the disk.
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(SQLITE_BUSY);
                let pool = SqlitePoolOptions::new()
                    .max_connections(SQLITE_CONNECTIONS)
                    .acquire_timeout(config.acquire_timeout)
                    .idle_timeout(config.idle_timeout)
                    .max_lifetime(config.lifetime_max);
                Database::Sqlite(Measured::new(pool.connect_lazy_with(options)))
            }
            Location::Postgres(options) => {
                let options: PgConnectOptions = (**options).clone();
                let pool = PgPoolOptions::new()
                    .min_connections(config.connections_min)
                    .max_connections(config.connections_max)
                    .acquire_timeout(config.acquire_timeout)
                    .idle_timeout(config.idle_timeout)
                    .max_lifetime(config.lifetime_max)
                    .test_before_acquire(true)
                    .after_connect(|connection, _| {
                        Box::pin(async move {
                            connection.execute(STATEMENT_LIMITS).await?;
                            Ok(())
                        })
                    });
                Database::Postgres(Measured::new(pool.connect_lazy_with(options)))
            }
        }
    }

    /// Runs statements: one alone, several as one transaction. Answers the rows of each. PostgreSQL
    /// gets the comment at the end of each; SQLite is in this process and tells nobody.
    pub(crate) async fn run(
        &self,
        statements: &[Statement],
        comment: &str,
    ) -> Result<Vec<Vec<Row>>, Fault> {
        match self {
            Database::Sqlite(pool) => run_sqlite(pool, statements, "").await,
            Database::Postgres(pool) => run_postgres(pool, statements, comment).await,
        }
    }

    /// The statement in this database's words.
    pub(crate) fn spell(&self, statement: Statement) -> Statement {
        let words: [(&str, &str); 4] = match self {
            Database::Sqlite(_) => [
                ("{now}", "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"),
                ("{bytes}", "BLOB"),
                (
                    "{tables}",
                    "(SELECT name AS table_name FROM sqlite_master WHERE type = 'table') AS t",
                ),
                ("{lock}", "SELECT 1"),
            ],
            Database::Postgres(_) => [
                ("{now}", "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"),
                ("{bytes}", "BYTEA"),
                (
                    "{tables}",
                    "(SELECT table_name FROM information_schema.tables \
                      WHERE table_schema = current_schema()) AS t",
                ),
                ("{lock}", MIGRATION_LOCK),
            ],
        };
        let sql = words.iter().fold(statement.sql, |sql, (word, here)| sql.replace(word, here));
        Statement { sql, ..statement }
    }

    pub(crate) fn figures(&self) -> PoolFigures {
        match self {
            Database::Sqlite(pool) => pool.figures(),
            Database::Postgres(pool) => pool.figures(),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Database::Sqlite(pool) => pool.close().await,
            Database::Postgres(pool) => pool.close().await,
        }
    }
}
