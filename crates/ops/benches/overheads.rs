//! What the operations floor costs a request: `cargo bench -p mainstay-ops`.

use mainstay_ops::health::{
    Check, ComponentKind, Gate, GateConfig, HealthRegistry, Observation, ServiceInfo,
};
use mainstay_ops::wall_clock::WallClock;
use mainstay_resilience::Clock;
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    health()
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
