//! What a meter holds as text: Prometheus 0.0.4 and OpenMetrics 1.0.

use std::fmt::Write as _;

use crate::meter::Meter;
use crate::metric::Metric;
use crate::series::{Buckets, Exemplar, Series};

/// A text format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// The Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0: units, exemplars, a marked end.
    OpenMetrics,
}

impl Exposition {
    /// The format that an `Accept` header prefers; Prometheus text where it says nothing.
    #[must_use]
    pub fn preferred(accept: &str) -> Self {
        let weight = |kind: &str| {
            let parts = accept.split(',').filter_map(|part| {
                let mut fields = part.split(';').map(str::trim);
                let named = fields.next()?.eq_ignore_ascii_case(kind);
                let weight = fields.find_map(|field| field.strip_prefix("q=")?.parse::<f32>().ok());
                named.then(|| weight.unwrap_or(1.0))
            });
            parts.fold(0.0, f32::max)
        };
        let open = weight("application/openmetrics-text");
        let plain = weight("text/plain").max(weight("text/*")).max(weight("*/*"));
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Meter {
    /// Everything it holds. Metrics without a series yet are left out.
    #[must_use]
    pub fn render(&self, exposition: Exposition) -> String {
        let mut page = Page { text: String::with_capacity(64 << 10), exposition };
        for family in self.families() {
            let series = family.series();
            if series.is_empty() {
                continue;
            }
            page.head(family.metric);
            for (values, series) in series.iter() {
                page.samples(family.metric, values, series);
            }
        }
        if exposition == Exposition::OpenMetrics {
            page.text.push_str("# EOF\n");
        }
        page.text
    }
}

struct Page {
    text: String,
    exposition: Exposition,
}

impl Page {
    fn head(&mut self, metric: &Metric) {
        let open = self.exposition == Exposition::OpenMetrics;
        let name = if open { metric.family() } else { metric.name };
        let _ = writeln!(self.text, "# TYPE {name} {}", metric.kind.as_str());
        if let (true, Some(unit)) = (open, metric.unit.as_str()) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
        let help = if open { help.replace('"', "\\\"") } else { help };
        let _ = writeln!(self.text, "# HELP {name} {help}");
    }

    fn samples(&mut self, metric: &Metric, values: &[String], series: &Series) {
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        match series {
            Series::Counter(count) => {
                let value = count.load(relaxed);
                self.sample(metric, "", values, None, &value.to_string());
            }
            Series::Gauge(bits) => {
                let value = number(f64::from_bits(bits.load(relaxed)));
                self.sample(metric, "", values, None, &value);
            }
            Series::Histogram(buckets) => self.histogram(metric, values, buckets),
        }
    }

    fn histogram(&mut self, metric: &Metric, values: &[String], buckets: &Buckets) {
        let reading = buckets.read();
        let mut count = 0;
        for (bound, below, exemplar) in reading.buckets {
            count = below;
            self.sample(metric, "_bucket", values, Some(bound), &below.to_string());
            if let (Exposition::OpenMetrics, Some(exemplar)) = (self.exposition, exemplar) {
                self.exemplar(exemplar);
            }
        }
        self.sample(metric, "_sum", values, None, &number(reading.sum));
        self.sample(metric, "_count", values, None, &count.to_string());
    }

    fn sample(
        &mut self,
        metric: &Metric,
        suffix: &str,
        values: &[String],
        bound: Option<f64>,
        value: &str,
    ) {
        let text = &mut self.text;
        let _ = write!(text, "{}{suffix}", metric.name);
        let mut before = '{';
        for (label, value) in metric.labels.iter().zip(values) {
            let _ = write!(text, "{before}{}=\"", label.name);
            escape(text, value);
            text.push('"');
            before = ',';
        }
        if let Some(bound) = bound {
            let _ = write!(text, "{before}le=\"{}\"", number(bound));
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }

    /// Appends to the sample that was written last.
    fn exemplar(&mut self, exemplar: Exemplar) {
        let Exemplar { trace_id, value, at_s } = exemplar;
        self.text.pop();
        let _ =
            writeln!(self.text, " # {{trace_id=\"{trace_id:032x}\"}} {} {at_s:.3}", number(value));
    }
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

/// A number in a form that both formats read; whole ones keep their `.0`, so that a bound is the
/// same label in both.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_string()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_string()
    } else if value.is_nan() {
        "NaN".to_string()
    } else {
        format!("{value:?}")
    }
}
