//! Chromium, driven through WebDriver as a person would use it.
//!
//! With `MAINSTAY_SCREENSHOTS` pictures are written into that folder, for documents and for looking.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::server::PATIENCE;

/// A window; closed when dropped, with the process that drives it.
pub(crate) struct Browser {
    runtime: Runtime,
    client: Client,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver runs; `cargo xtask test` installs chromium and chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_string())
        });
        let url = format!("http://127.0.0.1:{}", port.unwrap());
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        // Without a network of its own, and as root in a container.
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1200,1000",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let runtime = Runtime::new().unwrap();
        let connected = runtime.block_on(
            ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
                .capabilities(capabilities.as_object().unwrap().clone())
                .connect(&url),
        );
        let client = connected.unwrap_or_else(|error| {
            let _ = driver.kill();
            panic!("no session of the browser: {error}")
        });
        Self { runtime, client, driver, _profile: profile }
    }

    pub(crate) fn open(&self, url: &str) {
        self.done(self.client.goto(url));
    }

    /// Waits until the first element of this kind is there and shown.
    fn element(&self, css: &str) -> Element {
        self.wait_until(&format!("document.querySelector({})?.checkVisibility()", json!(css)));
        self.done(self.client.find(Locator::Css(css)))
    }

    pub(crate) fn click(&self, css: &str) {
        self.done(self.element(css).click());
    }

    /// Replaces what is in a field by what is typed.
    pub(crate) fn write(&self, css: &str, text: &str) {
        let field = self.element(css);
        self.done(field.clear());
        self.done(field.send_keys(text));
    }

    /// Chooses from a list by what is shown there.
    pub(crate) fn choose(&self, css: &str, label: &str) {
        self.done(self.element(css).select_by_label(label));
    }

    /// What a person reads there.
    pub(crate) fn text(&self, css: &str) -> String {
        self.done(async { self.client.find(Locator::Css(css)).await?.text().await })
    }

    /// Waits until a person reads `part` there.
    pub(crate) fn wait_for(&self, css: &str, part: &str) {
        self.wait_until(
            &format!("[...document.querySelectorAll({})].some((it) => it.checkVisibility() && it.innerText.includes({}))",
                json!(css), json!(part)),
        );
    }

    /// Waits until an expression of JavaScript is true.
    pub(crate) fn wait_until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.run(&script) != true {
            if std::time::Instant::now() >= deadline {
                panic!("{expression}\n{}\n{:#?}", self.text("body"), self.log());
            }
        }
    }

    /// Runs JavaScript in the page; answers what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.done(self.client.execute(script, vec![]))
    }

    /// What the browser's console says since it was asked last: refused scripts, failed requests.
    pub(crate) fn log(&self) -> Vec<String> {
        let entries = self.done(self.client.issue_cmd(ReadLog));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].as_str().unwrap().to_string()).collect()
    }

    /// Keeps a picture of the window when pictures are wanted.
    pub(crate) fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("MAINSTAY_SCREENSHOTS") else { return };
        let png = self.done(self.client.screenshot());
        std::fs::write(PathBuf::from(folder).join(name), png).unwrap();
    }

    fn done<T>(&self, command: impl Future<Output = Result<T, CmdError>>) -> T {
        self.runtime.block_on(command).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The window goes with its session, not with its driver.
        let _ = self.runtime.block_on(self.client.clone().close());
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Chromium's own addition to WebDriver.
#[derive(Debug)]
struct ReadLog;

impl WebDriverCompatibleCommand for ReadLog {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (hyper::Method, Option<String>) {
        (hyper::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}
