//! `verify`: the log, the documents and every view agree, or the report says where they do not.

use mainstay_search::bitmap::Bitmap;

use crate::collection::Collection;
use crate::driven::{ViewKind, number_of};
use crate::engine::documents_failed;
use crate::error::DbError;
use crate::record::Change;

/// Ids named for each kind of disagreement; the counts are complete.
const NAMED_MAX: usize = 20;
/// Bytes of log read at once.
const READ_BYTES: u64 = 4 << 20;

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifyReport {
    /// The collection.
    pub collection: String,
    /// Records in the log.
    pub log_records: u64,
    /// Bytes in the log.
    pub log_bytes: u64,
    /// Damage in the log, one line each.
    pub log_damage: Vec<String>,
    /// Documents that live according to the log.
    pub documents: u64,
    /// Damage in the stored documents, one line each.
    pub document_damage: Vec<String>,
    /// Each view.
    pub views: Vec<ViewReport>,
}

/// How one view agrees with the log.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewReport {
    /// `documents` or a method's name.
    pub view: &'static str,
    /// Up to where it has read the log.
    pub indexed_through: u64,
    /// Living documents that it holds.
    pub held: u64,
    /// Living documents, among those it has read, that it does not hold.
    pub missing: u64,
    /// Some of their ids.
    pub missing_ids: Vec<String>,
    /// Documents that it holds and the log never had.
    pub extra: u64,
    /// Some of their numbers.
    pub extra_numbers: Vec<u64>,
    /// Records that it has set aside.
    pub set_aside: u64,
    /// Why it cannot be read; empty when it can.
    pub fault: String,
}

impl VerifyReport {
    /// Whether everything agrees.
    pub fn is_clean(&self) -> bool {
        self.log_damage.is_empty()
            && self.document_damage.is_empty()
            && self
                .views
                .iter()
                .all(|view| view.missing == 0 && view.extra == 0 && view.fault.is_empty())
    }
}

impl ViewReport {
    fn note_extra(&mut self, number: u64) {
        self.extra += 1;
        if self.extra_numbers.len() < NAMED_MAX {
            self.extra_numbers.push(number);
        }
    }
}

/// What the log says, computed without any view.
struct Truth {
    living: std::collections::HashMap<String, u64>,
    put: Bitmap,
    records: u64,
}

impl Collection {
    /// Reads the whole log and compares every view with it. Runs beside reads and writes; what is
    /// written meanwhile is left out.
    pub fn verify(&self) -> Result<VerifyReport, DbError> {
        let inner = &self.inner;
        let through = inner.log.durable_seq();
        let log = inner.log.verify()?;
        let mut report = VerifyReport {
            collection: inner.name().to_string(),
            log_records: log.records,
            log_bytes: log.bytes,
            log_damage: log.damage.iter().map(ToString::to_string).collect(),
            ..VerifyReport::default()
        };
        let truth = self.read_log(through)?;
        report.documents = truth.living.len() as u64;
        report.log_records = truth.records;
        let documents = inner.documents()?;
        if let Err(error) = documents.verify() {
            report.document_damage.push(error.to_string());
        }
        for kind in ViewKind::ALL {
            report.views.push(self.compare(kind, &truth, through)?);
        }
        Ok(report)
    }

    fn read_log(&self, through: u64) -> Result<Truth, DbError> {
        let log = &self.inner.log;
        let mut truth = Truth { living: Default::default(), put: Bitmap::new(), records: 0 };
        let mut from = log.first_seq();
        while from <= through {
            let batch = log.read_batch(from, READ_BYTES)?;
            if batch.next_seq <= from {
                break;
            }
            for entry in batch.entries.into_iter().filter(|entry| entry.seq <= through) {
                truth.records += 1;
                match Change::decode(entry.kind, &entry.payload) {
                    Ok(Change::Put(document)) => {
                        truth.put.insert(number_of(entry.seq));
                        truth.living.insert(document.id, entry.seq);
                    }
                    Ok(Change::Delete(id)) => {
                        truth.living.remove(&id);
                    }
                    // Every view has set it aside; it is counted there.
                    Err(_) => {}
                }
            }
            from = batch.next_seq;
        }
        Ok(truth)
    }

    fn compare(&self, kind: ViewKind, truth: &Truth, through: u64) -> Result<ViewReport, DbError> {
        let inner = &self.inner;
        let slot = inner.slot(kind);
        let mut report = ViewReport {
            view: kind.name(),
            indexed_through: slot.published().through,
            held: 0,
            missing: 0,
            missing_ids: Vec::new(),
            extra: 0,
            extra_numbers: Vec::new(),
            set_aside: inner.set_aside.of(kind.name()) as u64,
            fault: String::new(),
        };
        let numbers = {
            let held = slot.held();
            match &held.driven {
                Some(driven) => driven.numbers().map(|numbers| (numbers, driven.through())),
                None => {
                    report.fault = slot.published().state.to_string();
                    return Ok(report);
                }
            }
        };
        let (numbers, read) = match numbers {
            Ok(found) => found,
            Err(error) => {
                report.fault = error.to_string();
                return Ok(report);
            }
        };
        for (id, seq) in &truth.living {
            if numbers.contains(number_of(*seq)) {
                report.held += 1;
            } else if *seq <= read && !inner.set_aside.contains(kind.name(), *seq) {
                report.missing += 1;
                if report.missing_ids.len() < NAMED_MAX {
                    report.missing_ids.push(id.clone());
                }
            }
        }
        let documents = inner.documents()?;
        let durable_seq = inner.log.durable_seq();
        for number in numbers.iter() {
            // A number whose record compaction dropped is dead, not foreign.
            let phantom = u64::from(number) <= through
                && documents.living().contains(number)
                && !truth.put.contains(number);
            if phantom || u64::from(number) > durable_seq {
                report.note_extra(u64::from(number));
            }
        }
        if kind == ViewKind::Documents {
            for number in
                documents.living().iter().filter(|number| u64::from(*number) <= through.min(read))
            {
                let document = documents.get(number).map_err(documents_failed)?;
                let agrees = document.is_some_and(|document| {
                    truth.living.get(&document.id) == Some(&u64::from(number))
                });
                if !agrees {
                    report.note_extra(u64::from(number));
                }
            }
        }
        Ok(report)
    }
}
