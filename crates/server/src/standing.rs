//! What the present level of service and the flags mean for a request.

use axum::http::{Method as Verb, StatusCode};
use mainstay_db::search_answer::Level as AnswerLevel;
use mainstay_db::{Method, Service};
use mainstay_ops::flags::Subject;
use mainstay_ops::levels::{Level, Standing};

use crate::caller::Caller;
use crate::operations::{Operations, flag_names, method_flag};
use crate::problem::Problem;
use crate::route_kind::RouteKind;
use crate::state::State;

/// When to come back while the server is read-only or closed by hand.
const CLOSED_RETRY_MS: u64 = 30_000;

/// What a search may use now: the level's effects, less what flags switch off for this caller.
pub(crate) fn service(
    operations: &Operations,
    standing: &Standing,
    caller: &Caller,
    collection: &str,
) -> Service {
    let attributes = [("collection", collection)];
    let subject = Subject { user: Some(caller.name()), attributes: &attributes };
    let on = |flag: &str| operations.flags.bool(flag, true, &subject).value;
    let allowed = |method: &Method| standing.effects.allows_method(method.name());
    let methods: Vec<Method> = Method::ALL.into_iter().filter(allowed).collect();
    let off: Vec<Method> =
        Method::ALL.into_iter().filter(|method| !on(method_flag(*method))).collect();
    let flags: Vec<&str> = off.iter().map(|method| method_flag(*method)).collect();
    Service {
        level: match standing.level {
            Level::Full if !off.is_empty() => AnswerLevel::Degraded,
            Level::Full => AnswerLevel::Full,
            Level::Degraded => AnswerLevel::Degraded,
            Level::Minimal => AnswerLevel::Minimal,
            Level::Maintenance => AnswerLevel::Maintenance,
        },
        reason: match standing.level {
            Level::Full if !off.is_empty() => format!("switched off by {}", flags.join(", ")),
            _ => standing.reason.clone(),
        },
        effort: standing.effects.effort,
        refine: standing.effects.refine && on(flag_names::REFINE),
        methods: if methods.len() == Method::ALL.len() { Vec::new() } else { methods },
        off,
    }
}

/// Whether a kept answer may stand in for an error.
pub(crate) fn gives_stale(operations: &Operations, caller: &Caller) -> bool {
    operations.flags.bool(flag_names::STALE_ANSWERS, true, &Subject::user(caller.name())).value
}

/// What the level or a flag refuses.
pub(crate) fn refused(
    state: &State,
    caller: &Caller,
    kind: RouteKind,
    verb: &Verb,
) -> Option<Problem> {
    let operations = state.operations();
    let standing = operations.levels.standing();
    let reads = matches!(kind, RouteKind::Search | RouteKind::Read);
    let changes = matches!(kind, RouteKind::Write | RouteKind::Manage);
    let removes = *verb == Verb::DELETE;
    match () {
        () if reads && !standing.effects.reads => Some(closed("closed", &standing)),
        // Removals as well: at level maintenance nothing changes.
        () if changes && !standing.effects.writes => Some(closed("read_only", &standing)),
        () if changes && !removes && !writes(operations, caller) => {
            let detail = "storing is switched off by the flag `writes`; removing is not";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "read_only", detail);
            Some(Problem { retry_after_ms: Some(CLOSED_RETRY_MS), ..problem })
        }
        () => None,
    }
}

fn writes(operations: &Operations, caller: &Caller) -> bool {
    operations.flags.bool(flag_names::WRITES, true, &Subject::user(caller.name())).value
}

fn closed(code: &str, standing: &Standing) -> Problem {
    let (level, reason) = (standing.level.as_str(), &standing.reason);
    let what = if code == "closed" { "answers nothing" } else { "takes no writes" };
    let detail = format!("the server is at level {level} and {what}: {reason}");
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
    Problem { retry_after_ms: Some(CLOSED_RETRY_MS), ..problem }
}
