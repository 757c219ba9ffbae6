//! The chain from text to terms, and the ranges that highlights are made of.

use std::ops::Range;

use mainstay_search::analysis::{QueryTerms, TERM_BYTES_MAX, TextKind, analyze};
use proptest::prelude::*;

fn terms(text: &str, kind: TextKind) -> Vec<String> {
    let mut terms = Vec::new();
    analyze(text, kind, &mut |token| terms.push(token.term.to_string()));
    terms
}

fn matches(text: &str, query: &str) -> Vec<Range<usize>> {
    QueryTerms::of(query).matches(text)
}

fn highlighted(text: &str, query: &str) -> Vec<String> {
    matches(text, query).into_iter().map(|range| text[range].to_string()).collect()
}

/// Whether a document of `text` has every term that `query` asks for.
fn finds(query: &str, text: &str) -> bool {
    let held = terms(text, TextKind::Document);
    terms(query, TextKind::Query).iter().all(|term| held.contains(term))
}

#[test]
fn identifiers_are_split_and_kept_whole() {
    assert_eq!(terms("HTTPServer2", TextKind::Document), ["http", "server", "2", "httpserver2"]);
    assert_eq!(terms("snake_case", TextKind::Document), ["snake", "case", "snakecas"]);
}

#[test]
fn every_naming_convention_finds_every_other() {
    let spellings = ["parse_url", "parseUrl", "ParseURL", "PARSE_URL", "parseurl"];
    for document in &spellings[..4] {
        for query in spellings {
            assert!(finds(query, document), "{query} in {document}");
        }
        assert!(finds("parse url", document));
    }
}

#[test]
fn endings_and_accents_do_not_hide_a_document() {
    assert!(finds("connecting résumés", "They connected the RESUME."));
    assert!(finds("книга", "о книгах"));
    assert!(finds("ελληνική", "ΕΛΛΗΝΙΚΗ"));
}

#[test]
fn unsegmented_scripts_are_found_by_one_character_and_by_many() {
    let text = "黑豹队的防守在联赛中排名第六";
    for query in ["队", "防守", "联赛中", "黑豹队的防守"] {
        assert!(finds(query, text), "{query}");
    }
    assert!(!finds("守防", text));
    assert!(finds("ภาษา", "เรียนภาษาไทย"));
    assert!(finds("한국", "한국어를"));
}

#[test]
fn stop_words_leave_a_query_only_beside_other_words() {
    assert_eq!(terms("What is the capital of France?", TextKind::Query), ["capit", "franc"]);
    assert_eq!(terms("to be or not to be", TextKind::Query).len(), 6);
    assert_eq!(terms("is_valid", TextKind::Query), ["valid", "isvalid"]);
}

#[test]
fn highlights_cover_the_words_that_match() {
    let text = "Connections to the HTTPServer are connected; server_name is naïve.";
    assert_eq!(
        highlighted(text, "connect server"),
        ["Connections", "Server", "connected", "server"]
    );
    assert_eq!(highlighted(text, "httpserver"), ["HTTPServer"]);
    assert_eq!(highlighted(text, "NAIVE"), ["naïve"]);
    assert_eq!(highlighted("他在联赛中排名", "联赛中"), ["联赛中"]);
    assert!(highlighted(text, "").is_empty() && highlighted("", "server").is_empty());
}

#[test]
fn endless_words_are_cut_by_a_bound() {
    let text = "x".repeat(1 << 20);
    let found = terms(&text, TextKind::Document);
    assert_eq!(found.len(), 1);
    assert!(found[0].len() <= TERM_BYTES_MAX);
    let wide = "\u{fdfa}".repeat(5000);
    assert!(terms(&wide, TextKind::Document).iter().all(|term| term.len() <= TERM_BYTES_MAX));
}

proptest! {
    #[test]
    fn any_text_gives_terms_within_bounds(text in "\\PC{0,80}|[\u{0}-\u{10ffff}]{0,80}|[a-zA-Z0-9_.'é黑ที่ ]{0,80}") {
        for kind in [TextKind::Document, TextKind::Query] {
            analyze(&text, kind, &mut |token| {
                assert!(!token.term.is_empty() && token.term.len() <= TERM_BYTES_MAX);
                assert!(token.range.start < token.range.end);
                assert!(text.get(token.range).is_some());
            });
        }
    }

    #[test]
    fn bytes_of_any_kind_are_read_after_lossy_decoding(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        analyze(&text, TextKind::Document, &mut |_| {});
        let _ = matches(&text, &text);
    }

    #[test]
    fn a_text_asked_for_itself_is_found(text in "[a-zA-Z0-9_'é黑豹ทีк\u{301}ß ]{0,40}") {
        prop_assert!(finds(&text, &text));
    }

    /// However few words are looked at closely.
    #[test]
    fn what_matches_is_each_word_with_a_term_of_the_query(
        text in "[a-cA-Cks0-1_黑豹éＡﬁ\u{301}\u{130}\u{212a} ]{0,60}",
        query in "[a-cA-Cfks0-1_黑豹éＡﬁ\u{301}\u{130}\u{212a} ]{0,12}",
    ) {
        let wanted = terms(&query, TextKind::Query);
        let mut bytes = vec![false; text.len()];
        analyze(&text, TextKind::Document, &mut |token| {
            if wanted.iter().any(|term| term == token.term) {
                bytes[token.range].fill(true);
            }
        });
        let mut found = vec![false; text.len()];
        matches(&text, &query).into_iter().for_each(|range| found[range].fill(true));
        prop_assert_eq!(found, bytes);
    }

    #[test]
    fn highlights_lie_apart_in_rising_order(text in "[a-cA-C_黑豹é ]{0,60}", query in "[a-cA-C_黑豹é ]{0,20}") {
        let mut last = 0;
        for range in matches(&text, &query) {
            prop_assert!(range.start >= last && range.end > range.start);
            prop_assert!(text.get(range.clone()).is_some());
            last = range.end;
        }
    }

    /// Words that cannot match are left out before their endings are taken off.
    #[test]
    fn highlights_are_the_words_whose_terms_match(
        text in "([a-dysD]{1,4}(ies|ying|s|ed|ly|ness|ational|'s)?[ _黑éк]){0,20}",
        query in "[a-dysD]{1,4}(y|ies|ying|s|e|ation)?( [a-dys黑éк]{1,3})?",
    ) {
        let asked = terms(&query, TextKind::Query);
        let mut expected = vec![false; text.len()];
        analyze(&text, TextKind::Document, &mut |token| {
            if asked.iter().any(|term| term == token.term) {
                expected[token.range].fill(true);
            }
        });
        let mut found = vec![false; text.len()];
        matches(&text, &query).into_iter().for_each(|range| found[range].fill(true));
        prop_assert_eq!(found, expected);
    }
}

/// The words that the rules of English treat as exceptions, and every ending of theirs.
#[test]
fn taking_an_ending_off_leaves_the_first_letter() {
    let exceptions = [
        "skis", "skies", "dying", "lying", "tying", "idly", "gently", "ugly", "early", "only",
        "singly", "sky", "news", "howe", "atlas", "cosmos", "bias", "andes", "inning", "outing",
        "canning", "herring", "earring", "proceed", "exceed", "succeed", "yes", "yyy", "says",
        "by", "ayes",
    ];
    let endings =
        ["", "s", "es", "ies", "ed", "ing", "ly", "ness", "ful", "ization", "ational", "y"];
    let letters = 'a'..='z';
    let made = letters
        .flat_map(|first| ["", "y", "a", "at", "iz", "bl"].map(|rest| format!("{first}{rest}")));
    for begin in made.chain(exceptions.map(str::to_string)) {
        for word in endings.map(|ending| format!("{begin}{ending}")) {
            for term in terms(&word, TextKind::Document) {
                assert_eq!(term.chars().next(), word.chars().next(), "{word} becomes {term}");
            }
        }
    }
}
