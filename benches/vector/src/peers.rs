//! The peers, each with the settings its documentation names, at several breadths.

use crate::data::Data;
use crate::{Index, LIMIT, Row, cpu_s, measure};

/// Rows kept on the way while building; links of a row.
const BUILD_BREADTH: usize = 100;
const LINKS: usize = 16;
/// Rows kept on the way while searching.
const BREADTHS: [usize; 3] = [64, 128, 256];

pub(crate) fn run(data: &Data, truth: &[Vec<u32>]) -> Vec<Row> {
    let mut rows = Vec::new();
    #[cfg(feature = "usearch")]
    rows.extend(usearch_rows(data, truth));
    #[cfg(feature = "hnsw_rs")]
    rows.extend(hnsw_rs_rows(data, truth));
    #[cfg(feature = "hannoy")]
    rows.extend(hannoy_rows(data, truth));
    rows
}

#[cfg(feature = "usearch")]
fn usearch_rows(data: &Data, truth: &[Vec<u32>]) -> Vec<Row> {
    use usearch::{Index as Usearch, IndexOptions, MetricKind, ScalarKind};

    struct Peer(Usearch);
    impl Index for Peer {
        fn search(&self, query: &[f32], limit: usize) -> Vec<u32> {
            let found = self.0.search(query, limit).expect("usearch searches");
            found.keys.into_iter().map(|key| key as u32).collect()
        }
    }

    let mut rows = Vec::new();
    for (kind, label) in [(ScalarKind::I8, "i8"), (ScalarKind::F32, "f32")] {
        let options = IndexOptions {
            dimensions: data.dimension,
            metric: MetricKind::Cos,
            quantization: kind,
            connectivity: LINKS,
            expansion_add: BUILD_BREADTH,
            expansion_search: BREADTHS[0],
            multi: false,
        };
        let index = Usearch::new(&options).expect("usearch makes an index");
        index.reserve(data.vectors.len()).expect("usearch reserves");
        let started = cpu_s();
        for (key, vector) in data.vectors.iter().enumerate() {
            index.add(key as u64, vector).expect("usearch adds");
        }
        let build_s = cpu_s() - started;
        let bytes = index.serialized_length() as u64;
        let peer = Peer(index);
        for breadth in BREADTHS {
            peer.0.change_expansion_search(breadth);
            let label = format!("usearch {label}, breadth {breadth}");
            rows.push(measure(label, data, truth, &peer, build_s, bytes));
        }
    }
    rows
}

#[cfg(feature = "hnsw_rs")]
fn hnsw_rs_rows(data: &Data, truth: &[Vec<u32>]) -> Vec<Row> {
    use hnsw_rs::prelude::{DistL2, Hnsw};

    struct Peer<'a>(Hnsw<'a, f32, DistL2>, usize);
    impl Index for Peer<'_> {
        fn search(&self, query: &[f32], limit: usize) -> Vec<u32> {
            self.0.search(query, limit, self.1).into_iter().map(|found| found.d_id as u32).collect()
        }
    }

    // Of vectors of unit length, the nearest have the highest cosine; its dot product is not for
    // those whose cosine is negative.
    let index = Hnsw::new(LINKS, data.vectors.len(), 16, BUILD_BREADTH, DistL2 {});
    let started = cpu_s();
    for (id, vector) in data.vectors.iter().enumerate() {
        index.insert((vector, id));
    }
    let build_s = cpu_s() - started;
    let mut peer = Peer(index, 0);
    peer.0.set_searching_mode(true);
    let mut rows = Vec::new();
    for breadth in BREADTHS {
        peer.1 = breadth;
        let label = format!("hnsw_rs f32, breadth {breadth}");
        // It keeps vectors and links in memory and does not say how much; vectors alone are counted.
        let bytes = (data.vectors.len() * data.dimension * 4) as u64;
        let mut row = measure(label, data, truth, &peer, build_s, bytes);
        row.note = "bytes: vectors alone".into();
        rows.push(row);
    }
    rows
}

#[cfg(feature = "hannoy")]
fn hannoy_rows(data: &Data, truth: &[Vec<u32>]) -> Vec<Row> {
    use hannoy::{Database, Reader, Writer, distances::Cosine};
    use heed::{CommitOrAbort, EnvOpenOptions};
    use rand::{SeedableRng, rngs::StdRng};

    struct Peer<'a> {
        reader: Reader<'a, Cosine>,
        transaction: &'a heed::RoTxn<'a>,
        breadth: usize,
    }
    impl Index for Peer<'_> {
        fn search(&self, query: &[f32], limit: usize) -> Vec<u32> {
            let mut builder = self.reader.nns(limit);
            let found = builder.ef_search(self.breadth).by_vector(self.transaction, query);
            found.expect("hannoy searches").into_nns().into_iter().map(|(id, _)| id).collect()
        }
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut options = EnvOpenOptions::new();
    options.map_size(8 << 30).max_dbs(4);
    // SAFETY: nothing else opens the folder that was just made.
    let env = unsafe { options.open(folder.path()) }.expect("LMDB opens");
    let started = cpu_s();
    let transaction = env.write_txn().expect("a transaction");
    let database: Database<Cosine> = env
        .create_databases_and_commit(transaction, |databases, transaction| -> heed::Result<_> {
            databases.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
        })
        .expect("LMDB commits")
        .unwrap_commit();
    let mut transaction = env.write_txn().expect("a transaction");
    let writer = Writer::new(database, 0, data.dimension);
    for (id, vector) in data.vectors.iter().enumerate() {
        writer.add_item(&mut transaction, id as u32, vector).expect("hannoy adds");
    }
    let mut random = StdRng::from_seed([42; 32]);
    let mut builder = writer.builder(&mut random);
    builder
        .ef_construction(BUILD_BREADTH)
        .build::<16, 32>(&mut transaction)
        .expect("hannoy builds");
    transaction.commit().expect("LMDB commits");
    let build_s = cpu_s() - started;
    let bytes = std::fs::metadata(folder.path().join("data.mdb")).map_or(0, |file| file.len());
    let transaction = env.read_txn().expect("a transaction");
    let reader = Reader::open(&transaction, 0, database).expect("hannoy opens");
    let mut peer = Peer { reader, transaction: &transaction, breadth: 0 };
    let mut rows = Vec::new();
    for breadth in BREADTHS {
        peer.breadth = breadth.max(LIMIT);
        let label = format!("hannoy f32, breadth {breadth}");
        rows.push(measure(label, data, truth, &peer, build_s, bytes));
    }
    rows
}
