#![no_main]
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mainstay_storage::fs::FileSystem;
use mainstay_storage::log::{Class, LogOptions, Record, SyncLog};
use mainstay_storage::sim::SimFs;

// A short log, damaged at places that the input names: opening, reading and verifying answer an
// error or what was written, and never anything else.
fuzz_target!(|damage: Vec<(u16, u8)>| {
    let sim = SimFs::new(1);
    let fs: Arc<dyn FileSystem> = Arc::new(sim.clone());
    let dir = Path::new("/log");
    let payload = |n: u64| format!("record {n}").into_bytes();
    {
        let (log, _) = SyncLog::open(Arc::clone(&fs), dir, LogOptions::small()).expect("opens");
        for n in 1..=20 {
            let record = Record { kind: 1, payload: payload(n).into() };
            log.commit(&[&[record]], Class::Ordinary).expect("commits");
        }
        log.close().expect("closes");
    }
    let Ok(names) = fs.list(dir) else { return };
    let files: Vec<_> = names.into_iter().filter(|listed| !listed.is_dir).collect();
    for (at, xor) in damage.iter().take(64) {
        let file = &files[usize::from(*at) % files.len()];
        let Ok(handle) = fs.open(&dir.join(&file.name)) else { continue };
        let offset = u64::from(*at) % handle.len().unwrap_or(1).max(1);
        let mut byte = [0];
        if handle.read_exact_at(&mut byte, offset).is_ok() {
            let _ = handle.write_all_at(&[byte[0] ^ xor], offset);
        }
    }
    let Ok((log, _)) = SyncLog::open(fs, dir, LogOptions::small()) else { return };
    let _ = log.verify();
    if let Ok(entries) = log.read(1, 1 << 20) {
        for entry in entries {
            assert_eq!(entry.payload[..], payload(entry.seq)[..], "what is read was written");
        }
    }
});
