//! All flags, compiled for evaluation.
//!
//! Invariants: a flag stands behind every flag that it requires, so evaluation never goes round in
//! a circle; every variant index points to a variant.

use super::definition::{Definition, FlagError, FlagValue, Rule};
use super::evaluation::{Reason, Subject};
use super::{Definitions, FLAGS_MAX};
use crate::wall_clock::WallClock;
use mainstay_resilience::ConfigError;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Steps of a percentage: thousandths of a percent.
const SHARES: u64 = 100_000;
/// Flags that may require each other in a row: each evaluation goes all the way down.
const DEPTH_MAX: usize = 8;

/// A named value.
pub(super) struct Variant {
    pub(super) name: Arc<str>,
    pub(super) value: FlagValue,
}

struct Condition {
    attribute: String,
    /// Sorted.
    values: Vec<String>,
}

struct CompiledRule {
    conditions: Vec<Condition>,
    /// Users whose share lies below this get the variant.
    below: u64,
    variant: usize,
}

pub(super) struct Flag {
    name: String,
    enabled: bool,
    variants: Vec<Variant>,
    default: usize,
    off: usize,
    rules: Vec<CompiledRule>,
    /// Flag and variant.
    requires: Vec<(usize, usize)>,
    /// In milliseconds since 1970; the end is not within.
    schedule: Option<(u64, u64)>,
    /// Makes each flag split users in its own way.
    seed: u64,
}

/// The key is a good hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

pub(super) struct Table {
    flags: Vec<Flag>,
    by_name: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
}

impl Table {
    /// Validates and compiles; an override stands in place of what was declared.
    pub(super) fn build(
        declared: &Definitions,
        overrides: &Definitions,
    ) -> Result<Self, FlagError> {
        let mut effective: BTreeMap<&str, &Definition> = BTreeMap::new();
        effective.extend(declared.iter().map(|(name, d)| (name.as_str(), d)));
        for (name, definition) in overrides {
            definition.validate(name)?;
            if let Some(other) = declared.get(name).filter(|d| d.kind() != definition.kind()) {
                let (found, field) = (definition.kind(), format!("flags.{name}.variants"));
                let allowed = format!("values of type {}, as the program reads it", other.kind());
                return Err(ConfigError::new(field, found, allowed).into());
            }
            effective.insert(name, definition);
        }
        if effective.len() > FLAGS_MAX {
            let allowed = format!("up to {FLAGS_MAX}");
            return Err(ConfigError::new("flags", effective.len(), allowed).into());
        }
        let order = order(&effective)?;
        let mut table =
            Table { flags: Vec::with_capacity(order.len()), by_name: HashMap::default() };
        for name in order {
            let flag = table.compile(name, effective[name])?;
            let index = table.flags.len();
            if table.by_name.insert(xxh3_64(name.as_bytes()), index).is_some() {
                let allowed = "a name whose hash is not taken";
                return Err(ConfigError::new("flags", name, allowed).into());
            }
            table.flags.push(flag);
        }
        Ok(table)
    }

    pub(super) fn len(&self) -> usize {
        self.flags.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<&Flag> {
        let index = *self.by_name.get(&xxh3_64(name.as_bytes()))?;
        self.flags.get(index).filter(|flag| flag.name == name)
    }

    /// The variant for this subject, and why.
    pub(super) fn choose<'a>(
        &self,
        flag: &'a Flag,
        subject: &Subject<'_>,
        wall: &WallClock,
    ) -> (&'a Variant, Reason) {
        let (index, reason) = self.decide(flag, subject, wall);
        (&flag.variants[index], reason)
    }

    fn decide(&self, flag: &Flag, subject: &Subject<'_>, wall: &WallClock) -> (usize, Reason) {
        if !flag.enabled {
            return (flag.off, Reason::Disabled);
        }
        if let Some((from, until)) = flag.schedule
            && !(from..until).contains(&wall.unix_ms_coarse())
        {
            return (flag.off, Reason::Schedule);
        }
        for (required, variant) in &flag.requires {
            if self.decide(&self.flags[*required], subject, wall).0 != *variant {
                return (flag.off, Reason::Requirement);
            }
        }
        for rule in &flag.rules {
            if let Some(reason) = rule.matches(flag.seed, subject) {
                return (rule.variant, reason);
            }
        }
        let reason = if flag.rules.is_empty() { Reason::Static } else { Reason::Default };
        (flag.default, reason)
    }

    /// Everything that `definition` requires is compiled already.
    fn compile(&self, name: &str, definition: &Definition) -> Result<Flag, FlagError> {
        definition.validate(name)?;
        // Every name was found by the validation.
        let index = |variant: &String| definition.variants.keys().position(|v| v == variant);
        let index = |variant: &String| index(variant).unwrap_or(0);
        let mut requires = Vec::with_capacity(definition.requires.len());
        for (n, required) in definition.requires.iter().enumerate() {
            let field = format!("flags.{name}.requires[{n}]");
            let refuse = |part: &str, value: &str, allowed: &str| {
                ConfigError::new(format!("{field}.{part}"), format!("{value:?}"), allowed)
            };
            let known = self.by_name.get(&xxh3_64(required.flag.as_bytes())).copied();
            let flag =
                known.ok_or_else(|| refuse("flag", &required.flag, "a flag that is defined"))?;
            let variants = &self.flags[flag].variants;
            let variant = variants.iter().position(|v| *v.name == *required.variant);
            let allowed = "one of that flag's variants";
            let variant = variant.ok_or_else(|| refuse("variant", &required.variant, allowed))?;
            requires.push((flag, variant));
        }
        let named = |(name, value): (&String, &FlagValue)| Variant {
            name: name.as_str().into(),
            value: value.clone(),
        };
        let scheduled = definition.from.is_some() || definition.until.is_some();
        Ok(Flag {
            name: name.to_owned(),
            enabled: definition.enabled,
            variants: definition.variants.iter().map(named).collect(),
            default: index(&definition.default),
            off: index(&definition.off),
            rules: definition
                .rules
                .iter()
                .map(|r| CompiledRule::new(r, index(&r.variant)))
                .collect(),
            requires,
            schedule: scheduled.then_some(definition.schedule(name)?),
            seed: xxh3_64(name.as_bytes()),
        })
    }
}

impl CompiledRule {
    fn new(rule: &Rule, variant: usize) -> Self {
        let condition = |(attribute, values): (&String, &Vec<String>)| {
            let mut values = values.clone();
            values.sort();
            Condition { attribute: attribute.clone(), values }
        };
        let conditions = rule.when.iter().map(condition).collect();
        // Validated to lie between 0 and 100.
        let below = (rule.percent * (SHARES / 100) as f64).round() as u64;
        CompiledRule { conditions, below, variant }
    }

    fn matches(&self, seed: u64, subject: &Subject<'_>) -> Option<Reason> {
        for condition in &self.conditions {
            let value = subject.attribute(&condition.attribute)?;
            condition.values.binary_search_by(|known| known.as_str().cmp(value)).ok()?;
        }
        if self.below >= SHARES {
            return Some(Reason::TargetingMatch);
        }
        let share = share(seed, subject.user?);
        (share < self.below).then_some(Reason::Split)
    }
}

/// A user's place among the [`SHARES`], evenly spread and the same in every process.
fn share(seed: u64, user: &str) -> u64 {
    let hash = xxh3_64_with_seed(user.as_bytes(), seed);
    // The upper half of the product spreads evenly without a division (Lemire, "fast range").
    ((u128::from(hash) * u128::from(SHARES)) >> 64) as u64
}

/// Names in an order in which each stands behind those it requires.
fn order<'a>(flags: &BTreeMap<&'a str, &'a Definition>) -> Result<Vec<&'a str>, FlagError> {
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    let mut order = Vec::with_capacity(flags.len());
    for name in flags.keys() {
        visit(name, flags, &mut Vec::new(), &mut done, &mut order)?;
    }
    Ok(order)
}

/// The depth of a flag above those that require nothing. The path is as deep as the longest row of
/// requirements, which [`DEPTH_MAX`] bounds.
fn visit<'a>(
    name: &'a str,
    flags: &BTreeMap<&'a str, &'a Definition>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeMap<&'a str, usize>,
    order: &mut Vec<&'a str>,
) -> Result<usize, FlagError> {
    if let Some(depth) = done.get(name) {
        return Ok(*depth);
    }
    // What is not defined is told apart when the flag that requires it is compiled.
    let Some(definition) = flags.get(name) else { return Ok(0) };
    if let Some(begin) = path.iter().position(|seen| *seen == name) {
        let circle = path[begin..].iter().chain([&name]);
        return Err(FlagError::Cycle { flags: circle.map(|flag| (*flag).to_owned()).collect() });
    }
    path.push(name);
    let too_deep = |depth: usize| {
        let allowed = format!("at most {DEPTH_MAX} flags in a row");
        ConfigError::new(format!("flags.{name}.requires"), format!("{depth} in a row"), allowed)
    };
    // A circle is at most this much longer than what is allowed without one.
    if path.len() > FLAGS_MAX {
        return Err(too_deep(path.len()).into());
    }
    let mut depth = 0;
    for required in &definition.requires {
        depth = depth.max(1 + visit(&required.flag, flags, path, done, order)?);
    }
    if depth > DEPTH_MAX {
        return Err(too_deep(depth).into());
    }
    path.pop();
    done.insert(name, depth);
    order.push(name);
    Ok(depth)
}
