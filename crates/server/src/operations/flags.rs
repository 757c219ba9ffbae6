//! The feature flags that the server declares.

use std::sync::Arc;

use mainstay_db::Method;
use mainstay_ops::audit::Audit;
use mainstay_ops::flags::{Definition, Definitions, Flags};
use mainstay_ops::store::{MemoryStore, StateStore};
use mainstay_ops::wall_clock::WallClock;

/// Names of flags that the server reads, beside one for each method.
pub(crate) mod names {
    /// Whether the refining model embeds queries.
    pub(crate) const REFINE: &str = "search.refine";
    /// Whether answers are kept and given in place of an error.
    pub(crate) const STALE_ANSWERS: &str = "search.stale-answers";
    /// Whether writes are taken.
    pub(crate) const WRITES: &str = "writes";
}

/// The flag that switches a method on and off.
pub(crate) fn method_flag(method: Method) -> &'static str {
    match method {
        Method::Bm25 => "method.bm25",
        Method::Tantivy => "method.tantivy",
        Method::Native => "method.native",
        Method::Semantic => "method.semantic",
    }
}

fn declared() -> Definitions {
    let mut flags = Definitions::new();
    let mut switch = |name: &str, about: &str| {
        flags.insert(name.to_string(), Definition::switch(about, true));
    };
    for method in Method::ALL {
        switch(method_flag(method), &format!("searches ask {method}"));
    }
    switch(names::REFINE, "the refining model embeds queries; off, the instant one does alone");
    switch(names::STALE_ANSWERS, "a kept answer stands in for an error");
    switch(names::WRITES, "documents can be stored; removals always can");
    flags
}

/// The flags with what was saved of them. What cannot be read is left where it is, and the declared
/// flags count: a search server must start all the same.
pub(super) fn open(store: Arc<dyn StateStore>, wall: WallClock, audit: Audit) -> Flags {
    Flags::open(declared(), store, wall.clone(), audit.clone()).unwrap_or_else(|error| {
        tracing::error!(%error, "saved flags cannot be read; the declared ones count, changes are not kept");
        Flags::open(declared(), Arc::new(MemoryStore::new()), wall, audit)
            .expect("the declared flags are valid, as a test checks")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mainstay_ops::flags::Subject;

    #[test]
    fn every_flag_that_is_read_is_declared_and_on() {
        let (wall, store) = (WallClock::system(), Arc::new(MemoryStore::new()));
        let flags = Flags::open(declared(), store, wall.clone(), Audit::new(wall, None)).unwrap();
        let read = Method::ALL.map(method_flag);
        let others = [names::REFINE, names::STALE_ANSWERS, names::WRITES];
        for name in read.into_iter().chain(others) {
            let found = flags.bool(name, false, &Subject::default());
            assert!(found.value && found.error.is_none(), "{name}: {found:?}");
        }
    }
}
