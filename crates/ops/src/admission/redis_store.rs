//! [`RedisStore`]: the quotas that several nodes share, in Redis.
//!
//! One script, run atomically, grants portions of a quota by the algorithm of its rule. Only the
//! background of the leases comes here, and a probe that sends a PING; no request ever waits for it.
//!
//! Time is Redis's own, so that nodes whose clocks differ still share one quota. A clock of Redis
//! that steps back grants nothing new until it has caught up.

use super::rate_rule::RateRule;
use crate::lock::lock;
use crate::redact::redact;
use mainstay_resilience::{
    Algorithm, Attempt, Classify, Context, Error, ErrorKind, Lease, Pipelines, QuotaSource,
};
use redis::{Connection, RedisError};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The service's name in the registry of pipelines, and its one endpoint.
pub(super) const SERVICE: &str = "redis";
const ENDPOINT: &str = "quota";
/// What the keys of quotas begin with.
const PREFIX: &str = "mainstay:quota:";
/// How long a portion of a bucket may be spent: a node that dies takes that much with it.
const BUCKET_VALID: Duration = Duration::from_secs(5);

/// KEYS: the quota. ARGV: algorithm, wanted, limit, period in ms, burst, validity of a bucket's
/// portion in ms, what is given back, and the slice that it was granted in. Returns what is granted,
/// for how many ms, and in which slice. What is in the key and cannot be read counts as absent.
const SCRIPT: &str = "\
local t = redis.call('TIME') \
local now = t[1] * 1000 + math.floor(t[2] / 1000) \
local want, limit, period = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]) \
local burst, valid = tonumber(ARGV[5]), tonumber(ARGV[6]) \
local back, from = tonumber(ARGV[7]), ARGV[8] \
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end \
local function field(name) return tonumber(redis.call('HGET', KEYS[1], name) or '') end \
if ARGV[1] == 'bucket' then \
  local at = field('at') or now \
  local tokens = (field('tokens') or burst) + back + math.max(0, now - at) * limit / period \
  tokens = math.min(burst, tokens) \
  local granted = math.max(0, math.min(want, math.floor(tokens))) \
  redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - granted), 'at', tostring(math.max(at, now))) \
  redis.call('PEXPIRE', KEYS[1], math.ceil(burst * period / limit) + 1000) \
  return {granted, valid, 0} \
end \
back = math.min(back, field(from) or 0) \
if back > 0 then redis.call('HINCRBY', KEYS[1], from, -back) end \
local slices = 1 \
if ARGV[1] == 'sliding' then slices = 10 end \
local slice = math.max(1, math.floor(period / slices)) \
local newest = math.floor(now / slice) \
local used = 0 \
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do \
  local number = tonumber(name) \
  local oldest = newest - slices + (slices > 1 and 0 or 1) \
  if number and number >= oldest and number <= newest + 1 then used = used + (field(name) or 0) \
  else redis.call('HDEL', KEYS[1], name) end \
end \
local granted = math.max(0, math.min(want, limit - used)) \
redis.call('HINCRBY', KEYS[1], tostring(newest), granted) \
redis.call('PEXPIRE', KEYS[1], period * 2 + 1000) \
return {granted, (newest + 1) * slice - now, newest}";

/// Where Redis is and how long an answer may take.
#[derive(Clone, PartialEq)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/number]` or `unix:///path`.
    pub url: String,
    /// The longest wait for a connection and for each answer, above zero.
    pub timeout: Duration,
}

/// The password is never shown.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisConfig({}, {:?})", redact(&self.url), self.timeout)
    }
}

impl RedisConfig {
    /// Whether the address can be read.
    ///
    /// # Errors
    /// What is wrong with it; never the address itself, which may hold a password.
    pub fn check_url(url: &str) -> Result<(), String> {
        if url.starts_with("rediss:") {
            return Err(
                "TLS to Redis is not supported; tunnel it, and give the tunnel's end".into()
            );
        }
        // The library's own message may repeat the address.
        let read = redis::Client::open(url).map(drop);
        read.map_err(|_| "an address such as redis://user:password@127.0.0.1:6379/0".to_string())
    }
}

/// What went wrong on the way to a portion.
#[derive(Debug)]
pub(super) enum QuotaError {
    /// The connection, or an error that Redis answered.
    Redis(RedisError),
    /// An answer that no quota can be.
    Garbage(String),
    /// A drill's doing.
    Injected,
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaError::Redis(error) => write!(f, "redis: {}", redact(&error.to_string())),
            QuotaError::Garbage(what) => write!(f, "redis answered what no quota is: {what}"),
            QuotaError::Injected => f.write_str("injected fault"),
        }
    }
}

impl std::error::Error for QuotaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            QuotaError::Redis(error) => Some(error),
            QuotaError::Garbage(_) | QuotaError::Injected => None,
        }
    }
}

impl Classify for QuotaError {
    fn kind(&self) -> ErrorKind {
        match self {
            // The command is always the same: a server that refuses it is not the one it should be.
            QuotaError::Redis(error) => match Classify::kind(error) {
                ErrorKind::BadRequest | ErrorKind::Unknown => ErrorKind::ServerError,
                kind => kind,
            },
            QuotaError::Garbage(_) => ErrorKind::ServerError,
            QuotaError::Injected => ErrorKind::Connection,
        }
    }
}

/// Redis behind the pipeline of the service `redis`.
pub(super) struct RedisStore {
    config: RedisConfig,
    pipelines: Pipelines,
    /// Kept while it answers; any error ends it.
    connection: Mutex<Option<Connection>>,
}

impl RedisStore {
    pub(super) fn new(config: RedisConfig, pipelines: Pipelines) -> Self {
        // In use from now on, so that it is listed before it is first called.
        let _ = pipelines.endpoint(SERVICE, ENDPOINT);
        RedisStore { config, pipelines, connection: Mutex::new(None) }
    }

    fn grant(
        &self,
        rule: &RateRule,
        burst: u64,
        key: &str,
        want: u32,
        back: Back,
    ) -> Result<(u32, Duration, u64), Error<QuotaError>> {
        self.ask(|connection| {
            let answer: Vec<i64> = command(rule, burst, key, want, back)
                .query(connection)
                .map_err(QuotaError::Redis)?;
            read(&answer, rule, want)
        })
    }

    /// Says how Redis is probed: by a PING on the connection that portions take.
    pub(super) fn declare_probe(self: &Arc<Self>) {
        let store = Arc::downgrade(self);
        let probe = move || {
            let store = store.upgrade().ok_or("rates are no longer shared")?;
            store.ping().map_err(|error| error.to_string())
        };
        self.pipelines.endpoint(SERVICE, ENDPOINT).dependency().probe_by(probe);
    }

    fn ping(&self) -> Result<(), Error<QuotaError>> {
        self.ask(|connection| {
            let answer: redis::Value =
                redis::cmd("PING").query(connection).map_err(QuotaError::Redis)?;
            match answer {
                redis::Value::SimpleString(pong) if pong == "PONG" => Ok(()),
                other => Err(QuotaError::Garbage(format!("{:.100}", format!("{other:?}")))),
            }
        })
    }

    fn ask<T>(
        &self,
        question: impl Fn(&mut Connection) -> Result<T, QuotaError>,
    ) -> Result<T, Error<QuotaError>> {
        let endpoint = self.pipelines.endpoint(SERVICE, ENDPOINT);
        self.pipelines.run(SERVICE, ENDPOINT, Context::default(), |_: Attempt| {
            let faults = endpoint.dependency().faults();
            faults.strike_within(self.config.timeout).map_err(|_| QuotaError::Injected)?;
            let mut held = lock(&self.connection);
            let mut connection = match held.take() {
                Some(connection) => connection,
                None => self.connect().map_err(QuotaError::Redis)?,
            };
            let answer = question(&mut connection)?;
            *held = Some(connection);
            Ok(answer)
        })
    }

    fn connect(&self) -> Result<Connection, RedisError> {
        let client = redis::Client::open(self.config.url.as_str())?;
        let connection = client.get_connection_with_timeout(self.config.timeout)?;
        connection.set_read_timeout(Some(self.config.timeout))?;
        connection.set_write_timeout(Some(self.config.timeout))?;
        Ok(connection)
    }
}

/// What was granted and not spent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Back {
    pub(super) units: u64,
    /// The slice of the last grant, as the store counts them.
    pub(super) slice: u64,
}

fn command(rule: &RateRule, burst: u64, key: &str, want: u32, back: Back) -> redis::Cmd {
    let algorithm = match rule.rate.algorithm {
        Algorithm::FixedWindow => "fixed",
        Algorithm::SlidingWindow => "sliding",
        _ => "bucket",
    };
    let period_ms = rule.rate.period.as_millis();
    let mut command = redis::cmd("EVAL");
    // A rule that is changed counts anew: its slices have other lengths.
    let key = format!("{PREFIX}{key}:{algorithm}:{period_ms}");
    command.arg(SCRIPT).arg(1).arg(key).arg(algorithm).arg(want);
    command.arg(rule.rate.limit).arg(u64::try_from(period_ms).unwrap_or(u64::MAX));
    command.arg(burst).arg(BUCKET_VALID.as_millis() as u64);
    command.arg(back.units).arg(back.slice);
    command
}

/// An answer is believed only as far as it makes sense.
fn read(answer: &[i64], rule: &RateRule, want: u32) -> Result<(u32, Duration, u64), QuotaError> {
    let garbage = || QuotaError::Garbage(format!("{:.100}", format!("{answer:?}")));
    let [granted, valid_ms, slice] = answer[..] else { return Err(garbage()) };
    let slice = u64::try_from(slice).map_err(|_| garbage())?;
    let granted = u32::try_from(granted).ok().filter(|granted| *granted <= want);
    let valid = u64::try_from(valid_ms).ok().map(Duration::from_millis);
    let valid = valid.filter(|valid| *valid <= rule.rate.period.max(BUCKET_VALID));
    granted.zip(valid).map(|(granted, valid)| (granted, valid, slice)).ok_or_else(garbage)
}

/// Portions of one rule's quotas.
pub(super) struct Portions<'a> {
    pub(super) store: &'a RedisStore,
    pub(super) rule: &'a RateRule,
    /// What a full bucket holds in the store.
    pub(super) burst: u64,
    /// What goes back with the next question.
    pub(super) back: Mutex<Back>,
    /// How long the last portion may be spent, in nanoseconds.
    pub(super) valid_nanos: AtomicU64,
}

impl QuotaSource for Portions<'_> {
    type Error = Error<QuotaError>;

    /// Blocks; it is ready at its first poll. What goes back is not sent twice: a question without an
    /// answer may have been heard.
    async fn lease(&self, key: &str, want: u32) -> Result<Lease, Self::Error> {
        let back = std::mem::replace(&mut lock(&self.back).units, 0);
        let back = Back { units: back, slice: lock(&self.back).slice };
        let (granted, valid_for, slice) =
            self.store.grant(self.rule, self.burst, key, want, back)?;
        lock(&self.back).slice = slice;
        let nanos = u64::try_from(valid_for.as_nanos()).unwrap_or(u64::MAX);
        self.valid_nanos.store(nanos, Ordering::Relaxed);
        Ok(Lease { granted, valid_for })
    }
}
