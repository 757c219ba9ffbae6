//! The name of a policy, and the copy of it that a refusal carries.
//!
//! Invariants: a short label holds whole UTF-8 text; a longer name is shared, never cut.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Bytes of a name that a label holds itself: as many as the shared form needs.
const SHORT_MAX: usize = 16;

/// Text without a zero byte, filled up with zeros. Aligned, so that it is copied as two words: bytes at
/// odd places would be read back before they are stored.
#[derive(Clone, Copy)]
#[repr(align(8))]
pub(crate) struct Short([u8; SHORT_MAX]);

/// A name to be carried away: copying a short one touches no counter that threads share.
#[derive(Clone)]
pub(crate) enum Label {
    Short(Short),
    Long(Arc<str>),
}

impl Label {
    /// A label of short text of this crate's own, without a zero byte.
    pub(crate) fn short(text: &'static str) -> Self {
        debug_assert!(text.len() <= SHORT_MAX, "{text} is too long for a short label");
        let mut bytes = [0; SHORT_MAX];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Label::Short(Short(bytes))
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            // Whole text went in, so whole text comes out.
            Label::Short(Short(bytes)) => {
                let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
                std::str::from_utf8(text).unwrap_or_default()
            }
            Label::Long(name) => name,
        }
    }
}

impl From<Arc<str>> for Label {
    fn from(name: Arc<str>) -> Self {
        let mut bytes = [0; SHORT_MAX];
        match bytes.get_mut(..name.len()) {
            Some(part) if !name.contains('\0') => part.copy_from_slice(name.as_bytes()),
            _ => return Label::Long(name),
        }
        Label::Short(Short(bytes))
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The name of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    text: Arc<str>,
    label: Label,
}

impl Name {
    /// The name, shared.
    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The name, for a refusal.
    #[inline]
    pub(crate) fn label(&self) -> Label {
        self.label.clone()
    }
}

impl From<Arc<str>> for Name {
    fn from(text: Arc<str>) -> Self {
        Name { label: Label::from(Arc::clone(&text)), text }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_comes_back_whole() {
        for length in 0..=2 * SHORT_MAX {
            // Two bytes each, so that every second boundary falls into a letter.
            let text: String = "é".repeat(length / 2) + &"x".repeat(length % 2);
            let name = Name::from(Arc::<str>::from(text.as_str()));
            assert_eq!((&*name, name.label().as_str()), (&*text, &*text));
            assert_eq!(matches!(name.label(), Label::Short(_)), length <= SHORT_MAX);
        }
        let zero = Name::from(Arc::<str>::from("a\0b"));
        assert_eq!(zero.label().as_str(), "a\0b");
    }
}
