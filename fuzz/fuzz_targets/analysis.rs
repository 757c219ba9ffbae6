#![no_main]
use libfuzzer_sys::fuzz_target;
use mainstay_search::analysis;
use mainstay_search::document::Document;
use mainstay_search::semantic::{passages, text_to_embed};
use mainstay_search::snippet::{SnippetOptions, matching_lines, snippets};

// Highlights, snippets, lines and passages of any text are pieces of it, in order.
fuzz_target!(|input: (bool, &str, &str)| {
    let (code, query, text) = input;
    let ranges = analysis::matches(text, query);
    let mut end = 0;
    for range in &ranges {
        assert!(range.start >= end && text.get(range.clone()).is_some());
        end = range.end;
    }
    for snippet in snippets(text, &ranges, &SnippetOptions::default()) {
        assert!(snippet.highlights.iter().all(|range| snippet.text.get(range.clone()).is_some()));
    }
    for line in matching_lines(text, &ranges, 10) {
        assert!(line.highlights.iter().all(|range| line.text.get(range.clone()).is_some()));
    }
    let document = Document {
        title: query.into(),
        body: text.into(),
        language: if code { "rust".into() } else { String::new() },
        ..Document::default()
    };
    for passage in passages(&document).passages {
        let again = text_to_embed(&document, &passage.range).expect("a passage is a piece");
        assert_eq!(again, passage.text_to_embed);
    }
});
