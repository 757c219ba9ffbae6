//! The contract of file systems, held by the real one and the simulated one.

use std::path::Path;

use mainstay_storage::fs::RealFs;
use mainstay_storage::sim::SimFs;
use mainstay_testkit::file_system;

#[test]
fn the_real_file_system_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    file_system::check(&RealFs, folder.path());
}

#[test]
fn the_simulated_file_system_keeps_the_contract() {
    file_system::check(&SimFs::new(1), Path::new("/folder"));
}
