//! What the operations floor costs a request: `cargo bench -p mainstay-ops`.

use mainstay_ops::admission::{Admission, AdmissionConfig, Class, Group, RateRule};
use mainstay_ops::audit::Audit;
use mainstay_ops::flags::{Flags, Subject, parse};
use mainstay_ops::handles::{HandleClass, HandleConfig, HandlePool};
use mainstay_ops::health::{
    Check, ComponentKind, Gate, GateConfig, HealthRegistry, Observation, ServiceInfo,
};
use mainstay_ops::incidents::Incidents;
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_ops::levels::{Levels, LevelsConfig};
use mainstay_ops::memory::{MemoryConfig, MemoryGuard};
use mainstay_ops::slo::{Slo, SloConfig, Source};
use mainstay_ops::store::{MemoryStore, StateStore};
use mainstay_ops::wall_clock::WallClock;
use mainstay_resilience::{Clock, Priority};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    flags()?;
    admission()?;
    objectives()?;
    health()
}

fn store() -> Arc<dyn StateStore> {
    Arc::new(MemoryStore::new())
}

fn audit() -> Audit {
    Audit::new(WallClock::system(), None)
}

fn flags() -> Result<(), Box<dyn Error>> {
    let rest = r#""variants":{"on":true,"off":false},"default":"on","off":"off""#;
    let declared = format!(
        r#"{{"plain":{{{rest}}},"few":{{"variants":{{"few":10}},"default":"few","off":"few"}},
        "split":{{{rest},"rules":[{{"percent":30,"variant":"off"}}]}},
        "named":{{{rest},"rules":[{{"when":{{"user":["ann","bob"]}},"variant":"off"}}]}},
        "needs":{{{rest},"requires":[{{"flag":"plain","variant":"on"}}]}},
        "timed":{{{rest},"from":"2020-01-01T00:00:00Z"}}}}"#
    );
    let flags = Flags::open(parse(&declared)?, store(), WallClock::system(), audit())?;
    let user = Subject::user("user-12345");
    for name in ["plain", "split", "named", "needs", "timed", "missing"] {
        measure(&format!("flag, bool, {name}"), 1_000_000, || {
            black_box(flags.bool(black_box(name), false, black_box(&user)));
        });
    }
    measure("flag, int", 1_000_000, || {
        black_box(flags.int(black_box("few"), 0, black_box(&user)));
    });
    Ok(())
}

/// Pauses between two arrivals: some 200 ns, and the same for every rule.
const PAUSES: u32 = 8;

fn admission() -> Result<(), Box<dyn Error>> {
    let (clock, wall) = (Clock::system(), WallClock::system());
    let files = KernelFiles::default();
    let guard = MemoryGuard::new(MemoryConfig::default(), files, clock.clone(), None)?;
    measure("memory guard, one tick", 1_000, || {
        black_box(guard.tick());
    });
    let budget = guard.budget();
    measure("memory, reserve and release", 1_000_000, || {
        drop(black_box(budget.try_reserve(black_box(64 << 10), Priority::Critical)));
    });
    let pool = HandlePool::new(&HandleConfig::default())?;
    measure("file handle, acquire and release", 1_000_000, || {
        drop(black_box(pool.try_acquire(HandleClass::Files)));
    });
    for rule in ["none", "token_bucket", "leaky_bucket", "fixed_window", "sliding_window"] {
        let text = format!("search = 10000000/s {rule}");
        let rules = if rule == "none" { Vec::new() } else { RateRule::parse_list(&text)? };
        for (whose, per_key) in [("all callers", false), ("a key", true)] {
            let mut config = AdmissionConfig::default();
            *(if per_key { &mut config.key_rates } else { &mut config.rates }) = rules.clone();
            let admission = Admission::new(&config, clock.clone())?;
            measure(&format!("admission, arrive, rate of {whose}: {rule}"), 300_000, || {
                let ticket = admission.arrive(Class::Interactive, Group::Search, black_box("key"));
                drop(black_box(ticket));
                // No faster than the highest rate that there is: a refusal costs something else.
                (0..PAUSES).for_each(|_| std::hint::spin_loop());
            });
        }
    }
    let levels = Levels::open(LevelsConfig::default(), clock, wall, audit(), store())?;
    measure("level, standing", 1_000_000, || {
        black_box(levels.standing());
    });
    Ok(())
}

fn objectives() -> Result<(), Box<dyn Error>> {
    let (clock, wall) = (Clock::system(), WallClock::system());
    let incidents = Incidents::open(store())?;
    let slo = Slo::open(SloConfig::default(), clock, wall, store(), incidents)?;
    measure("objectives, one request (3 objectives)", 1_000_000, || {
        slo.request(Source::Searches, black_box(false), black_box(Duration::from_millis(5)));
    });
    measure("objectives, one tick (3 objectives of 30 days)", 500, || slo.tick());
    Ok(())
}

/// Prints the best of seven rounds: the machine's other work only ever adds.
fn measure(what: &str, calls: u32, mut call: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..7 {
        let began = Instant::now();
        for _ in 0..calls {
            call();
        }
        best = best.min(began.elapsed().as_secs_f64() / f64::from(calls));
    }
    println!("{what:<60} {:>12.1} ns", best * 1e9);
}

fn health() -> Result<(), Box<dyn Error>> {
    let gate = Gate::new(GateConfig::default(), &[])?;
    let info = ServiceInfo::default();
    let registry = HealthRegistry::new(Clock::system(), WallClock::system(), gate, info);
    for n in 0..12 {
        let name = format!("part-{n}");
        registry.register(Check::new(name, ComponentKind::Component, Observation::healthy))?;
    }
    let hang = || loop {
        std::thread::park();
    };
    registry.register(Check::new("hung", ComponentKind::Datastore, hang))?;
    registry.tick();
    measure("health report, 13 checks, one hung", 2_000, || {
        black_box(registry.report());
    });
    Ok(())
}
