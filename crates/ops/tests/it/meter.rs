//! What is declared is what is exported (V3, B7).

use std::collections::BTreeSet;
use std::path::Path;

use mainstay_ops::exposition::Exposition;
use mainstay_ops::meter::Meter;
use mainstay_ops::metric::{Label, Metric, MetricKind, Unit};
use mainstay_ops::metric_table::{METRICS, reference};
use metrics::with_local_recorder;

const TABLE: &[Metric] = &[
    Metric::counter("t_calls_total", "Calls", &[Label::one_of("result", &["good", "bad"])]),
    Metric::counter(
        "t_users_total",
        "By \"user\"\nor not",
        &[Label { name: "user", values: mainstay_ops::metric::Values::AtMost(2) }],
    )
    .after("a user comes"),
    Metric::gauge("t_depth", "Depth", &[]).recorded_as("library_depth"),
    Metric::histogram("t_wait_seconds", &[0.1, 1.0], "Wait", &[]).unit(Unit::Seconds),
    Metric::counter("mainstay_metrics_undeclared_total", "Refused", &[]),
];

/// What `record` leaves in the text format.
fn rendered(record: impl FnOnce()) -> String {
    let meter = Meter::new(TABLE);
    with_local_recorder(&meter, record);
    meter.render(Exposition::Prometheus)
}

#[test]
fn a_counter_of_closed_sets_begins_at_zero() {
    let text = rendered(|| metrics::counter!("t_calls_total", "result" => "bad").increment(2));
    assert!(text.contains("t_calls_total{result=\"bad\"} 2\nt_calls_total{result=\"good\"} 0\n"));
    assert!(!text.contains("t_users_total"), "{text}");
}

#[test]
fn what_is_not_declared_is_counted_and_never_exported() {
    let meter = Meter::new(TABLE);
    with_local_recorder(&meter, || {
        metrics::counter!("t_nowhere_total").increment(1);
        metrics::counter!("t_depth").increment(1);
        metrics::counter!("t_calls_total").increment(1);
        metrics::counter!("t_calls_total", "other" => "good").increment(1);
        metrics::counter!("t_calls_total", "result" => "unknown").increment(1);
    });
    let text = meter.render(Exposition::Prometheus);
    assert!(text.contains("mainstay_metrics_undeclared_total 5"), "{text}");
    assert!(text.contains("t_calls_total{result=\"other\"} 1\n"), "{text}");
    assert!(!text.contains("nowhere") && !text.contains("unknown"), "{text}");
    assert_eq!(meter.undeclared_names(), ["t_calls_total", "t_depth", "t_nowhere_total"]);
}

#[test]
fn values_beyond_a_labels_bound_are_counted_as_other() {
    let text = rendered(|| {
        for user in ["a", "b", "c", "d", "a", "other"] {
            metrics::counter!("t_users_total", "user" => user.to_string()).increment(1);
        }
    });
    for sample in ["{user=\"a\"} 2", "{user=\"b\"} 1", "{user=\"other\"} 3"] {
        assert!(text.contains(&format!("t_users_total{sample}\n")), "{sample} in {text}");
    }
}

#[test]
fn a_librarys_own_name_is_exported_under_ours() {
    let text = rendered(|| metrics::gauge!("library_depth").set(3.0));
    assert!(text.contains("t_depth 3.0\n") && !text.contains("library"), "{text}");
}

#[test]
fn a_bucket_counts_all_below_its_bound_and_the_bound_itself() {
    let text = rendered(|| {
        for wait in [0.05, 0.1, 0.5, 7.0, f64::NAN] {
            metrics::histogram!("t_wait_seconds").record(wait);
        }
    });
    let expected = "t_wait_seconds_bucket{le=\"0.1\"} 2\nt_wait_seconds_bucket{le=\"1.0\"} 3\n\
                    t_wait_seconds_bucket{le=\"+Inf\"} 4\nt_wait_seconds_sum 7.65\n\
                    t_wait_seconds_count 4\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn openmetrics_has_units_the_familys_name_and_an_end() {
    let meter = Meter::new(TABLE);
    with_local_recorder(&meter, || metrics::histogram!("t_wait_seconds").record(0.5));
    let text = meter.render(Exposition::OpenMetrics);
    assert!(text.starts_with("# TYPE t_calls counter\n# HELP t_calls Calls\nt_calls_total{"));
    assert!(text.contains("# UNIT t_wait_seconds seconds\n"), "{text}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
}

#[test]
fn the_accept_header_chooses_the_format() {
    let prometheus = "application/openmetrics-text;version=1.0.0,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, format) in [
        ("", Exposition::Prometheus),
        ("*/*", Exposition::Prometheus),
        ("text/plain", Exposition::Prometheus),
        ("application/openmetrics-text;q=0", Exposition::Prometheus),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.2", Exposition::Prometheus),
        (prometheus, Exposition::OpenMetrics),
        ("application/openmetrics-text", Exposition::OpenMetrics),
    ] {
        assert_eq!(Exposition::preferred(accept), format, "{accept}");
    }
}

#[test]
fn threads_that_count_together_lose_nothing() {
    let meter = Meter::new(TABLE);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                with_local_recorder(&meter, || {
                    for _ in 0..1000 {
                        metrics::counter!("t_calls_total", "result" => "good").increment(1);
                        metrics::histogram!("t_wait_seconds").record(1.0);
                    }
                });
            });
        }
    });
    let text = meter.render(Exposition::Prometheus);
    assert!(text.contains("{result=\"good\"} 4000"), "{text}");
    assert!(text.contains("t_wait_seconds_sum 4000.0\nt_wait_seconds_count 4000\n"), "{text}");
}

#[test]
fn the_table_keeps_to_the_conventions_of_prometheus() {
    let mut families = BTreeSet::new();
    for metric in METRICS {
        let name = metric.name;
        assert!(families.insert(metric.family()), "{name} is declared twice");
        assert!(name.starts_with("mainstay_"), "{name}");
        let total = name.ends_with("_total");
        assert_eq!(total, metric.kind == MetricKind::Counter, "{name}: only counters end so");
        if let Some(unit) = metric.unit.as_str() {
            assert!(metric.family().ends_with(unit), "{name} does not end in {unit}");
        }
        assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}");
        if let MetricKind::Histogram(bounds) = metric.kind {
            assert!(bounds.is_sorted() && bounds.iter().all(|bound| bound.is_finite()), "{name}");
        }
        let labels: BTreeSet<_> = metric.labels.iter().map(|label| label.name).collect();
        assert_eq!(labels.len(), metric.labels.len(), "{name} has a label twice");
        assert!(!labels.contains("le"), "{name}");
    }
    for bound in [0.01, 0.05, 0.1, 0.5, 1.0, 5.0] {
        let duration = METRICS.iter().find(|m| m.name == "mainstay_search_duration_seconds");
        let Some(MetricKind::Histogram(bounds)) = duration.map(|metric| metric.kind) else {
            panic!("V3 asks for it");
        };
        assert!(bounds.contains(&bound), "V3 asks for {bound}");
    }
}

#[test]
fn the_page_of_metrics_is_the_one_that_is_checked_in() {
    let path =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../docs/metrics.md");
    if std::env::var_os("MAINSTAY_UPDATE").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(there, reference(), "run the tests with MAINSTAY_UPDATE=1");
}
