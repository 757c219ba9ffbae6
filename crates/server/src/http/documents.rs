//! Documents: put, get, list, delete.

use axum::extract::{Request, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mainstay_db::{Collection, DOCUMENT_LINE_BYTES_MAX, Db, DbError, Document, Written};
use mainstay_ops::admission::{Load, write_bytes, write_units};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Json, Path, Pieces, Query, content_type, read_body};
use crate::problem::Problem;
use crate::state::{State, Work};
use crate::ticket;
use crate::wire::{
    self, DeleteJson, DeletedJson, DocumentJson, DocumentPageJson, FailedJson, WrittenJson,
};

/// Documents of a stream that are written at once.
const BATCH_DOCUMENTS: usize = 1000;
/// Bytes of a stream that are written at once.
const BATCH_BYTES: usize = 4 << 20;
/// A line of a stream stands in memory as text and as a document until its batch is written.
const STREAM_COPIES: u64 = 2;
/// Refused documents that are named in an answer; all are counted.
const FAILED_NAMED_MAX: usize = 1000;
/// Documents on a page when the caller names no number, and at most.
const PAGE: (usize, usize) = (100, 1000);
/// Ids of one removal.
const DELETE_IDS_MAX: usize = 10_000;

/// Which page of documents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Begins behind this id.
    after: Option<String>,
    /// How many; 1 to 1000; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Store documents
///
/// One document, an array of them, or a stream of NDJSON (`application/x-ndjson`) of any length.
/// Valid ones are stored even when others are not.
#[utoipa::path(
    put, path = "/collections/{collection}/documents", operation_id = "put_documents", tag = "documents",
    params(("collection" = String, Path, description = "The collection's name")),
    request_body(content = [DocumentJson], description = "An array of documents; also NDJSON"),
    responses(
        (status = 200, description = "What was stored, durably, and what was refused", body = WrittenJson),
        (status = "4XX", description = "The body cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The disk is full (507) or the server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<WrittenJson>, Problem> {
    let collection = state.collection(&name)?;
    let kind = content_type(&request).to_string();
    let mut bulk = Bulk::new(collection, state.clone());
    match kind.as_str() {
        "application/x-ndjson" | "application/jsonl" => bulk.stream(request).await?,
        "application/json" => {
            let bytes = read_body(request, &state).await?;
            let parsed: OneOrMany = serde_json::from_slice(&bytes).map_err(|e| {
                Problem::bad_request(format!("the body is no document and no array of them: {e}"))
            })?;
            let documents = match parsed {
                OneOrMany::One(document) => vec![*document],
                OneOrMany::Many(documents) => documents,
            };
            for document in documents {
                let id = document.id.clone();
                bulk.add(Document::try_from(document).map_err(|e| (id, e))).await?;
            }
        }
        other => {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                format!("the body is {other:.64}; send application/json or application/x-ndjson"),
            ));
        }
    }
    bulk.finish().await.map(Json)
}

/// Writes documents of so many bytes. The memory that was reserved for the request's body is theirs;
/// only what is missing is reserved beside it.
async fn write<T: Send + 'static>(
    state: &State,
    bytes: u64,
    run: impl FnOnce() -> Result<T, DbError> + Send + 'static,
) -> Result<T, Problem> {
    ticket::reserve_body(write_bytes(bytes))?;
    let memory = ticket::take_body();
    let load = Load { cost: write_units(bytes), ..Load::default() };
    let run = move |_: &Db, _| Ok((run()?, memory));
    let (written, memory) = state.weighed(Work::Write, load, |_| true, run).await?;
    ticket::keep_body(memory);
    Ok(written)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<DocumentJson>),
    One(Box<DocumentJson>),
}

/// A bulk write in progress.
struct Bulk {
    collection: Collection,
    state: State,
    batch: Vec<Document>,
    /// The place of each document of the batch in the request.
    places: Vec<u64>,
    batch_bytes: usize,
    /// Bytes of the batch's lines, in a stream.
    gathered: usize,
    next_place: u64,
    written: WrittenJson,
}

impl Bulk {
    fn new(collection: Collection, state: State) -> Self {
        Self {
            collection,
            state,
            batch: Vec::new(),
            places: Vec::new(),
            batch_bytes: 0,
            gathered: 0,
            next_place: 0,
            written: WrittenJson { stored: 0, seq: 0, failed: Vec::new(), failed_total: 0 },
        }
    }

    /// Reads NDJSON line by line, writing batches as they fill.
    async fn stream(&mut self, request: Request) -> Result<(), Problem> {
        let mut pieces = Pieces::of(request);
        let mut pending: Vec<u8> = Vec::new();
        loop {
            let piece = pieces.next(&self.state).await.map_err(|problem| self.broken(problem))?;
            let Some(piece) = piece else { break };
            let gathered = (pending.len() + self.gathered + piece.len()) as u64;
            let reserved = ticket::reserve_body(gathered.saturating_mul(STREAM_COPIES));
            reserved.map_err(|problem| self.broken(problem))?;
            let mut rest = &piece[..];
            while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                pending.extend_from_slice(&rest[..at]);
                rest = &rest[at + 1..];
                let line = std::mem::take(&mut pending);
                self.line(&line).await?;
            }
            pending.extend_from_slice(rest);
            if pending.len() > DOCUMENT_LINE_BYTES_MAX {
                return Err(self.broken(Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "line_too_long",
                    format!(
                        "line {} has more than {DOCUMENT_LINE_BYTES_MAX} bytes; split the document",
                        self.next_place + 1
                    ),
                )));
            }
        }
        let line = std::mem::take(&mut pending);
        self.line(&line).await
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Problem> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        self.gathered += line.len();
        let parsed = wire::document(line).map_err(|problem| (String::new(), problem.detail));
        self.add(parsed).await
    }

    async fn add(&mut self, document: Result<Document, (String, String)>) -> Result<(), Problem> {
        let place = self.next_place;
        self.next_place += 1;
        match document {
            Ok(document) => {
                self.batch_bytes += document.body.len() + document.title.len();
                self.batch.push(document);
                self.places.push(place);
            }
            Err((id, error)) => self.refuse(place, id, vec![error]),
        }
        if self.batch.len() >= BATCH_DOCUMENTS || self.batch_bytes >= BATCH_BYTES {
            self.write().await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), Problem> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let places = std::mem::take(&mut self.places);
        let bytes = std::mem::take(&mut self.batch_bytes) as u64;
        let ids: Vec<String> = batch.iter().map(|document| document.id.clone()).collect();
        let collection = self.collection.clone();
        let written = write(&self.state, bytes, move || collection.put(batch)).await;
        if std::mem::take(&mut self.gathered) > 0 {
            // Of a stream nothing is left in memory.
            drop(ticket::take_body());
        }
        let Written { seq, documents } = written.map_err(|problem| self.broken(problem))?;
        self.written.seq = self.written.seq.max(seq);
        for ((outcome, place), id) in documents.into_iter().zip(places).zip(ids) {
            match outcome {
                Ok(()) => self.written.stored += 1,
                Err(faults) => {
                    self.refuse(place, id, faults.iter().map(ToString::to_string).collect());
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, index: u64, id: String, errors: Vec<String>) {
        self.written.failed_total += 1;
        if self.written.failed.len() < FAILED_NAMED_MAX {
            let id = id.chars().take(512).collect();
            self.written.failed.push(FailedJson { index, id, errors });
        }
    }

    /// A problem in the middle of a bulk write says what is stored already.
    fn broken(&self, mut problem: Problem) -> Problem {
        if self.written.stored > 0 {
            problem.detail = format!(
                "{}; {} documents before it are stored, durably",
                problem.detail, self.written.stored
            );
        }
        problem
    }

    async fn finish(mut self) -> Result<WrittenJson, Problem> {
        self.write().await?;
        self.written.failed.sort_by_key(|failed| failed.index);
        Ok(self.written)
    }
}

/// List documents in order of id
#[utoipa::path(
    get, path = "/collections/{collection}/documents", operation_id = "list_documents", tag = "documents",
    params(("collection" = String, Path, description = "The collection's name"), PageQuery),
    responses(
        (status = 200, description = "A page", body = DocumentPageJson),
        (status = "4XX", description = "The request cannot be answered", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<DocumentPageJson>, Problem> {
    let limit = page.limit.unwrap_or(PAGE.0);
    if !(1..=PAGE.1).contains(&limit) {
        let most = PAGE.1;
        return Err(Problem::bad_request(format!("limit is {limit}; allowed is 1 to {most}")));
    }
    let collection = state.collection(&name)?;
    let mut documents = state
        .blocking(Work::Search, move |_| collection.list(page.after.as_deref(), limit + 1))
        .await?;
    let more = documents.len() > limit;
    documents.truncate(limit);
    let next = documents.last().filter(|_| more).map(|last| last.id.clone());
    let documents = documents.into_iter().map(DocumentJson::from).collect();
    Ok(Json(DocumentPageJson { documents, next }))
}

/// Remove documents
#[utoipa::path(
    post, path = "/collections/{collection}/documents/delete", operation_id = "delete_documents", tag = "documents", request_body = DeleteJson,
    params(("collection" = String, Path, description = "The collection's name")),
    responses(
        (status = 200, description = "What was removed, durably", body = DeletedJson),
        (status = "4XX", description = "The request cannot be answered", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The disk or a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete_many(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Json(json): Json<DeleteJson>,
) -> Result<Json<DeletedJson>, Problem> {
    if json.ids.len() > DELETE_IDS_MAX {
        return Err(Problem::bad_request(format!(
            "ids: {} were sent, the bound is {DELETE_IDS_MAX}; send several requests",
            json.ids.len()
        )));
    }
    let collection = state.collection(&name)?;
    let ids = json.ids.clone();
    let lived = state.blocking(Work::Write, move |_| collection.delete(&ids)).await?;
    let deleted = lived.iter().filter(|lived| **lived).count() as u64;
    let not_found = json.ids.into_iter().zip(lived).filter(|(_, lived)| !lived);
    Ok(Json(DeletedJson { deleted, not_found: not_found.map(|(id, _)| id).collect() }))
}

/// Get a document
///
/// The id may contain `/`.
#[utoipa::path(
    get, path = "/collections/{collection}/documents/{id}", operation_id = "get_document", tag = "documents",
    params(
        ("collection" = String, Path, description = "The collection's name"),
        ("id" = String, Path, description = "The document's id"),
    ),
    responses(
        (status = 200, description = "The document", body = DocumentJson),
        (status = "4XX", description = "There is none of this id", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get_one(
    Shared(state): Shared<State>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<DocumentJson>, Problem> {
    let collection = state.collection(&name)?;
    let document = state.blocking(Work::Search, move |_| collection.get(&id)).await?;
    Ok(Json(document.into()))
}

/// Store a document under its id
///
/// An id in the body must be the same as the one in the path.
#[utoipa::path(
    put, path = "/collections/{collection}/documents/{id}", operation_id = "put_document", tag = "documents", request_body = DocumentJson,
    params(
        ("collection" = String, Path, description = "The collection's name"),
        ("id" = String, Path, description = "The document's id"),
    ),
    responses(
        (status = 200, description = "Stored, durably", body = WrittenJson),
        (status = "4XX", description = "The document is refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The disk is full (507) or the server is at a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put_one(
    Shared(state): Shared<State>,
    Path((name, id)): Path<(String, String)>,
    Json(mut json): Json<DocumentJson>,
) -> Result<Json<WrittenJson>, Problem> {
    if json.id.is_empty() {
        json.id.clone_from(&id);
    }
    if json.id != id {
        return Err(Problem::bad_request(format!(
            "id: the body says \"{:.128}\", the path says \"{id:.128}\"; they must be the same",
            json.id
        )));
    }
    let document = Document::try_from(json).map_err(Problem::bad_request)?;
    let collection = state.collection(&name)?;
    let bytes = (document.body.len() + document.title.len()) as u64;
    let seq = write(&state, bytes, move || collection.put_one(document)).await?;
    Ok(Json(WrittenJson { stored: 1, seq, failed: Vec::new(), failed_total: 0 }))
}

/// Remove a document
#[utoipa::path(
    delete, path = "/collections/{collection}/documents/{id}", operation_id = "delete_document", tag = "documents",
    params(
        ("collection" = String, Path, description = "The collection's name"),
        ("id" = String, Path, description = "The document's id"),
    ),
    responses(
        (status = 204, description = "Removed, durably"),
        (status = "4XX", description = "There is none of this id", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The disk or a bound", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete_one(
    Shared(state): Shared<State>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let collection = state.collection(&name)?;
    let asked = id.clone();
    let lived = state.blocking(Work::Write, move |_| collection.delete(&[asked])).await?;
    if lived.first() == Some(&true) {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        let detail = format!("there is no document with id \"{id:.128}\"");
        Err(Problem::new(StatusCode::NOT_FOUND, "document_not_found", detail))
    }
}
