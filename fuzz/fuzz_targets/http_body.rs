#![no_main]
use libfuzzer_sys::fuzz_target;
use mainstay_server::search_json::SearchRequestJson;
use mainstay_server::wire::{DocumentJson, NewCollectionJson};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(json) = serde_json::from_slice::<SearchRequestJson>(bytes) {
        if let Ok(request) = json.request() {
            let _ = request.validate();
        }
    }
    let _ = serde_json::from_slice::<DocumentJson>(bytes);
    let _ = serde_json::from_slice::<NewCollectionJson>(bytes);
});
