//! What was probably meant by a name that nobody knows.

/// The known name that a wrong one most resembles.
pub(crate) fn nearest(wrong: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let likeness = |name: &String| strsim::normalized_damerau_levenshtein(wrong, name);
    known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > 0.6)
}
