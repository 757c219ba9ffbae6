//! Reader of the safetensors format: a length, a JSON header that names tensors, their bytes.
//!
//! Invariants: every range handed out lies inside the file and has exactly the bytes its shape
//! and type ask for; a file that says otherwise is refused before any of its bytes are used.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use crate::error::EmbedError;
use crate::half::half_to_f32;

/// The header of a model with a thousand tensors has about 100 KiB; ten times that is refused
/// before it is parsed.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// A file of named tensors.
pub(crate) struct Safetensors {
    bytes: Cow<'static, [u8]>,
    tensors: BTreeMap<String, Tensor>,
    file: String,
}

/// Where a tensor lies and how it is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    /// Element type in the format's words, such as `F32`.
    pub(crate) element: String,
    /// Sizes, outermost first.
    pub(crate) shape: Vec<usize>,
    range: Range<usize>,
}

impl Safetensors {
    /// Checks the header of `bytes`; `file` names it in errors.
    ///
    /// # Errors
    /// [`EmbedError::Damaged`].
    pub(crate) fn parse(file: &str, bytes: Cow<'static, [u8]>) -> Result<Self, EmbedError> {
        let (header, data_start) = header(&bytes).map_err(|reason| damaged(file, reason))?;
        let tensors = header
            .iter()
            .filter(|(name, _)| *name != "__metadata__")
            .map(|(name, entry)| {
                let tensor = tensor(entry, data_start, bytes.len())
                    .map_err(|reason| damaged(file, format!("tensor {name:?} {reason}")))?;
                Ok((name.clone(), tensor))
            })
            .collect::<Result<_, EmbedError>>()?;
        Ok(Self { bytes, tensors, file: file.to_owned() })
    }

    /// The name this file has in errors.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The tensor called `name`, if there is one.
    pub(crate) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The bytes of `tensor`, little-endian, last dimension fastest.
    pub(crate) fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.bytes[tensor.range.clone()]
    }

    /// The bytes of `tensor`, kept without a copy when the file is part of the program.
    pub(crate) fn owned_bytes(&self, tensor: &Tensor) -> Cow<'static, [u8]> {
        match &self.bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[tensor.range.clone()]),
            Cow::Owned(bytes) => Cow::Owned(bytes[tensor.range.clone()].to_vec()),
        }
    }

    /// The numbers of `tensor` as f32.
    ///
    /// # Errors
    /// [`EmbedError::UnsupportedModel`] for an element type that is no floating-point number.
    pub(crate) fn floats(&self, tensor: &Tensor) -> Result<Vec<f32>, EmbedError> {
        let bytes = self.bytes(tensor);
        match tensor.element.as_str() {
            "F32" => Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            "F64" => {
                Ok(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect())
            }
            "F16" => Ok(bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half_to_f32(u16::from_le_bytes(*b)))
                .collect()),
            "BF16" => Ok(bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
                .collect()),
            other => Err(EmbedError::UnsupportedModel {
                file: self.file.clone(),
                reason: format!("element type {other} cannot be read as numbers"),
            }),
        }
    }
}

fn damaged(file: &str, reason: impl Into<String>) -> EmbedError {
    EmbedError::Damaged { file: file.to_owned(), reason: reason.into() }
}

type Header = serde_json::Map<String, Value>;

/// The parsed header and the position of the first data byte.
fn header(bytes: &[u8]) -> Result<(Header, usize), String> {
    let (length, rest) =
        bytes.split_first_chunk::<8>().ok_or("it has less than the 8 bytes of a header length")?;
    let length = u64::from_le_bytes(*length);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= HEADER_BYTES_MAX)
        .ok_or(format!("its header of {length} bytes is over the bound of {HEADER_BYTES_MAX}"))?;
    let json = rest.get(..length).ok_or(format!("its header of {length} bytes is cut off"))?;
    match serde_json::from_slice(json) {
        Ok(Value::Object(header)) => Ok((header, 8 + length)),
        Ok(_) => Err("its header is no JSON object".into()),
        Err(error) => Err(format!("its header is no JSON: {error}")),
    }
}

fn tensor(entry: &Value, data_start: usize, file_bytes: usize) -> Result<Tensor, String> {
    let element = entry["dtype"].as_str().ok_or("has no dtype")?.to_owned();
    let element_bytes = match element.as_str() {
        "F64" | "I64" | "U64" => 8usize,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => 1,
        other => return Err(format!("has the unknown dtype {other}")),
    };
    let shape = sizes(&entry["shape"]).ok_or("has no shape")?;
    let offsets = sizes(&entry["data_offsets"]).ok_or("has no data_offsets")?;
    let [begin, end] = offsets[..] else { return Err("needs two data_offsets".into()) };
    let wanted = shape
        .iter()
        .try_fold(element_bytes, |bytes, size| bytes.checked_mul(*size))
        .ok_or("is too large for this machine")?;
    if end.checked_sub(begin) != Some(wanted) {
        return Err(format!("spans bytes {begin} to {end}, but its shape needs {wanted}"));
    }
    match data_start.checked_add(end) {
        Some(file_end) if file_end <= file_bytes => {
            Ok(Tensor { element, shape, range: data_start + begin..file_end })
        }
        _ => Err(format!("ends at data byte {end}, beyond the end of the file")),
    }
}

fn sizes(value: &Value) -> Option<Vec<usize>> {
    value.as_array()?.iter().map(|size| usize::try_from(size.as_u64()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn reason(bytes: Vec<u8>) -> String {
        match Safetensors::parse("m", Cow::Owned(bytes)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("a damaged file was accepted"),
        }
    }

    #[test]
    fn numbers_are_read_in_every_floating_point_type() {
        let mut data = 1.5f32.to_le_bytes().to_vec();
        data.extend(0x3E00u16.to_le_bytes());
        data.extend(0x3FC0u16.to_le_bytes());
        data.extend(1.5f64.to_le_bytes());
        let header = r#"{"__metadata__":{"a":"b"},
            "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
            "b":{"dtype":"F16","shape":[1,1],"data_offsets":[4,6]},
            "c":{"dtype":"BF16","shape":[1],"data_offsets":[6,8]},
            "d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}"#;
        let tensors = Safetensors::parse("m", Cow::Owned(file(header, &data))).unwrap();
        for name in ["a", "b", "c", "d"] {
            assert_eq!(tensors.floats(tensors.get(name).unwrap()).unwrap(), [1.5], "{name}");
        }
        assert_eq!(tensors.get("__metadata__"), None);
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused_with_the_place() {
        let entry = |shape: &str, offsets: &str| {
            format!(r#"{{"t":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        for (bytes, expected) in [
            (vec![1, 2, 3], "less than the 8 bytes"),
            (u64::MAX.to_le_bytes().to_vec(), "over the bound"),
            (9u64.to_le_bytes().to_vec(), "cut off"),
            (file("[1]", b""), "no JSON object"),
            (file("{\"t\"", b""), "no JSON:"),
            (file(&entry("[2]", "[0,4]"), &[0; 8]), "its shape needs 8"),
            (file(&entry("[2]", "[8,0]"), &[0; 8]), "its shape needs 8"),
            (file(&entry("[2]", "[0,8]"), &[0; 7]), "beyond the end of the file"),
            (file(&entry("[4294967296,4294967296]", "[0,8]"), &[0; 8]), "too large"),
            (file(&entry("[-1]", "[0,8]"), &[0; 8]), "no shape"),
            (file(&entry("[1]", "[0]"), &[0; 8]), "two data_offsets"),
        ] {
            let message = reason(bytes);
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }
}
