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
use mainstay_ops::slo::{Indicator, MeanTimes, SloConfig};
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
            ..HandleConfig::default()
        }
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn load(
        toml: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Settings, String> {
        let file = Path::new("/etc/mainstay.toml");
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
        };
        Settings::load(Some((file, toml)), owned(environment), &owned(flags))
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn every_default_parses_and_is_the_default_of_the_configuration() {
        let settings = Settings::default();
        let mut default = Config::default();
        // The table writes out what the registry would fill in.
        default.operations.catalogue.pipelines = settings.pipelines();
        assert_eq!(settings.config(), default);
        let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SETTINGS.len(), "a name stands in the table twice");
        let mut sections: Vec<&str> =
            SETTINGS.iter().filter_map(|setting| setting.name.split('.').next()).collect();
        sections.dedup();
        let several = sections.len();
        sections.sort_unstable();
        sections.dedup();
        assert_eq!(sections.len(), several, "a section is in two pieces");
    }

    /// V6: MTBF and MTTR may be promised otherwise, or not at all.
    #[test]
    fn mean_times_are_promised_as_they_are_set() {
        let promised = |flags: &[(&str, &str)]| {
            let config = load("", &[], flags).unwrap().config();
            let promised = config.operations.slo.mean_times;
            (promised.mtbf_min_ms, promised.mttr_max_ms)
        };
        assert_eq!(promised(&[]), (720 * 3_600_000, 900_000));
        let set = [("slo.mtbf_min", "100h"), ("slo.mttr_max", "0s")];
        assert_eq!(promised(&set), (360_000_000, 0));
        let refused = load("", &[], &[("slo.mtbf_min", "121d")]).unwrap_err();
        assert!(refused.contains("slo.mtbf_min is \"121d\"; allowed is 0s to 120d"), "{refused}");
    }

    #[test]
    fn later_sources_win_and_each_value_knows_its_own() {
        let toml = "[server]\nsearches_max = 7\nwrites_max = 8\nbody_timeout = \"3s\"\n";
        let settings = load(
            toml,
            &[("MAINSTAY_SERVER_WRITES_MAX", "9"), ("MAINSTAY_SERVER_BODY_TIMEOUT", "4s")],
            &[("server.body_timeout", "5s")],
        )
        .unwrap();
        let of = |name: &str| {
            let (_, value, origin) = settings.iter().find(|(it, ..)| it.name == name).unwrap();
            (value.to_string(), origin.to_string())
        };
        assert_eq!(of("server.connections_max").1, "default");
        assert!(of("server.searches_max").1.ends_with("mainstay.toml:2"));
        assert_eq!(of("server.writes_max"), ("9".into(), "MAINSTAY_SERVER_WRITES_MAX".into()));
        assert_eq!(of("server.body_timeout"), ("5s".into(), "command line".into()));
        assert_eq!(settings.config().admission.searches_max, 7);
    }

    /// Wrong configuration of every class of setting.
    #[test]
    fn every_fault_is_told_at_once_with_the_name_the_value_and_what_is_allowed() {
        let toml = "[server]\nlisten = \"nowhere\"\nsearch_max = 1\nwrites_max = 0\n\
                    body_bytes_max = \"1 TiB\"\nheader_timeout = \"10\"\nbody_timeout = true\n\
                    [sever]\nlisten = \"x\"\n[semantic]\nrefine_percent = 101\n\
                    [levels]\nmaintenance_reads = \"perhaps\"\n\
                    [admission]\nrates = \"search = many\"\nredis_url = \"http://cache\"\n\
                    [auth]\nmode = \"sometimes\"\n[slo]\navailability = 2\n";
        let told = load(
            toml,
            &[("MAINSTAY_SERVER_CONECTIONS_MAX", "1"), ("MAINSTAY_SERVER_DRAIN_TIMEOUT", "2d")],
            &[("server.listne", "x")],
        )
        .unwrap_err();
        for part in [
            ":2: server.listen is \"nowhere\"; allowed is an address and port such as 127.0.0.1:8080",
            ":3: there is no setting server.search_max; did you mean server.searches_max?",
            ":4: server.writes_max is \"0\"; allowed is 1 to",
            ":5: server.body_bytes_max is \"1 TiB\"; allowed is 1KiB to",
            ":6: server.header_timeout is \"10\"; allowed is a number and a unit such as 250ms, 1.5s or 5m",
            ":7: server.body_timeout is \"true\"",
            "there is no setting sever.listen; did you mean server.listen?",
            "semantic.refine_percent is \"101\"; allowed is 1 to 100",
            ":13: levels.maintenance_reads is \"perhaps\"; allowed is true or false",
            ":15: admission.rates is \"search = many\"; allowed is none, or rates such as",
            ":16: admission.redis_url is \"http://cache\"; allowed is an address such as redis:",
            ":18: auth.mode is \"sometimes\"; allowed is auto, always, never",
            ":20: slo.availability is \"2\"; allowed is 0.5 to 0.99999",
            "MAINSTAY_SERVER_CONECTIONS_MAX: there is no such setting; did you mean MAINSTAY_SERVER_CONNECTIONS_MAX?",
            "MAINSTAY_SERVER_DRAIN_TIMEOUT: server.drain_timeout is \"2d\"; allowed is 0s to",
            "command line: there is no setting server.listne; did you mean server.listen?",
        ] {
            assert!(told.contains(part), "{part}\nis not in\n{told}");
        }
        assert_eq!(told.lines().count(), 16, "{told}");
    }

    /// A text that no setting of this kind takes; none for kinds whose texts something else reads.
    fn malformed(kind: &Kind) -> Option<&'static str> {
        match kind {
            Kind::Text | Kind::Secret => None,
            Kind::Bool => Some("perhaps"),
            Kind::Choice(_) => Some("sometimes"),
            Kind::Address => Some("nowhere"),
            Kind::Count(..) => Some("many"),
            Kind::Bytes(..) => Some("1 TB"),
            Kind::Percent(..) => Some("101"),
            Kind::Number(..) => Some("half"),
            Kind::Duration(..) => Some("10"),
            Kind::Rates => Some("search = many"),
            Kind::RedisUrl => Some("http://cache"),
            Kind::Headers => Some("no-value"),
        }
    }

    /// O6: a new kind does not compile without a malformed value, or has a row here.
    #[test]
    fn every_kind_of_setting_refuses_what_is_malformed() {
        let texts = [("catalogue.url", "mysql://db"), ("log.filter", "mainstay=loud")];
        let mut refusing = Vec::new();
        for Setting { name, kind, .. } in SETTINGS {
            let text = texts.iter().find(|(it, _)| it == name).map(|(_, text)| *text);
            let Some(text) = malformed(kind).or(text) else { continue };
            let told = load("", &[(&source::variable(name), text)], &[]).unwrap_err();
            let expected = match malformed(kind) {
                Some(text) => format!("{name} is {:?}; allowed is ", kind.shown(text)),
                None => format!("{name} cannot be used: "),
            };
            assert!(told.contains(&expected) && told.lines().count() == 1, "{expected}\n{told}");
            refusing.push(std::mem::discriminant(kind));
        }
        for Setting { name, kind, .. } in SETTINGS {
            assert!(refusing.contains(&std::mem::discriminant(kind)), "{name}: {kind:?}");
        }
    }

    #[test]
    fn what_zero_means_is_said_wherever_zero_is_allowed() {
        for Setting { name, kind, about, .. } in SETTINGS {
            let takes_zero = ["0", "0s"].iter().any(|zero| match kind {
                Kind::Text | Kind::Secret | Kind::Headers => false,
                _ => kind.parse(zero).is_ok(),
            });
            let words = about.split(|char: char| !char.is_alphanumeric() && char != '.');
            let mut words = words.map(|word| word.trim_end_matches('.'));
            let says = words.any(|word| ["0", "0s", "zero"].contains(&word));
            assert!(says || !takes_zero, "{name}: {about}");
        }
    }

    /// C5: a password counts, and nobody sees it.
    #[test]
    fn passwords_are_used_and_not_shown() {
        let endpoint = "http://ada:hunter2@127.0.0.1:4317";
        let toml = format!(
            "[telemetry]\nendpoint = \"{endpoint}\"\n\
             [catalogue]\nurl = \"postgres://ada:hunter2@db/x\"\n\
             [admission]\nredis_url = \"redis://:hunter2@db\"\n"
        );
        let toml = toml.replace("[catalogue]", "otlp_headers = \"x-key=hunter2\"\n[catalogue]");
        let settings = load(&toml, &[], &[]).unwrap();
        assert_eq!(settings.text("telemetry.endpoint"), endpoint);
        let changes = Settings::default().changes(&settings);
        assert_eq!(changes.len(), 4);
        assert_eq!(settings.headers("telemetry.otlp_headers").map()["x-key"], "hunter2");
        assert!(to_text(&settings, false).contains("otlp_headers = \"x-key=[redacted]\""));
        let variable = [("OTEL_EXPORTER_OTLP_HEADERS", "x-key=hunter2")];
        assert_eq!(
            load("", &variable, &[]).unwrap().headers("telemetry.otlp_headers"),
            settings.headers("telemetry.otlp_headers")
        );
        let refused = load("", &[("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")], &[]).unwrap_err();
        assert!(refused.contains("telemetry.otlp_headers is \"[redacted]\""), "{refused}");
        for shown in [
            refused,
            to_text(&settings, true),
            to_json(&settings).to_string(),
            format!("{settings:?}{changes:?}"),
            load(&toml.replace("4317", "x\\"), &[], &[]).unwrap_err(),
            load("[dependency]\ntimeout = \"http://u:hunter2@h\"\n", &[], &[]).unwrap_err(),
            load("[service.x]\ntimeout = \"http://u:hunter2@h\"\n", &[], &[]).unwrap_err(),
            load("", &[("MODEL_PATH", "remote:https://u:hunter2@h/v1,m,3")], &[]).unwrap_err(),
            load("", &[("MODEL_PATH", "remote:https://h/v1?key=hunter2,m,3")], &[]).unwrap_err(),
            load("", &[("MODEL_PATH", "https://u:hunter2@h/v1")], &[]).unwrap_err(),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    /// C5: whoever lists the processes of the machine sees the command line.
    #[test]
    fn a_password_on_the_command_line_is_refused_with_the_variable_to_use() {
        for (name, text, variable) in [
            ("catalogue.url", "postgres://u:hunter2@h/db", "MAINSTAY_CATALOGUE_URL"),
            ("admission.redis_url", "redis://:hunter2@h", "MAINSTAY_ADMISSION_REDIS_URL"),
            ("telemetry.endpoint", "https://hunter2@h", "MAINSTAY_TELEMETRY_ENDPOINT"),
            ("telemetry.otlp_headers", "x-key=hunter2", "MAINSTAY_TELEMETRY_OTLP_HEADERS"),
        ] {
            let refused = load("", &[], &[(name, text)]).unwrap_err();
            assert!(refused.contains("list of processes") && !refused.contains("hunter2"));
            assert!(refused.contains(&format!("set {variable} in the env")), "{refused}");
            load("", &[(variable, text)], &[]).unwrap();
        }
        load("", &[], &[("catalogue.url", "postgres://ada@db/x")]).unwrap();
        // Of a model only the key's variable is ever needed.
        for text in ["remote:https://u:hunter2@h/v1,m,3", "remote:https://h/v1?key=hunter2,m,3"] {
            let refused = load("", &[], &[("semantic.model", text)]).unwrap_err();
            assert!(refused.contains("without a key in it"), "{refused}");
            assert!(!refused.contains("hunter2") && !refused.contains("MAINSTAY_"), "{refused}");
        }
    }

    #[test]
    fn a_variable_that_looks_like_ours_and_is_not_known_is_refused() {
        for (name, hint) in [
            ("MAINSTAY_SEVER_LISTEN", "did you mean MAINSTAY_SERVER_LISTEN?"),
            ("MAINSTAY_CONFG", "did you mean MAINSTAY_CONFIG?"),
            ("MAINSTAY_LISEN", "did you mean MAINSTAY_LISTEN?"),
            ("MAINSTAY_ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ", "`mainstay config show` lists all"),
        ] {
            let refused = load("", &[(name, "x")], &[]).unwrap_err();
            assert!(refused.starts_with(&format!("{name}: there is no such setting")), "{refused}");
            assert!(refused.contains(hint), "{refused}");
        }
        let others = PROGRAM_VARIABLES.iter().map(|name| (*name, "x"));
        let of_kubernetes = [
            ("MAINSTAY_SERVICE_HOST", "10.0.0.1"),
            ("MAINSTAY_SERVICE_PORT_HTTP", "8080"),
            ("MAINSTAY_PORT", "tcp://10.0.0.1:8080"),
            ("MAINSTAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("MAINSTAY_SERVER_SERVICE_HOST", "10.0.0.1"),
        ];
        let others: Vec<_> = others.chain(of_kubernetes).collect();
        assert_eq!(load("", &others, &[]).unwrap(), Settings::default());
        assert!(load("", &[("MAINSTAY_PORT", "8080")], &[]).is_err());
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line() {
        let broken = load("[server]\nlisten = \n", &[], &[]).unwrap_err();
        assert!(broken.contains("mainstay.toml:2"), "{broken}");
        assert!(load("server = 3\n", &[], &[]).unwrap_err().contains("server"), "no table");
    }

    #[test]
    fn changes_name_both_values_and_whether_a_restart_is_needed() {
        let before = Settings::default();
        let after =
            load("[server]\nsearches_max = 7\nlisten = \"127.0.0.1:9\"\n", &[], &[]).unwrap();
        let changes = before.changes(&after);
        let told: Vec<_> =
            changes.iter().map(|it| (it.name.as_str(), it.after.clone(), it.reloadable)).collect();
        assert_eq!(
            told,
            [
                ("server.listen", "127.0.0.1:9".to_string(), false),
                ("server.searches_max", "7".to_string(), true)
            ]
        );
    }

    /// O6: what is called sound can be used; each fault names its setting and where it was set.
    #[test]
    fn settings_that_do_not_fit_together_are_faults_of_where_they_were_set() {
        for (toml, part) in [
            (
                "[memory]\nwarn_percent = 90\n",
                ":2: memory.shrink_percent is 80; it must be above memory.warn_percent, which is 90",
            ),
            ("[memory]\nreject_percent = 93\n", ":2: memory.emergency_percent is 93"),
            ("[memory]\nlimit_bytes = \"1MiB\"\n", ":2: memory.limit_bytes is \"1MiB\"; allowed"),
            (
                "[levels]\nqueue_minimal = \"100ms\"\n",
                ":2: levels.queue_minimal is \"100ms\"; allowed is 0, or 200",
            ),
            ("[levels]\nbreakers_degraded = 4\n", ":2: levels.breakers_minimal is \"3\""),
            (
                "[catalogue]\nconnections_max = 5\n",
                ":2: catalogue.connections_min is \"10\"; allowed is 0 to connections_max",
            ),
            (
                "[server]\nsearches_max = 7\n[admission]\nsearches_min = 9\n",
                ":4: admission.searches_min is 9; it must not be above server.searches_max, which is 7",
            ),
            (
                "[admission]\nsearches_min = 129\n",
                ":2: admission.searches_min is 129; it must not be above server.searches_max, which is 128",
            ),
            (
                "[admission]\nqueue_target = \"2s\"\n",
                ":2: admission.queue_target is 2s; it must not be above admission.queue_timeout, which is 1s",
            ),
            ("[slo]\nprobe_timeout = \"11s\"\n", "must not be above slo.probe_every, which is 10s"),
            (
                "[catalogue]\nlifetime_max = \"1m\"\nidle_timeout = \"2m\"\n",
                ":3: catalogue.idle_timeout is 2m; it must not be above catalogue.lifetime_max",
            ),
            (
                "[admission]\nrates = \"search_colection = 1/s\"\n",
                "did you mean search_collection?",
            ),
            ("[catalogue]\nurl = \"mysql://db\"\n", ":2: catalogue.url cannot be used"),
            ("[tls]\nkey = \"k.pem\"\n", ":2: tls.certificate and tls.key go together"),
            ("[tls]\nclient_ca = \"c.pem\"\n", ":2: tls.certificate and tls.key go together"),
            ("[log]\nfilter = \"mainstay=loud\"\n", ":2: log.filter cannot be used"),
            ("[semantic]\nmodel = \"bert\"\n", ":2: semantic.model cannot be used"),
            ("[semantic]\nmodel = \"remote:http://h\"\n", ":2: semantic.model cannot be used"),
            ("[telemetry]\nendpoint = \"h:4317\"\n", ":2: telemetry.endpoint cannot be used"),
        ] {
            let told = load(toml, &[], &[]).unwrap_err();
            assert!(told.contains(part) && told.lines().count() == 1, "{part} is not {told}");
        }
        let of_variable = load("", &[("MAINSTAY_MEMORY_WARN_PERCENT", "80")], &[]).unwrap_err();
        assert!(of_variable.starts_with("MAINSTAY_MEMORY_WARN_PERCENT: "), "{of_variable}");
        let of_flag = load("[tls]\ncertificate = \"c\"\n", &[], &[("tls.client_ca", "a")]);
        assert!(of_flag.unwrap_err().contains("mainstay.toml:2: tls"));
        let of_flag = load("", &[], &[("log.filter", "a=loud")]).unwrap_err();
        assert!(of_flag.starts_with("command line: log.filter"), "{of_flag}");
        let several = load("[memory]\nwarn_percent = 99\n[tls]\nkey = \"k\"\n", &[], &[]);
        assert_eq!(several.unwrap_err().lines().count(), 2);
        assert_eq!(Settings::default().validate(), []);
    }

    /// O6: who lowers the most alone has not asked for the default of the least.
    #[test]
    fn a_default_gives_way_to_what_was_set() {
        let toml = "[server]\nsearches_max = 7\n[admission]\nqueue_timeout = \"200ms\"\n";
        let admission = load(toml, &[], &[]).unwrap().config().admission;
        assert_eq!((admission.searches_min, admission.searches_max), (7, 7));
        assert_eq!(admission.line.target, Duration::from_millis(200));
        let shown = load(toml, &[], &[]).unwrap();
        load(&to_text(&shown, false), &[], &[]).unwrap();
        for toml in [
            "[server]\nsearches_max = 7\n[admission]\nsearches_min = 9\nalgorithm = \"fixed\"\n",
            "[slo]\nprobe_timeout = \"11s\"\nprobe_every = \"0s\"\n",
        ] {
            load(toml, &[], &[]).unwrap();
        }
    }

    /// O6, R6: what is set for one service alone is a change as any other.
    #[test]
    fn changes_of_one_service_are_named_with_it() {
        let told = |before: &str, after: &str| -> Vec<_> {
            let (before, after) = (load(before, &[], &[]).unwrap(), load(after, &[], &[]).unwrap());
            let changes = before.changes(&after);
            changes.into_iter().map(|it| (it.name, it.before, it.after)).collect()
        };
        let (two, four) =
            ("[service.\"a.b\"]\nattempts = 2\n", "[service.\"a.b\"]\nattempts = 4\n");
        for (before, after, was, is) in
            [(two, four, "2", "4"), ("", two, "not set", "2"), (two, "", "2", "not set")]
        {
            let name = "service.a.b.attempts";
            assert_eq!(told(before, after), [(name.into(), was.into(), is.into())]);
        }
        assert!(told(two, two).is_empty());
    }

    /// R6: the names that services use everywhere, with a service's name in front for that service.
    #[test]
    fn dependencies_are_configured_for_all_and_for_one_service() {
        let toml = "[dependency]\ntimeout = \"7s\"\nattempt_time_min = \"20ms\"\n\
                    [service.openai]\nattempts = 9\nretry_after_max = \"5s\"\n";
        let variables = [("HTTP_TIMEOUT_SEC", "8"), ("OPENAI_HTTP_BACKOFF_BASE_MS", "250")];
        let settings = load(toml, &variables, &[("service.openai.breaker_open", "3s")]).unwrap();
        let config = settings.pipelines();
        config.validate().unwrap();
        assert_eq!(config.defaults.timeout, Some(Duration::from_secs(8)));
        assert_eq!(config.defaults.attempts, Some(3));
        let openai = &config.services["openai"].all;
        assert_eq!((openai.attempts, openai.timeout), (Some(9), None));
        assert_eq!(openai.backoff_base, Some(Duration::from_millis(250)));
        assert_eq!(openai.breaker_open, Some(Duration::from_secs(3)));
        assert_eq!(openai.retry_after_max, Some(Duration::from_secs(5)));
        assert_eq!(config.defaults.attempt_time_min, Some(Duration::from_millis(20)));
        let shown = to_text(&settings, true);
        assert!(
            shown.contains("[service.\"openai\"]") && shown.contains("attempts = 9"),
            "{shown}"
        );

        let toml = "[service.openai]\ntimeuot = \"1s\"\nattempts = 0\n";
        let refused = load(toml, &[("CB_RESET_SEC", "soon")], &[]).unwrap_err();
        for part in [
            ":2: there is no setting timeuot of a service; did you mean dependency.timeout",
            ":3: service.openai.attempts is \"0\"; allowed is 1 to 100",
            "CB_RESET_SEC: dependency.breaker_open is \"soon\"",
        ] {
            assert!(refused.contains(part), "{part}\nis not in\n{refused}");
        }
    }

    #[test]
    fn the_reference_page_is_the_one_that_is_checked_in() {
        let here = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        let path = &format!("{here}/../../docs/configuration.md");
        if std::env::var_os("MAINSTAY_UPDATE").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(there, reference(), "run the tests with MAINSTAY_UPDATE=1");
    }
}
