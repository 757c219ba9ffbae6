//! `candidates`: the documents of one segment that a plan leaves, with the lines to look at.
//!
//! Lists are intersected from the rarest on, so that each further one is asked only about what is
//! left. Even the most frequent is worth asking: testing a unit against a list takes nanoseconds,
//! searching its text a microsecond, decompressing it ten.

use super::matcher::Window;
use super::plan::Plan;
use super::postings::Corrupt;
use super::segment::{Entry, Segment};
use super::sieve::Sieve;
use crate::document::DocNumber;
use crate::request::{Allowed, Stop};

/// Units between two looks at the stop flag: well below a millisecond.
const STOP_EVERY: usize = 4096;

/// A document that may match. Small: a pattern without trigrams makes every document one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    number: DocNumber,
    /// Where its windows begin; they end where those of the next candidate begin.
    first: u32,
}

/// The candidates of one query, in order of document number, and where to look in each.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    documents: Vec<Candidate>,
    windows: Vec<Window>,
    cut: bool,
}

impl Candidates {
    /// How many documents there are.
    pub(super) fn len(&self) -> usize {
        self.documents.len()
    }

    /// The document at a position.
    pub(super) fn number(&self, at: usize) -> DocNumber {
        self.documents[at].number
    }

    /// Where in the body of the document at a position a match may lie, rising; everywhere when empty.
    pub(super) fn windows(&self, at: usize) -> &[Window] {
        let first = self.documents[at].first as usize;
        let end = self.documents.get(at + 1).map_or(self.windows.len(), |next| next.first as usize);
        &self.windows[first..end]
    }

    /// Whether there are more than were wanted.
    pub(super) fn cut(&self) -> bool {
        self.cut
    }

    /// Adds those of a segment whose numbers are above all added before, until there are `max`. An
    /// empty answer with `stop` set means nothing.
    pub(super) fn add(
        &mut self,
        plan: &Plan,
        segment: &Segment,
        allowed: &Allowed,
        stop: &Stop,
        max: usize,
    ) -> Result<(), Corrupt> {
        if self.cut {
            return Ok(());
        }
        let node = resolve(plan, segment);
        let sieve = Sieve::of(plan, segment);
        let mut units = Vec::new();
        gather(&node, segment, stop, &mut units)?;
        let unit_count = segment.unit_count();
        for (step, unit) in units.into_iter().take_while(|&unit| unit < unit_count).enumerate() {
            if step % STOP_EVERY == 0 && stop.is_set() {
                break;
            }
            self.add_unit(segment, unit, allowed, &sieve)?;
            if self.documents.len() > max {
                self.cut = true;
                self.drop_from(max);
                break;
            }
        }
        Ok(())
    }

    /// Forgets the documents from a position on.
    fn drop_from(&mut self, at: usize) {
        let Some(&first) = self.documents.get(at) else { return };
        self.windows.truncate(first.first as usize);
        self.documents.truncate(at);
    }

    fn add_unit(
        &mut self,
        segment: &Segment,
        index: u32,
        allowed: &Allowed,
        sieve: &Sieve,
    ) -> Result<(), Corrupt> {
        let unit = segment.unit(index);
        let goes_on =
            index + 1 < segment.unit_count() && segment.unit(index + 1).document == unit.document;
        let first = self.windows.len() as u32;
        if unit.offset == 0 && !goes_on {
            let documents = segment.documents_of(index);
            let numbers = documents.clone().map(|document| segment.number(document));
            let mut add = |number| {
                if allowed.contains(number) {
                    self.documents.push(Candidate { number, first });
                }
            };
            if *sieve == Sieve::All {
                numbers.for_each(add);
            } else {
                let signed = numbers.zip(segment.signatures(documents)?);
                signed.for_each(|(number, signature)| {
                    if sieve.admits(signature) {
                        add(number);
                    }
                });
            }
            return Ok(());
        }
        let number = segment.number(unit.document);
        if !allowed.contains(number) {
            return Ok(());
        }
        let start = unit.offset;
        let end = if goes_on { start.saturating_add(unit.bytes) } else { u32::MAX };
        let continues = self.documents.last().is_some_and(|last| last.number == number);
        match self.windows.last_mut() {
            Some(window) if continues && window.end == start => window.end = end,
            _ => self.windows.push(Window { start, end, line: unit.line }),
        }
        if !continues {
            self.documents.push(Candidate { number, first });
        }
        Ok(())
    }
}

/// A plan with the lists of one segment.
enum Node {
    All,
    Nothing,
    Leaf(Entry),
    And(Vec<Node>),
    Or(Vec<Node>),
}

impl Node {
    /// An upper bound of the units that qualify.
    fn estimate(&self, unit_count: u32) -> u32 {
        match self {
            Self::All => unit_count,
            Self::Nothing => 0,
            Self::Leaf(entry) => entry.count,
            Self::And(parts) => {
                parts.iter().map(|part| part.estimate(unit_count)).min().unwrap_or(unit_count)
            }
            Self::Or(parts) => parts
                .iter()
                .fold(0u32, |sum, part| sum.saturating_add(part.estimate(unit_count)))
                .min(unit_count),
        }
    }
}

fn resolve(plan: &Plan, segment: &Segment) -> Node {
    match plan {
        // The signatures are asked about what the lists leave.
        Plan::All | Plan::Gram(_) => Node::All,
        Plan::None => Node::Nothing,
        Plan::Trigram(trigram) => segment.find(*trigram).map_or(Node::Nothing, Node::Leaf),
        Plan::And(parts) => {
            let mut nodes = Vec::with_capacity(parts.len());
            for part in parts {
                match resolve(part, segment) {
                    Node::Nothing => return Node::Nothing,
                    Node::All => {}
                    node => nodes.push(node),
                }
            }
            nodes.sort_by_cached_key(|node| node.estimate(segment.unit_count()));
            if nodes.is_empty() { Node::All } else { Node::And(nodes) }
        }
        Plan::Or(parts) => {
            let mut nodes = Vec::with_capacity(parts.len());
            for part in parts {
                match resolve(part, segment) {
                    Node::Nothing => {}
                    Node::All => return Node::All,
                    node => nodes.push(node),
                }
            }
            if nodes.is_empty() { Node::Nothing } else { Node::Or(nodes) }
        }
    }
}

/// Appends the units that qualify, rising.
fn gather(
    node: &Node,
    segment: &Segment,
    stop: &Stop,
    units: &mut Vec<u32>,
) -> Result<(), Corrupt> {
    if stop.is_set() {
        return Ok(());
    }
    match node {
        Node::All => units.extend(0..segment.unit_count()),
        Node::Nothing => {}
        Node::Leaf(entry) => segment.list(entry)?.decode(units)?,
        Node::And(parts) => {
            let [first, rest @ ..] = parts.as_slice() else { return Ok(()) };
            gather(first, segment, stop, units)?;
            for part in rest {
                restrict(part, segment, stop, units)?;
            }
        }
        Node::Or(parts) => {
            let mut members = vec![0u64; (segment.unit_count() as usize).div_ceil(64)];
            let mut found = Vec::new();
            for part in parts {
                found.clear();
                gather(part, segment, stop, &mut found)?;
                for &unit in &found {
                    *members.get_mut((unit / 64) as usize).ok_or(Corrupt)? |= 1 << (unit % 64);
                }
            }
            for (index, mut word) in members.into_iter().enumerate() {
                while word != 0 {
                    units.push(index as u32 * 64 + word.trailing_zeros());
                    word &= word - 1;
                }
            }
        }
    }
    Ok(())
}

/// Keeps the `units` that qualify.
fn restrict(
    node: &Node,
    segment: &Segment,
    stop: &Stop,
    units: &mut Vec<u32>,
) -> Result<(), Corrupt> {
    if units.is_empty() || stop.is_set() {
        return Ok(());
    }
    match node {
        Node::All => {}
        Node::Nothing => units.clear(),
        Node::Leaf(entry) => segment.list(entry)?.retain(units)?,
        Node::And(parts) => {
            for part in parts {
                restrict(part, segment, stop, units)?;
            }
        }
        Node::Or(parts) => {
            let estimate = node.estimate(segment.unit_count());
            if estimate > segment.unit_count() / 2 {
                // Hardly selective, and the dearest kind of node: leave it to verification.
                return Ok(());
            }
            let mut kept = Vec::new();
            if units.len() < estimate as usize / 4 {
                for part in parts {
                    let mut some = units.clone();
                    restrict(part, segment, stop, &mut some)?;
                    kept.append(&mut some);
                }
                kept.sort_unstable();
                kept.dedup();
            } else {
                let mut members = Vec::new();
                gather(node, segment, stop, &mut members)?;
                let mut members = members.into_iter().peekable();
                kept.extend(units.iter().copied().filter(|&unit| {
                    while members.next_if(|&member| member < unit).is_some() {}
                    members.peek() == Some(&unit)
                }));
            }
            *units = kept;
        }
    }
    Ok(())
}
