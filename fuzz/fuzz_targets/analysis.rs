#![no_main]
use libfuzzer_sys::fuzz_target;
use mainstay_search::analysis;

fuzz_target!(|input: (&str, &str)| {
    let (text, query) = input;
    let mut end = 0;
    for range in analysis::matches(text, query) {
        assert!(range.start >= end && text.get(range.clone()).is_some());
        end = range.end;
    }
});
