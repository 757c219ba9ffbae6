//! API keys: made, rotated, revoked and recognised.
//!
//! A key reads `msk_ID_SECRET`. The secret is 32 random bytes, so what is kept of it is a plain
//! SHA-256: nobody guesses 256 bits, and a slow hash would only slow every request. It is shown once,
//! when it is made; afterwards nobody can, only recognise it.
//!
//! Invariants: a change is saved before it counts; readers take no lock; comparing takes the same
//! time whatever is presented, and an unknown id costs as much as a wrong secret.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_keys` | gauge: keys that can be used | |

use crate::audit::{Action, Audit};
use crate::lock::lock;
use crate::store::{StateError, StateStore, load_sealed, save_sealed};
use crate::wall_clock::WallClock;
use arc_swap::ArcSwap;
use mainstay_resilience::ConfigError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Keys of a process: some for each of a thousand teams.
pub const KEYS_MAX: usize = 10_000;
/// How long an old secret goes on working beside a new one, at most.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);
const PREFIX: &str = "msk";
const ID_CHARS: usize = 12;
const SECRET_BYTES: usize = 32;
const NAME_CHARS_MAX: usize = 100;
const COLLECTIONS_MAX: usize = 128;
const PIECE: &str = "keys";
const KIND: [u8; 4] = *b"keys";
const VERSION: u16 = 1;
/// Characters of ids and secrets: letters and digits that are hard to mistake.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Search, and read documents.
    Read,
    /// Store and remove documents.
    Write,
    /// Everything, administration included.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 3] = [Scope::Read, Scope::Write, Scope::Admin];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Admin => "admin",
        }
    }
}

/// What a key is to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewKey {
    /// Whose it is, 1 to 100 characters.
    pub name: String,
    /// What it may do; at least one.
    pub scopes: Vec<Scope>,
    /// The collections that it may touch; empty means all.
    pub collections: Vec<String>,
    /// When it ends by itself; never when absent.
    pub lasting: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Secret {
    /// SHA-256 in hexadecimal.
    sha256: String,
    /// Until when it works; the newest one has no such end.
    until_unix_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    name: String,
    scopes: Vec<Scope>,
    collections: Vec<String>,
    created_unix_ms: u64,
    expires_unix_ms: Option<u64>,
    /// The newest first.
    secrets: Vec<Secret>,
}

impl Key {
    /// Whether it may do everything, everywhere, now.
    fn administers(&self, now_unix_ms: u64) -> bool {
        self.scopes.contains(&Scope::Admin)
            && self.collections.is_empty()
            && self.expires_unix_ms.is_none_or(|end| end > now_unix_ms)
    }
}

/// Who a key stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The key's id: what logs, limits and the audit trail name.
    pub id: Arc<str>,
    scopes: Vec<Scope>,
    collections: Vec<String>,
}

impl Identity {
    /// Whether it may do what `scope` names.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it may touch this collection.
    #[must_use]
    pub fn allows(&self, collection: &str) -> bool {
        self.collections.is_empty() || self.collections.iter().any(|name| name == collection)
    }

    /// Whether it is restricted to some collections.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        !self.collections.is_empty()
    }
}

/// What is shown of a key: never its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyReport {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The collections that it may touch; empty means all.
    pub collections: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// When it ends; absent: never.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_unix_ms: Option<u64>,
    /// Until when the secret before the last rotation works; absent without one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub old_secret_until_unix_ms: Option<u64>,
    /// When it was last used since the process began, to the minute; absent: not yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_used_unix_ms: Option<u64>,
}

/// A key that was just made: the only time that its secret can be seen.
#[derive(Clone, PartialEq)]
pub struct FreshKey {
    /// The key's id.
    pub id: String,
    /// The whole key, `msk_ID_SECRET`.
    pub key: String,
}

impl fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FreshKey({})", self.id)
    }
}

/// Why a key is not recognised. What is told to the caller must not say more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefused {
    /// It is no key of ours, or its secret is wrong.
    Unknown,
    /// It was one, and its time is over.
    Expired,
}

impl KeyRefused {
    /// The name used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyRefused::Unknown => "unknown",
            KeyRefused::Expired => "expired",
        }
    }
}

/// Why keys were not changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// A property out of its range.
    Config(ConfigError),
    /// There is no key of this id.
    NotFound {
        /// The id.
        id: String,
    },
    /// Without this key nobody could administer any more.
    LastAdmin {
        /// The id.
        id: String,
    },
    /// The system gives no random bytes.
    Random(String),
    /// It could not be saved or read.
    State(StateError),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Config(error) => write!(f, "{error}"),
            KeyError::NotFound { id } => {
                write!(f, "there is no key {id:.64}; `mainstay keys list` shows them")
            }
            KeyError::LastAdmin { id } => {
                write!(
                    f,
                    "key {id:.64} is the last one that may administer everything; make another one \
                     of scope admin first"
                )
            }
            KeyError::Random(error) => write!(f, "the system gives no random bytes: {error}"),
            KeyError::State(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            KeyError::Config(error) => Some(error),
            KeyError::State(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for KeyError {
    fn from(error: ConfigError) -> Self {
        KeyError::Config(error)
    }
}

impl From<StateError> for KeyError {
    fn from(error: StateError) -> Self {
        KeyError::State(error)
    }
}

struct Entry {
    identity: Arc<Identity>,
    expires_unix_ms: Option<u64>,
    secrets: Vec<([u8; 32], Option<u64>)>,
    /// To the minute: a write to memory for each request would be one too many.
    last_used_unix_ms: Arc<AtomicU64>,
}

type Entries = HashMap<String, Entry>;

struct Kept {
    keys: Mutex<BTreeMap<String, Key>>,
    entries: ArcSwap<Entries>,
    store: Arc<dyn StateStore>,
    wall: WallClock,
    audit: Audit,
}

/// The keys of a process. Clones share them.
#[derive(Clone)]
pub struct Keys(Arc<Kept>);

impl Keys {
    /// The keys that were saved.
    ///
    /// # Errors
    /// They cannot be read. Whoever goes on without them must not let everybody in.
    pub fn open(
        store: Arc<dyn StateStore>,
        wall: WallClock,
        audit: Audit,
    ) -> Result<Self, KeyError> {
        let keys = read(&*store)?;
        metrics::gauge!("mainstay_keys").set(keys.len() as f64);
        let entries = ArcSwap::from_pointee(entries(&keys, &Entries::new()));
        Ok(Keys(Arc::new(Kept { keys: Mutex::new(keys), entries, store, wall, audit })))
    }

    /// Reads what is saved again: another process may have changed it. Answers whether it differs.
    ///
    /// # Errors
    /// It cannot be read; the keys known so far stay.
    pub fn refresh(&self) -> Result<bool, KeyError> {
        // Read under the lock, so that no change comes between what is read and what counts.
        let mut keys = lock(&self.0.keys);
        let saved = read(&*self.0.store)?;
        if *keys == saved {
            return Ok(false);
        }
        self.publish(&saved);
        *keys = saved;
        Ok(true)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.entries.load().is_empty()
    }

    /// Who this key stands for.
    ///
    /// # Errors
    /// It is not recognised.
    pub fn recognise(&self, presented: &str) -> Result<Arc<Identity>, KeyRefused> {
        let (id, secret) = parts(presented).unwrap_or(("", ""));
        let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let entries = self.0.entries.load();
        let now = self.0.wall.unix_ms();
        let Some(entry) = entries.get(id) else {
            // As long as for a key that exists.
            let _ = bool::from(digest.ct_eq(&[0; 32]));
            return Err(KeyRefused::Unknown);
        };
        let mut found = None;
        for (sha256, until) in &entry.secrets {
            if bool::from(digest.ct_eq(sha256)) {
                found = Some(*until);
            }
        }
        let Some(until) = found else { return Err(KeyRefused::Unknown) };
        let over = |until: Option<u64>| until.is_some_and(|until| until <= now);
        if over(until) || over(entry.expires_unix_ms) {
            return Err(KeyRefused::Expired);
        }
        if now.abs_diff(entry.last_used_unix_ms.load(Ordering::Relaxed)) > 60_000 {
            entry.last_used_unix_ms.store(now, Ordering::Relaxed);
        }
        Ok(Arc::clone(&entry.identity))
    }

    /// Makes a key.
    ///
    /// # Errors
    /// A property out of its range, or it could not be saved; then there is no key.
    pub fn create(&self, new: &NewKey, who: &str) -> Result<FreshKey, KeyError> {
        new.validate()?;
        let id = random_text(ID_CHARS)?;
        let (secret, sha256) = fresh_secret()?;
        let now = self.0.wall.unix_ms();
        let key = Key {
            name: new.name.clone(),
            scopes: new.scopes.clone(),
            collections: new.collections.clone(),
            created_unix_ms: now,
            expires_unix_ms: new.lasting.map(|lasting| now.saturating_add(millis(lasting))),
            secrets: vec![Secret { sha256, until_unix_ms: None }],
        };
        self.change("key.create", &id, who, |keys| {
            if keys.len() >= KEYS_MAX {
                let allowed = format!("up to {KEYS_MAX}; revoke some");
                return Err(ConfigError::new("keys", keys.len() + 1, allowed).into());
            }
            keys.insert(id.clone(), key);
            Ok(())
        })?;
        Ok(FreshKey { key: format!("{PREFIX}_{id}_{secret}"), id })
    }

    /// Gives a key a new secret. The old one goes on working for `overlap`, up to 30 days; zero ends
    /// it at once.
    ///
    /// # Errors
    /// There is no such key, the time is out of its range, or it could not be saved.
    pub fn rotate(&self, id: &str, overlap: Duration, who: &str) -> Result<FreshKey, KeyError> {
        if overlap > OVERLAP_MAX {
            let shown = mainstay_resilience::human_duration::format(overlap);
            return Err(ConfigError::new("overlap", shown, "0s to 30d").into());
        }
        let (secret, sha256) = fresh_secret()?;
        let until = self.0.wall.unix_ms().saturating_add(millis(overlap));
        self.change("key.rotate", id, who, |keys| {
            let missing = || KeyError::NotFound { id: id.to_owned() };
            let key = keys.get_mut(id).ok_or_else(missing)?;
            key.secrets.truncate(1);
            if let Some(old) = key.secrets.first_mut() {
                old.until_unix_ms = Some(until);
            }
            key.secrets.insert(0, Secret { sha256, until_unix_ms: None });
            Ok(())
        })?;
        Ok(FreshKey { id: id.to_owned(), key: format!("{PREFIX}_{id}_{secret}") })
    }

    /// Ends a key at once and for good. `may_be_last` says whether the only key may go: true where
    /// nobody is let in, or locked out, by there being none.
    ///
    /// # Errors
    /// There is no such key, it is the last one that may administer everything, or it could not be
    /// saved; then it still works.
    pub fn revoke(&self, id: &str, may_be_last: bool, who: &str) -> Result<(), KeyError> {
        let now = self.0.wall.unix_ms();
        self.change("key.revoke", id, who, |keys| {
            let missing = || KeyError::NotFound { id: id.to_owned() };
            let gone = keys.remove(id).ok_or_else(missing)?;
            let leaves_nobody = gone.administers(now) && !keys.values().any(|k| k.administers(now));
            let allowed = keys.is_empty() && may_be_last;
            if leaves_nobody && !allowed {
                return Err(KeyError::LastAdmin { id: id.to_owned() });
            }
            Ok(())
        })
    }

    /// All keys, by id.
    #[must_use]
    pub fn list(&self) -> Vec<KeyReport> {
        let entries = self.0.entries.load();
        let keys = lock(&self.0.keys).clone();
        let report = |(id, key): (String, Key)| {
            let used = entries.get(&id).map(|e| e.last_used_unix_ms.load(Ordering::Relaxed));
            KeyReport {
                old_secret_until_unix_ms: key.secrets.get(1).and_then(|old| old.until_unix_ms),
                last_used_unix_ms: used.filter(|used| *used > 0),
                id,
                name: key.name,
                scopes: key.scopes,
                collections: key.collections,
                created_unix_ms: key.created_unix_ms,
                expires_unix_ms: key.expires_unix_ms,
            }
        };
        keys.into_iter().map(report).collect()
    }

    /// Saves, publishes and records, in this order.
    fn change(
        &self,
        action: &str,
        id: &str,
        who: &str,
        edit: impl FnOnce(&mut BTreeMap<String, Key>) -> Result<(), KeyError>,
    ) -> Result<(), KeyError> {
        let mut keys = lock(&self.0.keys);
        let mut edited = keys.clone();
        edit(&mut edited)?;
        let unwritable = |_| StateError::Damaged { name: PIECE.to_owned(), what: "not writable" };
        let json = serde_json::to_vec(&edited).map_err(unwritable)?;
        save_sealed(&*self.0.store, PIECE, KIND, VERSION, &json)?;
        self.publish(&edited);
        let shown = |keys: &BTreeMap<String, Key>| {
            let key = keys.get(id)?;
            Some((key.name.clone(), key.scopes.clone(), key.collections.clone()))
        };
        let action = Action::new(who, action, id).change(shown(&keys), shown(&edited));
        *keys = edited;
        self.0.audit.record(action);
        Ok(())
    }

    fn publish(&self, keys: &BTreeMap<String, Key>) {
        let before = self.0.entries.load_full();
        metrics::gauge!("mainstay_keys").set(keys.len() as f64);
        self.0.entries.store(Arc::new(entries(keys, &before)));
    }
}

impl NewKey {
    fn validate(&self) -> Result<(), ConfigError> {
        let name_fits = (1..=NAME_CHARS_MAX).contains(&self.name.chars().count())
            && !self.name.chars().any(char::is_control);
        if !name_fits {
            let allowed = format!("1 to {NAME_CHARS_MAX} characters, no control characters");
            return Err(ConfigError::new("name", format!("{:.120?}", self.name), allowed));
        }
        if self.scopes.is_empty() {
            return Err(ConfigError::new("scopes", "none", "read, write and admin, at least one"));
        }
        if self.collections.len() > COLLECTIONS_MAX {
            let allowed = format!("up to {COLLECTIONS_MAX}; none means all");
            return Err(ConfigError::new("collections", self.collections.len(), allowed));
        }
        if self.lasting.is_some_and(|lasting| lasting < Duration::from_secs(1)) {
            return Err(ConfigError::new("for", "less than a second", "1s or more"));
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Id and secret of `msk_ID_SECRET`.
fn parts(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')
}

fn read(store: &dyn StateStore) -> Result<BTreeMap<String, Key>, KeyError> {
    let Some(bytes) = load_sealed(store, PIECE, KIND, VERSION)? else { return Ok(BTreeMap::new()) };
    let damaged = |_| StateError::Damaged { name: PIECE.to_owned(), what: "no list of keys" };
    Ok(serde_json::from_slice(&bytes).map_err(damaged)?)
}

fn entries(keys: &BTreeMap<String, Key>, before: &Entries) -> Entries {
    let entry = |(id, key): (&String, &Key)| {
        let digest = |secret: &Secret| Some((from_hex(&secret.sha256)?, secret.until_unix_ms));
        let used = before.get(id).map(|entry| Arc::clone(&entry.last_used_unix_ms));
        let identity = Identity {
            id: id.as_str().into(),
            scopes: key.scopes.clone(),
            collections: key.collections.clone(),
        };
        let entry = Entry {
            identity: Arc::new(identity),
            expires_unix_ms: key.expires_unix_ms,
            secrets: key.secrets.iter().filter_map(digest).collect(),
            last_used_unix_ms: used.unwrap_or_default(),
        };
        (id.clone(), entry)
    };
    keys.iter().map(entry).collect()
}

fn fresh_secret() -> Result<(String, String), KeyError> {
    // Five bits a character: 52 characters hold more than 32 bytes.
    let secret = random_text(SECRET_BYTES * 8 / 5 + 1)?;
    let digest = Sha256::digest(secret.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((secret, hex))
}

fn random_text(chars: usize) -> Result<String, KeyError> {
    let mut bytes = vec![0; chars];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
    // 256 is a multiple of 32, so every character is equally likely.
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % 32])).collect())
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
