//! What no setting can see by itself: settings that must fit together, and texts that something else
//! reads. Checked whenever settings are read, so that what is called sound can be used.

use std::path::Path;

use mainstay_catalogue::{Catalogue, Location};
use mainstay_db::ModelChoice;
use mainstay_db::file_system::{FileSystem, RealFs};
use mainstay_ops::redact::redact;
use mainstay_ops::slo::ProbeLedger;
use mainstay_ops::telemetry::log_filter;
use mainstay_resilience::ConfigError;

use super::fault::SettingFault;
use super::{Origin, SETTINGS, Settings};
use crate::otlp::Collector;

/// The steps of the memory guard, which must rise in this order.
const MEMORY_STEPS: [&str; 5] = [
    "memory.warn_percent",
    "memory.shrink_percent",
    "memory.return_percent",
    "memory.reject_percent",
    "memory.emergency_percent",
];

/// Pairs of which the first must not be above the second. A first one that has its default gives way to
/// the second instead: see [`Settings::at_most`].
const PAIRS: [(&str, &str); 4] = [
    ("admission.searches_min", "server.searches_max"),
    ("admission.queue_target", "admission.queue_timeout"),
    ("slo.probe_timeout", "slo.probe_every"),
    ("catalogue.idle_timeout", "catalogue.lifetime_max"),
];

impl Settings {
    /// Every fault that a single value does not show; none when the settings can be used together.
    /// What only the machine knows, such as whether a file is there, is not looked at.
    #[must_use]
    pub fn validate(&self) -> Vec<SettingFault> {
        let mut faults = self.memory_faults();
        let config = self.config();
        let operations = &config.operations;
        let parts = [
            // Steps that do not rise are told above, in percent as they are written.
            ("memory", operations.memory.validate().err().filter(|_| faults.is_empty())),
            ("levels", operations.levels.validate().err()),
            ("slo", operations.slo.validate().err()),
            ("slo", self.probe_fault()),
            ("catalogue", operations.catalogue.pool.validate().err()),
            ("dependency", self.pipelines().validate().err()),
            ("dependency", Catalogue::validate(self.pipelines()).err()),
            ("admission", config.admission.validate().err()),
            ("handles", self.handles().validate().err()),
        ];
        for (section, error) in parts {
            faults.extend(error.map(|error| self.refused(section, &error)));
        }
        faults.extend(self.pair_faults());
        faults.extend(self.tls_fault());
        faults.extend(self.text_faults());
        faults
    }

    fn memory_faults(&self) -> Vec<SettingFault> {
        let pairs = MEMORY_STEPS.iter().zip(&MEMORY_STEPS[1..]);
        let falls = pairs.filter(|(below, above)| self.number(above) <= self.number(below));
        let fault = |(below, above): (&&str, &&str)| {
            let (is, must) = (self.number(above), self.number(below));
            let message = format!("{above} is {is}; it must be above {below}, which is {must}");
            self.fault(&[above, below], message)
        };
        falls.map(fault).collect()
    }

    /// With 0s there are no probes, whatever their time.
    fn probe_fault(&self) -> Option<ConfigError> {
        let every = self.duration("slo.probe_every");
        let checked = ProbeLedger::validate(every, self.duration("slo.probe_timeout"));
        checked.err().filter(|_| !every.is_zero())
    }

    fn pair_faults(&self) -> Vec<SettingFault> {
        let crossed = PAIRS.iter().filter(|(below, above)| {
            let counts = match *above {
                // A fixed number of searches has no least one.
                "server.searches_max" => self.text("admission.algorithm") != "fixed",
                // With 0s there are no probes.
                "slo.probe_every" => !self.duration(above).is_zero(),
                _ => true,
            };
            counts && !self.is_default(below) && self.amount(below) > self.amount(above)
        });
        let fault = |(below, above): &(&str, &str)| {
            let (is, most) = (self.value(below), self.value(above));
            let message = format!("{below} is {is}; it must not be above {above}, which is {most}");
            self.fault(&[below, above], message)
        };
        crossed.map(fault).collect()
    }

    fn tls_fault(&self) -> Option<SettingFault> {
        let names = ["tls.certificate", "tls.key", "tls.client_ca"];
        let fits = match names.map(|name| !self.text(name).is_empty()) {
            [certificate, key, client_ca] => certificate == key && (key || !client_ca),
        };
        let message = "tls.certificate and tls.key go together, and tls.client_ca needs both";
        (!fits).then(|| self.fault(&names, message.to_string()))
    }

    /// Texts that something else reads. Some may hold a password, and their readers' errors may
    /// repeat them.
    fn text_faults(&self) -> Vec<SettingFault> {
        let model = |text: &str| match text.parse::<ModelChoice>() {
            // A folder may be named as it is.
            Err(_) if RealFs.exists(Path::new(text)).unwrap_or(false) => Ok(()),
            read => read.and_then(|choice| choice.check()).map_err(|error| error.to_string()),
        };
        let catalogue = |text: &str| {
            let read = text.parse::<Location>();
            read.map(drop).map_err(|error| error.to_string())
        };
        let filter = |text: &str| log_filter(text).map(drop).map_err(|error| error.to_string());
        let found = [
            ("catalogue.url", self.read_text("catalogue.url", catalogue)),
            ("semantic.model", model(self.text("semantic.model"))),
            ("log.filter", filter(self.text("log.filter"))),
            (
                "telemetry.endpoint",
                self.read_text("telemetry.endpoint", |text| {
                    Collector::check_endpoint(text).map(drop)
                }),
            ),
        ];
        let faults = found.into_iter().filter_map(|(name, read)| Some((name, read.err()?)));
        let fault = |(name, why): (&str, String)| {
            self.fault(&[name], format!("{name} cannot be used: {}", redact(&why)))
        };
        faults.map(fault).collect()
    }

    /// Reads a text that may be empty.
    fn read_text(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<(), String>,
    ) -> Result<(), String> {
        let text = self.text(name);
        if text.is_empty() { Ok(()) } else { read(text) }
    }

    /// What a part of the program says of its configuration, by the name of the setting.
    fn refused(&self, section: &str, error: &ConfigError) -> SettingFault {
        let Some(name) = setting_of(section, error.field()) else {
            return self.fault(&[section], error.to_string());
        };
        let shown = self.value(name);
        let message = format!("{name} is \"{shown}\"; allowed is {}", error.allowed());
        self.fault(&[name, section], message)
    }

    /// Where a fault comes from: the first of these settings, or of the settings of these sections,
    /// that a source has set.
    fn fault(&self, names: &[&str], message: String) -> SettingFault {
        let own = |name: &&str| {
            let within = format!("{name}.");
            let belongs = |setting: &str| setting == *name || setting.starts_with(&within);
            self.iter()
                .filter(|(setting, ..)| belongs(setting.name))
                .find(|(_, _, origin)| **origin != Origin::Default)
                .map(|(_, _, origin)| origin.clone())
        };
        let section = names[0].split('.').next().unwrap_or_default();
        let origin = names.iter().find_map(own).or_else(|| own(&section));
        SettingFault { origin: origin.unwrap_or(Origin::Default), message }
    }
}

/// The setting that a field of a configuration is made from.
fn setting_of(section: &str, field: &str) -> Option<&'static str> {
    // What one service has of its own has a value of its own as well.
    if field.starts_with("services.") {
        return None;
    }
    let last = field.rsplit('.').next().unwrap_or(field);
    let plain = last.strip_suffix("_ms").unwrap_or(last);
    let known = |key: &str| {
        let name = format!("{section}.{key}");
        SETTINGS.iter().map(|setting| setting.name).find(|known| *known == name)
    };
    known(last).or_else(|| known(plain))
}
