//! What a user finds in the documentation of each policy.

use std::fs;
use std::path::Path;

/// Files and the policies that are documented in them.
const POLICIES: [(&str, &str); 18] = [
    ("breaker.rs", "CircuitBreaker"),
    ("retry.rs", "Retry"),
    ("timeout.rs", "Timeout"),
    ("budget.rs", "RetryBudget"),
    ("rate_limit.rs", "RateLimiter"),
    ("rate_limit/keyed.rs", "KeyedRateLimiter"),
    ("rate_limit/lease.rs", "LeasedLimiter"),
    ("rate_limit/keyed_lease.rs", "KeyedLeasedLimiter"),
    ("bulkhead.rs", "Bulkhead"),
    ("adaptive_limit.rs", "AdaptiveLimit"),
    ("throttle.rs", "Throttle"),
    ("hedge.rs", "Hedge"),
    ("fallback.rs", "Fallback"),
    ("fallback.rs", "FallbackCall"),
    ("answer_cache.rs", "AnswerCache"),
    ("partial.rs", "Partial"),
    ("work_queue.rs", "WorkQueue"),
    ("testing/faults.rs", "Faults"),
];

/// What stands in each.
const SECTIONS: [&str; 5] = ["For, and not for", "Parameters", "Cost", "Cancel safety", "Source"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(path)).unwrap()
}

/// The documentation that stands before a struct.
fn documentation(file: &str, name: &str) -> String {
    let text = read(&format!("src/{file}"));
    let declared = |line: &&str| {
        line.strip_prefix("pub struct ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with(['(', '<', ' ']))
    };
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(declared).unwrap();
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with(['/', '#']));
    above.copied().collect::<Vec<_>>().join("\n")
}

#[test]
fn each_policy_says_what_it_is_for_what_it_costs_and_where_it_comes_from() {
    for (file, name) in POLICIES {
        let text = documentation(file, name);
        for section in SECTIONS {
            let heading = format!("/// # {section}");
            let found = text.lines().rev().filter(|line| *line == heading).count();
            assert_eq!(found, 1, "{name}: section {section:?}");
        }
    }
}

/// Every row of the requirements that this crate answers for is named by a test.
#[test]
fn every_requirement_has_a_test_that_names_it() {
    let folder = |path: &str| -> String {
        let mut all = String::new();
        let mut folders = vec![Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(path)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => all += &fs::read_to_string(path).unwrap(),
                }
            }
        }
        all
    };
    let tests = folder("tests") + &folder("src");
    let ids = "b1 b2 b3 b4 b5 b6 b7 b8 r1 r2 r3 r4 r5 r6 r7 o4 o5 d2 d3 c3 c4";
    for id in ids.split(' ') {
        let named = tests.contains(&format!("fn {id}_")) || tests.contains(&format!("_{id}_"));
        assert!(named, "no test names {id}");
    }
}
