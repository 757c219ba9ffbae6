//! Writer of ONNX graphs: as much of the format as a BERT encoder needs.
//!
//! ONNX is protobuf; field numbers are those of `onnx.proto3`, IR version 8, operator set 17.
//! Nodes have the name of their only output.

/// IR version of ONNX 1.10 to 1.12.
const IR_VERSION: u64 = 8;

/// The first operator set with `LayerNormalization`.
const OPERATOR_SET: u64 = 17;

const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// A graph under construction.
#[derive(Default)]
pub(crate) struct OnnxGraph {
    /// The parts of a `GraphProto` written so far.
    body: Message,
}

/// An attribute of a node.
pub(crate) enum Attribute<'a> {
    Integer(i64),
    Integers(&'a [i64]),
    Float(f32),
}

impl OnnxGraph {
    /// Adds a constant of numbers.
    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> String {
        let mut bytes = Vec::with_capacity(numbers.len() * 4);
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        self.constant(name, shape, FLOAT, &bytes)
    }

    /// Adds a constant list of integers.
    pub(crate) fn integers(&mut self, name: &str, numbers: &[i64]) -> String {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(name, &[numbers.len()], INT64, &bytes)
    }

    fn constant(&mut self, name: &str, shape: &[usize], element: u64, bytes: &[u8]) -> String {
        let mut tensor = Message::default();
        shape.iter().for_each(|size| tensor.integer(1, *size as u64));
        tensor.integer(2, element);
        tensor.bytes(8, name.as_bytes());
        tensor.bytes(9, bytes);
        self.body.bytes(5, &tensor.0);
        name.to_owned()
    }

    /// Adds an operator and returns its output.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        let mut node = Message::default();
        inputs.iter().for_each(|input| node.bytes(1, input.as_bytes()));
        node.bytes(2, output.as_bytes());
        node.bytes(3, output.as_bytes());
        node.bytes(4, operator.as_bytes());
        for (name, value) in attributes {
            node.bytes(5, &attribute(name, value).0);
        }
        self.body.bytes(1, &node.0);
        output.to_owned()
    }

    /// The model file: `inputs` are integer tensors of texts by tokens, `output` is of texts by
    /// tokens by `dimension` numbers.
    pub(crate) fn finish(mut self, inputs: &[&str], output: &str, dimension: usize) -> Vec<u8> {
        self.body.bytes(2, b"encoder");
        for input in inputs {
            self.body.bytes(11, &value(input, INT64, None).0);
        }
        self.body.bytes(12, &value(output, FLOAT, Some(dimension)).0);
        let mut operator_set = Message::default();
        operator_set.integer(2, OPERATOR_SET);
        let mut model = Message::default();
        model.integer(1, IR_VERSION);
        model.bytes(7, &self.body.0);
        model.bytes(8, &operator_set.0);
        model.0
    }
}

fn attribute(name: &str, value: &Attribute<'_>) -> Message {
    let mut message = Message::default();
    message.bytes(1, name.as_bytes());
    match value {
        Attribute::Float(number) => {
            message.float(2, *number);
            message.integer(20, 1);
        }
        Attribute::Integer(number) => {
            message.integer(3, number.cast_unsigned());
            message.integer(20, 2);
        }
        Attribute::Integers(numbers) => {
            numbers.iter().for_each(|number| message.integer(8, number.cast_unsigned()));
            message.integer(20, 7);
        }
    }
    message
}

/// A named tensor of texts by tokens, and by `last` numbers if given.
fn value(name: &str, element: u64, last: Option<usize>) -> Message {
    let mut shape = Message::default();
    for size in ["texts", "tokens"] {
        let mut dimension = Message::default();
        dimension.bytes(2, size.as_bytes());
        shape.bytes(1, &dimension.0);
    }
    if let Some(size) = last {
        let mut dimension = Message::default();
        dimension.integer(1, size as u64);
        shape.bytes(1, &dimension.0);
    }
    let mut tensor = Message::default();
    tensor.integer(1, element);
    tensor.bytes(2, &shape.0);
    let mut kind = Message::default();
    kind.bytes(1, &tensor.0);
    let mut info = Message::default();
    info.bytes(1, name.as_bytes());
    info.bytes(2, &kind.0);
    info
}

/// A protobuf message: fields one after the other.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(&mut self, field: u64, number: u64) {
        self.varint(field << 3);
        self.varint(number);
    }

    fn float(&mut self, field: u64, number: f32) {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, content: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(content.len() as u64);
        self.0.extend_from_slice(content);
    }

    /// Seven bits a byte, lowest first; the highest bit says that more follow.
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_as_protobuf_documents_it() {
        let mut message = Message::default();
        message.integer(1, 150);
        message.bytes(2, b"testing");
        message.float(3, 1.0);
        assert_eq!(
            message.0,
            [&[0x08, 0x96, 0x01, 0x12, 0x07][..], b"testing", &[0x1D, 0, 0, 0x80, 0x3F]].concat()
        );
    }
}
