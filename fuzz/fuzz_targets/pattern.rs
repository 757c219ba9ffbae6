#![no_main]
use libfuzzer_sys::fuzz_target;
use mainstay_search::native::{LineLimits, Matcher};
use mainstay_search::request::{Case, Pattern, Syntax};

const BODY: &str = "fn main() {\r\n    let zebra = \"ſtraße Kelvin 42\";\n}\n\nlast line";

fuzz_target!(|input: (u8, &str)| {
    let (bits, text) = input;
    let pattern = Pattern {
        syntax: if bits & 1 == 0 { Syntax::Regex } else { Syntax::Literal },
        case: [Case::Smart, Case::Sensitive, Case::Insensitive][usize::from(bits >> 1) % 3],
        word: bits & 128 != 0,
    };
    if let Ok(matcher) = Matcher::new(text, pattern) {
        for line in matcher.lines(BODY, LineLimits::default()) {
            assert!(BODY.get(line.range.clone()).is_some());
            assert!(line.matches.iter().all(|range| BODY.get(range.clone()).is_some()));
        }
    }
});
