//! [`Lease`]: the right to do what only one node may do at a time.
//!
//! A lease ends by the database's clock. Who holds one may be paused beyond its end without noticing,
//! so what it does carries the fencing token, and who is asked refuses a token below the highest it
//! has seen (Kleppmann, "How to do distributed locking"). Tokens of one name only rise: a lease that
//! is given back keeps its row.

use crate::catalogue::Catalogue;
use crate::database::{Row, Statement};
use crate::error::CatalogueError;

/// A lease that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Who has it.
    pub holder: String,
    /// Rises with each grant of this name.
    pub fencing: u64,
    /// When it ends unless it is renewed, in milliseconds since 1970 by the database's clock.
    pub expires_unix_ms: u64,
}

impl Catalogue {
    /// Takes a lease that nobody else has; nothing while somebody has it. Taking it again gives a
    /// higher token.
    ///
    /// # Errors
    /// The database cannot be asked; then it may have been granted nevertheless.
    pub async fn acquire_lease(
        &self,
        name: &str,
        holder: &str,
        lasting_ms: u64,
    ) -> Result<Option<Lease>, CatalogueError> {
        let sql = "INSERT INTO mainstay_leases (name, holder, fencing, expires_ms)
            VALUES ($1, $2, 1, {now} + $3)
            ON CONFLICT (name) DO UPDATE SET holder = excluded.holder,
                fencing = mainstay_leases.fencing + 1, expires_ms = excluded.expires_ms
            WHERE mainstay_leases.expires_ms <= {now} OR mainstay_leases.holder = excluded.holder
            RETURNING fencing, expires_ms";
        let statement = Statement::new(sql).bind(name).bind(holder).bind(lasting_ms);
        let rows = self.ask("leases.acquire", statement).await?;
        let read = |row: &mut Row| {
            Ok(Lease {
                name: name.to_string(),
                holder: holder.to_string(),
                fencing: row.number()?,
                expires_unix_ms: row.number()?,
            })
        };
        Ok(self.read_all("leases.acquire", rows, read)?.pop())
    }

    /// Extends a lease that has not ended; answers whether it is still held.
    ///
    /// # Errors
    /// The database cannot be asked; who cannot renew must act as if the lease had ended when it said.
    pub async fn renew_lease(
        &self,
        lease: &mut Lease,
        lasting_ms: u64,
    ) -> Result<bool, CatalogueError> {
        let sql = "UPDATE mainstay_leases SET expires_ms = {now} + $4
            WHERE name = $1 AND holder = $2 AND fencing = $3 AND expires_ms > {now}
            RETURNING expires_ms";
        let statement = Statement::new(sql)
            .bind(lease.name.as_str())
            .bind(lease.holder.as_str())
            .bind(lease.fencing)
            .bind(lasting_ms);
        let rows = self.ask("leases.renew", statement).await?;
        let renewed = self.read_all("leases.renew", rows, Row::number)?.pop();
        lease.expires_unix_ms = renewed.unwrap_or(lease.expires_unix_ms);
        Ok(renewed.is_some())
    }

    /// Gives a lease back before its end. Doing it twice, or after its end, changes nothing.
    ///
    /// # Errors
    /// The database cannot be asked; then the lease ends by itself.
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), CatalogueError> {
        let sql = "UPDATE mainstay_leases SET expires_ms = 0
            WHERE name = $1 AND holder = $2 AND fencing = $3";
        let statement = Statement::new(sql)
            .bind(lease.name.as_str())
            .bind(lease.holder.as_str())
            .bind(lease.fencing);
        self.ask("leases.release", statement).await.map(|_| ())
    }
}
