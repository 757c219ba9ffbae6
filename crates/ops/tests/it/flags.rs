//! D1: evaluation with reasons, targeting, dependencies, schedules, persistence, refusals.

use mainstay_ops::audit::Audit;
use mainstay_ops::flags::{Definition, Definitions, ErrorCode, Flags, Reason, Subject, parse};
use mainstay_ops::store::{MemoryStore, StateStore};
use mainstay_ops::wall_clock::{ManualWallClock, parse_rfc3339};
use std::sync::Arc;

struct World {
    store: Arc<MemoryStore>,
    wall: ManualWallClock,
    audit: Audit,
    flags: Flags,
}

fn definitions(json: &str) -> Definitions {
    parse(json).unwrap()
}

fn definition(json: &str) -> Definition {
    serde_json::from_str(json).unwrap()
}

fn world(declared: &str) -> World {
    let wall = ManualWallClock::at(parse_rfc3339("2026-06-01T00:00:00Z").unwrap());
    let (store, audit) = (Arc::new(MemoryStore::new()), Audit::new(wall.clock(), None));
    let flags = open(definitions(declared), &store, &wall, &audit).unwrap();
    World { store, wall, audit, flags }
}

fn open(
    declared: Definitions,
    store: &Arc<MemoryStore>,
    wall: &ManualWallClock,
    audit: &Audit,
) -> Result<Flags, mainstay_ops::flags::FlagError> {
    let store = Arc::clone(store) as Arc<dyn StateStore>;
    Flags::open(declared, store, wall.clock(), audit.clone())
}

/// A switch with this much JSON added to it.
fn switch(added: &str) -> String {
    format!(
        r#"{{"variants":{{"on":true,"off":false}},"default":"off","off":"off"{}{added}}}"#,
        if added.is_empty() { "" } else { "," }
    )
}

fn is_on(flags: &Flags, name: &str, subject: &Subject<'_>) -> bool {
    flags.bool(name, false, subject).value
}

const NOBODY: Subject<'_> = Subject { user: None, attributes: &[] };

// D1
#[test]
fn an_evaluation_gives_value_variant_and_reason_for_every_type() {
    let world = world(
        r#"{
        "rerank": {"variants":{"on":true,"off":false},"default":"on","off":"off"},
        "model":  {"variants":{"a":"small","b":"large"},"default":"b","off":"a"},
        "k":      {"variants":{"few":10,"many":1000},"default":"many","off":"few"},
        "weight": {"variants":{"x":0.25},"default":"x","off":"x"}}"#,
    );
    let found = world.flags.bool("rerank", false, &NOBODY);
    assert_eq!((found.value, found.reason, found.error), (true, Reason::Static, None));
    assert_eq!(found.variant.as_deref(), Some("on"));
    assert_eq!(&*world.flags.string("model", "none", &NOBODY).value, "large");
    assert_eq!(world.flags.int("k", 1, &NOBODY).value, 1_000);
    assert_eq!(world.flags.float("weight", 1.0, &NOBODY).value, 0.25);
    assert_eq!(world.flags.float("k", 1.0, &NOBODY).value, 1_000.0);
}

// D1
#[test]
fn what_cannot_be_evaluated_gives_the_callers_default_and_says_why() {
    let world = world(&format!(r#"{{"rerank":{}}}"#, switch("")));
    let missing = world.flags.bool("nope", true, &NOBODY);
    assert_eq!((missing.value, missing.reason), (true, Reason::Error));
    assert_eq!(missing.error, Some(ErrorCode::FlagNotFound));
    let mismatch = world.flags.string("rerank", "x", &NOBODY);
    assert_eq!((&*mismatch.value, mismatch.error), ("x", Some(ErrorCode::TypeMismatch)));
    assert_eq!(serde_json::to_value(&missing).unwrap()["error"], "FLAG_NOT_FOUND");
}

// D1
#[test]
fn rules_name_users_and_attributes() {
    let rules = r#""rules":[
        {"when":{"user":["zoe","ann"]},"variant":"on"},
        {"when":{"collection":["docs"],"plan":["pro","max"]},"variant":"on"}]"#;
    let world = world(&format!(r#"{{"rerank":{}}}"#, switch(rules)));
    let reason = |subject: Subject<'_>| world.flags.bool("rerank", false, &subject).reason;
    assert_eq!(reason(Subject::user("ann")), Reason::TargetingMatch);
    assert_eq!(reason(Subject::user("bob")), Reason::Default);
    let both = [("collection", "docs"), ("plan", "max")];
    assert_eq!(reason(Subject { user: None, attributes: &both }), Reason::TargetingMatch);
    assert_eq!(reason(Subject { user: None, attributes: &both[..1] }), Reason::Default);
}

// D1
#[test]
fn a_percentage_is_even_stable_and_grows_without_losing_anybody() {
    let rollout = |percent: f64, name: &str| {
        let rules = format!(r#""rules":[{{"percent":{percent},"variant":"on"}}]"#);
        let world = world(&format!(r#"{{"{name}":{}}}"#, switch(&rules)));
        let on = |n: &u32| is_on(&world.flags, name, &Subject::user(&format!("user-{n}")));
        (0..20_000).filter(on).collect::<Vec<u32>>()
    };
    let (ten, thirty) = (rollout(10.0, "a"), rollout(30.0, "a"));
    // Six standard deviations of a fair draw of 20,000.
    assert!(ten.len().abs_diff(2_000) < 255, "{}", ten.len());
    assert!(thirty.len().abs_diff(6_000) < 390, "{}", thirty.len());
    assert!(ten.iter().all(|user| thirty.contains(user)));
    // Another flag splits the same users in another way.
    let other = rollout(10.0, "b");
    assert!(ten.iter().filter(|user| other.contains(user)).count() < 300);
    assert!(rollout(0.0, "a").is_empty());
    assert_eq!(rollout(100.0, "a").len(), 20_000);
    // The same in every release: these must never change.
    assert_eq!(&ten[..4], &FIRST_OF_TEN_PERCENT);
}

const FIRST_OF_TEN_PERCENT: [u32; 4] = [39, 40, 44, 67];

// D1
#[test]
fn without_a_user_nobody_is_in_a_part_and_everybody_is_in_the_whole() {
    let of = |percent: f64| {
        let rules = format!(r#""rules":[{{"percent":{percent},"variant":"on"}}]"#);
        let world = world(&format!(r#"{{"a":{}}}"#, switch(&rules)));
        is_on(&world.flags, "a", &NOBODY)
    };
    assert!(!of(99.999) && of(100.0));
}

// D1
#[test]
fn a_flag_is_off_while_what_it_requires_is_not_as_required() {
    let rules = r#""rules":[{"when":{"user":["ann"]},"variant":"on"}]"#;
    let needs = r#""default":"on","requires":[{"flag":"base","variant":"on"}]"#;
    let needs = switch("").replace(r#""default":"off""#, needs);
    let world = world(&format!(r#"{{"above":{needs},"base":{}}}"#, switch(rules)));
    assert!(is_on(&world.flags, "above", &Subject::user("ann")));
    let found = world.flags.bool("above", true, &Subject::user("bob"));
    assert_eq!((found.value, found.reason), (false, Reason::Requirement));
}

// D1
#[test]
fn flags_that_require_each_other_in_a_circle_are_refused() {
    let world = world(&format!(r#"{{"a":{},"b":{}}}"#, switch(""), switch("")));
    let needs = |flag: &str| {
        definition(&switch(&format!(r#""requires":[{{"flag":"{flag}","variant":"on"}}]"#)))
    };
    world.flags.set("a", needs("b"), "ops", "").unwrap();
    let refused = world.flags.set("b", needs("a"), "ops", "").unwrap_err().to_string();
    assert!(refused.contains("a → b → a"), "{refused}");
    assert!(world.flags.set("c", needs("c"), "ops", "").unwrap_err().to_string().contains("c → c"));
    let refused = world.flags.set("c", needs("nope"), "ops", "").unwrap_err().to_string();
    assert_eq!(
        refused,
        r#"flags.c.requires[0].flag: "nope" is not allowed, use a flag that is defined"#
    );
    assert_eq!(world.flags.list(&Subject::default()).len(), 2);
}

// D1
#[test]
fn a_schedule_begins_and_ends_at_its_times() {
    let schedule = r#""from":"2026-06-01T01:00:00+01:00","until":"2026-06-02T00:00:00Z""#;
    let on = switch(schedule).replace(r#""default":"off""#, r#""default":"on""#);
    let world = world(&format!(r#"{{"sale":{on}}}"#));
    let at = |time: &str| {
        world.wall.set(parse_rfc3339(time).unwrap());
        world.flags.bool("sale", false, &NOBODY)
    };
    assert_eq!(at("2026-05-31T23:59:59.999Z").reason, Reason::Schedule);
    assert!(at("2026-06-01T00:00:00Z").value);
    assert!(at("2026-06-01T23:59:59.999Z").value);
    assert!(!at("2026-06-02T00:00:00Z").value);
    // Somebody sets the clock back: the schedule follows the clock.
    assert!(at("2026-06-01T12:00:00Z").value);
}

// D1
#[test]
fn a_change_counts_at_once_and_after_a_restart_and_is_audited() {
    let declared = format!(r#"{{"rerank":{}}}"#, switch(""));
    let world = world(&declared);
    assert!(!is_on(&world.flags, "rerank", &NOBODY));
    world.flags.set("rerank", Definition::switch("", true), "ann", "try it").unwrap();
    assert!(is_on(&world.flags, "rerank", &NOBODY));
    let event = &world.audit.recent(0, 1)[0];
    assert_eq!((&*event.who, &*event.action, &*event.target), ("ann", "flag.set", "rerank"));
    assert_eq!((&event.before, &*event.why), (&serde_json::Value::Null, "try it"));
    assert_eq!(event.after["default"], "on");

    let restarted = open(definitions(&declared), &world.store, &world.wall, &world.audit).unwrap();
    assert!(is_on(&restarted, "rerank", &NOBODY));
    assert!(restarted.list(&Subject::default())[0].overridden);
    restarted.enable("rerank", false, "ann", "enough").unwrap();
    assert_eq!(restarted.bool("rerank", true, &NOBODY).reason, Reason::Disabled);
    restarted.remove("rerank", "ann", "back").unwrap();
    assert_eq!(restarted.bool("rerank", true, &NOBODY).reason, Reason::Static);
    assert!(restarted.remove("rerank", "ann", "").is_err());
    assert!(restarted.enable("nope", true, "ann", "").is_err());
}

// D1
#[test]
fn a_change_that_cannot_be_saved_does_not_count() {
    let world = world(&format!(r#"{{"rerank":{}}}"#, switch("")));
    world.store.fail_saves(true);
    let refused = world.flags.set("rerank", Definition::switch("", true), "ann", "");
    assert!(refused.unwrap_err().to_string().contains("state flags"));
    assert!(!is_on(&world.flags, "rerank", &NOBODY));
    assert!(world.audit.recent(0, 1).is_empty());
}

// D1
#[test]
fn all_overrides_are_replaced_or_none() {
    let world = world(&format!(r#"{{"a":{}}}"#, switch("")));
    let good = Definition::switch("", true);
    let mut both = Definitions::from([("a".to_owned(), good.clone()), ("b".to_owned(), good)]);
    world.flags.replace_all(both.clone(), "ann", "").unwrap();
    both.get_mut("b").unwrap().off = "nope".into();
    both.get_mut("a").unwrap().enabled = false;
    assert!(world.flags.replace_all(both, "ann", "").is_err());
    assert!(is_on(&world.flags, "a", &NOBODY) && is_on(&world.flags, "b", &NOBODY));
}

// D1
#[test]
fn damaged_state_is_an_error_and_not_a_guess() {
    let world = world("{}");
    world.flags.set("a", Definition::switch("", true), "ann", "").unwrap();
    let mut bytes = world.store.load("flags").unwrap().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    world.store.save("flags", &bytes).unwrap();
    let refused = open(Definitions::new(), &world.store, &world.wall, &world.audit);
    assert!(refused.err().unwrap().to_string().contains("state flags is damaged"));
}

// D1
#[test]
fn a_bad_definition_is_refused_with_flag_field_value_and_range() {
    let world = world(&format!(r#"{{"typed":{}}}"#, switch("")));
    for (name, json, message) in [
        (
            "f",
            switch(r#""rules":[{"percent":120,"variant":"on"}]"#),
            "flags.f.rules[0].percent: 120 is not allowed, use 0 to 100",
        ),
        (
            "f",
            switch(r#""rules":[{"variant":"maybe"}]"#),
            r#"flags.f.rules[0].variant: "maybe" is not allowed, use one of off, on"#,
        ),
        (
            "f",
            switch(r#""from":"tomorrow""#),
            r#"flags.f.from: "tomorrow" is not allowed, use a time such as 2026-11-21T06:00:00Z"#,
        ),
        (
            "f",
            switch(r#""from":"2026-06-02T00:00:00Z","until":"2026-06-01T00:00:00Z""#),
            "flags.f.until: 2026-06-01T00:00:00Z is not allowed, use a time after from",
        ),
        (
            "f",
            r#"{"variants":{"a":1,"b":"x"},"default":"a","off":"a"}"#.into(),
            "flags.f.variants.b: a string is not allowed, use a number as the others",
        ),
        (
            "f",
            r#"{"variants":{},"default":"a","off":"a"}"#.into(),
            "flags.f.variants: 0 entries is not allowed, use 1 to 32",
        ),
        (
            "typed",
            r#"{"variants":{"a":1},"default":"a","off":"a"}"#.into(),
            "flags.typed.variants: number is not allowed, use values of type bool, as the program \
             reads it",
        ),
        (
            "no such name",
            switch(""),
            "flags: \"no such name\" is not allowed, use a name of 1 to 64 of the letters a to z, \
             digits, '-', '_' and '.'",
        ),
    ] {
        let refused = world.flags.set(name, definition(&json), "ann", "").unwrap_err();
        assert_eq!(refused.to_string(), message);
    }
    let unknown = parse(&format!(r#"{{"f":{}}}"#, switch(r#""percnt":5"#))).unwrap_err();
    assert!(unknown.to_string().starts_with("flags.f: unknown field `percnt`"), "{unknown}");
    assert!(parse("[").unwrap_err().to_string().contains("line 1"));
}

// D1
#[test]
fn readers_see_all_of_a_change_or_nothing_of_it() {
    let world = world("{}");
    let pair = |on: bool| {
        let mut above = Definition::switch("", on);
        let variant = if on { "on" } else { "off" };
        let required = format!(r#"{{"flag":"base","variant":"{variant}"}}"#);
        above.requires.push(serde_json::from_str(&required).unwrap());
        let base = Definition::switch("", on);
        Definitions::from([("above".to_owned(), above), ("base".to_owned(), base)])
    };
    world.flags.replace_all(pair(true), "ann", "").unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..300 {
                world.flags.replace_all(pair(round % 2 == 0), "ann", "").unwrap();
            }
        });
        while !writer.is_finished() {
            // With one flag of before and one of after, the requirement would not hold.
            assert_eq!(world.flags.bool("above", false, &NOBODY).reason, Reason::Static);
        }
    });
}

// D1
#[test]
fn what_another_process_saved_is_taken_over_whole_or_not_at_all() {
    let world = world(&format!(r#"{{"rerank":{}}}"#, switch("")));
    let declared = definitions(&format!(r#"{{"rerank":{}}}"#, switch("")));
    let other = open(declared, &world.store, &world.wall, &world.audit).unwrap();
    let on = definition(&switch("").replace(r#""default":"off""#, r#""default":"on""#));
    other.set("rerank", on, "ada", "").unwrap();
    assert!(!is_on(&world.flags, "rerank", &NOBODY));
    assert!(world.flags.refresh().unwrap());
    assert!(is_on(&world.flags, "rerank", &NOBODY));
    assert!(!world.flags.refresh().unwrap(), "nothing has changed since");
    world.store.save("flags", b"garbage").unwrap();
    assert!(world.flags.refresh().is_err());
    assert!(is_on(&world.flags, "rerank", &NOBODY), "what was known stays");
}
