//! The report in the shape of `application/health+json` (draft-inadarei-api-health-check), with
//! what the draft has no place for beside it.

use super::Health;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The status of the draft, which knows three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Healthy.
    Pass,
    /// Degraded, or not known.
    Warn,
    /// Unhealthy.
    Fail,
}

impl From<Health> for Status {
    fn from(health: Health) -> Self {
        match health {
            Health::Healthy => Status::Pass,
            Health::Degraded | Health::Unknown => Status::Warn,
            Health::Unhealthy => Status::Fail,
        }
    }
}

/// The health of the whole and of each of its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// The draft's status.
    pub status: Status,
    /// The same in four states.
    pub state: Health,
    /// Whether work may be sent here.
    pub ready: bool,
    /// The version of the interface.
    pub version: String,
    /// The version of the program.
    pub release_id: String,
    /// Which process this is.
    pub service_id: String,
    /// What this process is.
    pub description: String,
    /// Why it is not ready, and what is wrong with which check.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// By `name:measurement`: the response time of each check and the figures that it read off.
    pub checks: BTreeMap<String, Vec<CheckEntry>>,
}

/// One measurement of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckEntry {
    /// The check's name.
    pub component_id: String,
    /// `component`, `datastore` or `system`.
    pub component_type: String,
    /// The draft's status.
    pub status: Status,
    /// The same in four states.
    pub state: Health,
    /// `critical`, `degrades` or `informative`.
    pub criticality: super::Criticality,
    /// The figure; absent while there is no answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_value: Option<f64>,
    /// Its unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_unit: Option<String>,
    /// When the last answer came, RFC 3339 in UTC; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<String>,
    /// Endpoints that suffer; absent while it is healthy.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub affected_endpoints: Vec<String>,
    /// What is wrong, without secrets; absent while it is healthy.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub output: String,
}

impl HealthReport {
    /// The HTTP status: 200 when healthy or degraded, 503 when unhealthy or unknown.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self.state {
            Health::Healthy | Health::Degraded => 200,
            Health::Unhealthy | Health::Unknown => 503,
        }
    }

    /// The exit code for scripts: 0 healthy, 1 degraded, 2 unhealthy, 3 unknown.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        self.state.as_gauge()
    }
}
