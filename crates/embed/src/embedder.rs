//! The contract of everything that turns texts into vectors.

use std::fmt;
use std::time::Instant;

use crate::error::EmbedError;
use crate::identity::ModelIdentity;

/// Turns texts into vectors of one length.
///
/// Each implementation keeps these promises, which the contract suite in `tests/it` checks:
///
/// - one vector for each text, in the order of the texts, each of the identity's dimension;
/// - every number is finite; a vector has length 1 when the identity says `normalised`, except
///   that a text in which the model knows nothing (the empty text) has the zero vector;
/// - no text is refused for its length: what lies beyond `tokens_max` is not read;
/// - the vector of a text does not depend on the texts beside it;
/// - the same text and kind give the same vector again (a remote provider may differ in the last
///   digits).
pub trait Embedder: Send + Sync + fmt::Debug {
    /// What made the vectors; recorded beside them and compared before they are searched.
    fn identity(&self) -> &ModelIdentity;

    /// Embeds `texts`. `kind` chooses the instruction that some models want before the text.
    ///
    /// # Errors
    /// [`EmbedError::Inference`], [`EmbedError::NotFinite`], [`EmbedError::WrongDimension`], and
    /// [`EmbedError::Remote`]. One bad vector fails the whole call.
    fn embed(&self, texts: &[&str], kind: Kind) -> Result<Vectors, EmbedError>;

    /// As [`embed`](Self::embed), giving up at `deadline`. Models that compute on this machine
    /// take milliseconds and look at the deadline only before they begin.
    ///
    /// # Errors
    /// As [`embed`](Self::embed), and [`EmbedError::Timeout`].
    fn embed_by(
        &self,
        texts: &[&str],
        kind: Kind,
        deadline: Instant,
    ) -> Result<Vectors, EmbedError> {
        if Instant::now() >= deadline {
            return Err(EmbedError::Timeout { waited_ms: 0 });
        }
        self.embed(texts, kind)
    }

    /// The share of `text`, 0 to 1, that the model knows as words rather than as single letters: how
    /// far its vector of the text can be trusted. A model made from English knows next to nothing of
    /// a Greek question and answers it with noise. 1 where the model cannot tell.
    fn known_share(&self, text: &str) -> f32 {
        let _ = text;
        1.0
    }

    /// How many passages a [`Pool`](crate::Pool) should hand over at once: few for a slow model,
    /// so that a query does not wait long for the worker, many for one that is asked over a
    /// network. At least 1.
    fn batch_texts(&self) -> usize;
}

/// What a text is: some models are trained with another instruction for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A question of a user.
    Query,
    /// A part of a document.
    Passage,
}

impl ModelIdentity {
    /// Compares this model with the one recorded in `collection`. The name may differ (a folder
    /// may be moved), all else may not.
    ///
    /// # Errors
    /// [`EmbedError::ModelMismatch`], whose message says how to re-embed.
    pub fn require(&self, recorded: &ModelIdentity, collection: &str) -> Result<(), EmbedError> {
        let same = self.sha256 == recorded.sha256
            && self.dimension == recorded.dimension
            && self.normalised == recorded.normalised;
        if same {
            return Ok(());
        }
        Err(EmbedError::ModelMismatch {
            collection: collection.to_owned(),
            expected: Box::new(recorded.clone()),
            found: Box::new(self.clone()),
        })
    }
}

/// Vectors of one length, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    dimension: usize,
    data: Vec<f32>,
}

impl Vectors {
    /// No vectors yet, with room for `count`.
    pub fn with_capacity(dimension: usize, count: usize) -> Self {
        Self { dimension, data: Vec::with_capacity(dimension.saturating_mul(count)) }
    }

    /// Takes `data` as vectors of `dimension` numbers each.
    ///
    /// # Errors
    /// [`EmbedError::WrongDimension`] when `data` does not divide into vectors, with `model` in
    /// the message.
    pub fn from_data(model: &str, dimension: usize, data: Vec<f32>) -> Result<Self, EmbedError> {
        if dimension == 0 || !data.len().is_multiple_of(dimension) {
            return Err(EmbedError::WrongDimension {
                model: model.to_owned(),
                expected: dimension,
                found: data.len(),
            });
        }
        Ok(Self { dimension, data })
    }

    /// Numbers in each vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.data.len().checked_div(self.dimension).unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The vector at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&[f32]> {
        let start = index.checked_mul(self.dimension)?;
        self.data.get(start..start.checked_add(self.dimension)?)
    }

    /// The vectors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.dimension.max(1))
    }

    /// All numbers, vector after vector.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All numbers, vector after vector.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// Adds a vector at the end.
    ///
    /// # Errors
    /// [`EmbedError::WrongDimension`] when `vector` has another length.
    pub fn push(&mut self, model: &str, vector: &[f32]) -> Result<(), EmbedError> {
        if vector.len() != self.dimension {
            return Err(EmbedError::WrongDimension {
                model: model.to_owned(),
                expected: self.dimension,
                found: vector.len(),
            });
        }
        self.data.extend_from_slice(vector);
        Ok(())
    }

    /// Adds the vectors of `other` at the end.
    ///
    /// # Errors
    /// [`EmbedError::WrongDimension`] when they have another length.
    pub fn append(&mut self, model: &str, other: &Vectors) -> Result<(), EmbedError> {
        if other.dimension != self.dimension {
            return Err(EmbedError::WrongDimension {
                model: model.to_owned(),
                expected: self.dimension,
                found: other.dimension,
            });
        }
        self.data.extend_from_slice(&other.data);
        Ok(())
    }

    /// Refuses NaN and infinities, which would poison every comparison they take part in.
    ///
    /// # Errors
    /// [`EmbedError::NotFinite`] with the position of the first bad vector.
    pub fn require_finite(&self, model: &str) -> Result<(), EmbedError> {
        match self.iter().position(|vector| vector.iter().any(|number| !number.is_finite())) {
            Some(text_index) => Err(EmbedError::NotFinite { model: model.to_owned(), text_index }),
            None => Ok(()),
        }
    }
}

/// Scales `vector` to length 1; the zero vector stays as it is.
pub(crate) fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        let scale = (1.0 / length) as f32;
        vector.iter_mut().for_each(|x| *x *= scale);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn identity(sha256: &str, dimension: usize) -> ModelIdentity {
        ModelIdentity {
            name: "some-model".into(),
            sha256: sha256.into(),
            dimension,
            normalised: true,
            tokens_max: 256,
        }
    }

    #[test]
    fn a_renamed_model_is_the_same_model() {
        let recorded = identity("ab", 4);
        let renamed = ModelIdentity { name: "other-name".into(), ..recorded.clone() };
        assert!(renamed.require(&recorded, "docs").is_ok());
    }

    #[test]
    fn another_model_is_refused_with_the_command_that_re_embeds() {
        let error = identity("cd", 8).require(&identity("ab", 4), "docs").unwrap_err();
        assert_eq!(
            error.to_string(),
            "collection \"docs\" was embedded with model some-model (4 dimensions, sha256 ab), but \
             model some-model (8 dimensions, sha256 cd) is open: open the recorded model again, or \
             re-embed with `mainstay rebuild --method semantic --collection docs`"
        );
    }

    #[test]
    fn vectors_keep_their_order_and_length() {
        let mut vectors = Vectors::with_capacity(2, 2);
        vectors.push("m", &[1.0, 2.0]).unwrap();
        vectors.push("m", &[3.0, 4.0]).unwrap();
        assert_eq!(vectors.len(), 2);
        assert_eq!(vectors.get(1), Some(&[3.0, 4.0][..]));
        assert_eq!(vectors.get(2), None);
        assert!(matches!(
            vectors.push("m", &[1.0]),
            Err(EmbedError::WrongDimension { expected: 2, found: 1, .. })
        ));
    }

    #[test]
    fn nan_and_infinity_are_refused_with_the_position_of_the_text() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let vectors = Vectors::from_data("m", 2, vec![0.0, 1.0, bad, 0.0]).unwrap();
            let error = vectors.require_finite("m").unwrap_err();
            assert!(matches!(error, EmbedError::NotFinite { text_index: 1, .. }));
        }
    }
}
