//! An embedder that tests hold by the hand: each call reports itself and waits to be let through.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use mainstay_embed::{EmbedError, Embedder, HashModel, Kind, ModelIdentity, Vectors};

#[derive(Debug)]
pub(crate) struct Gate {
    inner: HashModel,
    begun: Sender<Call>,
    batch_texts: usize,
}

/// A call that waits at the gate.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) texts: Vec<String>,
    pub(crate) kind: Kind,
    verdict: Sender<Verdict>,
}

#[derive(Debug)]
enum Verdict {
    Pass,
    Fail,
    Panic,
}

impl Call {
    pub(crate) fn pass(self) {
        self.verdict.send(Verdict::Pass).unwrap();
    }

    pub(crate) fn fail(self) {
        self.verdict.send(Verdict::Fail).unwrap();
    }

    pub(crate) fn panic(self) {
        self.verdict.send(Verdict::Panic).unwrap();
    }
}

/// The gate and the calls that arrive at it.
pub(crate) fn gate(batch_texts: usize) -> (Arc<dyn Embedder>, Receiver<Call>) {
    let (begun, calls) = channel();
    (Arc::new(Gate { inner: HashModel::new(4, 1), begun, batch_texts }), calls)
}

impl Embedder for Gate {
    fn identity(&self) -> &ModelIdentity {
        self.inner.identity()
    }

    fn embed(&self, texts: &[&str], kind: Kind) -> Result<Vectors, EmbedError> {
        let (verdict, decided) = channel();
        let texts_owned = texts.iter().map(|text| (*text).to_owned()).collect();
        // A test that has ended lets everything through.
        if self.begun.send(Call { texts: texts_owned, kind, verdict }).is_err() {
            return self.inner.embed(texts, kind);
        }
        match decided.recv().unwrap_or(Verdict::Pass) {
            Verdict::Pass => self.inner.embed(texts, kind),
            Verdict::Fail => {
                Err(EmbedError::Inference { model: "gate".into(), reason: "told to fail".into() })
            }
            Verdict::Panic => panic!("told to panic"),
        }
    }

    fn batch_texts(&self) -> usize {
        self.batch_texts
    }
}

/// A model whose vectors are not what its identity says.
#[derive(Debug)]
pub(crate) struct Liar {
    pub(crate) identity: ModelIdentity,
    pub(crate) vectors: Mutex<Vec<Vectors>>,
}

impl Embedder for Liar {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, _texts: &[&str], _kind: Kind) -> Result<Vectors, EmbedError> {
        Ok(self.vectors.lock().unwrap().pop().unwrap())
    }

    fn batch_texts(&self) -> usize {
        8
    }
}
