//! [`Remote`]: a running server, as commands of an operator talk to it.

use std::time::Duration;

use mainstay_server::problem::Problem;
use serde_json::Value;

use crate::failure::Failure;
use crate::trust::Trust;

/// How long an answer may take unless the caller says otherwise: no call of an operator works for
/// longer, but for rebuilding.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Remote {
    /// The address of the running server
    #[arg(
        long,
        global = true,
        env = "MAINSTAY_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: String,
    /// How long to wait for an answer, such as 2s [default: 10s, and 8s for health]
    #[arg(long, global = true, value_name = "TIME", value_parser = patience)]
    timeout: Option<Duration>,
    #[command(flatten)]
    trust: Trust,
}

fn patience(text: &str) -> Result<Duration, String> {
    let parsed = mainstay_server::parse_duration("timeout", text);
    let parsed = parsed.map_err(|error| error.to_string())?;
    if parsed.is_zero() { Err("allowed is more than 0s".to_string()) } else { Ok(parsed) }
}

/// A client that takes error statuses as answers and shows the key of the environment.
pub(crate) fn agent(timeout: Duration, trust: &Trust) -> Result<ureq::Agent, Failure> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .tls_config(trust.of_agent()?)
        .middleware(with_key);
    Ok(config.build().new_agent())
}

/// The key comes from the environment: an argument would show in the list of processes.
fn with_key(
    mut request: ureq::http::Request<ureq::SendBody<'_>>,
    next: ureq::middleware::MiddlewareNext<'_>,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    if let Ok(key) = std::env::var("MAINSTAY_API_KEY") {
        let value = ureq::http::HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|error| ureq::Error::Http(error.into()))?;
        request.headers_mut().insert(ureq::http::header::AUTHORIZATION, value);
    }
    next.handle(request)
}

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Remote {
    /// Asks for whatever status comes back; fails only when none does.
    pub(crate) fn ask(
        &self,
        verb: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        self.ask_within(PATIENCE, verb, path, body)
    }

    /// The same within `patience`, unless the command line says how long.
    pub(crate) fn ask_within(
        &self,
        patience: Duration,
        verb: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let patience = self.timeout.unwrap_or(patience);
        let agent = agent(patience, &self.trust)?;
        let mut request = ureq::http::Request::builder().method(verb).uri(&url);
        let text = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request
            .body(text)
            .map_err(|error| Failure::usage(format!("--url {}: {error}", self.url)))?;
        let mut response =
            agent.run(request).map_err(|error| Failure::new(unanswered(&url, &error, patience)))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = body.map_err(|error| Failure::new(format!("{url}: {error}")))?;
        Ok(Answer { status, text })
    }

    /// Asks for JSON; a problem becomes a failure with its detail.
    pub(crate) fn json(
        &self,
        verb: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let answer = self.ask(verb, path, body)?;
        if (200..300).contains(&answer.status) {
            if answer.text.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(&answer.text)
                .map_err(|error| Failure::new(format!("{path} answered no JSON: {error}")));
        }
        let Ok(problem) = serde_json::from_str::<Problem>(&answer.text) else {
            return Err(Failure::new(format!("{path} answered {}", answer.status)));
        };
        let mut told = problem.detail;
        for error in problem.errors {
            told.push_str("\n  ");
            told.push_str(&error);
        }
        match answer.status {
            400..500 => Err(Failure::usage(told)),
            _ => Err(Failure::new(told)),
        }
    }
}

/// What is told when no answer comes.
fn unanswered(url: &str, error: &ureq::Error, patience: Duration) -> String {
    match error {
        ureq::Error::Timeout(_) => {
            format!("{url}: no answer within {} s; does the server hang?", patience.as_secs_f64())
        }
        error => format!("{url}: {error}; is the server running?"),
    }
}

/// A path segment in which everything special is escaped; `/` stays.
pub(crate) fn path_of(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    let escaped = name.bytes().map(|b| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    });
    escaped.collect()
}
