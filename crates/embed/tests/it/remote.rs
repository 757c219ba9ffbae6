//! The remote provider: the protocol, its failures, and what is made of them (R1, R2, R4, R8).

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_embed::{
    ApiKey, EmbedError, Embedder, HashModel, Kind, Pool, PoolSettings, Remote, RemoteCause,
    RemoteFailure, RemoteSettings,
};

use mainstay_resilience::{Event, ManualClock, NoSleeper, Observer, Pipelines, PipelinesConfig};

use crate::contract::{self, Tolerance};
use crate::provider::{Provider, Reply, provider};

const DIMENSION: usize = 4;

fn settings(provider: &Provider) -> RemoteSettings {
    RemoteSettings::new(&provider.url, "some-model", DIMENSION)
}

fn remote(provider: &Provider) -> Remote {
    remote_with(settings(provider))
}

/// On a clock that moves instead of sleeping, so waits between attempts cost nothing.
fn remote_with(settings: RemoteSettings) -> Remote {
    let nobody: Arc<dyn Observer> = Arc::new(|_: &Event<'_>| ());
    let clock = ManualClock::new().clock();
    let pipelines = Pipelines::with(PipelinesConfig::default(), clock, NoSleeper, nobody).unwrap();
    Remote::with_pipelines(settings, pipelines).unwrap()
}

/// On the system's clock, with short attempts.
fn impatient_remote(provider: &Provider) -> Remote {
    let mut config = PipelinesConfig::default();
    config.defaults.timeout = Some(Duration::from_millis(50));
    config.defaults.attempts = Some(2);
    config.defaults.backoff_base = Some(Duration::from_millis(1));
    Remote::with_pipelines(settings(provider), Pipelines::new(config).unwrap()).unwrap()
}

fn raw(status: u16, body: &str) -> Reply {
    Reply::Raw(status, "", body.to_owned())
}

fn data(items: &str) -> Reply {
    raw(200, &format!("{{\"data\": [{items}]}}"))
}

fn failure(replies: Vec<Reply>) -> RemoteFailure {
    match remote(&provider(replies)).embed(&["a"], Kind::Passage) {
        Err(EmbedError::Remote(failure)) => failure,
        other => panic!("expected a remote failure, got {other:?}"),
    }
}

#[test]
fn the_remote_model_keeps_the_contract() {
    // JSON carries every f32 exactly, and length 1 is restored within rounding.
    contract::check(&remote(&provider(vec![Reply::Vectors(DIMENSION)])), &Tolerance(1e-6));
}

#[test]
fn the_request_is_what_the_protocol_asks_for() {
    let provider = provider(vec![Reply::Vectors(DIMENSION)]);
    let key = Some(ApiKey::new("key-1").unwrap());
    let settings = RemoteSettings { key, asks_dimension: true, ..settings(&provider) };
    remote_with(settings).embed(&["a", "b"], Kind::Query).unwrap();
    let seen = provider.seen.recv().unwrap();
    assert_eq!(seen.path, "/v1/embeddings");
    assert_eq!(seen.authorization.as_deref(), Some("Bearer key-1"));
    assert_eq!(
        seen.body,
        serde_json::json!({
            "model": "some-model", "input": ["a", "b"], "encoding_format": "float", "dimensions": 4
        })
    );
}

#[test]
fn answers_are_put_in_the_order_of_the_texts() {
    let texts = ["one", "two", "three", "four"];
    let expected = HashModel::new(DIMENSION, 1).embed(&texts, Kind::Passage).unwrap();
    let vectors =
        remote(&provider(vec![Reply::Reversed(DIMENSION)])).embed(&texts, Kind::Passage).unwrap();
    for (a, b) in vectors.as_slice().iter().zip(expected.as_slice()) {
        assert!((a - b).abs() < 1e-6);
    }
}

#[test]
fn many_texts_go_in_several_requests_and_empty_ones_in_none() {
    let provider = provider(vec![Reply::Vectors(DIMENSION)]);
    let settings = RemoteSettings { batch_texts_max: 2, ..settings(&provider) };
    let model = remote_with(settings);
    let vectors = model.embed(&["a", "", "b", " ", "c"], Kind::Passage).unwrap();
    assert_eq!(vectors.len(), 5);
    let inputs: Vec<_> = provider.seen.try_iter().map(|seen| seen.body["input"].clone()).collect();
    assert_eq!(inputs, [serde_json::json!(["a", "b"]), serde_json::json!(["c"])]);
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let provider = provider(vec![Reply::Vectors(DIMENSION)]);
    let settings = RemoteSettings { text_bytes_max: 5, ..settings(&provider) };
    remote_with(settings).embed(&["ééééé"], Kind::Passage).unwrap();
    assert_eq!(provider.seen.recv().unwrap().body["input"][0], "éé");
}

#[test]
fn passing_failures_are_tried_again_until_the_answer_comes() {
    for passing in [
        raw(500, ""),
        raw(503, "overloaded"),
        raw(504, ""),
        Reply::Raw(429, "retry-after: 0", "slow down".into()),
        Reply::HalfBody,
        Reply::Hangup,
    ] {
        let provider = provider(vec![passing, Reply::Vectors(DIMENSION)]);
        assert_eq!(remote(&provider).embed(&["a"], Kind::Passage).unwrap().len(), 1);
        assert_eq!(provider.seen.try_iter().count(), 2);
    }
}

#[test]
fn a_failure_that_stays_is_reported_after_the_last_attempt() {
    let failure = failure(vec![raw(503, r#"{"error": {"message": "no capacity"}}"#)]);
    assert_eq!((failure.cause, failure.attempts), (RemoteCause::ServerError, 3));
    let message = failure.to_string();
    assert!(message.contains("status 503") && message.contains("no capacity"), "{message}");
}

#[test]
fn what_another_attempt_cannot_mend_fails_at_once() {
    for (reply, cause) in [
        (raw(400, ""), RemoteCause::BadRequest),
        (raw(401, ""), RemoteCause::Authentication),
        (raw(403, ""), RemoteCause::PermissionDenied),
        (raw(404, ""), RemoteCause::NotFound),
        (Reply::Raw(302, "location: http://127.0.0.1:1/", String::new()), RemoteCause::BadAnswer),
        (raw(200, "<html>"), RemoteCause::BadAnswer),
        (raw(200, "{\"data\": 1}"), RemoteCause::BadAnswer),
        (data("{\"index\": 0, \"embedding\": [NaN, 1, 1, 1]}"), RemoteCause::BadAnswer),
        (data("{\"index\": 7, \"embedding\": [1, 1, 1, 1]}"), RemoteCause::BadAnswer),
    ] {
        let failure = failure(vec![reply]);
        assert_eq!((failure.cause, failure.attempts), (cause, 1), "{failure}");
    }
}

#[test]
fn a_long_wish_to_wait_is_handed_to_the_caller_instead() {
    let failure = failure(vec![Reply::Raw(429, "retry-after: 3600", String::new())]);
    assert_eq!((failure.cause, failure.attempts), (RemoteCause::RateLimit, 1));
}

#[test]
fn vectors_that_must_not_be_stored_are_refused_by_kind_and_place() {
    let embed = |reply| {
        let texts = ["", "a", "b"];
        remote(&provider(vec![reply])).embed(&texts, Kind::Passage).unwrap_err()
    };
    let good = "{\"index\": 0, \"embedding\": [1, 0, 0, 0]}";
    for bad in ["null", "1e39", "-1e300"] {
        let error =
            embed(data(&format!("{good}, {{\"index\": 1, \"embedding\": [0, {bad}, 0, 0]}}")));
        assert!(matches!(error, EmbedError::NotFinite { text_index: 2, .. }), "{bad}: {error}");
    }
    let error = embed(Reply::Vectors(8));
    assert!(matches!(error, EmbedError::WrongDimension { expected: 4, found: 8, .. }), "{error}");
    let error = embed(data(good));
    assert!(matches!(error, EmbedError::WrongCount { expected: 2, found: 1, .. }), "{error}");
}

#[test]
fn a_repeated_index_is_refused() {
    let item = "{\"index\": 0, \"embedding\": [1, 0, 0, 0]}";
    let provider = provider(vec![data(&format!("{item}, {item}"))]);
    let error = remote(&provider).embed(&["a", "b"], Kind::Passage).unwrap_err();
    assert!(error.to_string().contains("repeats or leaves out an index"), "{error}");
}

#[test]
fn silence_ends_with_the_timeout_of_each_attempt() {
    let provider = provider(vec![Reply::Silence]);
    let error = impatient_remote(&provider).embed(&["a"], Kind::Passage).unwrap_err();
    let EmbedError::Remote(failure) = error else { panic!("{error}") };
    assert_eq!((failure.cause, failure.attempts), (RemoteCause::Timeout, 2));
}

#[test]
fn a_deadline_cuts_the_timeout_short_and_leaves_no_second_attempt() {
    let provider = provider(vec![Reply::Silence]);
    let model = Remote::new(settings(&provider)).unwrap();
    let deadline = Instant::now() + Duration::from_millis(20);
    let error = model.embed_by(&["a"], Kind::Query, deadline).unwrap_err();
    let EmbedError::Remote(failure) = error else { panic!("{error}") };
    assert_eq!((failure.cause, failure.attempts), (RemoteCause::Timeout, 1));
    let error = model.embed_by(&["a"], Kind::Query, deadline).unwrap_err();
    assert!(matches!(error, EmbedError::Timeout { .. }), "{error}");
}

#[test]
fn a_pool_gives_up_on_a_silent_provider_at_the_deadline_of_the_query() {
    let provider = provider(vec![Reply::Silence]);
    let model: Arc<dyn Embedder> = Arc::new(Remote::new(settings(&provider)).unwrap());
    let pool = Pool::start(PoolSettings { workers: 1, ..PoolSettings::default() }).unwrap();
    let error = pool.embed_query(&model, "a", Duration::from_millis(20)).unwrap_err();
    let gave_up = match &error {
        EmbedError::Timeout { .. } => true,
        EmbedError::Remote(failure) => failure.cause == RemoteCause::Timeout,
        _ => false,
    };
    assert!(gave_up, "{error}");
}

#[test]
fn a_provider_that_keeps_failing_is_left_alone_for_a_while() {
    let provider = provider(vec![raw(500, "")]);
    let model = remote(&provider);
    let causes = [(); 3].map(|()| match model.embed(&["a"], Kind::Passage).unwrap_err() {
        EmbedError::Remote(failure) => failure.cause,
        error => panic!("{error}"),
    });
    assert_eq!(causes[2], RemoteCause::Refused);
    assert_eq!(provider.seen.try_iter().count(), 5, "five failures in a row open the breaker");
}

#[test]
fn nobody_listening_is_a_connection_failure() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let settings = RemoteSettings::new(&url, "m", DIMENSION);
    let error = remote_with(settings).embed(&["a"], Kind::Passage).unwrap_err();
    let EmbedError::Remote(failure) = error else { panic!("{error}") };
    assert_eq!((failure.cause, failure.attempts), (RemoteCause::Connection, 3));
}

#[test]
fn a_key_that_the_provider_repeats_is_not_passed_on() {
    let provider = provider(vec![raw(401, r#"{"error": {"message": "bad key key-1\nsorry"}}"#)]);
    let key = Some(ApiKey::new("key-1").unwrap());
    let model = remote_with(RemoteSettings { key, ..settings(&provider) });
    let error = model.embed(&["a"], Kind::Passage).unwrap_err().to_string();
    assert!(error.contains("bad key (key) sorry") && !error.contains("key-1"), "{error}");
}

#[test]
fn providers_models_and_dimensions_have_different_identities() {
    let identity = |url: &str, model: &str, dimension| {
        let settings = RemoteSettings::new(url, model, dimension);
        remote_with(settings).identity().clone()
    };
    let one = identity("http://a/v1", "m", 4);
    assert_eq!(one, identity("http://a/v1/", "m", 4));
    assert_eq!(one, identity("http://a/v1/embeddings", "m", 4));
    for other in [
        identity("http://b/v1", "m", 4),
        identity("http://a/v1", "n", 4),
        identity("http://a/v1", "m", 8),
    ] {
        assert_ne!(one.sha256, other.sha256);
    }
}
