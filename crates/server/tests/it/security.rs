//! C5: keys, scopes, and what is open without them.

use mainstay_server::admission::{AdmissionConfig, RateRule};
use mainstay_server::{AuthMode, Config};
use serde_json::{Value, json};

use crate::{Answer, Running, agent, with_documents};

pub(crate) fn create(server: &Running, key: Option<&str>, body: &Value) -> Answer {
    with_key(server, key, "POST", "/admin/keys", Some(body))
}

pub(crate) fn with_key(
    server: &Running,
    key: Option<&str>,
    verb: &str,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let mut request = ureq::http::Request::builder().method(verb).uri(server.url(path));
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let text = body.map(Value::to_string).unwrap_or_default();
    Answer::of(agent().run(request.body(text).unwrap()))
}

pub(crate) fn key_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()["key"].as_str().unwrap().to_string()
}

/// C5: from the first key on every request needs one, but health and the contract.
#[test]
fn the_first_key_closes_the_door_behind_it() {
    let server = with_documents();
    let none = json!({"name": "dashboard", "scopes": ["read"]});
    assert_eq!(create(&server, None, &none).problem(), "bad_request", "no admin, no way back");
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let search = json!({"query": "zebra"});
    let ask = |key| with_key(&server, key, "POST", "/search", Some(&search));
    let refused = ask(None);
    assert_eq!((refused.status, refused.problem().as_str()), (401, "unauthorised"));
    assert_eq!(ask(Some("msk_wrong_wrong")).status, 401);
    assert_eq!(ask(Some(&admin)).status, 200);
    for path in ["/health", "/health/live", "/health/ready", "/openapi.json", "/metrics"] {
        assert_eq!(with_key(&server, None, "GET", path, None).status, 200, "{path}");
    }
    for path in ["/collections", "/admin/keys", "/nothing"] {
        assert_eq!(with_key(&server, None, "GET", path, None).status, 401, "{path}");
    }
    let audit = with_key(&server, Some(&admin), "GET", "/admin/audit", None);
    let secret = admin.rsplit('_').next().unwrap();
    assert!(audit.body.contains("key.create") && !audit.body.contains(secret));
    let keys = with_key(&server, Some(&admin), "GET", "/admin/keys", None);
    assert!(keys.body.contains("\"root\"") && !keys.body.contains(secret), "{}", keys.body);
}

/// C5: without keys the machine alone comes in, and no page that a browser on it shows.
#[test]
fn c5_pages_of_other_sites_get_nothing_from_a_server_without_keys() {
    let server = with_documents();
    let ask = |path: &str, name: &str, value: &str| {
        let request = ureq::http::Request::builder().method("POST").uri(server.url(path));
        Answer::of(agent().run(request.header(name, value).body(r#"{"query": "zebra"}"#).unwrap()))
    };
    for (name, value) in
        [("sec-fetch-site", "cross-site"), ("origin", "http://x.example"), ("host", "x.example")]
    {
        for path in ["/search", "/admin/config/reload"] {
            let refused = ask(path, name, value);
            assert_eq!((refused.status, refused.problem().as_str()), (403, "other_site"), "{name}");
            assert!(refused.body.contains("mainstay keys create"), "{}", refused.body);
        }
    }
    assert_eq!(ask("/search", "sec-fetch-site", "same-origin").status, 200);
    let counted = "mainstay_auth_failures_total{reason=\"other_site\"} 6";
    assert!(server.get("/metrics").body.contains(counted));
    let key = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let bearer = format!("Bearer {key}");
    assert_eq!(ask("/search", "authorization", &bearer).status, 200);
    let request = ureq::http::Request::builder().uri(server.url("/admin/level"));
    let request = request.header("authorization", &bearer).header("host", "search.example.com");
    let named = Answer::of(agent().run(request.body(String::new()).unwrap()));
    assert_eq!(named.status, 200, "who has a key may call the server what they like");
}

/// D1: pages hold no data and need no key; a browser may run nothing in them but their own scripts.
#[test]
fn d1_pages_are_open_and_closed_to_everything_but_their_own_scripts() {
    let server = with_documents();
    key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let page = server.get("/console/flags");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").to_string();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    for part in
        page.body.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"))
    {
        let file = server.get(&format!("/console/{part}"));
        assert_eq!(file.status, 200, "{part}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(server.get("/console/nothing").problem(), "route_not_found");
    assert_eq!(
        server.get("/console").header("content-type"),
        "text/html; charset=utf-8",
        "sent there"
    );
}

/// C5: a key does what its scopes and collections say, and nothing else.
#[test]
fn scopes_and_collections_are_kept_on_every_route() {
    let server = with_documents();
    server.db.create_collection("other", "static".parse().unwrap()).unwrap();
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let made = |body: Value| key_of(&create(&server, Some(&admin), &body));
    let reader = made(json!({"name": "r", "scopes": ["read"], "collections": ["default"]}));
    let writer = made(json!({"name": "w", "scopes": ["write"]}));
    let listed = with_key(&server, Some(&reader), "GET", "/collections", None).body;
    assert!(listed.contains("\"default\"") && !listed.contains("\"other\""), "{listed}");
    let search = json!({"query": "zebra"});
    let elsewhere = json!({"query": "zebra", "collection": "other"});
    let document = json!({"id": "9", "body": "new"});
    for (key, verb, path, body, status) in [
        (&reader, "POST", "/search", Some(&search), 200),
        (&reader, "POST", "/search", Some(&elsewhere), 403),
        (&reader, "POST", "/collections/other/search", Some(&search), 403),
        (&reader, "GET", "/collections/default/documents/1", None, 200),
        (&reader, "GET", "/collections/other/documents", None, 403),
        (&reader, "PUT", "/collections/default/documents/9", Some(&document), 403),
        (&reader, "DELETE", "/collections/default", None, 403),
        (&reader, "GET", "/admin/level", None, 403),
        (&writer, "PUT", "/collections/default/documents/9", Some(&document), 200),
        (&writer, "POST", "/search", Some(&search), 403),
        (&writer, "DELETE", "/collections/other", None, 403),
        (&writer, "POST", "/admin/keys", Some(&json!({"name": "x", "scopes": ["admin"]})), 403),
        (&admin, "DELETE", "/collections/other", None, 204),
    ] {
        let answer = with_key(&server, Some(key), verb, path, body);
        assert_eq!(answer.status, status, "{verb} {path}: {}", answer.body);
        if status == 403 {
            assert_eq!(answer.problem(), "forbidden");
        }
    }
}

/// C5: rotation leaves time to change over; revocation leaves none.
#[test]
fn keys_are_rotated_and_revoked_while_the_server_runs() {
    let server = with_documents();
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let old = key_of(&create(&server, Some(&admin), &json!({"name": "r", "scopes": ["read"]})));
    let id = old.split('_').nth(1).unwrap();
    let rotate = |overlap: &str| {
        let path = format!("/admin/keys/{id}/rotate?overlap={overlap}");
        with_key(&server, Some(&admin), "POST", &path, None)
    };
    let status = |key: &str| with_key(&server, Some(key), "GET", "/collections", None).status;
    let new = rotate("1h").json()["key"].as_str().unwrap().to_string();
    assert_eq!((status(&old), status(&new)), (200, 200));
    let newest = rotate("0s").json()["key"].as_str().unwrap().to_string();
    assert_eq!((status(&new), status(&newest)), (401, 200));
    assert_eq!(rotate("1000h").problem(), "bad_request");
    let gone = format!("/admin/keys/{id}");
    assert_eq!(with_key(&server, Some(&admin), "DELETE", &gone, None).status, 204);
    assert_eq!(status(&newest), 401);
    assert_eq!(with_key(&server, Some(&admin), "DELETE", &gone, None).problem(), "key_not_found");
}

/// C5: nobody is locked out, and the door opens only where nobody else can come in.
#[test]
fn the_last_key_that_administers_everything_is_not_revoked_by_accident() {
    let server = with_documents();
    let bound = json!({"name": "root", "scopes": ["admin"], "collections": ["default"]});
    assert_eq!(create(&server, None, &bound).problem(), "bad_request", "it could make no other");
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let made = |body: Value| key_of(&create(&server, Some(&admin), &body));
    let reader = made(json!({"name": "r", "scopes": ["read"]}));
    let revoke = |key: &str| {
        let path = format!("/admin/keys/{}", key.split('_').nth(1).unwrap());
        with_key(&server, Some(&admin), "DELETE", &path, None)
    };
    let refused = revoke(&admin);
    assert_eq!((refused.status, refused.problem().as_str()), (409, "last_admin_key"));
    assert!(refused.body.contains("make another one"), "{}", refused.body);
    assert_eq!(revoke(&reader).status, 204);
    // Only the machine itself reaches this server, so it may go back to having no keys.
    assert_eq!(revoke(&admin).status, 204);
    assert_eq!(server.get("/collections").status, 200);
}

/// C5: guessing is slowed down, and does not slow down those who have a key.
#[test]
fn who_presents_wrong_keys_is_slowed_down() {
    let server = with_documents();
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let guess = || with_key(&server, Some("msk_guess_guess"), "GET", "/collections", None);
    let statuses: Vec<u16> = (0..40).map(|_| guess().status).collect();
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[39], 429, "{statuses:?}");
    assert!(guess().retry_after.is_some());
    assert_eq!(with_key(&server, Some(&admin), "GET", "/collections", None).status, 200);
}

#[test]
fn with_always_nothing_passes_without_a_key_and_with_never_everything_does() {
    let always = Config { auth: AuthMode::Always, ..Config::default() };
    let server = Running::start_with(always);
    assert_eq!(server.get("/collections").status, 401);
    assert_eq!(server.get("/health/ready").status, 200);
    let never = Config { auth: AuthMode::Never, ..Config::default() };
    let server = Running::start_with(never);
    create(&server, None, &json!({"name": "root", "scopes": ["admin"]}));
    assert_eq!(server.get("/collections").status, 200);
}

/// C5: answers tell browsers to do as little as possible with them.
#[test]
fn every_answer_has_the_security_headers() {
    let server = Running::start();
    for path in ["/health", "/collections", "/nothing", "/admin/level"] {
        let answer = agent().get(server.url(path)).call().unwrap();
        let header = |name: &str| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
        assert_eq!(header("referrer-policy"), "no-referrer");
        if path.starts_with("/admin") {
            assert_eq!(header("cache-control"), "no-store");
        }
    }
}

#[test]
fn properties_of_keys_out_of_range_are_refused() {
    let server = Running::start();
    for (body, part) in [
        (json!({"name": "", "scopes": ["admin"]}), "name"),
        (json!({"name": "x", "scopes": ["root"]}), "known are read, write, admin"),
        (json!({"name": "x", "scopes": ["admin"], "for": "soon"}), "for"),
        (json!({"name": "x", "scopes": ["admin"], "sope": 1}), "sope"),
    ] {
        let refused = create(&server, None, &body);
        assert_eq!(refused.problem(), "bad_request", "{body}");
        assert!(refused.body.contains(part), "{part} is not in {}", refused.body);
    }
}

/// C5, O4: ten thousand different keys that nobody has made: each is refused, and nothing of them is
/// kept.
#[test]
fn ten_thousand_distinct_keys_are_refused_and_leave_nothing_behind() {
    let config = AdmissionConfig {
        key_rates: RateRule::parse_list("search = 1000000/m").unwrap(),
        ..AdmissionConfig::default()
    };
    let server = Running::start_with(Config { admission: config, ..Config::default() });
    let admin = key_of(&create(&server, None, &json!({"name": "root", "scopes": ["admin"]})));
    let search = json!({"query": "zebra"});
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (server, search) = (&server, &search);
            scope.spawn(move || {
                let agent = agent();
                for number in 0..2_500 {
                    let key = format!("Bearer msk_{part}x{number}_{number:032}");
                    let asked = agent.post(server.url("/search")).header("authorization", key);
                    let status = asked.send_json(search).unwrap().status().as_u16();
                    // Who guesses that much is told to come again later.
                    assert!([401, 429].contains(&status), "{status}");
                }
            });
        }
    });
    let own = with_key(&server, Some(&admin), "POST", "/search", Some(&search));
    assert_eq!(own.status, 200, "{}", own.body);
    let shown = with_key(&server, Some(&admin), "GET", "/admin/admission", None).json();
    let rates = shown["rates"].as_array().unwrap();
    assert_eq!(rates[0]["keys"], 1, "{shown:#}");
    let audit = with_key(&server, Some(&admin), "GET", "/admin/audit?limit=1000", None).body;
    assert!(audit.len() < 10_000, "{audit}");
}
