//! Which model made a vector.

use std::fmt;

/// Which model made a vector. Two vectors can be compared only if their identities are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelIdentity {
    /// Name for people, such as `minilm-l6-v2-int8`.
    pub name: String,
    /// SHA-256 in hexadecimal: of the weights for a built-in model; of the weights, tokeniser and
    /// settings for a model folder; of address, model name and dimension for a remote provider,
    /// which shows no weights.
    pub sha256: String,
    /// Numbers in a vector.
    pub dimension: usize,
    /// Whether vectors have length 1, so that the dot product is the cosine.
    pub normalised: bool,
    /// Tokens that are read of a text; the rest is ignored. 0: the provider decides.
    pub tokens_max: usize,
}

impl fmt::Display for ModelIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Twelve digits tell models apart; the whole hash would hide the rest of the message.
        let short = self.sha256.get(..12).unwrap_or(&self.sha256);
        write!(f, "model {} ({} dimensions, sha256 {short})", self.name, self.dimension)
    }
}
