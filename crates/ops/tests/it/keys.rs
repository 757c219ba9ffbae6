use mainstay_ops::audit::Audit;
use mainstay_ops::keys::{KeyError, KeyRefused, Keys, NewKey, Scope};
use mainstay_ops::store::{MemoryStore, StateStore};
use mainstay_ops::wall_clock::ManualWallClock;
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

struct World {
    store: Arc<MemoryStore>,
    wall: ManualWallClock,
    audit: Audit,
    keys: Keys,
}

fn world() -> World {
    let (store, wall) = (Arc::new(MemoryStore::new()), ManualWallClock::at(1_700_000_000_000));
    let audit = Audit::new(wall.clock(), None);
    let keys = Keys::open(store.clone(), wall.clock(), audit.clone()).unwrap();
    World { store, wall, audit, keys }
}

fn reader(name: &str) -> NewKey {
    NewKey { name: name.into(), scopes: vec![Scope::Read], ..NewKey::default() }
}

// C5
#[test]
fn a_key_is_recognised_by_its_secret_and_by_nothing_else() {
    let world = world();
    assert!(world.keys.is_empty());
    let made = world.keys.create(&reader("dashboard"), "ada").unwrap();
    let identity = world.keys.recognise(&made.key).unwrap();
    assert_eq!(*identity.id, *made.id);
    assert!(identity.has(Scope::Read) && !identity.has(Scope::Write) && identity.allows("any"));
    let other = world.keys.create(&reader("other"), "ada").unwrap();
    let mixed = format!("msk_{}_{}", made.id, other.key.rsplit('_').next().unwrap());
    let mut wrong = made.key.clone();
    wrong.pop();
    for refused in [&mixed, &wrong, &format!("{wrong}A"), &String::new(), &"msk__".to_owned()] {
        assert_eq!(world.keys.recognise(refused), Err(KeyRefused::Unknown), "{refused}");
    }
}

// C5
#[test]
fn scopes_and_collections_bound_what_a_key_may_do() {
    let world = world();
    let new =
        NewKey { scopes: vec![Scope::Write], collections: vec!["docs".into()], ..reader("ingest") };
    let ingest = world.keys.create(&new, "ada").unwrap();
    let ingest = world.keys.recognise(&ingest.key).unwrap();
    assert!(ingest.has(Scope::Write) && !ingest.has(Scope::Read) && !ingest.has(Scope::Admin));
    assert!(ingest.allows("docs") && !ingest.allows("code") && ingest.is_restricted());
    let admin = NewKey { scopes: vec![Scope::Admin], ..reader("root") };
    let admin = world.keys.create(&admin, "ada").unwrap();
    let admin = world.keys.recognise(&admin.key).unwrap();
    assert!(Scope::ALL.into_iter().all(|scope| admin.has(scope)));
}

// C5
#[test]
fn a_rotated_key_has_two_secrets_for_a_while_and_a_revoked_one_none() {
    let world = world();
    let old = world.keys.create(&reader("dashboard"), "ada").unwrap();
    let new = world.keys.rotate(&old.id, HOUR, "ada").unwrap();
    assert!(world.keys.recognise(&old.key).is_ok() && world.keys.recognise(&new.key).is_ok());
    world.wall.advance(HOUR);
    assert_eq!(world.keys.recognise(&old.key), Err(KeyRefused::Expired));
    assert!(world.keys.recognise(&new.key).is_ok());
    let newest = world.keys.rotate(&old.id, Duration::ZERO, "ada").unwrap();
    assert_eq!(world.keys.recognise(&new.key), Err(KeyRefused::Expired));
    assert_eq!(world.keys.recognise(&old.key), Err(KeyRefused::Unknown), "two secrets at most");
    world.keys.revoke(&old.id, false, "ada").unwrap();
    assert_eq!(world.keys.recognise(&newest.key), Err(KeyRefused::Unknown));
    assert!(world.keys.revoke(&old.id, false, "ada").is_err());
    let done: Vec<_> =
        world.audit.recent(0, 10).iter().rev().map(|event| event.action.clone()).collect();
    assert_eq!(done, ["key.create", "key.rotate", "key.rotate", "key.revoke"]);
}

// C5
#[test]
fn a_key_ends_when_its_time_is_over_and_shows_when_it_was_used() {
    let world = world();
    let made =
        world.keys.create(&NewKey { lasting: Some(HOUR), ..reader("trial") }, "ada").unwrap();
    assert_eq!(world.keys.list()[0].last_used_unix_ms, None);
    world.wall.advance(HOUR / 2);
    world.keys.recognise(&made.key).unwrap();
    assert_eq!(world.keys.list()[0].last_used_unix_ms, Some(1_700_001_800_000));
    world.wall.advance(HOUR / 2);
    assert_eq!(world.keys.recognise(&made.key), Err(KeyRefused::Expired));
}

// C5. Bad input: a clock that goes backwards.
#[test]
fn a_key_ends_by_the_time_of_day_wherever_that_is_set() {
    let world = world();
    let lasting = NewKey { lasting: Some(2 * HOUR), ..reader("trial") };
    let made = world.keys.create(&lasting, "ada").unwrap();
    let old = world.keys.rotate(&made.id, HOUR, "ada").unwrap();
    world.wall.set(1_700_000_000_000 - 3_600_000);
    assert!(world.keys.recognise(&made.key).is_ok() && world.keys.recognise(&old.key).is_ok());
    world.wall.advance(24 * HOUR);
    assert_eq!(world.keys.recognise(&made.key), Err(KeyRefused::Expired));
    assert_eq!(world.keys.recognise(&old.key), Err(KeyRefused::Expired));
    // Used in what became the future: what is shown follows the clock.
    world.wall.set(1_700_000_000_000);
    assert!(world.keys.recognise(&old.key).is_ok());
    assert_eq!(world.keys.list()[0].last_used_unix_ms, Some(1_700_000_000_000));
    // Made by a clock a year ahead, and read by one that is right: it ends when it was said to.
    let again = Keys::open(world.store.clone(), world.wall.clock(), world.audit.clone()).unwrap();
    assert!(again.recognise(&old.key).is_ok());
    assert_eq!(again.list()[0].expires_unix_ms, Some(1_700_007_200_000));
}

// C5
#[test]
fn keys_outlive_the_process_and_no_secret_is_kept_or_shown() {
    let world = world();
    let made = world.keys.create(&reader("dashboard"), "ada").unwrap();
    let secret = made.key.rsplit('_').next().unwrap();
    let again = Keys::open(world.store.clone(), world.wall.clock(), world.audit.clone()).unwrap();
    assert!(again.recognise(&made.key).is_ok());
    let saved = String::from_utf8_lossy(&world.store.load("keys").unwrap().unwrap()).into_owned();
    let shown = serde_json::to_string(&again.list()).unwrap();
    let audited = serde_json::to_string(&world.audit.recent(0, 10)[0].as_ref()).unwrap();
    for text in [&saved, &shown, &audited, &format!("{made:?}")] {
        assert!(!text.contains(secret), "{text}");
    }
    let other = again.create(&reader("other"), "ada").unwrap();
    assert!(world.keys.recognise(&other.key).is_err());
    assert!(world.keys.refresh().unwrap() && !world.keys.refresh().unwrap());
    assert!(world.keys.recognise(&other.key).is_ok());
}

// C5
#[test]
fn a_change_that_cannot_be_saved_changes_nothing() {
    let world = world();
    let made = world.keys.create(&reader("dashboard"), "ada").unwrap();
    world.store.fail_saves(true);
    assert!(world.keys.create(&reader("other"), "ada").is_err());
    assert!(world.keys.revoke(&made.id, false, "ada").is_err());
    assert_eq!(world.keys.list().len(), 1);
    assert!(world.keys.recognise(&made.key).is_ok());
}

// C5
#[test]
fn bad_properties_and_damaged_state_are_refused_with_what_is_allowed() {
    let world = world();
    let long = "x".repeat(101);
    for (new, part) in [
        (reader(""), "name: \"\" is not allowed, use 1 to 100 characters"),
        (reader(&long), "use 1 to 100 characters"),
        (NewKey { scopes: Vec::new(), ..reader("x") }, "scopes"),
        (NewKey { lasting: Some(Duration::ZERO), ..reader("x") }, "1s or more"),
        (NewKey { collections: vec!["c".into(); 129], ..reader("x") }, "up to 128"),
    ] {
        let refused = world.keys.create(&new, "ada").unwrap_err().to_string();
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    assert!(world.keys.rotate("nobody", HOUR, "ada").unwrap_err().to_string().contains("nobody"));
    assert!(world.keys.rotate("nobody", HOUR * 10_000, "ada").is_err());
    world.store.save("keys", b"garbage").unwrap();
    assert!(Keys::open(world.store.clone(), world.wall.clock(), world.audit.clone()).is_err());
}

// C5
#[test]
fn the_last_key_that_administers_stays_unless_it_is_the_only_one_and_may_go() {
    let world = world();
    let admin = |name: &str| NewKey { scopes: vec![Scope::Admin], ..reader(name) };
    let root = world.keys.create(&admin("root"), "ada").unwrap();
    let other = world.keys.create(&reader("dashboard"), "ada").unwrap();
    // Neither of these can take root's place: one ends, the other is bound to a collection.
    let brief = NewKey { lasting: Some(HOUR), ..admin("brief") };
    world.keys.create(&brief, "ada").unwrap();
    let bound = NewKey { collections: vec!["docs".into()], ..admin("bound") };
    let bound = world.keys.create(&bound, "ada").unwrap();
    world.wall.advance(HOUR);
    for may_be_last in [false, true] {
        let refused = world.keys.revoke(&root.id, may_be_last, "ada").unwrap_err();
        assert!(matches!(refused, KeyError::LastAdmin { .. }), "{refused}");
        assert!(world.keys.recognise(&root.key).is_ok());
    }
    let second = world.keys.create(&admin("second"), "ada").unwrap();
    world.keys.revoke(&root.id, false, "ada").unwrap();
    for key in world.keys.list().into_iter().filter(|key| key.id != second.id) {
        world.keys.revoke(&key.id, false, "ada").unwrap();
    }
    assert!(world.keys.recognise(&other.key).is_err() && world.keys.recognise(&bound.key).is_err());
    assert!(world.keys.revoke(&second.id, false, "ada").is_err());
    world.keys.revoke(&second.id, true, "ada").unwrap();
    assert!(world.keys.is_empty());
}
