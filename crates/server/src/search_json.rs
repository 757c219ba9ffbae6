//! [`SearchRequestJson`]: the body of `POST /search`.

use std::time::Duration;

use mainstay_db::search_request as bounds;
use mainstay_db::{Case, Filter, Fusion, Method, Pattern, SearchRequest, SortKey, Syntax, Weights};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// A search. Only `query` is needed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchRequestJson {
    /// What to look for; at most 16 KiB. Empty: every document that passes the filter.
    #[schema(max_length = 16384)]
    pub query: String,
    /// How many hits; 1 to 1000; 10 when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    pub limit: Option<usize>,
    /// How many hits to pass over; `offset + limit` is at most 10,000.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(maximum = 9999, default = 0)]
    pub offset: Option<usize>,
    /// The methods to ask: `bm25`, `tantivy`, `native`, `semantic`; all when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(max_items = 4)]
    pub methods: Option<Vec<String>>,
    /// The collection; `default` when absent. Not allowed where the path names one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub collection: Option<String>,
    /// Which documents count, such as `language:rust price>=10 -path:vendor/**`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub filter: Option<String>,
    /// Fields whose values are counted among the matching candidates; at most 16.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(max_items = 16)]
    pub facets: Option<Vec<String>>,
    /// The most values of one facet; 10 when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    pub facet_values: Option<usize>,
    /// Orders the candidates by fields instead of by score; `-` in front of one for descending.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(max_items = 8)]
    pub sort: Option<Vec<String>>,
    /// How the methods' lists are joined: `weighted` (default) or `rrf`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fusion: Option<String>,
    /// Weights for this request: bm25, tantivy, native, semantic; each 0 or more, not all 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<[f32; 4]>,
    /// The constant of reciprocal rank fusion; 1 to 10,000; 60 when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(minimum = 1, maximum = 10000, default = 60)]
    pub rrf_k: Option<u32>,
    /// Whether `native` reads the query as a regular expression.
    #[serde(default, skip_serializing_if = "is_false")]
    pub regex: bool,
    /// How `native` compares upper and lower case: `smart` (default), `sensitive`, `insensitive`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub case: Option<String>,
    /// Whether a match of `native` must be whole words.
    #[serde(default, skip_serializing_if = "is_false")]
    pub word: bool,
    /// The time for everything, in milliseconds; 1 to 30,000; 2000 when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(minimum = 1, maximum = 30000, default = 2000)]
    pub timeout_ms: Option<u64>,
    /// Whether an incomplete answer is an error.
    #[serde(default, skip_serializing_if = "is_false")]
    pub strict: bool,
    /// Methods that must answer, of those asked: with fewer the answer is an error; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(minimum = 1, maximum = 4, default = 1)]
    pub methods_min: Option<usize>,
    /// Waits until the methods have indexed up to this sequence number: read your own writes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_seq: Option<u64>,
    /// Whether each hit says which method gave what.
    #[serde(default, skip_serializing_if = "is_false")]
    pub explain: bool,
    /// The length of snippets in bytes; 0 for none; 240 when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(maximum = 4096, default = 240)]
    pub snippet_bytes: Option<usize>,
    /// The most matching lines listed with each hit; 0 for none; 3 when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(maximum = 1000, default = 3)]
    pub lines: Option<usize>,
    /// Lines of context around each matching line; at most 20.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(maximum = 20, default = 0)]
    pub context_lines: Option<usize>,
    /// Whether hits carry the whole body.
    #[serde(default, skip_serializing_if = "is_false")]
    pub body: bool,
}

fn is_false(truth: &bool) -> bool {
    !truth
}

impl SearchRequestJson {
    /// The request as the database takes it.
    pub fn request(&self) -> Result<SearchRequest, Problem> {
        let mut request = SearchRequest::new(self.query.clone());
        request.limit = self.limit.unwrap_or(bounds::LIMIT_DEFAULT);
        request.offset = self.offset.unwrap_or(0);
        for name in self.methods.iter().flatten() {
            let method: Method = name.parse().map_err(|e| bad("methods", &e))?;
            request.methods.push(method);
        }
        request.filter = match self.filter.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => Some(Filter::parse(text).map_err(|e| bad("filter", &e))?),
        };
        request.facets = self.facets.clone().unwrap_or_default();
        request.facet_values = self.facet_values.unwrap_or(request.facet_values);
        for key in self.sort.iter().flatten() {
            let (descending, field) = match key.strip_prefix('-') {
                Some(field) => (true, field),
                None => (false, key.as_str()),
            };
            request.sort.push(SortKey { field: field.to_string(), descending });
        }
        request.fusion = self.fusion()?;
        request.pattern = self.pattern()?;
        request.timeout = self.timeout_ms.map_or(request.timeout, Duration::from_millis);
        request.strict = self.strict;
        request.methods_min = self.methods_min.unwrap_or(request.methods_min);
        request.min_seq = self.min_seq.unwrap_or(0);
        request.explain = self.explain;
        request.snippet_bytes = self.snippet_bytes.unwrap_or(request.snippet_bytes);
        request.lines = self.lines.unwrap_or(request.lines);
        request.context_lines = self.context_lines.unwrap_or(0);
        request.with_body = self.body;
        Ok(request)
    }

    fn fusion(&self) -> Result<Fusion, Problem> {
        match self.fusion.as_deref() {
            None | Some("weighted") => {
                Ok(Fusion::Weighted(self.weights.map(|[bm25, tantivy, native, semantic]| {
                    Weights { bm25, tantivy, native, semantic }
                })))
            }
            Some("rrf") => Ok(Fusion::ReciprocalRank { k: self.rrf_k.unwrap_or(60) }),
            Some(other) => {
                Err(bad("fusion", &format!("\"{other}\" is unknown; known are weighted, rrf")))
            }
        }
    }

    fn pattern(&self) -> Result<Pattern, Problem> {
        let case = match self.case.as_deref() {
            None | Some("smart") => Case::Smart,
            Some("sensitive") => Case::Sensitive,
            Some("insensitive") => Case::Insensitive,
            Some(other) => {
                let known = "known are smart, sensitive, insensitive";
                return Err(bad("case", &format!("\"{other}\" is unknown; {known}")));
            }
        };
        let syntax = if self.regex { Syntax::Regex } else { Syntax::Literal };
        Ok(Pattern { syntax, case, word: self.word })
    }
}

fn bad(field: &str, reason: &dyn std::fmt::Display) -> Problem {
    Problem::bad_request(format!("{field}: {reason}"))
}
