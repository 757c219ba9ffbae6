#![no_main]
use libfuzzer_sys::fuzz_target;
use mainstay_search::document::Document;
use mainstay_server::search_json::SearchRequestJson;
use mainstay_server::wire::{DeleteJson, DocumentJson, NewCollectionJson};

// A body is refused with an error or taken; a document that passes its checks is stored and read
// back the same.
fuzz_target!(|bytes: &[u8]| {
    if let Ok(json) = serde_json::from_slice::<SearchRequestJson>(bytes) {
        if let Ok(request) = json.request() {
            let _ = request.validate();
        }
    }
    if let Ok(json) = serde_json::from_slice::<DocumentJson>(bytes) {
        if let Ok(document) = Document::try_from(json) {
            if document.validate().is_ok() {
                let mut stored = Vec::new();
                document.encode(&mut stored);
                let read = Document::decode(&stored).expect("what was encoded is decoded");
                assert_eq!(read, document);
                let _ = serde_json::to_vec(&DocumentJson::from(read)).expect("it is JSON again");
            }
        }
    }
    let _ = serde_json::from_slice::<NewCollectionJson>(bytes);
    let _ = serde_json::from_slice::<DeleteJson>(bytes);
});
