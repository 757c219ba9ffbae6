//! O3: a hard maximum, shares of the classes, a clear error.

use mainstay_ops::handles::{HandleClass, HandleConfig, HandlePool, limits, raise_soft_limit};
use mainstay_ops::kernel_files::KernelFiles;
use proptest::prelude::*;

const FILES: HandleClass = HandleClass::Files;
const CONNECTIONS: HandleClass = HandleClass::Connections;

fn pool(soft: u64) -> HandlePool {
    HandlePool::with_limit(&HandleConfig::default(), Some(soft)).unwrap()
}

// O3
#[test]
fn the_maximum_is_hard_and_the_error_has_the_figures() {
    // 164 less 64 in reserve: 100, of which 25 are kept for the other class.
    let pool = pool(164);
    let held: Vec<_> = (0..75).map(|_| pool.try_acquire(CONNECTIONS).unwrap()).collect();
    let refused = pool.try_acquire(CONNECTIONS).unwrap_err();
    assert_eq!((refused.in_use, refused.max, refused.wanted), (75, 75, 1));
    assert!(refused.to_string().starts_with("75 of 75 file handles for connections are in use"));
    let files: Vec<_> = (0..25).map(|_| pool.try_acquire(FILES).unwrap()).collect();
    assert!(pool.try_acquire(FILES).is_err());
    drop(held);
    assert!(pool.try_acquire_many(FILES, 50).is_ok());
    assert!(pool.try_acquire_many(FILES, 51).is_err());
    let report = pool.report(&KernelFiles::default());
    assert_eq!((report.max, report.files, report.connections, report.refused), (100, 25, 0, 3));
    assert!(report.open.unwrap() > 2);
    drop(files);
    assert_eq!(pool.in_use(FILES), 0);
}

// O3
#[test]
fn a_limit_that_leaves_too_little_is_refused_with_what_to_do() {
    let config = HandleConfig::default();
    let refused = HandlePool::with_limit(&config, Some(70)).unwrap_err().to_string();
    assert!(refused.starts_with("handles.max: 6 is not allowed, use 16 to 6"), "{refused}");
    assert!(refused.contains("ulimit -n"), "{refused}");
    let greedy = HandleConfig { files_percent: 60, connections_percent: 60, ..config.clone() };
    assert!(HandlePool::with_limit(&greedy, None).unwrap_err().to_string().contains("120"));
    let above = HandleConfig { max: 2_000, ..config.clone() };
    assert!(HandlePool::with_limit(&above, Some(1_024)).is_err());
    let outside = HandleConfig { dependencies: 944, ..config.clone() };
    let pool = HandlePool::with_limit(&outside, Some(1_024)).unwrap();
    assert_eq!(pool.report(&KernelFiles::default()).max, 16);
    let outside = HandleConfig { dependencies: 945, ..config.clone() };
    let refused = HandlePool::with_limit(&outside, Some(1_024)).unwrap_err().to_string();
    assert!(refused.contains("945 for connections to dependencies"), "{refused}");
    for max in [1, 15] {
        assert!(HandleConfig { max, ..config.clone() }.validate().is_err());
    }
}

// O3
#[test]
fn the_soft_limit_can_be_raised_to_the_hard_one() {
    let raised = raise_soft_limit();
    assert_eq!(raised.soft, raised.hard);
    assert_eq!(limits(), raised);
    assert!(HandlePool::new(&HandleConfig::default()).is_ok());
}

// O3
#[test]
fn threads_never_hold_more_than_the_maximum_together() {
    let pool = pool(96);
    std::thread::scope(|scope| {
        for class in [FILES, CONNECTIONS, FILES, CONNECTIONS] {
            let pool = pool.clone();
            scope.spawn(move || {
                for count in 0..5_000u32 {
                    let held = pool.try_acquire_many(class, count % 7 + 1);
                    assert!(pool.in_use(FILES) + pool.in_use(CONNECTIONS) <= 32 + 24);
                    drop(held);
                }
            });
        }
    });
    assert_eq!((pool.in_use(FILES), pool.in_use(CONNECTIONS)), (0, 0));
}

proptest! {
    // O3
    #[test]
    fn each_class_always_gets_its_own_share(taken in prop::collection::vec((any::<bool>(), 1..9u32), 0..80)) {
        let pool = pool(264);
        let mut held = Vec::new();
        for (files, count) in taken {
            let class = if files { FILES } else { CONNECTIONS };
            held.extend(pool.try_acquire_many(class, count));
            prop_assert!(pool.in_use(FILES) + pool.in_use(CONNECTIONS) <= 200);
            for class in HandleClass::ALL {
                let missing = 50u64.saturating_sub(pool.in_use(class));
                prop_assert!(pool.try_acquire_many(class, missing as u32).is_ok());
            }
        }
    }
}
