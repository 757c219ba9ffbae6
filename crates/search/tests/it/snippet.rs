//! Snippets: what they show and that any body and any ranges are safe.

use std::ops::Range;

use mainstay_search::snippet::{
    LINE_BYTES_MAX, Shape, Snippet, SnippetOptions, matching_lines, snippets,
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

fn all(body: &str, words: &[&str]) -> Vec<Range<usize>> {
    words
        .iter()
        .flat_map(|word| body.match_indices(word).map(|(at, _)| at..at + word.len()))
        .collect()
}

/// The text with its highlights in brackets.
fn marked(snippet: &Snippet) -> String {
    let mut text = snippet.text.clone();
    for range in snippet.highlights.iter().rev() {
        text.insert(range.end, ']');
        text.insert(range.start, '[');
    }
    text
}

fn options(shape: Shape, bytes_max: usize, count: usize) -> SnippetOptions {
    SnippetOptions { shape, bytes_max, count, focus: None }
}

const PROSE: &str = "The first sentence says little. The second one names the fox. \
    A third follows here with many more words than the others have. The fox and the dog meet in \
    the fifth. Then all go home.";

#[test]
fn the_window_with_most_different_words_wins_and_begins_with_its_sentence() {
    let ranges = all(PROSE, &["fox", "dog"]);
    let found = snippets(PROSE, &ranges, &options(Shape::Prose, 70, 1));
    assert_eq!(marked(&found[0]), "The [fox] and the [dog] meet in the fifth. Then all go home.");
    assert!(found[0].is_cut_before && !found[0].is_cut_after);
    assert_eq!(found[0].line, 1);
}

#[test]
fn several_snippets_do_not_overlap_and_come_best_first() {
    let ranges = all(PROSE, &["fox", "dog"]);
    let found = snippets(PROSE, &ranges, &options(Shape::Prose, 62, 3));
    let marks: Vec<_> = found.iter().map(marked).collect();
    assert_eq!(marks.len(), 2, "{marks:?}");
    assert!(marks[0].contains("[fox] and the [dog]"), "{marks:?}");
    assert!(marks[1].contains("names the [fox]."), "{marks:?}");
    assert!(found[1].start + found[1].text.len() <= found[0].start);
}

#[test]
fn without_matches_the_beginning_or_the_focus_is_shown() {
    let found = snippets(PROSE, &[], &options(Shape::Prose, 40, 1));
    assert_eq!(found[0].text, "The first sentence says little.");
    let focus = PROSE.find("A third").unwrap();
    let options = SnippetOptions { focus: Some(focus..focus + 60), ..options(Shape::Prose, 40, 1) };
    let found = snippets(PROSE, &[], &options);
    assert!(found[0].text.starts_with("A third follows"), "{found:?}");
    assert!(snippets("  \n ", &[], &options).is_empty());
}

#[test]
fn matches_inside_the_focus_are_preferred() {
    let ranges = all(PROSE, &["fox", "dog"]);
    let focus = PROSE.find("The second").unwrap();
    let options = SnippetOptions { focus: Some(focus..focus + 31), ..options(Shape::Prose, 60, 1) };
    let found = snippets(PROSE, &ranges, &options);
    assert!(marked(&found[0]).contains("names the [fox]."), "{found:?}");
}

const CODE: &str =
    "use std::io;\n\nfn first() {\n    let x = 1;\n    call(x);\n}\n\nfn second() {}\n";

#[test]
fn code_is_shown_in_whole_lines_with_their_number() {
    let found = snippets(CODE, &all(CODE, &["let x"]), &options(Shape::Code, 45, 1));
    assert_eq!(marked(&found[0]), "fn first() {\n    [let x] = 1;\n    call(x);\n}");
    assert_eq!(found[0].line, 3);
}

#[test]
fn a_long_line_is_cut_around_the_match() {
    let body = format!("{}needle{}", "a".repeat(5000), "b".repeat(5000));
    let range = 5000..5006;
    let found = snippets(&body, std::slice::from_ref(&range), &options(Shape::Code, 100, 1));
    assert!(found[0].text.len() <= 100 && marked(&found[0]).contains("[needle]"));
    let lines = matching_lines(&body, &[range], 5);
    assert_eq!(lines[0].text.len(), LINE_BYTES_MAX);
    assert_eq!(&lines[0].text[lines[0].highlights[0].clone()], "needle");
}

#[test]
fn matching_lines_have_numbers_highlights_and_a_bound() {
    let body = "one fox\r\nnone\nfox fox\nlast fox";
    let lines = matching_lines(body, &all(body, &["fox"]), 10);
    let shown: Vec<_> =
        lines.iter().map(|l| (l.number, l.text.as_str(), l.highlights.len())).collect();
    assert_eq!(shown, [(1, "one fox", 1), (3, "fox fox", 2), (4, "last fox", 1)]);
    assert_eq!(matching_lines(body, &all(body, &["fox"]), 2).len(), 2);
    let over = matching_lines("ab\ncd\nef", std::slice::from_ref(&(1..7)), 9);
    assert_eq!(
        over.iter().map(|l| &l.text[l.highlights[0].clone()]).collect::<Vec<_>>(),
        ["b", "cd", "e"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_body_and_any_ranges_give_snippets_that_stand_in_the_body(
        body in r"([a-c]{0,9}|[ .\n\r!]{0,3}|日本。|é|🦀| fox){0,40}",
        ranges in prop::collection::vec((0usize..300, 0usize..40), 0..12),
        bytes_max in 0usize..120,
        count in 0usize..4,
        focus in prop::option::of((0usize..200, 0usize..200)),
        code in any::<bool>(),
    ) {
        let ranges: Vec<_> = ranges.into_iter().map(|(start, length)| start..start + length).collect();
        let shape = if code { Shape::Code } else { Shape::Prose };
        let focus = focus.map(|(start, length)| start..start + length);
        let options = SnippetOptions { shape, bytes_max, count, focus };
        let found = snippets(&body, &ranges, &options);
        prop_assert!(found.len() <= count);
        for snippet in &found {
            prop_assert_eq!(&body[snippet.start..snippet.start + snippet.text.len()], &snippet.text);
            prop_assert!(snippet.text.len() <= bytes_max.max(16), "{} bytes", snippet.text.len());
            let line = 1 + body[..snippet.start].matches('\n').count() as u32;
            prop_assert_eq!(snippet.line, line);
            let mut end = 0;
            for range in &snippet.highlights {
                prop_assert!(range.start >= end && range.start < range.end);
                prop_assert!(snippet.text.get(range.clone()).is_some());
                end = range.end;
            }
        }
        for line in matching_lines(&body, &ranges, 5) {
            prop_assert_eq!(&body[line.start..line.start + line.text.len()], &line.text);
            prop_assert!(!line.text.contains('\n'));
            prop_assert!(line.highlights.iter().all(|range| line.text.get(range.clone()).is_some()));
        }
    }
}
