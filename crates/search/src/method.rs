//! [`Method`]: the four ways to search, by the names that users type.

use std::fmt;
use std::str::FromStr;

/// A search method. The order is the order in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Which documents are about these words: BM25F.
    Bm25,
    /// The full query language.
    Tantivy,
    /// Where exactly this string or regular expression stands.
    Native,
    /// What means the same.
    Semantic,
}

impl Method {
    /// Every method, in the order of answers.
    pub const ALL: [Method; 4] = [Method::Bm25, Method::Tantivy, Method::Native, Method::Semantic];

    /// The name that users type: `bm25`, `tantivy`, `native` or `semantic`.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Bm25 => "bm25",
            Method::Tantivy => "tantivy",
            Method::Native => "native",
            Method::Semantic => "semantic",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A method name that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMethod(pub String);

impl fmt::Display for UnknownMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown method \"{}\"; known are bm25, tantivy, native, semantic", self.0)
    }
}

impl std::error::Error for UnknownMethod {}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Method::ALL
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(|| UnknownMethod(name.chars().take(64).collect()))
    }
}
