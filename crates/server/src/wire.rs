//! JSON as it goes over the wire. Domain types never leave this floor, these never go below it.

use std::collections::BTreeMap;
use std::ops::Range;

use mainstay_db::{
    CollectionStatus, Document, SearchAnswer, SearchHit, SetAsideEntry, Value, VerifyReport,
    ViewStatus, date,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// A document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocumentJson {
    /// The key, unique in the collection: 1 to 512 bytes, no control characters. May be left out
    /// where the path of the request says it.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 512)]
    pub id: String,
    /// A headline; at most 4096 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The text; at most 32 MiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Where it comes from, with `/` between the parts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// A programming language (`rust`) or a natural one (`en`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub language: String,
    /// Labels; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Named values for filters, facets and sort orders; at most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, ValueJson>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ValueJson {
    /// True or false.
    Boolean(bool),
    /// A finite number.
    Number(f64),
    /// A text.
    String(String),
    /// A point in time.
    Date(DateJson),
}

/// A point in time, apart from a text that looks like one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DateJson {
    /// RFC 3339, or a plain date.
    #[schema(example = "2026-11-21T08:30:00Z")]
    pub date: String,
}

impl TryFrom<DocumentJson> for Document {
    type Error = String;

    fn try_from(json: DocumentJson) -> Result<Self, String> {
        let mut attributes = BTreeMap::new();
        for (name, value) in json.attributes {
            let value = match value {
                ValueJson::Boolean(truth) => Value::Boolean(truth),
                ValueJson::Number(number) => Value::Number(number),
                ValueJson::String(text) => Value::String(text),
                ValueJson::Date(json) => match date::parse(&json.date) {
                    Some(span) => Value::Date(span.start_ms),
                    None => {
                        return Err(format!(
                            "attributes.{name}: \"{:.40}\" is no date; write 2026-11-21 or \
                             2026-11-21T08:30:00Z",
                            json.date
                        ));
                    }
                },
            };
            attributes.insert(name, value);
        }
        Ok(Self {
            id: json.id,
            title: json.title,
            body: json.body,
            path: json.path,
            language: json.language,
            tags: json.tags,
            attributes,
        })
    }
}

impl From<Document> for DocumentJson {
    fn from(document: Document) -> Self {
        let value = |value| match value {
            Value::String(text) => ValueJson::String(text),
            Value::Number(number) => ValueJson::Number(number),
            Value::Boolean(truth) => ValueJson::Boolean(truth),
            Value::Date(at_ms) => ValueJson::Date(DateJson { date: date::format(at_ms) }),
        };
        Self {
            id: document.id,
            title: document.title,
            body: document.body,
            path: document.path,
            language: document.language,
            tags: document.tags,
            attributes: document.attributes.into_iter().map(|(k, v)| (k, value(v))).collect(),
        }
    }
}

/// What a bulk write did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WrittenJson {
    /// Documents stored.
    pub stored: u64,
    /// The log's sequence number of the last one; pass it as `min_seq` to read your own writes.
    pub seq: u64,
    /// Documents refused; the first 1000 of them.
    pub failed: Vec<FailedJson>,
    /// How many were refused in all.
    pub failed_total: u64,
}

/// A document that was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FailedJson {
    /// Its place in the request; 0 is the first.
    pub index: u64,
    /// Its id, as far as it could be read.
    pub id: String,
    /// All that is wrong with it.
    pub errors: Vec<String>,
}

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeletedJson {
    /// Documents that lived and are gone.
    pub deleted: u64,
    /// Ids that named no document.
    pub not_found: Vec<String>,
}

/// The ids to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteJson {
    /// At most 10,000 ids.
    #[schema(max_items = 10_000)]
    pub ids: Vec<String>,
}

/// A page of documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DocumentPageJson {
    /// The documents, in order of id.
    pub documents: Vec<DocumentJson>,
    /// Pass this as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// A collection to be created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCollectionJson {
    /// 1 to 64 of a-z, 0-9, `-` and `_`, beginning with a letter or digit.
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$")]
    pub name: String,
    /// The embedding model: `auto` (default), `static`, `minilm`, `folder:PATH` or `remote:URL,MODEL,DIMENSION`.
    #[serde(default)]
    pub model: Option<String>,
}

/// The collections of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CollectionsJson {
    /// Those that serve.
    pub collections: Vec<CollectionJson>,
    /// Those that could not be opened, with the reason.
    pub broken: BTreeMap<String, String>,
}

/// The figures of a collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CollectionJson {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: String,
    /// Documents that live.
    pub documents: u64,
    /// The last durable sequence number.
    pub durable_seq: u64,
    /// The embedding model that was chosen.
    pub model: String,
    /// How far the refining model has come; absent without one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refinement: Option<RefinementJson>,
    /// Fusion weights tuned for this collection: bm25, tantivy, native, semantic.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<[f32; 4]>,
    /// Each view of the log.
    pub views: Vec<ViewJson>,
}

/// How far the refining model has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RefinementJson {
    /// Passages with a vector of the refining model.
    pub done: u64,
    /// Passages in all.
    pub total: u64,
}

/// The figures of a view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ViewJson {
    /// `documents`, `bm25`, `tantivy`, `native` or `semantic`.
    pub view: String,
    /// What it can do: `ready`, or why not.
    pub state: String,
    /// Up to which sequence number readers see the log.
    pub indexed_through: u64,
    /// Up to which it is durable by itself.
    pub checkpointed_through: u64,
    /// Documents held, removed ones included until a merge drops them.
    pub documents: u64,
    /// Parts that a query looks into.
    pub segments: u64,
    /// Bytes in files.
    pub disk_bytes: u64,
    /// Bytes in memory that are not yet in files.
    pub memory_bytes: u64,
    /// Records that it can never apply.
    pub set_aside: u64,
}

impl From<CollectionStatus> for CollectionJson {
    fn from(status: CollectionStatus) -> Self {
        Self {
            name: status.name,
            created: date::format(i64::try_from(status.created_ms).unwrap_or(i64::MAX)),
            documents: status.documents,
            durable_seq: status.durable_seq,
            model: status.model,
            refinement: status.refined.map(|(done, total)| RefinementJson { done, total }),
            weights: status.weights.map(|w| [w.bm25, w.tantivy, w.native, w.semantic]),
            views: status.views.into_iter().map(ViewJson::from).collect(),
        }
    }
}

impl From<ViewStatus> for ViewJson {
    fn from(view: ViewStatus) -> Self {
        Self {
            view: view.view.to_string(),
            state: view.state.to_string(),
            indexed_through: view.indexed_through,
            checkpointed_through: view.checkpointed_through,
            documents: view.figures.documents,
            segments: view.figures.segments,
            disk_bytes: view.figures.disk_bytes,
            memory_bytes: view.figures.memory_bytes,
            set_aside: view.set_aside as u64,
        }
    }
}

/// A record that a view can never apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SetAsideJson {
    /// The view.
    pub view: String,
    /// The record's sequence number.
    pub seq: u64,
    /// The document's id.
    pub id: String,
    /// Why the view refused it.
    pub error: String,
    /// When.
    pub at: String,
}

impl From<SetAsideEntry> for SetAsideJson {
    fn from(entry: SetAsideEntry) -> Self {
        Self {
            view: entry.view,
            seq: entry.seq,
            id: entry.id,
            error: entry.error,
            at: date::format(i64::try_from(entry.at_ms).unwrap_or(i64::MAX)),
        }
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchAnswerJson {
    /// The hits, best first.
    pub results: Vec<SearchHitJson>,
    /// How many documents match.
    pub total: u64,
    /// Whether `total` is exact or a lower bound.
    pub total_is_exact: bool,
    /// Milliseconds from request to answer.
    pub duration_ms: f64,
    /// Whether every method that was asked searched all that it has indexed.
    pub complete: bool,
    /// `full`, `degraded`, `minimal` or `maintenance`.
    pub level: String,
    /// Why the level is not full.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// How old the answer is, when it is a kept one that stands in for a better one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_ms: Option<u64>,
    /// Each method that was asked.
    pub methods: Vec<MethodReportJson>,
    /// The last durable sequence number when the search began.
    pub durable_seq: u64,
    /// How far the refining model has come; absent without one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refinement: Option<RefinementJson>,
    /// Counts of values, by field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub facets: BTreeMap<String, Vec<FacetValueJson>>,
}

/// A value and how many documents have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FacetValueJson {
    /// The value.
    pub value: String,
    /// How many of the matching candidates have it.
    pub count: u64,
}

/// What became of one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MethodReportJson {
    /// `bm25`, `tantivy`, `native` or `semantic`.
    pub method: String,
    /// `ok`, `partial`, `skipped`, `timed_out` or `failed`.
    pub status: String,
    /// Why it is not `ok`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// Up to which sequence number it has indexed.
    pub indexed_through: u64,
    /// How long it took.
    pub took_ms: f64,
    /// Documents that match, as far as it counted.
    pub total: u64,
    /// Milliseconds after which it is tried again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
}

/// One document found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchHitJson {
    /// The document; with its body only when that was asked for.
    #[serde(flatten)]
    pub document: DocumentJson,
    /// The fused score; comparable inside one answer.
    pub score: f32,
    /// Which methods found it.
    pub methods: Vec<String>,
    /// The piece of the body that shows best why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snippet: Option<SnippetJson>,
    /// Lines that match.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lines: Vec<LineJson>,
    /// What each method gave.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub explanation: Vec<ContributionJson>,
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SnippetJson {
    /// The text.
    pub text: String,
    /// The line at which it begins; 1 is the first.
    pub line: u32,
    /// Byte ranges of `text` that match: begin and end.
    pub highlights: Vec<[usize; 2]>,
}

/// A line of a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LineJson {
    /// Its number; 1 is the first.
    pub line: u32,
    /// The byte at which the first match begins; 1 is the first; 0 in a context line.
    pub column: u32,
    /// The byte of the line at which `text` begins; absent while it is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: usize,
    /// The text, 4 KiB of it at most.
    pub text: String,
    /// Byte ranges of `text` that match: begin and end.
    pub highlights: Vec<[usize; 2]>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What one method gave to one hit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContributionJson {
    /// The method.
    pub method: String,
    /// The place in the method's list; 1 is best.
    pub rank: usize,
    /// The method's own score.
    pub score: f32,
    /// The score in 0..=1 inside the list.
    pub normalised: f32,
    /// The method's share in the fused score.
    pub weight: f32,
}

fn pairs(ranges: Vec<Range<usize>>) -> Vec<[usize; 2]> {
    ranges.into_iter().map(|range| [range.start, range.end]).collect()
}

impl From<SearchAnswer> for SearchAnswerJson {
    fn from(answer: SearchAnswer) -> Self {
        let methods = answer.methods.into_iter().map(|report| MethodReportJson {
            method: report.method.to_string(),
            status: report.status.to_string(),
            reason: report.reason,
            indexed_through: report.indexed_through,
            took_ms: report.took_ms,
            total: report.total,
            retry_after_ms: report.retry_after_ms,
        });
        let facets = answer.facets.into_iter().map(|facet| {
            let values = facet.values.into_iter();
            (facet.field, values.map(|(value, count)| FacetValueJson { value, count }).collect())
        });
        Self {
            total: answer.total,
            total_is_exact: answer.total_is_exact,
            duration_ms: answer.duration_ms,
            complete: answer.complete,
            level: answer.level.name().to_string(),
            reason: answer.reason,
            age_ms: None,
            methods: methods.collect(),
            durable_seq: answer.durable_seq,
            refinement: answer.refined.map(|(done, total)| RefinementJson { done, total }),
            facets: facets.collect(),
            results: answer.hits.into_iter().map(SearchHitJson::from).collect(),
        }
    }
}

impl From<SearchHit> for SearchHitJson {
    fn from(hit: SearchHit) -> Self {
        let lines = hit.lines.into_iter().map(|line| LineJson {
            line: line.line,
            column: line.column,
            offset: line.offset,
            text: line.text,
            highlights: pairs(line.highlights),
        });
        let explanation = hit.explanation.into_iter().map(|part| ContributionJson {
            method: part.method.to_string(),
            rank: part.rank,
            score: part.score,
            normalised: part.normalised,
            weight: part.weight,
        });
        Self {
            document: hit.document.into(),
            score: hit.score,
            methods: hit.methods.iter().map(ToString::to_string).collect(),
            snippet: hit.snippet.map(|snippet| SnippetJson {
                text: snippet.text,
                line: snippet.line,
                highlights: pairs(snippet.highlights),
            }),
            lines: lines.collect(),
            explanation: explanation.collect(),
        }
    }
}

/// What `verify` found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerifyJson {
    /// The collection.
    pub collection: String,
    /// Whether everything agrees.
    pub clean: bool,
    /// Records in the log.
    pub log_records: u64,
    /// Bytes in the log.
    pub log_bytes: u64,
    /// Damage in the log.
    pub log_damage: Vec<String>,
    /// Documents that live according to the log.
    pub documents: u64,
    /// Damage in the stored documents.
    pub document_damage: Vec<String>,
    /// Each view.
    pub views: Vec<VerifyViewJson>,
}

/// How one view agrees with the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerifyViewJson {
    /// The view.
    pub view: String,
    /// Up to where it has read the log.
    pub indexed_through: u64,
    /// Living documents that it holds.
    pub held: u64,
    /// Living documents that it should hold and does not.
    pub missing: u64,
    /// Some of their ids.
    pub missing_ids: Vec<String>,
    /// Documents that it should not hold.
    pub extra: u64,
    /// Some of their numbers.
    pub extra_numbers: Vec<u64>,
    /// Records that it has set aside.
    pub set_aside: u64,
    /// Why it cannot be read; empty when it can.
    pub fault: String,
}

impl From<VerifyReport> for VerifyJson {
    fn from(report: VerifyReport) -> Self {
        Self {
            clean: report.is_clean(),
            collection: report.collection,
            log_records: report.log_records,
            log_bytes: report.log_bytes,
            log_damage: report.log_damage,
            documents: report.documents,
            document_damage: report.document_damage,
            views: report
                .views
                .into_iter()
                .map(|view| VerifyViewJson {
                    view: view.view.to_string(),
                    indexed_through: view.indexed_through,
                    held: view.held,
                    missing: view.missing,
                    missing_ids: view.missing_ids,
                    extra: view.extra,
                    extra_numbers: view.extra_numbers,
                    set_aside: view.set_aside,
                    fault: view.fault,
                })
                .collect(),
        }
    }
}

/// Reads one document of a bulk request.
pub(crate) fn document(bytes: &[u8]) -> Result<Document, Problem> {
    let json: DocumentJson = serde_json::from_slice(bytes)
        .map_err(|e| Problem::bad_request(format!("document: {e}")))?;
    Document::try_from(json).map_err(Problem::bad_request)
}
