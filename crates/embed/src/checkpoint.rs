//! The weights of a BERT checkpoint in safetensors.

use crate::bert::BertWeights;
use crate::error::EmbedError;
use crate::safetensors::Safetensors;

/// Names the tensors of a checkpoint without the prefix that some models put before them.
pub(crate) struct Checkpoint {
    pub(crate) tensors: Safetensors,
}

impl BertWeights for Checkpoint {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EmbedError> {
        let damaged =
            |reason: String| EmbedError::Damaged { file: self.tensors.file().to_owned(), reason };
        let tensor = self
            .tensors
            .get(name)
            .or_else(|| self.tensors.get(&format!("bert.{name}")))
            .ok_or_else(|| damaged(format!("it has no tensor {name:?}")))?;
        match tensor.shape == shape {
            true => self.tensors.floats(tensor),
            false => Err(damaged(format!("{name:?} has shape {:?} for {shape:?}", tensor.shape))),
        }
    }
}
