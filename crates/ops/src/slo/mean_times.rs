//! Mean times as metrics and log lines.

use crate::incidents::{MeanTimeReport, Verdict};
use std::collections::BTreeMap;

/// Shows each mean time, and tells of verdicts that have changed since the last time.
pub(super) fn show(reports: &[MeanTimeReport], verdicts: &mut BTreeMap<String, Verdict>) {
    for report in reports {
        let name = || report.name.clone();
        // Without an incident there is a bound on one side only, and no mean.
        let figures = [
            ("objective", report.target_seconds as f64),
            ("estimate", report.estimate_seconds.unwrap_or(f64::NAN)),
            ("lower", report.lower_seconds),
            ("upper", report.upper_seconds.unwrap_or(f64::INFINITY)),
        ];
        for (figure, seconds) in figures {
            metrics::gauge!("mainstay_mean_time_seconds", "mean_time" => name(), "figure" => figure)
                .set(seconds);
        }
        for verdict in Verdict::ALL {
            let verdict_label = verdict.as_str();
            let holds = f64::from(u8::from(verdict == report.verdict));
            metrics::gauge!(
                "mainstay_mean_time_verdict", "mean_time" => name(), "verdict" => verdict_label
            )
            .set(holds);
        }
        let before = verdicts.insert(report.name.clone(), report.verdict);
        // A start is no change, and begins with what is not known.
        if before.unwrap_or(Verdict::NotYetKnown) == report.verdict {
            continue;
        }
        let (name, verdict, why) = (&*report.name, report.verdict.as_str(), &*report.why);
        match report.verdict {
            Verdict::Missed => tracing::warn!(name, verdict, why, "a mean time is missed"),
            _ => tracing::info!(name, verdict, why, "a mean time is judged anew"),
        }
    }
}
