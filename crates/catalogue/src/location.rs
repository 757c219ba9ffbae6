//! [`Location`]: where the catalogue is. It is shown without its password, whoever shows it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// Where the catalogue is.
#[derive(Clone)]
pub enum Location {
    /// A file of SQLite, created when it is missing.
    Sqlite(PathBuf),
    /// A database of PostgreSQL.
    Postgres(Box<PgConnectOptions>),
}

/// What is wrong with an address. It never holds the address: that may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationError(String);

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the catalogue's address {}; write postgres://USER@HOST:PORT/DATABASE, with the password \
             in PGPASSWORD or in a password file",
            self.0
        )
    }
}

impl std::error::Error for LocationError {}

impl Location {
    /// The file of a data directory that has its own catalogue.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Location::Sqlite(folder.join("catalogue.sqlite"))
    }

    /// `sqlite` or `postgres`.
    #[must_use]
    pub const fn backend(&self) -> &'static str {
        match self {
            Location::Sqlite(_) => "sqlite",
            Location::Postgres(_) => "postgres",
        }
    }

    /// Whether other nodes can reach it.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Location::Postgres(_))
    }
}

impl FromStr for Location {
    type Err = LocationError;

    /// Reads the address of a PostgreSQL database. What it leaves out comes from the variables that
    /// every client of PostgreSQL reads, such as `PGPASSWORD`, `PGPASSFILE` and `PGSSLMODE`.
    fn from_str(text: &str) -> Result<Self, LocationError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(LocationError("does not begin with postgres://".to_string()));
        }
        // The parser's own error may repeat parts of the address.
        let options = text
            .parse::<PgConnectOptions>()
            .map_err(|_| LocationError("cannot be understood".to_string()))?;
        Ok(Location::Postgres(Box::new(options.application_name("mainstay"))))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Sqlite(path) => write!(f, "{}", path.display()),
            Location::Postgres(options) => {
                let (user, database) = (options.get_username(), options.get_database());
                let database = database.unwrap_or(user);
                match options.get_socket() {
                    Some(socket) => {
                        write!(f, "postgres://{user}@/{database} at {}", socket.display())
                    }
                    None => write!(
                        f,
                        "postgres://{user}@{}:{}/{database}",
                        options.get_host(),
                        options.get_port()
                    ),
                }
            }
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// C5: no secret in a message.
    #[test]
    fn c5_an_address_is_shown_without_its_password() {
        let location: Location = "postgres://ada:hunter2@db.example:6432/search".parse().unwrap();
        for shown in [format!("{location}"), format!("{location:?}")] {
            assert!(shown.contains("ada@db.example:6432/search"), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for wrong in ["postgres://ada:hunter2@db:port/x", "mysql://ada:hunter2@db/x", "hunter2"] {
            let shown = wrong.parse::<Location>().unwrap_err().to_string();
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
