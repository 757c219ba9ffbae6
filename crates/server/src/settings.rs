//! [`Settings`]: every setting of the server, from defaults, a file, the environment and the command
//! line, each knowing where it comes from.
//!
//! [`SETTINGS`] is the one table: names, types, ranges, documentation and environment variables are
//! declared there and nowhere else. Later sources win: default, file, environment, command line. All
//! faults of all sources are reported at once, and nothing is applied while there is one.

mod fault;
mod show;
mod source;
mod table;
mod validate;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub use fault::SettingFault;
pub use show::{reference, to_json, to_text};
pub use source::{Origin, PROGRAM_VARIABLES};
pub use table::{SETTINGS, Setting};
pub use value::{Kind, Value};

use mainstay_catalogue::PoolConfig;
use mainstay_ops::admission::{AdmissionConfig, LineConfig, RedisConfig};
use mainstay_ops::handles::HandleConfig;
use mainstay_ops::health::GateConfig;
use mainstay_ops::levels::LevelsConfig;
use mainstay_ops::memory::MemoryConfig;
use mainstay_ops::slo::{Indicator, MeanTimes, SloConfig, Source};
use mainstay_resilience::{Law, Overrides, PipelinesConfig};

use crate::config::{AuthMode, Config, SharedRates};
use crate::operations::OperationsConfig;
use crate::otlp_headers::OtlpHeaders;
use crate::sharing::CatalogueConfig;

/// Values of all settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// In the order of [`SETTINGS`].
    values: Vec<(Value, Origin)>,
    /// Overrides of `dependency.*` by service and name of the setting.
    services: BTreeMap<(String, &'static str), (Value, Origin)>,
}

/// A setting that differs between two [`Settings`].
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which: as in the table, or `service.NAME.KEY` for one service.
    pub name: String,
    /// Whether it is taken over while the server runs.
    pub reloadable: bool,
    /// The value before as it may be shown; `not set` where one service had none of its own.
    pub before: String,
    /// The value after, likewise.
    pub after: String,
    /// Where the new value comes from.
    pub origin: Origin,
}

impl Settings {
    /// Reads all sources. `file` is the path, for messages, and the contents of a TOML file;
    /// `environment` is usually `std::env::vars()`; `flags` are pairs of name and value.
    ///
    /// # Errors
    /// Every fault found: unknown names with the nearest known one, values that do not parse, values
    /// out of range; when there is none of these, values that do not fit together.
    pub fn load(
        file: Option<(&Path, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Self, Vec<SettingFault>> {
        let mut faults = Vec::new();
        let mut settings = Self::default();
        if let Some((path, text)) = file {
            source::file(path, text, &mut settings, &mut faults);
        }
        source::environment(environment, &mut settings, &mut faults);
        source::flags(flags, &mut settings, &mut faults);
        if faults.is_empty() {
            // Values that could not be read would be told again in place of their defaults.
            faults = settings.validate();
        }
        if faults.is_empty() { Ok(settings) } else { Err(faults) }
    }

    /// Each setting with its value and where that comes from.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, &Value, &Origin)> {
        SETTINGS.iter().zip(&self.values).map(|(setting, (value, origin))| (setting, value, origin))
    }

    /// What is different in `after`, with the settings of single services.
    pub fn changes(&self, after: &Self) -> Vec<Change> {
        let pairs = self.iter().zip(after.iter());
        let of_all = pairs.filter(|((_, before, _), (_, after, _))| before != after).map(
            |((setting, before, _), (_, after, origin))| Change {
                name: setting.name.to_string(),
                reloadable: setting.reloadable,
                before: before.to_string(),
                after: after.to_string(),
                origin: origin.clone(),
            },
        );
        let keys: BTreeSet<_> = self.services.keys().chain(after.services.keys()).collect();
        let of_services = keys.into_iter().filter_map(|key| {
            let (before, after) = (self.services.get(key), after.services.get(key));
            let value = |of: Option<&(Value, Origin)>| of.map(|(value, _)| value.clone());
            let shown = |of| value(of).map_or("not set".to_string(), |value| value.to_string());
            (value(before) != value(after)).then(|| Change {
                name: service_setting(key),
                reloadable: true,
                before: shown(before),
                after: shown(after),
                origin: after.map_or(Origin::Default, |(_, origin)| origin.clone()),
            })
        });
        of_all.chain(of_services).collect()
    }

    fn set(&mut self, index: usize, value: Value, origin: Origin) {
        self.values[index] = (value, origin);
    }

    fn value(&self, name: &str) -> &Value {
        let at = SETTINGS.iter().position(|setting| setting.name == name);
        &self.values[at.expect("the names in this file are in the table, as a test checks")].0
    }

    /// A [`Kind::Text`], [`Kind::Choice`] or [`Kind::Secret`] setting.
    pub fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) | Value::Secret(text) => text,
            _ => "",
        }
    }

    /// A [`Kind::Count`], [`Kind::Bytes`] or [`Kind::Percent`] setting.
    pub fn number(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Count(number) | Value::Bytes(number) => *number,
            _ => 0,
        }
    }

    /// Whether a setting has its default, also one that is written down: what `config show` prints
    /// can be used as a file.
    fn is_default(&self, name: &str) -> bool {
        self.value(name) == Self::default().value(name)
    }

    /// A number or a time, to be compared with another one of its kind.
    fn amount(&self, name: &str) -> u128 {
        match self.value(name) {
            Value::Duration(duration) => duration.as_nanos(),
            _ => u128::from(self.number(name)),
        }
    }

    /// The name of the setting that counts for `below`: `above` where the default of the one is
    /// above the other. A value that somebody set is refused instead when settings are read.
    fn at_most<'a>(&self, below: &'a str, above: &'a str) -> &'a str {
        if self.amount(below) <= self.amount(above) {
            return below;
        }
        let (is, most) = (self.value(below), self.value(above));
        tracing::debug!(%is, %most, "{below} gives way to {above}");
        above
    }

    /// A [`Kind::Number`] or [`Kind::Percent`] setting, the latter as a share of one.
    pub fn share(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Number(number) => *number,
            Value::Count(percent) => *percent as f64 / 100.0,
            _ => 0.0,
        }
    }

    /// A [`Kind::Headers`] setting.
    pub fn headers(&self, name: &str) -> OtlpHeaders {
        match self.value(name) {
            Value::Headers(headers) => headers.clone(),
            _ => OtlpHeaders::default(),
        }
    }

    /// A [`Kind::Bool`] setting.
    pub fn yes(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Bool(true))
    }

    fn levels(&self) -> LevelsConfig {
        let count = |name| usize::try_from(self.number(name)).unwrap_or(usize::MAX);
        let ms = |name| u64::try_from(self.duration(name).as_millis()).unwrap_or(u64::MAX);
        let mut levels = LevelsConfig {
            worsen_after_ms: ms("levels.worsen_after"),
            recover_after_ms: ms("levels.recover_after"),
            breakers_degraded: count("levels.breakers_degraded"),
            breakers_minimal: count("levels.breakers_minimal"),
            queue_degraded_ms: ms("levels.queue_degraded"),
            queue_minimal_ms: ms("levels.queue_minimal"),
            ..LevelsConfig::default()
        };
        levels.effects.maintenance.reads = self.yes("levels.maintenance_reads");
        levels
    }

    fn operations(&self) -> OperationsConfig {
        let small = |name| u32::try_from(self.number(name)).unwrap_or(u32::MAX);
        OperationsConfig {
            gate: GateConfig {
                failures: small("health.ready_failures"),
                successes: small("health.ready_successes"),
            },
            check_every: self.duration("health.check_every"),
            idle_probe_every: self.duration("health.probe_every"),
            check_timeout: self.duration("health.check_timeout"),
            memory: MemoryConfig {
                limit_bytes: self.number("memory.limit_bytes"),
                warn: self.share("memory.warn_percent"),
                shrink: self.share("memory.shrink_percent"),
                give_back: self.share("memory.return_percent"),
                reject: self.share("memory.reject_percent"),
                emergency: self.share("memory.emergency_percent"),
                ..MemoryConfig::default()
            },
            levels: self.levels(),
            slo: self.slo(),
            probe_every: self.duration("slo.probe_every"),
            probe_timeout: self.duration("slo.probe_timeout"),
            catalogue: self.catalogue(),
        }
    }

    fn shared_rates(&self) -> Option<SharedRates> {
        let Value::Secret(url) = self.value("admission.redis_url") else { return None };
        let nodes = u32::try_from(self.number("admission.nodes")).unwrap_or(u32::MAX);
        let timeout = self.duration("admission.redis_timeout");
        let redis = RedisConfig { url: url.clone(), timeout };
        (!url.is_empty()).then_some(SharedRates { redis, nodes })
    }

    fn admission(&self) -> AdmissionConfig {
        let small = |name| u32::try_from(self.number(name)).unwrap_or(u32::MAX);
        // A text that is in here was read before.
        let rates = |name| value::rates(self.text(name)).unwrap_or_default();
        AdmissionConfig {
            rates: rates("admission.rates"),
            key_rates: rates("admission.key_rates"),
            keys_max: small("admission.keys_max"),
            law: match self.text("admission.algorithm") {
                "fixed" => None,
                "aimd" => Some(Law::Aimd),
                "vegas" => Some(Law::Vegas),
                _ => Some(Law::Gradient2),
            },
            searches_min: small(self.at_most("admission.searches_min", "server.searches_max")),
            searches_max: small("server.searches_max"),
            latency_target: self.duration("admission.latency_target"),
            writes_max: small("server.writes_max"),
            line: LineConfig {
                length: small("admission.queue_length"),
                timeout: self.duration("admission.queue_timeout"),
                target: self
                    .duration(self.at_most("admission.queue_target", "admission.queue_timeout")),
            },
        }
    }

    /// Which catalogue is used, and how.
    pub fn catalogue(&self) -> CatalogueConfig {
        let count = |name| u32::try_from(self.number(name)).unwrap_or(u32::MAX);
        let url = self.text("catalogue.url");
        CatalogueConfig {
            url: (!url.is_empty()).then(|| url.to_string()),
            pool: PoolConfig {
                connections_min: count("catalogue.connections_min"),
                connections_max: count("catalogue.connections_max"),
                acquire_timeout: self.duration("catalogue.acquire_timeout"),
                idle_timeout: self.duration("catalogue.idle_timeout"),
                lifetime_max: self.duration("catalogue.lifetime_max"),
            },
            refresh_every: self.duration("catalogue.refresh_every"),
            pipelines: self.pipelines(),
        }
    }

    /// The objectives, with the figures that may be set.
    fn slo(&self) -> SloConfig {
        let ms = |name| u64::try_from(self.duration(name).as_millis()).unwrap_or(u64::MAX);
        let mean_times =
            MeanTimes { mtbf_min_ms: ms("slo.mtbf_min"), mttr_max_ms: ms("slo.mttr_max") };
        let mut slo = SloConfig { mean_times, ..SloConfig::default() };
        let threshold_ms = ms("slo.latency_threshold");
        for objective in &mut slo.objectives {
            objective.period_days = u32::try_from(self.number("slo.period_days")).unwrap_or(90);
            match &mut objective.indicator {
                Indicator::Availability if objective.source == Source::Writes => {
                    objective.target = self.share("slo.writes");
                }
                Indicator::Availability => objective.target = self.share("slo.availability"),
                Indicator::Latency { threshold_ms: limit } => {
                    *limit = threshold_ms;
                    objective.target = self.share("slo.latency");
                    objective.description = format!("searches take at most {threshold_ms} ms");
                }
            }
        }
        slo
    }

    /// How file handles are divided.
    pub fn handles(&self) -> HandleConfig {
        HandleConfig {
            max: self.number("handles.max"),
            reserve: self.number("handles.reserve"),
            dependencies: self.connections_out(),
            ..HandleConfig::default()
        }
    }

    /// Connections to dependencies that may be open at a time: their pools take no handle for each.
    fn connections_out(&self) -> u64 {
        let is_set = |name| !self.text(name).is_empty();
        let postgres = match is_set("catalogue.url") {
            true => self.number("catalogue.connections_max"),
            false => 0,
        };
        // The thread that takes portions has one connection, and makes another one for a broken one.
        let redis = if is_set("admission.redis_url") { 2 } else { 0 };
        // One that is kept, and one that replaces it.
        let collector = if is_set("telemetry.endpoint") { 2 } else { 0 };
        postgres + redis + collector + self.embedding_connections()
    }

    /// One for each thread that embeds and one for queries. Collections may name providers of their
    /// own beside the one that is set, so the room is there without that as well.
    fn embedding_connections(&self) -> u64 {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let threads = match self.number("semantic.threads") {
            0 => cores(),
            threads => threads,
        };
        threads + 1
    }

    /// How dependencies outside the process are called.
    pub fn pipelines(&self) -> PipelinesConfig {
        let mut config = PipelinesConfig::default();
        for (setting, value, _) in self.iter() {
            apply(&mut config.defaults, setting.name, value);
        }
        for ((service, name), (value, _)) in &self.services {
            let service = config.services.entry(service.clone()).or_default();
            apply(&mut service.all, name, value);
        }
        config
    }

    /// A [`Kind::Duration`] setting.
    pub fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Value::Duration(duration) => *duration,
            _ => Duration::ZERO,
        }
    }

    fn address(&self, name: &str) -> SocketAddr {
        match self.value(name) {
            Value::Address(address) => *address,
            _ => Config::default().listen,
        }
    }

    /// What the server itself needs of them.
    pub fn config(&self) -> Config {
        let count = |name| usize::try_from(self.number(name)).unwrap_or(usize::MAX);
        Config {
            listen: self.address("server.listen"),
            admission: self.admission(),
            shared_rates: self.shared_rates(),
            connections_max: count("server.connections_max"),
            body_bytes_max: count("server.body_bytes_max"),
            header_timeout: self.duration("server.header_timeout"),
            body_timeout: self.duration("server.body_timeout"),
            drain_delay: self.duration("server.drain_delay"),
            drain_timeout: self.duration("server.drain_timeout"),
            answers_max: u32::try_from(self.number("search.answers_max")).unwrap_or(u32::MAX),
            answers_stale_for: self.duration("search.answers_stale_for"),
            auth: match self.text("auth.mode") {
                "always" => AuthMode::Always,
                "never" => AuthMode::Never,
                _ => AuthMode::Auto,
            },
            metrics_open: match self.text("auth.metrics") {
                "open" => Some(true),
                "read" => Some(false),
                _ => None,
            },
            operations: self.operations(),
            slow_search: self.duration("search.slow_threshold"),
            slow_search_text_chars: count("search.slow_text_chars"),
        }
    }
}

/// How a setting of one service is called: `service.NAME.KEY`.
fn service_setting((service, name): &(String, &'static str)) -> String {
    name.replacen("dependency", &format!("service.{service}"), 1)
}

/// Takes a setting of `dependency` over into the toolkit's configuration.
fn apply(overrides: &mut Overrides, name: &str, value: &Value) {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    match (name, value) {
        ("dependency.timeout", Value::Duration(limit)) => overrides.timeout = Some(*limit),
        ("dependency.attempts", Value::Count(number)) => overrides.attempts = Some(count(*number)),
        ("dependency.backoff_base", Value::Duration(wait)) => {
            overrides.backoff_base = Some(*wait);
        }
        ("dependency.retry_after_max", Value::Duration(wait)) => {
            overrides.retry_after_max = Some(*wait);
        }
        ("dependency.attempt_time_min", Value::Duration(time)) => {
            overrides.attempt_time_min = Some(*time);
        }
        ("dependency.breaker_failures", Value::Count(number)) => {
            overrides.breaker_failures = Some(count(*number));
        }
        ("dependency.breaker_open", Value::Duration(wait)) => overrides.breaker_open = Some(*wait),
        _ => {}
    }
}

impl Default for Settings {
    fn default() -> Self {
        let default = |setting: &Setting| {
            let value = setting.parse(setting.default);
            (value.expect("every default parses, as a test checks"), Origin::Default)
        };
        Self { values: SETTINGS.iter().map(default).collect(), services: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests;
