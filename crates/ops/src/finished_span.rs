//! [`FinishedSpan`]: a span that has ended, as it is handed to a collector.

/// A span that has ended. It borrows: whoever receives it writes it down before the call returns.
#[derive(Clone, Copy, Debug)]
pub struct FinishedSpan<'a> {
    /// The trace.
    pub trace_id: u128,
    /// The span.
    pub span_id: u64,
    /// Its parent; 0 for none.
    pub parent_span_id: u64,
    /// The state of other tracing systems.
    pub state: &'a str,
    /// What ties it to a request, as an attribute; empty for work that no request caused.
    pub correlation_id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// How it stands to other processes.
    pub kind: SpanKind,
    /// When it began, in nanoseconds since 1970.
    pub begun_ns: u64,
    /// When it ended, in nanoseconds since 1970.
    pub ended_ns: u64,
    /// What is known about it.
    pub attributes: &'a SpanAttributes,
    /// Warnings and errors inside it.
    pub events: &'a [SpanEvent],
    /// Whether an error was logged inside it, or it says of itself that it failed.
    pub failed: bool,
}

/// How a span stands to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// It stays inside.
    Internal,
    /// It answers a caller.
    Server,
    /// It calls a dependency.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SpanValue<'a> {
    /// A text, with secrets replaced.
    Text(&'a str),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Truth(bool),
}

/// A warning or an error inside a span.
#[derive(Clone, Debug)]
pub struct SpanEvent {
    /// When, in nanoseconds since 1970.
    pub at_ns: u64,
    /// Its message.
    pub message: String,
    /// Its fields.
    pub attributes: SpanAttributes,
}

/// Attributes by their names. All texts stand in one, so that a span costs two allocations and not one
/// for each of its texts.
#[derive(Clone, Debug, Default)]
pub struct SpanAttributes {
    texts: String,
    values: Vec<(&'static str, Kept)>,
}

#[derive(Clone, Copy, Debug)]
enum Kept {
    /// From there to there.
    Text(usize, usize),
    Whole(i64),
    Number(f64),
    Truth(bool),
}

/// Bytes of texts after which those that were replaced are thrown out.
const TEXTS_BYTES_MAX: usize = 64 << 10;

impl SpanAttributes {
    /// With room for so many attributes and so many bytes of their texts.
    #[must_use]
    pub fn with_capacity(values: usize, bytes: usize) -> Self {
        Self { texts: String::with_capacity(bytes), values: Vec::with_capacity(values) }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// In the order in which their names came first.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, SpanValue<'_>)> {
        self.values.iter().map(|(name, kept)| (*name, self.value(*kept)))
    }

    fn value(&self, kept: Kept) -> SpanValue<'_> {
        match kept {
            Kept::Text(begin, end) => SpanValue::Text(self.texts.get(begin..end).unwrap_or("")),
            Kept::Whole(number) => SpanValue::Whole(number),
            Kept::Number(number) => SpanValue::Number(number),
            Kept::Truth(truth) => SpanValue::Truth(truth),
        }
    }

    /// Adds one, or replaces that of this name. A new name beyond `at_most` is left out.
    pub fn set(&mut self, name: &'static str, value: SpanValue<'_>, at_most: usize) {
        let place = self.values.iter().position(|(known, _)| *known == name);
        if place.is_none() && self.values.len() >= at_most {
            return;
        }
        let kept = match value {
            SpanValue::Text(text) => {
                let begin = self.texts.len();
                self.texts.push_str(text);
                Kept::Text(begin, self.texts.len())
            }
            SpanValue::Whole(number) => Kept::Whole(number),
            SpanValue::Number(number) => Kept::Number(number),
            SpanValue::Truth(truth) => Kept::Truth(truth),
        };
        match place {
            Some(at) => self.values[at].1 = kept,
            None => self.values.push((name, kept)),
        }
        if self.texts.len() > TEXTS_BYTES_MAX && place.is_some() {
            self.throw_out();
        }
    }

    /// Keeps the texts that are still a value of an attribute.
    #[cold]
    fn throw_out(&mut self) {
        let mut texts = String::new();
        for (_, kept) in &mut self.values {
            if let Kept::Text(begin, end) = kept {
                let text = self.texts.get(*begin..*end).unwrap_or("");
                (*begin, *end) = (texts.len(), texts.len() + text.len());
                texts.push_str(text);
            }
        }
        self.texts = texts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_that_came_last_counts_and_its_name_keeps_its_place() {
        let mut attributes = SpanAttributes::default();
        attributes.set("a", SpanValue::Text("first"), 2);
        attributes.set("b", SpanValue::Whole(-3), 2);
        attributes.set("a", SpanValue::Text("second"), 2);
        attributes.set("c", SpanValue::Truth(true), 2);
        attributes.set("b", SpanValue::Number(0.5), 2);
        let all: Vec<_> = attributes.iter().collect();
        assert_eq!(all, [("a", SpanValue::Text("second")), ("b", SpanValue::Number(0.5))]);
    }

    #[test]
    fn a_text_that_is_replaced_without_end_takes_no_more_memory() {
        let mut attributes = SpanAttributes::default();
        attributes.set("stays", SpanValue::Text("é"), 8);
        for round in 0..10_000 {
            attributes.set("moves", SpanValue::Text(&format!("{round:0>100}")), 8);
            assert!(attributes.texts.len() <= TEXTS_BYTES_MAX + 100);
        }
        let all: Vec<_> = attributes.iter().collect();
        let last = format!("{:0>100}", 9_999);
        assert_eq!(all, [("stays", SpanValue::Text("é")), ("moves", SpanValue::Text(&last))]);
    }
}
