#![no_main]
use libfuzzer_sys::fuzz_target;
use mainstay_search::document::Document;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(document) = Document::decode(bytes) {
        let mut again = Vec::new();
        document.encode(&mut again);
        let decoded = Document::decode(&again).expect("what was encoded is decoded");
        assert_eq!(decoded.id, document.id);
    }
});
