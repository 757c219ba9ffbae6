//! [`Sieve`]: what a plan asks of the signatures of short documents.
//!
//! The trigrams of a plan were answered by the posting lists; what is left is about grams. Most
//! plans then are a list of grams that must all be there, and those are asked rarest first: the
//! fewer questions a document survives, the sooner the next one is looked at.

use super::plan::Plan;
use super::segment::Segment;
use super::signature::{Gram, GramHash, Signature};

/// A condition on signatures.
#[derive(Debug, PartialEq)]
pub(super) enum Sieve {
    /// Everything passes.
    All,
    Gram(GramHash),
    And(Vec<Sieve>),
    Or(Vec<Sieve>),
}

impl Sieve {
    /// What `plan` asks, in the order that suits `segment`.
    pub(super) fn of(plan: &Plan, segment: &Segment) -> Self {
        match plan {
            // The lists have answered these.
            Plan::All | Plan::None | Plan::Trigram(_) => Self::All,
            Plan::Gram(gram) => Self::Gram(GramHash::of(*gram)),
            Plan::And(parts) => {
                let mut parts: Vec<&Plan> = parts.iter().collect();
                parts.sort_by_cached_key(|part| match part {
                    Plan::Gram(gram) => frequency(*gram, segment),
                    _ => u32::MAX,
                });
                let parts = parts.into_iter().map(|part| Self::of(part, segment));
                let mut parts: Vec<Self> = parts.filter(|part| *part != Self::All).collect();
                match parts.len() {
                    0 => Self::All,
                    1 => parts.remove(0),
                    _ => Self::And(parts),
                }
            }
            Plan::Or(parts) => {
                let parts: Vec<Self> = parts.iter().map(|part| Self::of(part, segment)).collect();
                if parts.contains(&Self::All) { Self::All } else { Self::Or(parts) }
            }
        }
    }

    /// Whether a document with this signature may match.
    pub(super) fn admits(&self, signature: Signature<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Gram(gram) => signature.may_have(*gram),
            Self::And(parts) => parts.iter().all(|part| part.admits(signature)),
            Self::Or(parts) => parts.iter().any(|part| part.admits(signature)),
        }
    }
}

/// In how many units a gram can be at most: as many as have both its trigrams.
fn frequency(gram: Gram, segment: &Segment) -> u32 {
    let trigrams = [gram >> 8, gram & 0xff_ffff];
    let counts = trigrams.map(|trigram| segment.find(trigram).map_or(0, |entry| entry.count));
    counts[0].min(counts[1])
}
