//! D1: the page of the flags, used as a person uses it.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::server::Server;

/// A server that asks for keys, and the key of who administers it.
fn with_key() -> (tempfile::TempDir, Server, String) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let made = server.mainstay(&["keys", "create", "ada", "--scope", "admin", "--json"]);
    let key = made.ok().json()["key"].as_str().unwrap().to_string();
    (data, server, key)
}

fn page(server: &Server) -> String {
    format!("{}/console", server.url)
}

fn sign_in(browser: &Browser, server: &Server, key: &str) {
    browser.open(&page(server));
    browser.write("#key", key);
    browser.click("#key-form button");
    browser.wait_for("#count", "7 of 7 flags");
}

/// A part of a flag's row.
fn part(flag: &str, part: &str) -> String {
    format!("[id='flag-{flag}'] {part}")
}

fn flag(server: &Server, key: &str, arguments: &[&str]) -> Value {
    server.mainstay_as(key, &[&["flags", "show", "--json"], arguments].concat()).ok().json()
}

/// D1: a flag is switched off and brought back on the page; searches go by it, the trail names who and why.
#[test]
fn d1_a_flag_is_switched_on_its_page() {
    let (_data, server, key) = with_key();
    let browser = Browser::start();
    sign_in(&browser, &server, &key);
    browser.wait_for("#level", "level full");
    browser.click(&part("method.native", ".switch"));
    browser.wait_for("#confirm", "Everybody gets off (false), at once.");
    browser.picture("confirm.png");
    browser.click("#confirm .cancel");
    assert_eq!(flag(&server, &key, &["method.native"])["value"], true, "nothing without a yes");
    browser.click(&part("method.native", ".switch"));
    browser.write("#confirm-why", "slow today");
    browser.click("#confirm-go");
    browser.wait_for(&part("method.native", ".value"), "false");
    browser.wait_for(&part("method.native", ".badges"), "changed");
    browser.wait_for("#changes", "ada switched off method.native: slow today");
    let search = server.mainstay_as(&key, &["search", "zebra", "--json", "--url", &server.url]);
    assert_eq!(search.json()["reason"], "switched off by method.native", "{}", search.err);
    browser.write("#find", "NATIVE");
    browser.wait_for("#count", "1 of 7 flags");
    browser.click(&part("method.native", ".remove"));
    browser.click("#confirm-go");
    browser.wait_for(&part("method.native", ".value"), "true");
    browser.wait_for("#changes", "ada took back the change of method.native");
    let trail = server.mainstay_as(&key, &["audit", "--json"]).ok().out;
    assert!(trail.contains("slow today") && trail.contains("flag.remove"), "{trail}");
    assert_eq!(browser.log(), [asked_without_a_key(&server)], "nothing else went wrong");
}

/// The one question that brings the form for the key.
fn asked_without_a_key(server: &Server) -> String {
    let failed =
        "Failed to load resource: the server responded with a status of 401 (Unauthorized)";
    format!("{}/admin/flags? - {failed}", server.url)
}

/// D1: percentages, users, requirements and a schedule are written on the page, and mean what they say.
#[test]
fn d1_a_flag_is_made_and_targeted_on_its_page() {
    let (_data, server, key) = with_key();
    let browser = Browser::start();
    sign_in(&browser, &server, &key);
    browser.click("#new");
    browser.write("#name", "ranking.next");
    browser.write("#description", "the ranking that comes next");
    browser.click("#add-rule");
    browser.click("#rules > :nth-child(1) .add-condition");
    browser.write("#rules > :nth-child(1) .values", "ada\ngrace hopper");
    browser.write("#rules > :nth-child(1) .percent", "100");
    browser.choose("#rules > :nth-child(1) select.variant", "on");
    browser.click("#add-rule");
    browser.write("#rules > :nth-child(2) .percent", "12.5");
    browser.choose("#rules > :nth-child(2) select.variant", "on");
    browser.click("#add-requirement");
    browser.choose("#requires .flag", "writes");
    browser.choose("#requires .gives", "on");
    browser.run("document.getElementById('until').value = '2199-01-01T00:00:30'");
    browser.write("#editor #why", "a trial");
    browser.picture("editor.png");
    browser.click("#save");
    browser.wait_for(&part("ranking.next", ".rules"), "12.5 % of users → on");
    browser.wait_for(
        &part("ranking.next", ".rules"),
        "everybody whose user is ada, grace hopper → on",
    );
    assert_eq!(
        flag(&server, &key, &["ranking.next"])["definition"],
        json!({
            "description": "the ranking that comes next",
            "enabled": true,
            "variants": {"off": false, "on": true},
            "default": "off",
            "off": "off",
            "rules": [
                {"when": {"user": ["ada", "grace hopper"]}, "variant": "on"},
                {"percent": 12.5, "variant": "on"},
            ],
            "requires": [{"flag": "writes", "variant": "on"}],
            "until": "2199-01-01T00:00:30Z",
        })
    );
    browser.wait_for(&part("ranking.next", ".value"), "false");
    browser.write("#user", "grace hopper");
    browser.wait_for(&part("ranking.next", ".value"), "true");
    browser.wait_for(&part("ranking.next", ".reason"), "targeting match");
    browser.picture("flags.png");

    // What is refused stays in the editor, with the reason, and nothing has changed.
    browser.click(&part("ranking.next", ".edit"));
    browser.write("#variants > :nth-child(1) .variant-value", "perhaps");
    browser.click("#save");
    browser.wait_for("#editor-fault", "value off is \"perhaps\"");
    browser.write("#variants > :nth-child(1) .variant-value", "true");
    browser.click("#rules > :nth-child(2) .up");
    // Meanwhile somebody else changes it.
    server.mainstay_as(&key, &["flags", "off", "ranking.next"]).ok();
    browser.click("#save");
    browser.wait_for("#editor-fault", "ranking.next was changed by somebody else meanwhile");
    browser.click("#editor .cancel");
    browser.wait_for(&part("ranking.next", ".rules"), "disabled: everybody gets off");
    browser.click(&part("ranking.next", ".edit"));
    browser.write("#variants > :nth-child(2) .variant-name", "new");
    browser.click("#rules > :nth-child(2) .up");
    browser.click("#requires .drop");
    browser.click("#save");
    browser.wait_for(&part("ranking.next", ".rules"), "12.5 % of users → new");
    let edited = flag(&server, &key, &["ranking.next"])["definition"].clone();
    assert_eq!(edited["rules"][0], json!({"percent": 12.5, "variant": "new"}));
    assert_eq!((&edited["enabled"], &edited["requires"]), (&json!(false), &Value::Null));
    browser.click(&part("ranking.next", ".remove"));
    browser.wait_for("#confirm", "Whoever asks for it gets the program's own default, at once.");
    browser.click("#confirm-go");
    browser.wait_for("#count", "7 of 7 flags");
}

/// D1: wrong keys, hostile texts and a server that has gone are shown for what they are.
#[test]
fn d1_the_page_says_what_goes_wrong_and_runs_nothing_that_it_shows() {
    const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\"><script>1</script>";
    let (data, mut server, key) = with_key();
    let definition = json!({
        "description": HOSTILE, "variants": {"a": HOSTILE, "__proto__": "b"}, "default": "a", "off": "a",
        "rules": [{"when": {"user": [HOSTILE]}, "variant": "__proto__"}],
    });
    let file = data.path().join("flag.json");
    std::fs::write(&file, definition.to_string()).unwrap();
    let browser = Browser::start();
    browser.open(&page(&server));
    browser.write("#key", "msk_wrong_wrong");
    browser.click("#key-form button");
    browser.wait_for("#key-fault", "the API key is not known");
    let reader = server.mainstay_as(&key, &["keys", "create", "r", "--scope", "read", "--json"]);
    browser.write("#key", reader.ok().json()["key"].as_str().unwrap());
    browser.click("#key-form button");
    browser.wait_for("#key-fault", "it has no scope admin");
    browser.picture("key.png");
    sign_in(&browser, &server, &key);
    browser.log();

    let file = file.to_str().unwrap();
    let why = ["--why", HOSTILE];
    let set = [&["flags", "set", "hostile", file], &why[..]].concat();
    server.mainstay_as(&key, &set).ok();
    browser.write("#user", HOSTILE);
    browser.wait_for(&part("hostile", ".description"), HOSTILE);
    browser.wait_for(&part("hostile", ".value"), "\"b\"");
    browser.wait_for("#changes", HOSTILE);
    browser.click(&part("hostile", ".edit"));
    browser.write("#description", "tamed");
    browser.click("#save");
    browser.wait_for(&part("hostile", ".description"), "tamed");
    let definition = flag(&server, &key, &["hostile"])["definition"].clone();
    assert_eq!(definition["variants"], json!({"a": HOSTILE, "__proto__": "b"}));
    assert_eq!(browser.run("return document.title"), "Flags · Mainstay");
    assert_eq!(browser.log(), Vec::<String>::new(), "nothing was even tried");
    assert_eq!(
        browser.run("return JSON.stringify([localStorage, sessionStorage, document.cookie])"),
        "[{},{},\"\"]"
    );

    server.signal("KILL");
    server.exit_code();
    browser.click(&part("hostile", ".switch"));
    browser.click("#confirm-go");
    browser.wait_for("#confirm-fault", "the server does not answer; whether the change counts");
    browser.click("#confirm .cancel");
    browser.wait_for("#fault", "the server does not answer; below is what it said at");
    browser.click("#forget");
    assert!(!browser.text("body").contains("tamed"), "what the key showed goes with it");
}

/// C5: a page of another site cannot use the browser of who runs a server without keys.
#[test]
fn c5_a_page_of_another_site_cannot_reach_a_server_through_the_browser() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let attack = format!(
        "<script>
          const body = new Blob(['{{\"name\": \"x\", \"scopes\": [\"admin\"]}}']);
          fetch('{}/admin/keys', {{ method: 'POST', mode: 'no-cors', body }})
            .then(() => document.title = 'sent', (fault) => document.title = fault);
        </script>",
        server.url
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{attack}", attack.len());
        }
    });
    let browser = Browser::start();
    browser.open(&elsewhere);
    browser.wait_until("document.title !== ''");
    assert_eq!(browser.run("return document.title"), "sent", "the browser did send it");
    let keys = server.mainstay(&["keys", "list", "--json"]).ok().json();
    assert_eq!(keys["keys"], json!([]));
    let refused = "mainstay_auth_failures_total{reason=\"other_site\"} 1";
    let metrics = crate::server::agent().get(&format!("{}/metrics", server.url)).call();
    assert!(metrics.unwrap().body_mut().read_to_string().unwrap().contains(refused));
    // Its own page, in the same browser, is let in.
    browser.open(&page(&server));
    browser.wait_for("#count", "7 of 7 flags");
    browser.click(&part("writes", ".switch"));
    browser.click("#confirm-go");
    browser.wait_for(&part("writes", ".value"), "false");
}
