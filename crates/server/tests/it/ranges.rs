//! Whatever a setting's range allows, the server starts with.

use mainstay_ops::handles::HandlePool;
use mainstay_server::settings::{Kind, SETTINGS, Setting, Settings};
use mainstay_server::telemetry::Telemetry;

use super::*;

/// Settings whose ends fit only beside another value than the default of these.
const BESIDE: [(&str, &[(&str, &str)]); 16] = [
    ("catalogue.connections_min", &[("catalogue.connections_max", "1000")]),
    ("catalogue.connections_max", &[("catalogue.connections_min", "0")]),
    ("catalogue.idle_timeout", &[("catalogue.lifetime_max", "1d")]),
    ("memory.warn_percent", &HIGH),
    ("memory.shrink_percent", &[("memory.warn_percent", "1"), HIGH[1], HIGH[2], HIGH[3]]),
    ("memory.return_percent", &[LOW[0], LOW[1], HIGH[2], HIGH[3]]),
    ("memory.reject_percent", &[LOW[0], LOW[1], LOW[2], HIGH[3]]),
    ("memory.emergency_percent", &LOW),
    ("levels.breakers_degraded", &[("levels.breakers_minimal", "0")]),
    ("levels.queue_degraded", &[("levels.queue_minimal", "0s")]),
    ("slo.probe_timeout", &[("slo.probe_every", "10m")]),
    ("admission.searches_min", &[("server.searches_max", "100000")]),
    ("admission.queue_target", &[("admission.queue_timeout", "1m")]),
    ("admission.redis_timeout", &[("admission.redis_url", "redis://127.0.0.1:9")]),
    ("admission.nodes", &[("admission.redis_url", "redis://127.0.0.1:9")]),
    ("telemetry.timeout", &[("telemetry.endpoint", "http://127.0.0.1:9")]),
];
/// The steps of the memory guard as high as they may be, and as low.
const HIGH: [(&str, &str); 4] = [
    ("memory.shrink_percent", "96"),
    ("memory.return_percent", "97"),
    ("memory.reject_percent", "98"),
    ("memory.emergency_percent", "99"),
];
const LOW: [(&str, &str); 4] = [
    ("memory.warn_percent", "1"),
    ("memory.shrink_percent", "2"),
    ("memory.return_percent", "3"),
    ("memory.reject_percent", "4"),
];

/// More handles than any setting asks for: how many there are, only the machine knows.
const HANDLES: u64 = 4 << 20;

/// The least and the greatest value of a range, as they are written.
fn ends(kind: &Kind) -> Vec<String> {
    let range = match kind {
        Kind::Count(..)
        | Kind::Bytes(..)
        | Kind::Percent(..)
        | Kind::Number(..)
        | Kind::Duration(..) => kind.to_string(),
        _ => return Vec::new(),
    };
    range.split(" to ").map(str::to_string).collect()
}

fn settings(pairs: &[(String, String)]) -> Settings {
    Settings::load(None, [], pairs).unwrap_or_else(|faults| panic!("{pairs:?}: {faults:?}"))
}

/// O6: what is called sound can be used, so a range in the table is never wider than what takes it.
#[test]
fn a_server_starts_at_both_ends_of_the_range_of_every_setting() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let host = Host::new(&HandleConfig::default(), None).unwrap();
    let db = Arc::new(Db::open_on(host.file_system(), folder.path(), Options::default()).unwrap());
    let start = |pairs: &[(String, String)]| -> Result<(), String> {
        let settings = settings(pairs);
        let said = |error: &dyn std::fmt::Display| format!("{pairs:?}: {error}");
        let pipelines = Options::pipelines(settings.pipelines()).map_err(|e| said(&e))?;
        let silent = Arc::new(std::sync::Mutex::new(std::io::sink()));
        Telemetry::build(&settings, &pipelines, silent).map_err(|e| said(&e))?;
        let handles = HandlePool::with_limit(&settings.handles(), Some(HANDLES));
        let host = Host { handles: handles.map_err(|e| said(&e))?, ..host.clone() };
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..settings.config() };
        let bound = runtime.block_on(Server::bind(Arc::clone(&db), config, host));
        bound.map(drop).map_err(|e| said(&e))
    };
    let mut refused = Vec::new();
    for Setting { name, kind, .. } in SETTINGS {
        let beside = BESIDE.iter().find(|(it, _)| it == name).map_or(&[][..], |(_, beside)| beside);
        // The catalogue is a service whose calls have defaults of their own.
        let of_service =
            name.strip_prefix("dependency.").map(|key| format!("service.catalogue.{key}"));
        for name in std::iter::once(name.to_string()).chain(of_service) {
            for end in ends(kind) {
                let beside =
                    beside.iter().map(|(name, value)| (name.to_string(), value.to_string()));
                let pairs: Vec<_> = beside.chain([(name.clone(), end)]).collect();
                refused.extend(start(&pairs).err());
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// O6: all of it or nothing: what passes the check is taken over by every part.
#[test]
fn whatever_one_service_may_be_set_to_is_taken_over_by_a_reload() {
    let next: Arc<std::sync::Mutex<Vec<(String, String)>>> = Arc::default();
    let read = Arc::clone(&next);
    let server = Running::start_tuned(Config::default(), move |server| {
        let read = Box::new(move || Ok(settings(&read.lock().unwrap())));
        server.reload_from(Settings::default(), read, Box::new(|_| Ok(())));
    });
    let live = SETTINGS.iter().filter_map(|it| Some((it.name.strip_prefix("dependency.")?, it)));
    for (key, setting) in live {
        for end in ends(&setting.kind) {
            let pair = (format!("service.catalogue.{key}"), end);
            *next.lock().unwrap() = vec![pair.clone()];
            let changes =
                server.control().reload("test").unwrap_or_else(|e| panic!("{pair:?}: {e:?}"));
            assert!(changes.iter().any(|change| change.name == pair.0), "{pair:?}: {changes:?}");
        }
    }
}
