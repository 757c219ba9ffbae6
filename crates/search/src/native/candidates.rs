//! [`candidates`]: the documents of one segment that a plan leaves, with the lines to look at.
//!
//! Lists are intersected from the rarest on, so that each further one is asked only about what is
//! left. Even the most frequent is worth asking: testing a unit against a list takes nanoseconds,
//! searching its text a microsecond, decompressing it ten.

use super::matcher::Window;
use super::plan::Plan;
use super::postings::Corrupt;
use super::segment::{Entry, Segment};
use crate::document::DocNumber;
use crate::request::{Allowed, Stop};

/// A document that may match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) number: DocNumber,
    /// Whether the trigrams of its title were among those that qualified.
    pub(super) title: bool,
    /// Where in the body a match may lie, rising: the first window, and the further ones.
    pub(super) windows: std::ops::Range<usize>,
}

/// The candidates of one query, in order of document number, and all their windows.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) documents: Vec<Candidate>,
    pub(super) windows: Vec<Window>,
}

impl Candidates {
    /// Adds those of a segment whose numbers are above all added before. An empty answer with `stop`
    /// set means nothing.
    pub(super) fn add(
        &mut self,
        plan: &Plan,
        segment: &Segment,
        allowed: &Allowed,
        stop: &Stop,
    ) -> Result<(), Corrupt> {
        let node = resolve(plan, segment);
        let mut units = Vec::new();
        gather(&node, segment, stop, &mut units)?;
        let unit_count = segment.unit_count();
        for unit in units.into_iter().take_while(|&unit| unit < unit_count) {
            self.add_unit(segment, unit, allowed);
        }
        Ok(())
    }

    fn add_unit(&mut self, segment: &Segment, index: u32, allowed: &Allowed) {
        let unit = segment.unit(index);
        let goes_on =
            index + 1 < segment.unit_count() && segment.unit(index + 1).document == unit.document;
        if unit.offset == 0 && !goes_on {
            for document in segment.documents_of(index) {
                let number = segment.number(document);
                if allowed.contains(number) {
                    self.push(number, true, Window { start: 0, end: usize::MAX, line: 0 });
                }
            }
            return;
        }
        let number = segment.number(unit.document);
        if !allowed.contains(number) {
            return;
        }
        let start = unit.offset as usize;
        let end = if goes_on { start + unit.bytes as usize } else { usize::MAX };
        if let (Some(last), Some(window)) = (self.documents.last_mut(), self.windows.last_mut())
            && last.number == number
        {
            if window.end == start {
                window.end = end;
            } else {
                self.windows.push(Window { start, end, line: unit.line });
                last.windows.end += 1;
            }
            return;
        }
        self.push(number, start == 0, Window { start, end, line: unit.line });
    }

    fn push(&mut self, number: DocNumber, title: bool, window: Window) {
        let at = self.windows.len();
        self.windows.push(window);
        self.documents.push(Candidate { number, title, windows: at..at + 1 });
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
        Plan::All => Node::All,
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
