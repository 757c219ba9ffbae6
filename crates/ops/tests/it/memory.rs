//! O2: limits of every kind, steps with hysteresis, shrinking, purging, reservations.

use mainstay_ops::kernel_files::KernelFiles;
use mainstay_ops::memory::{
    Allocator, AllocatorStats, LimitSource, MemoryConfig, MemoryGuard, Shrinker, Step, read,
};
use mainstay_resilience::{ManualClock, Priority};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A machine made of files: 8 GiB, a process of 100 MiB, no control group.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Machine(TempDir::new().unwrap());
        machine.meminfo(8192, 6144).process(100).write("proc/self/cgroup", "0::/\n");
        machine
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn meminfo(&self, total_mib: u64, available_mib: u64) -> &Self {
        let (total, available) = (total_mib * 1024, available_mib * 1024);
        let text = format!("MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n");
        self.write("proc/meminfo", &text)
    }

    fn process(&self, own_mib: u64) -> &Self {
        let (own, rss) = (own_mib * 1024, (own_mib + 50) * 1024);
        let text = format!("VmRSS:\t{rss} kB\nRssAnon:\t{own} kB\nRssFile:\t51200 kB\n");
        self.write("proc/self/status", &text)
    }

    /// A container of version 2, whose group is the root of what it sees.
    fn container(&self, limit_mib: u64, used_mib: u64, cache_mib: u64) -> &Self {
        let current = (used_mib + cache_mib) * MIB;
        let stat = format!("anon 1\nactive_file {}\ninactive_file 0\n", cache_mib * MIB);
        self.write("sys/fs/cgroup/memory.max", &format!("{}\n", limit_mib * MIB))
            .write("sys/fs/cgroup/memory.current", &format!("{current}\n"))
            .write("sys/fs/cgroup/memory.stat", &stat)
    }

    fn files(&self) -> KernelFiles {
        KernelFiles::at(self.0.path())
    }
}

// O2
#[test]
fn a_limit_of_the_process_counts_what_the_kernel_counts_against_it() {
    let machine = Machine::new();
    let status = "VmSize:\t900000 kB\nVmData:\t700000 kB\nVmRSS:\t150000 kB\n";
    let limits = |space: &str, data: &str| {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             {data}           unlimited            bytes     \n\
             Max address space         {space}           unlimited            bytes     \n"
        )
    };
    machine.write("proc/self/status", status).write("proc/self/limits", &limits("unlimited", "x"));
    assert_eq!(read(&machine.files(), 0).unwrap().source, LimitSource::Machine);
    machine.write("proc/self/limits", &limits("1000000000", "unlimited"));
    let reading = read(&machine.files(), 0).unwrap();
    assert_eq!((reading.source, reading.limit_bytes), (LimitSource::Process, 1_000_000_000));
    assert_eq!(reading.used_bytes, 900_000 * 1024);
    machine.write("proc/self/limits", &limits("unlimited", "800000000"));
    assert_eq!(read(&machine.files(), 0).unwrap().used_bytes, 700_000 * 1024);
}

// O2
#[test]
fn without_a_control_group_the_machine_is_the_limit() {
    let machine = Machine::new();
    let reading = read(&machine.files(), 0).unwrap();
    assert_eq!(reading.source, LimitSource::Machine);
    assert_eq!((reading.own_bytes, reading.rss_bytes), (100 * MIB, 150 * MIB));
    // What others use makes the limit smaller.
    assert_eq!(reading.limit_bytes, (100 + 6144) * MIB);
    assert_eq!(reading.stalled, None);
}

// O2
#[test]
fn page_cache_does_not_count_against_a_container_of_version_2() {
    let machine = Machine::new();
    machine.container(512, 200, 300);
    machine.write("sys/fs/cgroup/memory.pressure", "some avg10=9.00\nfull avg10=2.50 avg60=1\n");
    let reading = read(&machine.files(), 0).unwrap();
    assert_eq!(reading.source, LimitSource::CgroupV2);
    assert_eq!((reading.used_bytes, reading.limit_bytes), (200 * MIB, 512 * MIB));
    assert_eq!(reading.stalled, Some(0.025));
}

// O2
#[test]
fn the_nearest_of_all_ancestors_counts() {
    let machine = Machine::new();
    machine.write("proc/self/cgroup", "0::/slice/unit\n");
    let groups = [("slice/unit", "max", "10"), ("slice", "1073741824", "943718400")];
    for (group, limit, used) in groups {
        machine
            .write(&format!("sys/fs/cgroup/{group}/memory.max"), limit)
            .write(&format!("sys/fs/cgroup/{group}/memory.current"), used);
    }
    let reading = read(&machine.files(), 0).unwrap();
    assert_eq!((reading.used_bytes, reading.limit_bytes), (900 * MIB, 1 << 30));
    // `memory.high` of the unit itself is nearer still.
    machine.write("sys/fs/cgroup/slice/unit/memory.high", "11\n");
    assert_eq!(read(&machine.files(), 0).unwrap().limit_bytes, 11);
}

// O2
#[test]
fn version_1_is_read_with_its_hierarchy_and_its_way_to_say_unlimited() {
    let machine = Machine::new();
    machine
        .write("proc/self/cgroup", "4:cpu,memory:/docker/abc\n1:name=systemd:/\n0::/\n")
        .write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
        .write("sys/fs/cgroup/memory/memory.usage_in_bytes", "314572800\n")
        .write(
            "sys/fs/cgroup/memory/memory.stat",
            "cache 1\nhierarchical_memory_limit 419430400\ntotal_active_file 104857600\n",
        );
    let reading = read(&machine.files(), 0).unwrap();
    assert_eq!(reading.source, LimitSource::CgroupV1);
    assert_eq!((reading.used_bytes, reading.limit_bytes), (200 * MIB, 400 * MIB));
    machine
        .write("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 9223372036854771712");
    assert_eq!(read(&machine.files(), 0).unwrap().source, LimitSource::Machine);
}

// O2
#[test]
fn garbage_from_the_kernel_is_no_reading_and_no_panic() {
    let machine = Machine::new();
    machine
        .write("proc/self/cgroup", "0::/../../x\n:::\nmemory\n9:memory\n")
        .write("sys/fs/cgroup/memory.max", "-5")
        .write("sys/fs/cgroup/memory.pressure", "full avg10=NaN");
    assert_eq!(read(&machine.files(), 0).unwrap().source, LimitSource::Machine);
    machine.write("proc/self/status", "VmRSS: 99999999999999999999 kB");
    assert_eq!(read(&machine.files(), 0), None);
    machine.write("proc/self/status", "\u{0}");
    assert_eq!(read(&machine.files(), 0), None);
}

// O2
#[test]
fn this_machine_can_be_read() {
    let reading = read(&KernelFiles::default(), 0).unwrap();
    assert!(reading.own_bytes > 0 && reading.limit_bytes > reading.own_bytes);
    assert_eq!(read(&KernelFiles::default(), 1).unwrap().source, LimitSource::Configured);
}

/// A cache that remembers what it was asked for, and an allocator that counts.
#[derive(Default)]
struct Cache {
    bytes: AtomicU64,
    purges: AtomicU64,
    thrifty: AtomicBool,
}

impl Shrinker for Cache {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    fn shrink(&self, keep: f64) -> u64 {
        let before = self.bytes();
        self.bytes.store((before as f64 * keep) as u64, Ordering::SeqCst);
        before - self.bytes()
    }
}

impl Allocator for Cache {
    fn stats(&self) -> AllocatorStats {
        AllocatorStats { committed_bytes: 7, peak_bytes: 8 }
    }

    fn purge(&self) {
        self.purges.fetch_add(1, Ordering::SeqCst);
    }

    fn set_thrifty(&self, thrifty: bool) {
        self.thrifty.store(thrifty, Ordering::SeqCst);
    }
}

struct Guarded {
    machine: Machine,
    clock: ManualClock,
    cache: Arc<Cache>,
    guard: MemoryGuard,
}

/// A guarded process in a container of 1,000 MiB.
fn guarded() -> Guarded {
    let (machine, clock, cache) = (Machine::new(), ManualClock::new(), Arc::new(Cache::default()));
    let allocator = Some(Arc::clone(&cache) as Arc<dyn Allocator>);
    let config = MemoryConfig::default();
    let guard = MemoryGuard::new(config, machine.files(), clock.clock(), allocator).unwrap();
    guard.register("answers", Arc::clone(&cache) as Arc<dyn Shrinker>).unwrap();
    Guarded { machine, clock, cache, guard }
}

impl Guarded {
    /// A tick, 100 ms after the one before, with this use.
    fn at(&self, used_mib: u64) -> Step {
        self.machine.container(1000, used_mib, 0);
        self.clock.advance(Duration::from_millis(100));
        self.guard.tick()
    }

    fn passes(&self, priority: Priority) -> bool {
        self.guard.budget().try_reserve(1, priority).is_ok()
    }
}

// O2
#[test]
fn each_threshold_enters_its_step_at_once() {
    for (used, step) in [
        (699, Step::Normal),
        (700, Step::Warn),
        (800, Step::Shrink),
        (820, Step::Return),
        (850, Step::Reject),
        (930, Step::Emergency),
        (2_000, Step::Emergency),
    ] {
        assert_eq!(guarded().at(used), step, "{used} MiB of 1,000");
    }
}

// O2
#[test]
fn steps_are_left_one_at_a_time_after_the_margin_and_the_hold() {
    let guarded = guarded();
    assert_eq!(guarded.at(940), Step::Emergency);
    assert!(guarded.cache.thrifty.load(Ordering::SeqCst));
    // Below the threshold but within the margin: nothing changes, however long.
    for _ in 0..100 {
        assert_eq!(guarded.at(905), Step::Emergency);
    }
    let mut steps = vec![Step::Emergency];
    for _ in 0..120 {
        let step = guarded.at(300);
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    let mut expected = Step::ALL.to_vec();
    expected.reverse();
    assert_eq!(steps, expected);
    assert_eq!(guarded.guard.report().changes, 6);
    assert!(!guarded.cache.thrifty.load(Ordering::SeqCst));
}

// O2
#[test]
fn a_use_that_swings_around_a_threshold_moves_the_step_once() {
    let guarded = guarded();
    for round in 0..200 {
        guarded.at(if round % 2 == 0 { 851 } else { 849 });
    }
    assert_eq!(guarded.guard.report().changes, 1);
}

// O2
#[test]
fn caches_halve_then_empty_and_the_allocator_purges() {
    let guarded = guarded();
    guarded.cache.bytes.store(1_000, Ordering::SeqCst);
    guarded.at(750);
    assert_eq!(guarded.cache.bytes(), 1_000);
    guarded.at(805);
    assert_eq!(guarded.cache.bytes(), 500);
    assert_eq!(guarded.cache.purges.load(Ordering::SeqCst), 0);
    // Within a second of the last time nothing more is taken.
    guarded.at(825);
    assert_eq!(guarded.cache.bytes(), 500);
    guarded.clock.advance(Duration::from_secs(1));
    guarded.at(825);
    assert_eq!(guarded.cache.bytes(), 250);
    assert_eq!(guarded.cache.purges.load(Ordering::SeqCst), 1);
    guarded.clock.advance(Duration::from_secs(1));
    guarded.at(860);
    assert_eq!(guarded.cache.bytes(), 0);
    // Below the thresholds again the caches may fill, though the step is not left yet.
    guarded.cache.bytes.store(1_000, Ordering::SeqCst);
    guarded.clock.advance(Duration::from_millis(1_500));
    assert_eq!(guarded.at(790), Step::Reject);
    assert_eq!(guarded.cache.bytes(), 1_000);
}

// O2
#[test]
fn work_that_was_refused_for_want_of_room_makes_the_allocator_give_back_and_spares_the_caches() {
    let guarded = guarded();
    let purges = || guarded.cache.purges.load(Ordering::SeqCst);
    guarded.cache.bytes.store(1_000, Ordering::SeqCst);
    guarded.at(500);
    assert!(guarded.guard.budget().try_reserve(400 << 20, Priority::Normal).is_err());
    guarded.at(500);
    guarded.at(500);
    assert_eq!((purges(), guarded.cache.bytes()), (1, 1_000));
    // No more often than memory is reclaimed at all, and not for nothing.
    assert!(guarded.guard.budget().try_reserve(400 << 20, Priority::Normal).is_err());
    guarded.at(500);
    assert_eq!(purges(), 1);
    guarded.clock.advance(Duration::from_secs(1));
    guarded.at(500);
    assert_eq!(purges(), 2);
    guarded.clock.advance(Duration::from_secs(1));
    guarded.at(500);
    assert_eq!(purges(), 2);
}

// O2
#[test]
fn less_important_work_is_refused_first_and_control_calls_never() {
    let guarded = guarded();
    for (used, least) in [
        (100, Priority::Background),
        (810, Priority::Normal),
        (860, Priority::High),
        (940, Priority::Critical),
        (1_500, Priority::Critical),
    ] {
        guarded.at(used);
        for priority in Priority::ALL {
            // At 81 % low priority has reached its own ceiling of 80 %.
            assert_eq!(guarded.passes(priority), priority >= least, "{used} {priority:?}");
        }
    }
}

// O2
#[test]
fn what_is_reserved_counts_before_it_is_used() {
    let guarded = guarded();
    guarded.at(500);
    let budget = guarded.guard.budget();
    // 350 MiB are left for normal work below 85 %.
    let first = budget.try_reserve(300 * MIB, Priority::Normal).unwrap();
    let refused = budget.try_reserve(60 * MIB, Priority::Normal).unwrap_err();
    assert_eq!((refused.wanted_bytes, refused.available_bytes), (60 * MIB, 50 * MIB));
    assert!(refused.to_string().contains("52428800 are free for normal priority"), "{refused}");
    let mut second = budget.try_reserve(40 * MIB, Priority::Normal).unwrap();
    assert!(second.grow(20 * MIB).is_err());
    assert_eq!(second.bytes(), 40 * MIB);
    drop(first);
    second.grow(200 * MIB).unwrap();
    assert_eq!(budget.reserved_bytes(), 240 * MIB);
    drop(second);
    assert_eq!(budget.reserved_bytes(), 0);
    let huge = budget.try_reserve(513 * MIB, Priority::Normal).unwrap_err();
    assert_eq!(huge.available_bytes, 512 * MIB);
    assert_eq!(guarded.guard.report().refused, 3);
}

// O2
#[test]
fn what_grows_by_and_by_has_the_bound_of_one_request_too() {
    let guarded = guarded();
    guarded.at(100);
    let budget = guarded.guard.budget();
    let mut grown = budget.try_reserve(400 * MIB, Priority::Normal).unwrap();
    let refused = grown.grow(113 * MIB).unwrap_err();
    assert_eq!((refused.available_bytes, grown.bytes()), (512 * MIB, 400 * MIB));
    grown.grow(112 * MIB).unwrap();
    assert_eq!(budget.reserved_bytes(), 512 * MIB);
}

// O2
#[test]
fn reservations_of_many_threads_add_up_to_nothing_in_the_end() {
    let guarded = guarded();
    guarded.at(840);
    let budget = guarded.guard.budget();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for bytes in 0..2_000 {
                    let held = budget.try_reserve(bytes * 4096, Priority::Normal);
                    assert!(budget.reserved_bytes() <= 10 * MIB);
                    drop(held);
                }
            });
        }
    });
    assert_eq!(budget.reserved_bytes(), 0);
}

// O2
#[test]
fn stalls_shrink_caches_but_refuse_no_user() {
    let guarded = guarded();
    guarded.machine.write("sys/fs/cgroup/memory.pressure", "full avg10=50.00 avg60=1\n");
    assert_eq!(guarded.at(100), Step::Shrink);
    assert!(guarded.passes(Priority::Low));
}

// O2
#[test]
fn a_guard_that_cannot_see_refuses_nothing_and_says_so() {
    let guarded = guarded();
    assert_eq!(guarded.at(900), Step::Reject);
    fs::remove_dir_all(guarded.machine.0.path().join("proc")).unwrap();
    for _ in 0..200 {
        guarded.clock.advance(Duration::from_millis(100));
        guarded.guard.tick();
    }
    let report = guarded.guard.report();
    assert_eq!((report.step, report.reading), (Step::Normal, None));
}

// O2
#[test]
fn thresholds_that_do_not_rise_are_refused() {
    let refused = |config: MemoryConfig| config.validate().unwrap_err().to_string();
    let config = MemoryConfig { reject: 0.5, ..MemoryConfig::default() };
    assert_eq!(
        refused(config),
        "memory.reject: 0.5 is not allowed, use above give_back and below 1"
    );
    let config = MemoryConfig { warn: f64::NAN, ..MemoryConfig::default() };
    assert_eq!(refused(config), "memory.warn: NaN is not allowed, use above 0 and below 1");
    let config = MemoryConfig { limit_bytes: 1, ..MemoryConfig::default() };
    assert!(refused(config).contains("memory.limit_bytes: 1 "));
}

// O2
#[test]
fn the_report_shows_caches_and_allocator() {
    let guarded = guarded();
    guarded.cache.bytes.store(42, Ordering::SeqCst);
    guarded.at(500);
    let json = serde_json::to_value(guarded.guard.report()).unwrap();
    assert_eq!(json["step"], "normal");
    assert_eq!(json["caches"]["answers"], 42);
    assert_eq!(json["allocator"]["committed_bytes"], 7);
    assert_eq!(json["reading"]["source"], "cgroup_v2");
    assert_eq!(json["ratio"], 0.5);
}
