//! Every action leaves an event: bounded, in order, without secrets.

use mainstay_ops::audit::{Action, Audit, AuditEvent, AuditSink, KEPT_MAX};
use mainstay_ops::wall_clock::ManualWallClock;
use serde_json::json;
use std::io;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<AuditEvent>>>, bool);

impl AuditSink for Kept {
    fn keep(&self, event: &AuditEvent) -> io::Result<()> {
        if self.1 {
            return Err(io::Error::other("disk full"));
        }
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }
}

fn audit(sink: Kept) -> Audit {
    Audit::new(ManualWallClock::at(0).clock(), Some(Box::new(sink)))
}

#[test]
fn an_event_says_who_did_what_from_what_to_what_and_why() {
    let kept = Kept::default();
    let audit = audit(kept.clone());
    let action = Action::new("ops\nteam", "flag.set", "rerank").change(json!(null), json!(true));
    audit.record(action.because("roll-out, token=hunter2"));
    let json = serde_json::to_value(&kept.0.lock().unwrap()[0]).unwrap();
    assert_eq!(
        json,
        json!({
            "number": 1, "time": "1970-01-01T00:00:00.000Z", "who": "opsteam",
            "action": "flag.set", "target": "rerank", "before": null, "after": true,
            "why": "roll-out, token=[redacted]", "outcome": "done"
        })
    );
}

#[test]
fn no_secret_gets_into_the_trail() {
    let kept = Kept::default();
    let audit = audit(kept.clone());
    let before = json!({ "url": "redis://u:hunter2@cache", "deep": [{ "apiKey": "hunter2" }] });
    audit.record(Action::new("a", "config.reload", "x").change(before, json!({ "n": 1 })));
    let all = format!("{:?}{:?}", kept.0.lock().unwrap(), audit.recent(0, 9));
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn the_trail_in_memory_is_bounded_and_read_page_by_page() {
    let audit = audit(Kept::default());
    for n in 0..KEPT_MAX + 5 {
        audit.record(Action::new("a", "flag.set", &n.to_string()));
    }
    let numbers = |before, count| {
        audit.recent(before, count).iter().map(|event| event.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0, 2), [1_005, 1_004]);
    assert_eq!(numbers(1_004, 2), [1_003, 1_002]);
    assert_eq!(numbers(0, usize::MAX).len(), KEPT_MAX);
}

#[test]
fn a_sink_that_fails_is_counted_and_stops_nobody() {
    let audit = audit(Kept(Arc::default(), true));
    audit.record(Action::new("a", "flag.set", "x"));
    assert_eq!((audit.failures(), audit.recent(0, 9).len()), (1, 1));
}

#[test]
fn events_of_many_threads_reach_the_sink_in_order() {
    let kept = Kept::default();
    let audit = audit(kept.clone());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    audit.record(Action::new("a", "flag.set", "x"));
                }
            });
        }
    });
    let numbers: Vec<u64> = kept.0.lock().unwrap().iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
}

#[test]
fn a_trail_goes_on_from_what_an_earlier_run_has_kept() {
    let kept = Kept::default();
    let first = audit(kept.clone());
    (0..3).for_each(|n| drop(first.record(Action::new("a", "flag.set", &n.to_string()))));
    let earlier = kept.0.lock().unwrap().clone();
    let again = audit(kept.clone()).going_on_from(earlier.clone());
    assert_eq!(again.record(Action::new("b", "flag.set", "3")).number, 4);
    let shown: Vec<_> = again.recent(0, 9).iter().map(|event| event.target.clone()).collect();
    assert_eq!(shown, ["3", "2", "1", "0"]);
    // More than are shown: the oldest ones are left to the file.
    let many = earlier.iter().cycle().take(KEPT_MAX + 2).cloned().collect();
    let again = audit(Kept::default()).going_on_from(many);
    assert_eq!(again.recent(0, usize::MAX).len(), KEPT_MAX);
    again.record(Action::new("b", "flag.set", "3"));
    assert_eq!(again.recent(0, usize::MAX).len(), KEPT_MAX);
}
