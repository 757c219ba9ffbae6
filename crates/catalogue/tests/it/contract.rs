//! What both databases must do (S6): each rule runs against a file of SQLite and a real PostgreSQL.

use mainstay_catalogue::{CatalogueError, CollectionReport, NodeReport, PIECE_BYTES_MAX};

use crate::Place;

macro_rules! both {
    ($($rule:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                super::$rule(&super::Place::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                super::$rule(&super::Place::postgres()).await;
            })*
        }
    };
}

both!(
    a_piece_is_changed_only_by_who_has_seen_the_newest,
    of_many_writers_of_one_version_one_wins,
    saving_again_what_was_saved_is_no_conflict,
    pieces_of_any_bytes_come_back_as_they_were,
    what_is_over_its_bound_is_refused_with_both_figures,
    a_lease_is_held_by_one_and_its_token_only_rises,
    a_lease_that_has_ended_can_be_taken_and_not_renewed,
    nodes_report_themselves_and_are_forgotten_when_silent,
    a_report_of_collections_replaces_the_one_before,
    audit_events_are_kept_once_however_often_they_are_sent,
    texts_of_any_kind_come_back_and_are_never_sql,
    nodes_that_start_together_migrate_once,
);

async fn a_piece_is_changed_only_by_who_has_seen_the_newest(place: &Place) {
    let (one, other) = (place.open(), place.open());
    assert_eq!(one.load_state("flags").await.unwrap(), None);
    assert_eq!(one.save_state("flags", 0, b"a", "n1").await, Ok(1));
    assert_eq!(other.save_state("flags", 1, b"b", "n2").await, Ok(2));
    let late = one.save_state("flags", 1, b"c", "n1").await.unwrap_err();
    let expected = CatalogueError::Conflict { name: "flags".into(), expected: 1, found: 2 };
    assert_eq!(late, expected);
    assert!(one.save_state("flags", 0, b"c", "n1").await.is_err(), "it is there already");
    assert!(one.save_state("keys", 7, b"c", "n1").await.is_err(), "it was never there");
    let piece = one.load_state("flags").await.unwrap().unwrap();
    assert_eq!(
        (piece.version, piece.bytes.as_slice(), piece.changed_by.as_str()),
        (2, &b"b"[..], "n2")
    );
    assert!(piece.changed_unix_ms > 1_700_000_000_000);
    let versions = other.state_versions().await.unwrap();
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), [("flags".to_string(), 2)]);
}

async fn of_many_writers_of_one_version_one_wins(place: &Place) {
    let catalogue = place.open();
    catalogue.save_state("keys", 0, b"start", "n0").await.unwrap();
    for round in 1..=5u64 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..16 {
            let catalogue = catalogue.clone();
            writers.spawn(async move {
                let name = format!("n{writer}");
                catalogue.save_state("keys", round, name.as_bytes(), &name).await
            });
        }
        let mut won = 0;
        while let Some(saved) = writers.join_next().await {
            match saved.unwrap() {
                Ok(version) => {
                    assert_eq!(version, round + 1);
                    won += 1;
                }
                Err(CatalogueError::Conflict { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(won, 1, "round {round}");
    }
}

async fn saving_again_what_was_saved_is_no_conflict(place: &Place) {
    let catalogue = place.open();
    // As a retry does whose first attempt was lost on its way back.
    assert_eq!(catalogue.save_state("keys", 0, b"a", "n1").await, Ok(1));
    assert_eq!(catalogue.save_state("keys", 0, b"a", "n1").await, Ok(1));
    assert_eq!(catalogue.save_state("keys", 1, b"b", "n1").await, Ok(2));
    assert_eq!(catalogue.save_state("keys", 1, b"b", "n1").await, Ok(2));
    assert!(catalogue.save_state("keys", 1, b"b", "n2").await.is_err(), "another node's");
}

async fn pieces_of_any_bytes_come_back_as_they_were(place: &Place) {
    let catalogue = place.open();
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for (version, bytes) in [&bytes[..], b"", b"\0", "ü".as_bytes()].into_iter().enumerate() {
        catalogue.save_state("any", version as u64, bytes, "n1").await.unwrap();
        assert_eq!(catalogue.load_state("any").await.unwrap().unwrap().bytes, bytes);
    }
}

async fn what_is_over_its_bound_is_refused_with_both_figures(place: &Place) {
    let catalogue = place.open();
    let long = vec![0; PIECE_BYTES_MAX + 1];
    let refused = catalogue.save_state("keys", 0, &long, "n1").await.unwrap_err().to_string();
    assert!(refused.contains("16777217") && refused.contains("16777216"), "{refused}");
    assert_eq!(catalogue.load_state("keys").await.unwrap(), None);
}

async fn a_lease_is_held_by_one_and_its_token_only_rises(place: &Place) {
    let (one, other) = (place.open(), place.open());
    let mut first = one.acquire_lease("backup", "n1", 60_000).await.unwrap().unwrap();
    assert_eq!(other.acquire_lease("backup", "n2", 60_000).await.unwrap(), None);
    assert!(other.acquire_lease("drill", "n2", 60_000).await.unwrap().is_some(), "another name");
    assert!(one.renew_lease(&mut first, 120_000).await.unwrap());
    let again = one.acquire_lease("backup", "n1", 60_000).await.unwrap().unwrap();
    assert!(again.fencing > first.fencing, "a holder that restarts fences its former self");
    assert!(!one.renew_lease(&mut first, 60_000).await.unwrap(), "the former self has lost it");
    one.release_lease(&first).await.unwrap();
    assert_eq!(
        other.acquire_lease("backup", "n2", 1).await.unwrap(),
        None,
        "nor can it give it back"
    );
    one.release_lease(&again).await.unwrap();
    one.release_lease(&again).await.unwrap();
    let next = other.acquire_lease("backup", "n2", 60_000).await.unwrap().unwrap();
    assert!(next.fencing > again.fencing);
    assert!(!one.renew_lease(&mut again.clone(), 60_000).await.unwrap());
}

async fn a_lease_that_has_ended_can_be_taken_and_not_renewed(place: &Place) {
    let catalogue = place.open();
    let mut short = catalogue.acquire_lease("backup", "n1", 1).await.unwrap().unwrap();
    let next = loop {
        // The database's clock decides; this asks until it has moved by a millisecond.
        if let Some(lease) = catalogue.acquire_lease("backup", "n2", 60_000).await.unwrap() {
            break lease;
        }
    };
    assert!(next.fencing > short.fencing);
    assert!(!catalogue.renew_lease(&mut short, 60_000).await.unwrap());
}

fn node(id: &str, state: &str) -> NodeReport {
    NodeReport {
        id: id.into(),
        address: "10.0.0.1:8080".into(),
        version: "1.0.0".into(),
        state: state.into(),
        started_unix_ms: 1_700_000_000_000,
    }
}

async fn nodes_report_themselves_and_are_forgotten_when_silent(place: &Place) {
    let catalogue = place.open();
    for report in [node("n2", "full"), node("n1", "full"), node("n2", "degraded")] {
        catalogue.report_node(&report).await.unwrap();
    }
    let nodes = catalogue.nodes().await.unwrap();
    let told: Vec<_> = nodes.iter().map(|node| (node.id.as_str(), node.state.as_str())).collect();
    assert_eq!(told, [("n1", "full"), ("n2", "degraded")]);
    assert!(nodes.iter().all(|node| node.heard_ms_ago < 60_000), "{nodes:?}");
    assert_eq!(catalogue.forget_nodes(3_600_000).await.unwrap(), Vec::<String>::new());
    catalogue.report_collections("n1", &[collection("docs", 1)]).await.unwrap();
    while catalogue.forget_nodes(0).await.unwrap().is_empty() {}
    while !catalogue.nodes().await.unwrap().is_empty() {
        catalogue.forget_nodes(0).await.unwrap();
    }
    assert_eq!(catalogue.collections().await.unwrap(), [], "they go with their node");
}

fn collection(name: &str, documents: u64) -> CollectionReport {
    CollectionReport {
        name: name.into(),
        model: "static".into(),
        settings: "{}".into(),
        created_unix_ms: 1_700_000_000_000,
        documents,
    }
}

async fn a_report_of_collections_replaces_the_one_before(place: &Place) {
    let catalogue = place.open();
    let unknown = catalogue.report_collections("n1", &[collection("a", 1)]).await;
    assert!(unknown.is_err_and(|error| error.is_lasting()), "no node, no collections");
    catalogue.report_node(&node("n1", "full")).await.unwrap();
    catalogue.report_node(&node("n2", "full")).await.unwrap();
    catalogue.report_collections("n1", &[collection("a", 1), collection("b", 2)]).await.unwrap();
    catalogue.report_collections("n2", &[collection("a", 3)]).await.unwrap();
    catalogue.report_collections("n1", &[collection("a", 4)]).await.unwrap();
    let told: Vec<_> = catalogue.collections().await.unwrap();
    let told: Vec<_> =
        told.iter().map(|row| (row.name.as_str(), row.node.as_str(), row.documents)).collect();
    assert_eq!(told, [("a", "n1", 4), ("a", "n2", 3)]);
    catalogue.report_collections("n1", &[]).await.unwrap();
    assert_eq!(catalogue.collections().await.unwrap().len(), 1);
    let twice = [collection("c", 1), collection("c", 2)];
    assert!(catalogue.report_collections("n2", &twice).await.is_err());
    let after = catalogue.collections().await.unwrap();
    assert_eq!(after[0].documents, 3, "what failed has changed nothing");
}

async fn audit_events_are_kept_once_however_often_they_are_sent(place: &Place) {
    let catalogue = place.open();
    let events: Vec<(u64, String)> = (1..=3).map(|n| (n, format!("{{\"n\":{n}}}"))).collect();
    catalogue.keep_audit("n1", 7, &events).await.unwrap();
    catalogue.keep_audit("n1", 7, &events[1..]).await.unwrap();
    catalogue.keep_audit("n2", 7, &events[..1]).await.unwrap();
    catalogue.keep_audit("n1", 8, &[]).await.unwrap();
    let kept = catalogue.recent_audit(10).await.unwrap();
    assert_eq!(kept.len(), 4);
    assert_eq!(catalogue.recent_audit(2).await.unwrap(), kept[..2]);
    assert_eq!(catalogue.forget_audit(3_600_000).await.unwrap(), 0);
    let mut forgotten = 0;
    while forgotten < 4 {
        forgotten += catalogue.forget_audit(0).await.unwrap();
    }
    assert_eq!(catalogue.recent_audit(10).await.unwrap(), []);
}

async fn texts_of_any_kind_come_back_and_are_never_sql(place: &Place) {
    let catalogue = place.open();
    for text in ["'; DROP TABLE mainstay_state; --", "$1 {now}", "日本語 🦀", "%_\\", "a\0b"] {
        catalogue.save_state(text, 0, b"x", text).await.unwrap();
        let piece = catalogue.load_state(text).await.unwrap().unwrap();
        assert_eq!(piece.changed_by, text.replace('\0', "\u{fffd}"));
    }
    assert_eq!(catalogue.state_versions().await.unwrap().len(), 5);
}

async fn nodes_that_start_together_migrate_once(place: &Place) {
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let catalogue = place.open();
        nodes.spawn(async move { catalogue.prepare().await });
    }
    while let Some(prepared) = nodes.join_next().await {
        prepared.unwrap().unwrap();
    }
}
