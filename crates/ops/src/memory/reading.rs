//! How much memory is used and how much there may be, as the kernel tells it.
//!
//! What counts as used is what the kernel cannot simply drop: page cache is left out, because it
//! goes before anybody is killed. Four bounds are looked at, and the nearest one counts:
//!
//! * the control group (version 2 or 1) with its ancestors, against everything charged to it;
//! * the machine: own memory plus what is available, against own memory, so that the neighbours'
//!   use shows as a smaller limit;
//! * the process's own limits (`ulimit -v`, `ulimit -d`), beyond which allocations fail: address
//!   space and data as the kernel counts them;
//! * a limit from the configuration, against own memory.

use crate::kernel_files::KernelFiles;
use serde::Serialize;

/// Figures of this size and above mean "no limit" in version 1: it shows the largest page count.
const UNLIMITED_FROM: u64 = 1 << 60;

/// Which bound is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitSource {
    /// A control group, version 2.
    CgroupV2,
    /// A control group, version 1.
    CgroupV1,
    /// The machine's memory.
    Machine,
    /// A limit of the process, of address space or data.
    Process,
    /// The configuration.
    Configured,
}

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// Bytes used against the nearest bound.
    pub used_bytes: u64,
    /// The nearest bound in bytes.
    pub limit_bytes: u64,
    /// Which bound that is.
    pub source: LimitSource,
    /// Bytes of this process alone that are backed by no file.
    pub own_bytes: u64,
    /// Resident bytes of this process, mapped files included.
    pub rss_bytes: u64,
    /// Share of the last 10 s in which every task waited for memory, 0 to 1; nothing where the
    /// kernel does not measure it.
    pub stalled: Option<f64>,
}

impl Reading {
    /// Used share of the limit, 0 and up.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        ratio(self.used_bytes, self.limit_bytes)
    }
}

fn ratio(used: u64, limit: u64) -> f64 {
    if limit == 0 { 1.0 } else { used as f64 / limit as f64 }
}

/// Reads the figures; `configured_bytes` of 0 means no limit of one's own. Nothing when the kernel
/// shows neither the process nor the machine.
#[must_use]
pub fn read(files: &KernelFiles, configured_bytes: u64) -> Option<Reading> {
    let status = files.read("proc/self/status")?;
    let rss_bytes = field_kib(&status, "VmRSS:")?;
    let anonymous = field_kib(&status, "RssAnon:").unwrap_or(rss_bytes);
    let own_bytes = anonymous + field_kib(&status, "RssShmem:").unwrap_or(0);
    let groups = files.read("proc/self/cgroup").unwrap_or_default();
    let group_v2 = groups.lines().find_map(|line| line.strip_prefix("0::"));

    let mut bounds = Vec::with_capacity(4);
    if let Some(bound) = group_v2.and_then(|path| cgroup_v2(files, path)) {
        bounds.push(bound);
    }
    if let Some(bound) = cgroup_v1(files, &groups) {
        bounds.push(bound);
    }
    if let Some(bound) = machine(files, own_bytes) {
        bounds.push(bound);
    }
    let limits = files.read("proc/self/limits").unwrap_or_default();
    for (limit, used) in [("Max address space", "VmSize:"), ("Max data size", "VmData:")] {
        if let Some(bound) = of_process(&limits, limit, field_kib(&status, used)) {
            bounds.push(bound);
        }
    }
    if configured_bytes > 0 {
        bounds.push((own_bytes, configured_bytes, LimitSource::Configured));
    }
    let nearest = |a: &(u64, u64, LimitSource), b: &(u64, u64, LimitSource)| {
        ratio(a.0, a.1).total_cmp(&ratio(b.0, b.1))
    };
    let (used_bytes, limit_bytes, source) = bounds.into_iter().max_by(nearest)?;
    let stalled = stalled(files, group_v2);
    Some(Reading { used_bytes, limit_bytes, source, own_bytes, rss_bytes, stalled })
}

type Bound = (u64, u64, LimitSource);

/// The nearest bound among the group and its ancestors. `memory.high` counts as well: beyond it
/// the kernel slows every allocation down.
fn cgroup_v2(files: &KernelFiles, path: &str) -> Option<Bound> {
    let mut nearest: Option<Bound> = None;
    for mount in ["sys/fs/cgroup", "sys/fs/cgroup/unified"] {
        for group in ancestors(path) {
            let read = |file: &str| files.read(format!("{mount}{group}/{file}"));
            let limit =
                ["memory.max", "memory.high"].iter().filter_map(|file| number(&read(file)?));
            let Some(limit) = limit.min() else { continue };
            let Some(current) = read("memory.current").as_deref().and_then(number) else {
                continue;
            };
            let stat = read("memory.stat").unwrap_or_default();
            let cache = stat_of(&stat, "active_file") + stat_of(&stat, "inactive_file");
            let used = current.saturating_sub(cache);
            if nearest.is_none_or(|(u, l, _)| ratio(used, limit) > ratio(u, l)) {
                nearest = Some((used, limit, LimitSource::CgroupV2));
            }
        }
    }
    nearest
}

/// The soft limit is the one that holds.
fn of_process(limits: &str, name: &str, used_bytes: Option<u64>) -> Option<Bound> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let limit = line.split_whitespace().next()?.parse().ok()?;
    Some((used_bytes?, limit, LimitSource::Process))
}

/// Version 1 sums the hierarchy up by itself.
fn cgroup_v1(files: &KernelFiles, groups: &str) -> Option<Bound> {
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        let path = parts.next()?;
        controllers.split(',').any(|controller| controller == "memory").then_some(path)
    })?;
    // In a container the group's own path is often not visible, only what is mounted as the root.
    ancestors(path).into_iter().find_map(|group| {
        let read = |file: &str| files.read(format!("sys/fs/cgroup/memory{group}/{file}"));
        let stat = read("memory.stat")?;
        let own = number(&read("memory.limit_in_bytes")?).unwrap_or(u64::MAX);
        let hierarchy = stat_of(&stat, "hierarchical_memory_limit");
        let limit = if hierarchy > 0 { own.min(hierarchy) } else { own };
        if limit >= UNLIMITED_FROM {
            return None;
        }
        let cache = stat_of(&stat, "total_active_file") + stat_of(&stat, "total_inactive_file");
        let used = number(&read("memory.usage_in_bytes")?)?.saturating_sub(cache);
        Some((used, limit, LimitSource::CgroupV1))
    })
}

fn machine(files: &KernelFiles, own_bytes: u64) -> Option<Bound> {
    let meminfo = files.read("proc/meminfo")?;
    let total = field_kib(&meminfo, "MemTotal:")?;
    let available = field_kib(&meminfo, "MemAvailable:")?;
    Some((own_bytes, total.min(own_bytes.saturating_add(available)), LimitSource::Machine))
}

/// `/a/b` becomes `/a/b`, `/a` and the root, which is empty.
fn ancestors(path: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = path.trim_end_matches('/');
    // A path that climbs (a group outside the namespace) names nothing that is mounted here.
    if rest.contains("..") {
        rest = "";
    }
    while let Some(cut) = rest.rfind('/') {
        found.push(rest);
        rest = &rest[..cut];
    }
    found.push("");
    found
}

/// The share of `full avg10`, from the group when it measures it, else from the machine.
fn stalled(files: &KernelFiles, group: Option<&str>) -> Option<f64> {
    let of_group = group.and_then(|group| {
        let group = group.trim_end_matches('/');
        files.read(format!("sys/fs/cgroup{group}/memory.pressure"))
    });
    let text = of_group.or_else(|| files.read("proc/pressure/memory"))?;
    let full = text.lines().find(|line| line.starts_with("full "))?;
    let percent = full.split_whitespace().find_map(|part| part.strip_prefix("avg10="))?;
    let share = percent.parse::<f64>().ok()? / 100.0;
    share.is_finite().then_some(share.clamp(0.0, 1.0))
}

/// A file with one number; nothing for `max` and for what is too large to mean anything.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED_FROM)
}

/// `Name:   123 kB`, in bytes.
fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// `name 123`; zero when it is not there.
fn stat_of(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
