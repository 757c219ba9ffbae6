//! The health checks of the server: each reads figures that are there, so none of them can hang. What
//! stands behind those of dependencies are calls: those of requests, and active probes while there are none.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use mainstay_db::{BreakerState, Collection, Db, Dependency, Method, Pipelines, ViewState};
use mainstay_ops::active_probe::{ActiveProbes, Standing};
use mainstay_ops::audit::Audit;
use mainstay_ops::handles::HandlePool;
use mainstay_ops::health::{Check, ComponentKind, Criticality, Observation};
use mainstay_ops::kernel_files::KernelFiles;
use mainstay_ops::memory::{MemoryGuard, Shrinker, Step};

use crate::answers::{self, Answers};
use crate::otlp;
use crate::sharing::Sharing;

/// The check of the stored documents, without which nothing can be answered.
pub(super) const DOCUMENTS: &str = "documents";
/// Free disk space below which somebody should make room: sixteen times what the log keeps back.
const DISK_LOW_BYTES: u64 = 512 << 20;
/// The share of the file handles in use from which on somebody should know.
const HANDLES_HIGH: f64 = 0.9;
/// The service of shared rates among the pipelines.
const REDIS: &str = "redis";
/// Names listed in one message.
const NAMED_MAX: usize = 5;

/// What the checks read.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) db: Arc<Db>,
    pub(super) memory: MemoryGuard,
    pub(super) handles: HandlePool,
    pub(super) audit: Audit,
    pub(super) sharing: Arc<Sharing>,
    pub(super) probes: ActiveProbes,
}

/// Every check.
pub(super) fn all(asked: Asked) -> Vec<Check> {
    let check = |name: &str, kind, observe: fn(&Asked) -> Observation| {
        let asked = asked.clone();
        Check::new(name, kind, move || observe(&asked))
    };
    let mut checks = vec![
        check(DOCUMENTS, ComponentKind::Datastore, documents)
            .criticality(Criticality::Critical)
            .affects(&["/search", "/collections"]),
        check("log", ComponentKind::Datastore, log)
            .affects(&["/collections/{collection}/documents"]),
        check("embedding", ComponentKind::Component, embedding).affects(&["/search"]),
        check("cache/queries", ComponentKind::Cache, query_cache)
            .criticality(Criticality::Informative),
        check("disk", ComponentKind::System, disk)
            .affects(&["/collections/{collection}/documents"]),
        check("memory", ComponentKind::System, memory).affects(&["/search", "/collections"]),
        check("handles", ComponentKind::System, handles).affects(&["/search", "/collections"]),
        check("audit", ComponentKind::Datastore, audit).affects(&["/admin"]),
        check("catalogue", ComponentKind::Datastore, |asked| asked.sharing.observe())
            .affects(&["/admin/keys", "/admin/flags"]),
    ];
    for method in Method::ALL {
        let asked = asked.clone();
        let name = format!("search/{method}");
        let observe = move || search_method(&asked.db, method);
        checks.push(Check::new(name, ComponentKind::Component, observe).affects(&["/search"]));
    }
    for weight in [Criticality::Critical, Criticality::Degrades, Criticality::Informative] {
        let asked = asked.clone();
        let name = format!("dependencies/{}", weight.as_str());
        let observe = move || others(&asked, weight);
        let check = Check::new(name, ComponentKind::Component, observe);
        checks.push(check.criticality(weight).affects(&["/search", "/collections"]));
    }
    checks
}

/// Whether a breaker in this state keeps calls from what it protects: the same for every check and
/// for the level of service.
pub(super) fn refuses(state: BreakerState) -> bool {
    matches!(state, BreakerState::Open | BreakerState::HalfOpen | BreakerState::Isolated)
}

/// `a, b and 3 more`.
fn named(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", names.len() - NAMED_MAX);
    }
    text
}

/// All well, all broken, or some of them.
fn judged(trouble: &[String], all: usize) -> Observation {
    match trouble.len() {
        0 => Observation::healthy(),
        some if some >= all => Observation::unhealthy(named(trouble)),
        _ => Observation::degraded(named(trouble)),
    }
}

fn view_state(collection: &Collection, view: &str) -> Option<ViewState> {
    let views = collection.status().views;
    views.into_iter().find(|status| status.view == view).map(|status| status.state)
}

fn documents(asked: &Asked) -> Observation {
    let collections = asked.db.collections();
    let broken = asked.db.broken();
    let mut trouble: Vec<String> =
        broken.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    for collection in &collections {
        match view_state(collection, "documents") {
            Some(ViewState::Ready) => {}
            Some(state) => trouble.push(format!("{}: {state}", collection.name())),
            None => trouble.push(format!("{}: missing", collection.name())),
        }
    }
    let all = (collections.len() + broken.len()).max(1);
    let stored: u64 = collections.iter().map(|collection| collection.status().documents).sum();
    judged(&trouble, all).figure("collections", collections.len() as f64, "collections").figure(
        "documents",
        stored as f64,
        "documents",
    )
}

fn log(asked: &Asked) -> Observation {
    let refused = asked.db.writes_refused();
    let trouble: Vec<String> =
        refused.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    judged(&trouble, asked.db.collections().len().max(1))
}

fn search_method(db: &Db, method: Method) -> Observation {
    let collections = db.collections();
    let (mut trouble, mut down) = (Vec::new(), 0);
    for collection in &collections {
        let name = collection.name();
        let breaker = collection.breaker(method).state();
        match view_state(collection, method.name()) {
            Some(ViewState::Failing { reason }) => {
                down += 1;
                trouble.push(format!("{name}: failing: {reason}"));
            }
            _ if refuses(breaker) => {
                down += 1;
                trouble.push(format!("{name}: its breaker is {}", breaker.as_str()));
            }
            Some(state @ ViewState::Rebuilding { .. }) => trouble.push(format!("{name}: {state}")),
            _ => {}
        }
    }
    if down > 0 && down == collections.len() {
        return Observation::unhealthy(named(&trouble));
    }
    judged(&trouble, usize::MAX)
}

fn embedding(asked: &Asked) -> Observation {
    let pool = asked.db.figures().embedding;
    let mut providers = asked.db.pipelines().dependencies();
    providers.retain(is_provider);
    called(&asked.probes, &providers)
        .figure("workers", pool.workers as f64, "threads")
        .figure("queries_queued", pool.queries_queued as f64, "queries")
        .figure("passages_queued", pool.passages_queued as f64, "passages")
        .figure("failures", pool.failures as f64, "calls")
}

/// Those of them that their breakers keep calls from, with what is to be said of each.
fn refused(dependencies: &[Dependency]) -> Vec<String> {
    let states = dependencies.iter().map(|it| (it.name(), it.breaker().state()));
    let refused = states.filter(|(_, state)| refuses(*state));
    refused.map(|(name, state)| format!("{name}: its breaker is {state}")).collect()
}

/// How they stand by their breakers and by their probes: what nobody has called is not known to work.
fn called(probes: &ActiveProbes, dependencies: &[Dependency]) -> Observation {
    let (mut trouble, mut not_called) = (refused(dependencies), Vec::new());
    for it in dependencies.iter().filter(|it| !refuses(it.breaker().state())) {
        match probes.standing(it) {
            Standing::Failing(why) => {
                trouble.push(format!("{}: its probe failed: {why}", it.name()))
            }
            Standing::NotCalled => not_called.push(it.name().to_string()),
            Standing::Called => {}
        }
    }
    if trouble.is_empty() && !not_called.is_empty() {
        return Observation::unknown(format_args!("not called yet: {}", named(&not_called)));
    }
    judged(&trouble, dependencies.len().max(1))
}

fn service_of(dependency: &Dependency) -> &str {
    dependency.name().split('/').next().unwrap_or_default()
}

/// Whether it is a provider of embeddings.
pub(super) fn is_provider(dependency: &Dependency) -> bool {
    service_of(dependency) == mainstay_embed::SERVICE
}

/// Every dependency of this weight that no other check speaks of, whoever has declared it.
fn others(asked: &Asked, weight: Criticality) -> Observation {
    let collections = asked.db.collections();
    let methods = collections
        .iter()
        .flat_map(|collection| Method::ALL.map(|method| collection.dependency(method).name()));
    let mut spoken_of: HashSet<&str> = methods.collect();
    spoken_of.insert(asked.sharing.catalogue().dependency().name());
    let services = [mainstay_embed::SERVICE, REDIS, otlp::SERVICE];
    let mut others = asked.db.pipelines().dependencies();
    others.retain(|it| {
        it.criticality() == weight
            && !spoken_of.contains(it.name())
            && !services.contains(&service_of(it))
    });
    // Without a critical one nothing can be answered, however many others there are.
    let all = if weight == Criticality::Critical { 1 } else { others.len().max(1) };
    let found = judged(&refused(&others), all);
    let found = found.figure("count", others.len() as f64, "dependencies");
    // By name, 0 for one that is called; the health report bounds how many are listed.
    others.iter().fold(found, |found, it| {
        found.figure(it.name(), f64::from(it.breaker().state().as_gauge()), "breaker")
    })
}

/// Answers that stand in when nothing answers; shown, and never a reason for worry.
pub(super) fn kept_answers(answers: Answers) -> Check {
    let observe = move || {
        Observation::healthy()
            .figure("memory", answers.bytes() as f64, "bytes")
            .figure("memory_max", answers::BYTES_MAX as f64, "bytes")
            .figure("entries", answers.len() as f64, "answers")
    };
    Check::new("cache/answers", ComponentKind::Cache, observe).criticality(Criticality::Informative)
}

/// The Redis of shared rates: without it each node keeps to its share, so nothing suffers.
pub(super) fn redis(pipelines: Pipelines, probes: ActiveProbes) -> Check {
    let meanwhile = "this node keeps to its share of the rates";
    beside_searches(REDIS, ComponentKind::Datastore, (pipelines, probes), meanwhile)
}

/// The collector of traces, when there is one: without it spans are lost, nothing else.
pub(super) fn collector(pipelines: Pipelines, probes: ActiveProbes) -> Option<Check> {
    of_service(&pipelines, otlp::SERVICE)?;
    let meanwhile = "spans are dropped and counted";
    let kind = ComponentKind::Http;
    Some(beside_searches(otlp::SERVICE, kind, (pipelines, probes), meanwhile))
}

fn of_service(pipelines: &Pipelines, service: &str) -> Option<Dependency> {
    let all = pipelines.dependencies();
    all.into_iter().find(|it| service_of(it) == service)
}

/// A service that no search needs, by its breaker and its figures.
fn beside_searches(
    service: &'static str,
    kind: ComponentKind,
    (pipelines, probes): (Pipelines, ActiveProbes),
    meanwhile: &'static str,
) -> Check {
    let observe = move || {
        let Some(dependency) = of_service(&pipelines, service) else {
            return Observation::healthy();
        };
        let last = dependency.figures().snapshot();
        let state = dependency.breaker().state();
        let found = match (refuses(state), probes.standing(&dependency)) {
            (true, _) => Observation::degraded(format_args!(
                "its breaker is {state}, and {meanwhile}: {}",
                last.last_error.map_or_else(|| "no call has failed".to_string(), |(_, it)| it)
            )),
            (false, Standing::Failing(why)) => {
                Observation::degraded(format_args!("its probe failed, and {meanwhile}: {why}"))
            }
            (false, Standing::NotCalled) => Observation::unknown("not called yet"),
            (false, Standing::Called) => Observation::healthy(),
        };
        found.figure("calls", last.calls as f64, "calls").figure(
            "failures",
            last.failures as f64,
            "calls",
        )
    };
    Check::new(service, kind, observe).criticality(Criticality::Informative)
}

fn query_cache(asked: &Asked) -> Observation {
    let cache = asked.db.figures().query_cache;
    Observation::healthy()
        .figure("memory", cache.bytes as f64, "bytes")
        .figure("memory_max", cache.bytes_max as f64, "bytes")
        .figure("entries", cache.entries as f64, "vectors")
        .figure("hits", cache.hits as f64, "look-ups")
        .figure("misses", cache.misses as f64, "look-ups")
}

fn disk(asked: &Asked) -> Observation {
    match asked.db.disk_available_bytes() {
        Err(error) => Observation::unknown(error),
        Ok(bytes) => {
            let found = match bytes < DISK_LOW_BYTES {
                true => Observation::degraded(format_args!(
                    "{bytes} bytes are free; below {DISK_LOW_BYTES} make room"
                )),
                false => Observation::healthy(),
            };
            found.figure("available", bytes as f64, "bytes")
        }
    }
}

fn memory(asked: &Asked) -> Observation {
    let report = asked.memory.report();
    let found = match report.step {
        Step::Normal | Step::Warn => Observation::healthy(),
        Step::Shrink | Step::Return => {
            Observation::degraded(format_args!("at step {}", report.step.as_str()))
        }
        Step::Reject | Step::Emergency => {
            Observation::unhealthy(format_args!("at step {}", report.step.as_str()))
        }
    };
    let Some(reading) = report.reading else {
        return Observation::unknown("the kernel shows no figures, so nothing is guarded");
    };
    found
        .figure("used", reading.used_bytes as f64, "bytes")
        .figure("limit", reading.limit_bytes as f64, "bytes")
        .figure("reserved", report.reserved_bytes as f64, "bytes")
}

fn handles(asked: &Asked) -> Observation {
    let report = asked.handles.report(&KernelFiles::default());
    let used = report.files + report.connections;
    let found = match used as f64 >= report.max as f64 * HANDLES_HIGH {
        true => Observation::degraded(format_args!("{used} of {} are in use", report.max)),
        false => Observation::healthy(),
    };
    found
        .figure("files", report.files as f64, "handles")
        .figure("connections", report.connections as f64, "handles")
        .figure("max", report.max as f64, "handles")
        .figure("refused", report.refused as f64, "handles")
}

fn audit(asked: &Asked) -> Observation {
    match asked.audit.failures() {
        0 => Observation::healthy(),
        lost => Observation::degraded(format_args!("{lost} events could not be kept")),
    }
}
