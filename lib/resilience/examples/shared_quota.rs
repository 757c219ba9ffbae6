//! One quota that two instances share by leases: no call asks the store, and together they keep what it
//! grants. Run with `cargo run -p mainstay-resilience --example shared_quota --features testing`.

use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    Algorithm, ErrorKind, Lease, LeasedLimiter, QuotaSource, RateConfig, Sleeper, WithoutSource,
};
use std::error::Error;
use std::io::{Write, stdout};
use std::sync::Mutex;
use std::time::Duration;

/// A store with what is left of the quota; `None` while it is away. In production a script in Redis.
struct Store(Mutex<Option<u32>>);

impl QuotaSource for Store {
    type Error = ErrorKind;

    async fn lease(&self, _key: &str, want: u32) -> Result<Lease, ErrorKind> {
        let mut left = self.0.lock().map_err(|_| ErrorKind::Unknown)?;
        let left = left.as_mut().ok_or(ErrorKind::Connection)?;
        let granted = want.min(*left);
        *left -= granted;
        Ok(Lease { granted, valid_for: Duration::from_secs(10) })
    }
}

pub(crate) fn demonstrate(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let time = VirtualTime::new();
    let alone = WithoutSource::LimitLocally(RateConfig::per_second(Algorithm::TokenBucket, 2));
    let instance = || LeasedLimiter::new("searches", 40, alone, time.clock());
    let (first, second) = (instance()?, instance()?);
    let store = Store(Mutex::new(Some(100)));
    let spent = |instance: &LeasedLimiter, calls: u32| {
        (0..calls).filter(|_| instance.try_acquire(1).is_ok()).count()
    };
    let refill = |instance: &LeasedLimiter| time.block_on(instance.refill(&store));
    writeln!(out, "a quota of 100, leased 40 at a time:")?;
    let mut all = 0;
    for round in 1..=3 {
        refill(&first)?;
        refill(&second)?;
        let (one, two) = (spent(&first, 40), spent(&second, 40));
        all += one + two;
        writeln!(out, "  round {round}: {one} and {two}, {all} in all")?;
    }
    // The store is away: once its lease has expired, each instance limits by itself.
    *store.0.lock().map_err(|_| "poisoned")? = None;
    time.block_on(time.sleeper().sleep(Duration::from_secs(11)));
    let refused = refill(&first);
    writeln!(out, "without the store ({refused:?}): {} of 40 pass", spent(&first, 40))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    demonstrate(&mut stdout())
}
