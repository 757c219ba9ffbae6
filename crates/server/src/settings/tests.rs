//! What a configuration may say, and what is answered when it says something else.

#![allow(clippy::unwrap_used)]

use mainstay_ops::handles::HandlePool;

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
    let after = load("[server]\nsearches_max = 7\nlisten = \"127.0.0.1:9\"\n", &[], &[]).unwrap();
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
        (
            "[slo]\nprobe_every = \"50ms\"\nprobe_timeout = \"50ms\"\n",
            ":2: slo.probe_every is \"50ms\"; allowed is 100ms to 10m",
        ),
        ("[handles]\nmax = 15\n", ":2: handles.max is \"15\"; allowed is 0, or 16 and more"),
        ("[slo]\nprobe_timeout = \"11s\"\n", "must not be above slo.probe_every, which is 10s"),
        (
            "[catalogue]\nlifetime_max = \"1m\"\nidle_timeout = \"2m\"\n",
            ":3: catalogue.idle_timeout is 2m; it must not be above catalogue.lifetime_max",
        ),
        ("[admission]\nrates = \"search_colection = 1/s\"\n", "did you mean search_collection?"),
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
    let several = load("[memory]\nwarn_percent = 95\n[tls]\nkey = \"k\"\n", &[], &[]);
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

/// O3: the pool of PostgreSQL, the client of Redis and the others open sockets without asking, so as many
/// handles are left to them as they may take at a time.
#[test]
fn handles_are_left_to_every_connection_that_a_dependency_may_take() {
    let left = |toml: &str| {
        let settings = load(toml, &[("MAINSTAY_SEMANTIC_THREADS", "3")], &[]).unwrap();
        HandlePool::with_limit(&settings.handles(), Some(4096)).unwrap();
        settings.handles().dependencies
    };
    assert_eq!(
        left(""),
        4,
        "a thread each and one for queries: providers may be named at any time"
    );
    let postgres = "[catalogue]\nurl = \"postgres://ada@db/x\"\n";
    assert_eq!(left(postgres), 4 + 50);
    assert_eq!(left(&format!("{postgres}connections_max = 700\n")), 4 + 700);
    assert_eq!(left("[admission]\nredis_url = \"redis://cache\"\n"), 4 + 2);
    assert_eq!(left("[telemetry]\nendpoint = \"http://collector:4317\"\n"), 4 + 2);
}

/// O6, R6: what is set for one service alone is a change as any other.
#[test]
fn changes_of_one_service_are_named_with_it() {
    let told = |before: &str, after: &str| -> Vec<_> {
        let (before, after) = (load(before, &[], &[]).unwrap(), load(after, &[], &[]).unwrap());
        let changes = before.changes(&after);
        changes.into_iter().map(|it| (it.name, it.before, it.after)).collect()
    };
    let (two, four) = ("[service.\"a.b\"]\nattempts = 2\n", "[service.\"a.b\"]\nattempts = 4\n");
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
    assert!(shown.contains("[service.\"openai\"]") && shown.contains("attempts = 9"), "{shown}");

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
