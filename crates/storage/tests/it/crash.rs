//! Requirement P1: whatever ends the process at whatever call, everything acknowledged is there
//! afterwards, equal and in order, and nothing else is.
//!
//! Each seed picks its own faults (swarm testing): most bugs need the absence of some.
//! `MAINSTAY_SEEDS=10000` runs that many, `MAINSTAY_SEED=n` replays one.

use std::ops::AddAssign;
use std::path::PathBuf;

use mainstay_storage::fs::FileSystem;
use mainstay_storage::log::{Class, Damage, LogError, Mutation, OpenCheck, SyncLog};
use mainstay_storage::sim::{
    CrashStyle, Failure, Faults, Operation, Random, Rule, SECTOR_BYTES, SyncFailure,
};

use crate::world::{Break, Commit, Verdict, World};

/// How often what happened, so that a suite in which it never happens fails.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    opens: u64,
    failed_opens: u64,
    crashes: u64,
    kills: u64,
    commits: u64,
    refused: u64,
    unknown: u64,
    survived_unknown: u64,
    torn: u64,
    copied: u64,
    compactions: u64,
    dropped: u64,
    damaged: u64,
    accepted: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.opens += other.opens;
        self.failed_opens += other.failed_opens;
        self.crashes += other.crashes;
        self.kills += other.kills;
        self.commits += other.commits;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.survived_unknown += other.survived_unknown;
        self.torn += other.torn;
        self.copied += other.copied;
        self.compactions += other.compactions;
        self.dropped += other.dropped;
        self.damaged += other.damaged;
        self.accepted += other.accepted;
    }
}

/// The faults that this seed may meet.
struct Swarm {
    power_cuts: bool,
    kills: bool,
    faults: Faults,
    capacity: Option<u64>,
}

impl Swarm {
    fn pick(world: &mut World) -> Self {
        let random = &mut world.random;
        let mut faults = Faults {
            sync_failure: match random.below(3) {
                0 => SyncFailure::DropPages,
                1 => SyncFailure::KeepPages,
                _ => SyncFailure::WriteSome,
            },
            drop_cache_works: random.coin(),
            ..Faults::default()
        };
        if random.below(3) == 0 {
            faults.sync_error_per_mille = 30;
        }
        if random.below(4) == 0 {
            faults.write_error_per_mille = 10;
        }
        if random.below(4) == 0 {
            faults.read_error_per_mille = 10;
        }
        if random.coin() {
            faults.short_write_per_mille = 100;
        }
        if random.below(4) == 0 {
            let on = [Operation::Sync, Operation::SyncDir, Operation::Rename, Operation::Remove]
                [random.below(4) as usize];
            faults.rules.push(Rule {
                on: Some(on),
                skip: random.below(20),
                times: if random.coin() { 1 } else { 5 },
                failure: Failure::Io,
            });
        }
        let segment = world.options.segment_bytes_max;
        Self {
            power_cuts: random.below(4) != 0,
            kills: random.coin(),
            capacity: (random.below(4) == 0).then(|| segment * (4 + random.below(8))),
            faults,
        }
    }
}

/// Appends, compactions, restarts and faults; the model is compared after each open.
fn life(seed: u64, broken: Break) -> Verdict<Seen> {
    let mut world = World::new(seed, broken);
    let swarm = Swarm::pick(&mut world);
    let mut seen = Seen::default();
    let rounds = 2 + world.random.below(6);
    for _ in 0..rounds {
        world.fs.set_faults(swarm.faults.clone());
        world.fs.set_capacity(swarm.capacity);
        if swarm.power_cuts && world.random.below(4) != 0 {
            let at = world.fs.operations() + 1 + world.random.below(120);
            world.fs.cut_power_at(Some(at));
        }
        match world.open() {
            Ok((log, recovery)) => {
                seen.opens += 1;
                seen.torn += u64::from(recovery.torn_bytes > 0);
                seen.copied += u64::from(recovery.copied_records > 0);
                let before = world.model.last_seq();
                check_opened(&mut world, &log, &recovery.damage)?;
                seen.survived_unknown += u64::from(world.model.last_seq() > before);
                work(&mut world, &log, &mut seen)?;
                if world.random.below(4) == 0 {
                    let _ = log.close();
                }
            }
            Err(error) if world.fs.is_off() || is_injected(&error) => seen.failed_opens += 1,
            Err(error) => return Err(format!("open: {error}")),
        }
        end_process(&mut world, &swarm, &mut seen);
    }
    heal(&mut world, &mut seen)?;
    Ok(seen)
}

/// Errors that only an injected fault explains.
fn is_injected(error: &LogError) -> bool {
    matches!(
        error,
        LogError::Io { .. }
            | LogError::DiskFull { .. }
            | LogError::SegmentUnavailable { .. }
            | LogError::Locked(_)
    )
}

fn check_opened(world: &mut World, log: &SyncLog, damage: &[Damage]) -> Verdict<()> {
    if let Some(damage) = damage.first() {
        return Err(format!("nothing was damaged, and yet: {damage}"));
    }
    world.model.settle(log.durable_seq())?;
    if world.fs.is_off() {
        return Ok(());
    }
    let faults = Faults { drop_cache_works: false, ..Faults::default() };
    let power = world.fs.clone();
    // The comparison is the test's own and must not meet the faults of the run.
    power.cut_power_at(None);
    world.fs.set_faults(faults);
    world.model.check(log, &mut world.random)
}

fn work(world: &mut World, log: &SyncLog, seen: &mut Seen) -> Verdict<()> {
    let swarm = Swarm::pick(world);
    world.fs.set_faults(swarm.faults);
    if world.random.coin() {
        let at = world.fs.operations() + 1 + world.random.below(150);
        world.fs.cut_power_at(Some(at));
    }
    for _ in 0..world.random.below(40) {
        match world.random.below(20) {
            0 => {
                if let Err(LogError::OutcomeUnknown { .. }) = log.heartbeat() {
                    return Ok(());
                }
            }
            1..=2 => drop(log.prepare()),
            3 => compact(world, log, seen)?,
            4 => drop(log.read(1 + world.random.below(50), 500)),
            5 => drop(log.verify()),
            other => {
                let class = if other == 6 { Class::Essential } else { Class::Ordinary };
                let commit = world.commit(log, class)?;
                match commit {
                    Commit::Acknowledged => seen.commits += 1,
                    Commit::Refused => seen.refused += 1,
                    Commit::Ended => {
                        seen.unknown += u64::from(!world.model.unknown.is_empty());
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

fn compact(world: &mut World, log: &SyncLog, seen: &mut Seen) -> Verdict<()> {
    world.bury();
    let through = world.random.below(world.model.last_seq() + 2);
    let dead = world.model.dead.clone();
    match log.compact(through, &mut |entry| !dead.contains(&entry.seq), 0) {
        Ok(done) => {
            seen.compactions += u64::from(done.segments_replaced > 0);
            seen.dropped += done.records_dropped;
            Ok(())
        }
        Err(error @ (LogError::Damaged(_) | LogError::ReadOnly { .. })) => {
            Err(format!("compaction: {error}"))
        }
        Err(_) => Ok(()),
    }
}

fn end_process(world: &mut World, swarm: &Swarm, seen: &mut Seen) {
    world.fs.set_faults(Faults::default());
    if swarm.kills && !world.fs.is_off() && world.random.coin() {
        seen.kills += 1;
        world.fs.kill();
    } else {
        seen.crashes += 1;
        world.fs.crash();
    }
}

/// With the faults gone everything must work, and go on working after one more power loss.
fn heal(world: &mut World, seen: &mut Seen) -> Verdict<()> {
    world.fs.set_faults(Faults::default());
    world.fs.set_capacity(None);
    world.options.check = OpenCheck::Full;
    for _ in 0..2 {
        let (log, recovery) = world.open().map_err(|error| format!("healed open: {error}"))?;
        check_opened(world, &log, &recovery.damage)?;
        let verified = log.verify().map_err(|error| format!("verify: {error}"))?;
        if !verified.is_whole() || verified.last_seq != log.durable_seq() && seen.dropped == 0 {
            return Err(format!("verify: {verified:?}"));
        }
        log.prepare().map_err(|error| format!("prepare: {error}"))?;
        for _ in 0..3 {
            if world.commit_one(&log)? != Commit::Acknowledged {
                return Err("a commit failed on a healthy disk".into());
            }
        }
        drop(log);
        world.fs.crash_with(CrashStyle::LoseAll);
    }
    let (log, recovery) = world.open().map_err(|error| format!("last open: {error}"))?;
    check_opened(world, &log, &recovery.damage)
}

/// Bit rot in a healthy, proven log: damage is named exactly, never silently cut, and after its
/// loss is accepted everything else is still there.
fn rot(seed: u64, broken: Break) -> Verdict<Seen> {
    let mut world = World::new(seed, broken);
    world.options.check = OpenCheck::Full;
    let mut seen = Seen::default();
    let (log, _) = world.open().map_err(|error| format!("open: {error}"))?;
    for _ in 0..5 + world.random.below(40) {
        if world.commit(&log, Class::Ordinary)? == Commit::Acknowledged {
            seen.commits += 1;
        }
        if world.random.below(30) == 0 {
            compact(&mut world, &log, &mut seen)?;
        }
    }
    log.heartbeat().map_err(|error| format!("heartbeat: {error}"))?;
    drop(log);
    world.fs.crash_with(CrashStyle::LoseAll);
    let segments = world.segments();
    if world.random.below(6) == 0 {
        lose_files(&mut world, &segments)?;
    } else {
        spoil(&mut world, &segments);
    }
    let (log, recovery) = world.open().map_err(|error| format!("open after rot: {error}"))?;
    seen.opens += 1;
    let mut ranges: Vec<(u64, u64)> =
        recovery.damage.iter().map(|d| (d.first_seq, d.last_seq)).collect();
    if !ranges.is_empty() {
        seen.damaged += 1;
        read_around(&world, &log, &ranges)?;
        let refused = log.commit(&[&[world.record()]], Class::Essential);
        if !matches!(refused, Err(LogError::ReadOnly { .. })) {
            return Err(format!("a damaged log took a write: {refused:?}"));
        }
    }
    ranges.sort_unstable();
    for (first_seq, last_seq) in &ranges {
        world.model.lost.extend(*first_seq..=*last_seq);
        let accepted = log.accept_loss(*first_seq, *last_seq);
        accepted.map_err(|error| format!("accepting {first_seq}..={last_seq}: {error}"))?;
        seen.accepted += 1;
    }
    if log.durable_seq() != world.model.last_seq() {
        return Err(format!(
            "the log ends at {}, acknowledged up to {}",
            log.durable_seq(),
            world.model.last_seq()
        ));
    }
    world.model.check(&log, &mut world.random)?;
    if world.commit_one(&log)? != Commit::Acknowledged {
        return Err("the log takes no writes after the loss was accepted".into());
    }
    drop(log);
    world.fs.crash();
    let (log, recovery) = world.open().map_err(|error| format!("reopen: {error}"))?;
    if recovery.accepted.len() != ranges.len() {
        return Err(format!("accepted {ranges:?}, recorded {:?}", recovery.accepted));
    }
    check_opened(&mut world, &log, &recovery.damage)?;
    Ok(seen)
}

/// Removes one segment, or all. Only the checkpoint of a view can witness that the last is gone.
fn lose_files(world: &mut World, segments: &[PathBuf]) -> Verdict<()> {
    let all = world.random.below(4) == 0;
    let one = world.random.below(segments.len() as u64) as usize;
    world.options.durable_seq_min = world.model.last_seq();
    for (at, path) in segments.iter().enumerate() {
        if all || at == one {
            world.fs.remove_file(path).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Damages one place in the segments, in the way of one of the known fault classes.
fn spoil(world: &mut World, segments: &[PathBuf]) {
    let at = world.random.below(segments.len() as u64) as usize;
    let path = &segments[at];
    let content = world.fs.content(path).unwrap_or_default();
    let offset = world.random.below(content.len() as u64);
    let sector = offset / SECTOR_BYTES * SECTOR_BYTES;
    let sectors = |random: &mut Random| {
        let bytes = SECTOR_BYTES * (1 + random.below(12));
        bytes.min(content.len() as u64 - sector) as usize
    };
    match world.random.below(4) {
        0 => {
            let bit = world.random.below(8) as u8;
            world.fs.flip_bit(path, offset, bit);
        }
        1 => {
            let junk: Vec<u8> = (0..SECTOR_BYTES).map(|_| world.random.next_u64() as u8).collect();
            world.fs.damage(path, sector, &junk);
        }
        wide => {
            // Several sectors may hold both the last frame and the heartbeat that proves it.
            world.options.durable_seq_min = world.model.last_seq();
            let bytes = sectors(&mut world.random);
            let data = if wide == 2 {
                // A write that the device lost.
                vec![0; bytes]
            } else {
                // A write that the device put in the wrong place: whole frames among it.
                let from = world.random.below((content.len() - bytes) as u64 + 1);
                let from = (from / SECTOR_BYTES * SECTOR_BYTES) as usize;
                content[from..from + bytes].to_vec()
            };
            world.fs.damage(path, sector, &data);
        }
    }
}

/// Every record outside of the damaged ranges can still be read, and reading inside says what is
/// damaged.
fn read_around(world: &World, log: &SyncLog, ranges: &[(u64, u64)]) -> Verdict<()> {
    let damaged = |seq: u64| ranges.iter().any(|(first, last)| (*first..=*last).contains(&seq));
    for (seq, record) in &world.model.settled {
        match log.read(*seq, 1) {
            Ok(entries) => {
                let equal = entries.first().is_some_and(|entry| {
                    entry.seq == *seq && entry.payload == record.payload && !damaged(*seq)
                });
                if !equal && !world.model.dead.contains(seq) {
                    return Err(format!("record {seq} reads as something else"));
                }
            }
            Err(LogError::Damaged(damage)) if damaged(*seq) => {
                if !(damage.first_seq..=damage.last_seq).contains(seq) {
                    return Err(format!("reading {seq} names {damage}"));
                }
            }
            // Compacted away, and what follows is damaged.
            Err(LogError::Damaged(damage)) if world.model.dead.contains(seq) => {
                if !damaged(damage.first_seq) {
                    return Err(format!("reading {seq} names {damage}"));
                }
            }
            Err(error) => return Err(format!("reading {seq} outside of {ranges:?}: {error}")),
        }
    }
    Ok(())
}

/// Cuts the power at every call of an open in turn, including opens after such a cut.
fn compound(seed: u64, broken: Break) -> Verdict<Seen> {
    let mut seen = Seen::default();
    let mut world = World::new(seed, broken);
    let (log, _) = world.open().map_err(|error| format!("open: {error}"))?;
    let _ = log.prepare();
    for _ in 0..10 + world.random.below(30) {
        world.commit(&log, Class::Ordinary)?;
        seen.commits += 1;
    }
    let at = world.fs.operations() + 1 + world.random.below(12);
    world.fs.cut_power_at(Some(at));
    compact(&mut world, &log, &mut seen)?;
    for _ in 0..10 {
        if world.commit(&log, Class::Ordinary)? == Commit::Ended {
            break;
        }
    }
    drop(log);
    for step in 1.. {
        world.fs.crash();
        seen.crashes += 1;
        let at = world.fs.operations() + step;
        world.fs.cut_power_at(Some(at));
        let opened = world.open();
        if !world.fs.is_off() {
            let (log, recovery) = opened.map_err(|error| format!("open: {error}"))?;
            check_opened(&mut world, &log, &recovery.damage)?;
            break;
        }
        seen.failed_opens += 1;
    }
    heal(&mut world, &mut seen)?;
    Ok(seen)
}

type Scenario = fn(u64, Break) -> Verdict<Seen>;

const SCENARIOS: [(&str, Scenario); 3] = [("life", life), ("rot", rot), ("compound", compound)];

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("MAINSTAY_SEED"), number("MAINSTAY_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(default),
    }
}

fn run(name: &str, scenario: Scenario, seeds: std::ops::Range<u64>) -> Seen {
    let mut seen = Seen::default();
    for seed in seeds {
        match scenario(seed, None) {
            Ok(more) => seen += more,
            Err(why) => panic!(
                "{name}: {why}; replay: MAINSTAY_SEED={seed} cargo test -p mainstay-storage --test it {name}"
            ),
        }
    }
    println!("{name}: {seen:?}");
    seen
}

fn is_replay() -> bool {
    std::env::var_os("MAINSTAY_SEED").is_some()
}

#[test]
fn life_keeps_everything_acknowledged_through_crashes_and_faults() {
    let seen = run("life", life, seeds(600));
    let each = [
        seen.failed_opens,
        seen.crashes,
        seen.kills,
        seen.refused,
        seen.unknown,
        seen.survived_unknown,
        seen.torn,
        seen.copied,
        seen.compactions,
        seen.dropped,
    ];
    assert!(
        is_replay() || each.iter().all(|count| *count > 0),
        "something never happened: {seen:?}"
    );
}

#[test]
fn rot_is_named_exactly_and_never_cut() {
    let seen = run("rot", rot, seeds(300));
    assert!(is_replay() || seen.damaged > 0 && seen.accepted > 0, "nothing was hit: {seen:?}");
}

#[test]
fn compound_crashes_during_recovery_lose_nothing() {
    let seen = run("compound", compound, seeds(60));
    assert!(is_replay() || seen.failed_opens > 0, "{seen:?}");
}

/// The suite must notice each known-bad variant of the log; otherwise it proves nothing.
fn is_caught(mutation: Mutation) -> Option<(&'static str, u64, String)> {
    for seed in 0..2000 {
        for (name, scenario) in SCENARIOS {
            if let Err(why) = scenario(seed, Some(mutation)) {
                return Some((name, seed, why));
            }
        }
    }
    None
}

#[test]
fn every_known_bad_variant_is_caught() {
    for mutation in [
        Mutation::AcknowledgeBeforeSync,
        Mutation::RetrySync,
        Mutation::SkipDirSync,
        Mutation::SkipSegmentSync,
        Mutation::TruncateOnDamage,
        Mutation::TrustTail,
        Mutation::RemoveInputsEarly,
        Mutation::SkipHeartbeat,
    ] {
        let Some((name, seed, why)) = is_caught(mutation) else {
            panic!("{mutation:?} goes unnoticed");
        };
        println!("{mutation:?}: caught by {name} {seed}: {why}");
    }
}
