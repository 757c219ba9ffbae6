//! `mainstay search`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mainstay_db::{COLLECTION_DEFAULT, Method, Options};
use mainstay_server::problem::Problem;
use mainstay_server::search_json::SearchRequestJson;
use mainstay_server::wire::SearchAnswerJson;

use crate::failure::{FOUND_FAULT, Failure};
use crate::trust::Trust;
use crate::{data, print};

/// Search a data directory or a running server
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to look for; may be empty with --filter
    query: String,
    /// The data directory
    #[arg(long, env = "MAINSTAY_DATA", required_unless_present = "url", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address of a running server, such as http://127.0.0.1:8080
    #[arg(long, env = "MAINSTAY_URL", hide_env_values = true, conflicts_with = "data")]
    url: Option<String>,
    #[command(flatten)]
    trust: Trust,
    /// The collection
    #[arg(long, short, default_value = COLLECTION_DEFAULT)]
    collection: String,
    /// Methods to ask: bm25, tantivy, native, semantic; all when absent
    #[arg(long, short, value_delimiter = ',', value_name = "NAMES")]
    method: Vec<Method>,
    /// How many hits, 1 to 1000
    #[arg(long, short = 'n', default_value_t = 10)]
    limit: usize,
    /// How many hits to pass over
    #[arg(long, default_value_t = 0)]
    offset: usize,
    /// Read the query as a regular expression; asks `native` alone unless --method says otherwise
    #[arg(long, short = 'e')]
    regex: bool,
    /// Compare upper and lower case
    #[arg(long, short = 's', conflicts_with = "ignore_case")]
    case_sensitive: bool,
    /// Take upper and lower case for the same
    #[arg(long, short)]
    ignore_case: bool,
    /// Match whole words only
    #[arg(long, short)]
    word: bool,
    /// Which documents count, such as 'language:rust -path:vendor/**'
    #[arg(long, short)]
    filter: Option<String>,
    /// Order by these fields instead of by score; '-' in front for descending
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    sort: Vec<String>,
    /// Count the values of these fields
    #[arg(long, value_delimiter = ',')]
    facet: Vec<String>,
    /// Join the methods' lists by rank instead of by score
    #[arg(long)]
    rrf: bool,
    /// Lines of context around each matching line
    #[arg(long, short = 'C', default_value_t = 0)]
    context: usize,
    /// Matching lines shown with each hit
    #[arg(long, default_value_t = 3)]
    lines: usize,
    /// Say which method gave what
    #[arg(long)]
    explain: bool,
    /// Fail instead of answering with a part
    #[arg(long)]
    strict: bool,
    /// Fail when fewer methods answer, of those asked
    #[arg(long, default_value_t = 1, value_name = "N")]
    methods_min: usize,
    /// The time for everything, in milliseconds
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
    /// Print the answer as one JSON object
    #[arg(long)]
    json: bool,
}

/// Exit code 0 with hits, 1 without any.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let request = arguments.request();
    let answer = match (&arguments.url, &arguments.data) {
        (Some(url), _) => ask(url, &arguments.trust, &request)?,
        (None, Some(folder)) => {
            let db = data::open_existing(folder, Options::default())?;
            let collection = db.collection(&arguments.collection)?;
            data::wait_indexed(&collection, "catching up");
            let request = request.request().map_err(|p| Failure::usage(p.detail))?;
            let answer = collection.search(&request)?.into();
            db.close()?;
            answer
        }
        (None, None) => return Err(Failure::usage("name a data directory with --data")),
    };
    if arguments.json {
        let json = serde_json::to_string(&answer).map_err(|e| Failure::new(e.to_string()))?;
        println!("{json}");
    } else {
        print::answer(&answer);
    }
    Ok(if answer.results.is_empty() { ExitCode::from(FOUND_FAULT) } else { ExitCode::SUCCESS })
}

impl Arguments {
    fn request(&self) -> SearchRequestJson {
        let mut methods: Vec<String> = self.method.iter().map(ToString::to_string).collect();
        if self.regex && methods.is_empty() {
            methods.push(Method::Native.to_string());
        }
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let case = match (self.case_sensitive, self.ignore_case) {
            (true, _) => "sensitive",
            (_, true) => "insensitive",
            _ => "smart",
        };
        SearchRequestJson {
            query: self.query.clone(),
            limit: Some(self.limit),
            offset: Some(self.offset),
            methods: some(&methods),
            collection: Some(self.collection.clone()),
            filter: self.filter.clone(),
            facets: some(&self.facet),
            sort: some(&self.sort),
            fusion: self.rrf.then(|| "rrf".to_string()),
            regex: self.regex,
            case: Some(case.to_string()),
            word: self.word,
            timeout_ms: Some(self.timeout_ms),
            strict: self.strict,
            methods_min: Some(self.methods_min),
            explain: self.explain,
            lines: Some(self.lines),
            context_lines: Some(self.context),
            ..SearchRequestJson::default()
        }
    }
}

/// Asks a running server.
fn ask(url: &str, trust: &Trust, request: &SearchRequestJson) -> Result<SearchAnswerJson, Failure> {
    let patience =
        Duration::from_millis(request.timeout_ms.unwrap_or(2000)) + Duration::from_secs(5);
    let agent = crate::remote::agent(patience, trust)?;
    let url = format!("{}/search", url.trim_end_matches('/'));
    let mut response = agent
        .post(&url)
        .send_json(request)
        .map_err(|e| Failure::new(format!("{url}: {e}; is the server running?")))?;
    let status = response.status();
    let body = response.body_mut();
    if status.is_success() {
        return body.read_json().map_err(|e| Failure::new(format!("{url} answered no JSON: {e}")));
    }
    match body.read_json::<Problem>() {
        Ok(problem) if status.is_client_error() => Err(Failure::usage(problem.detail)),
        Ok(problem) => Err(Failure::new(problem.detail)),
        Err(_) => Err(Failure::new(format!("{url} answered {status}"))),
    }
}
