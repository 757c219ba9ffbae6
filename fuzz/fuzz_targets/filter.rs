#![no_main]
use libfuzzer_sys::fuzz_target;
use mainstay_search::documents::Filter;

fuzz_target!(|text: &str| {
    let _ = Filter::parse(text);
});
