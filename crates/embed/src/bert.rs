//! A BERT encoder from its weights: the graph is written as ONNX, so that the runtime that runs
//! exported models also runs those that come as bare weights.

use serde_json::Value;

use crate::error::EmbedError;
use crate::onnx_graph::{Attribute, OnnxGraph};

/// The sizes of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BertSizes {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) inner: usize,
    pub(crate) positions: usize,
    pub(crate) vocabulary: usize,
    pub(crate) norm_epsilon: f32,
}

/// Largest size that is accepted of any one dimension; the largest BERT has 1,024, 24, 16, 4,096,
/// 512 and a few hundred thousand.
const SIZE_MAX: usize = 1 << 20;

/// Where weights come from, by their names in the original checkpoint, such as
/// `encoder.layer.0.output.dense.weight`.
pub(crate) trait BertWeights {
    /// The numbers of the tensor called `name`, which has `shape`.
    ///
    /// # Errors
    /// [`EmbedError::Damaged`] when it is missing or has another shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EmbedError>;
}

impl BertSizes {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`EmbedError::UnsupportedModel`] when it is no BERT as this file knows it;
    /// [`EmbedError::Damaged`] when a size is missing.
    pub(crate) fn from_config(file: &str, config: &Value) -> Result<Self, EmbedError> {
        let unsupported = |reason: String| EmbedError::UnsupportedModel {
            file: file.to_owned(),
            reason: format!("{reason} is not supported: export the model to ONNX"),
        };
        let text = |name: &str, default: &str| config[name].as_str().unwrap_or(default).to_owned();
        for (name, default, wanted) in [
            ("model_type", "none", "bert"),
            ("hidden_act", "gelu", "gelu"),
            ("position_embedding_type", "absolute", "absolute"),
        ] {
            if text(name, default) != wanted {
                return Err(unsupported(format!("{name} {}", text(name, default))));
            }
        }
        let size = |name: &str| -> Result<usize, EmbedError> {
            let size = config[name].as_u64().and_then(|size| usize::try_from(size).ok());
            size.ok_or_else(|| EmbedError::Damaged {
                file: file.to_owned(),
                reason: format!("{name} is {}", config[name]),
            })
        };
        let sizes = Self {
            hidden: size("hidden_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            inner: size("intermediate_size")?,
            positions: size("max_position_embeddings")?,
            vocabulary: size("vocab_size")?,
            norm_epsilon: config["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
        };
        sizes.check(file).map(|()| sizes)
    }

    /// Refuses sizes that contradict each other or ask for absurd amounts of memory.
    pub(crate) fn check(&self, file: &str) -> Result<(), EmbedError> {
        let Self { hidden, layers, heads, inner, positions, vocabulary, norm_epsilon } = *self;
        let all = [hidden, layers, heads, inner, positions, vocabulary];
        let in_range = all.iter().all(|size| (1..=SIZE_MAX).contains(size));
        if in_range && hidden.is_multiple_of(heads) && norm_epsilon.is_finite() {
            return Ok(());
        }
        let reason = format!("its sizes {self:?} are impossible");
        Err(EmbedError::Damaged { file: file.to_owned(), reason })
    }
}

/// Writes the encoder as ONNX: token numbers and mask in, the vectors of all tokens out.
///
/// # Errors
/// Whatever `weights` returns.
pub(crate) fn onnx_from(
    sizes: &BertSizes,
    weights: &dyn BertWeights,
) -> Result<Vec<u8>, EmbedError> {
    let mut writer = Writer { graph: OnnxGraph::default(), sizes, weights };
    writer.constants();
    writer.mask();
    let mut value = writer.embeddings()?;
    for layer in 0..sizes.layers {
        value = writer.layer(&value, layer)?;
    }
    writer.graph.node("Identity", &[&value], "last_hidden_state", &[]);
    let inputs = ["input_ids", "attention_mask"];
    Ok(writer.graph.finish(&inputs, "last_hidden_state", sizes.hidden))
}

struct Writer<'a> {
    graph: OnnxGraph,
    sizes: &'a BertSizes,
    weights: &'a dyn BertWeights,
}

impl Writer<'_> {
    fn constants(&mut self) {
        let BertSizes { hidden, heads, .. } = *self.sizes;
        let head = hidden / heads;
        self.graph.integers("zero", &[0]);
        self.graph.integers("mask_axes", &[1, 2]);
        // 0 keeps a size of the input.
        self.graph.integers("split_shape", &[0, 0, heads as i64, head as i64]);
        self.graph.integers("joined_shape", &[0, 0, hidden as i64]);
        for (name, number) in [
            ("scale", 1.0 / (head as f32).sqrt()),
            ("one", 1.0),
            ("half", 0.5),
            ("root_half", std::f32::consts::FRAC_1_SQRT_2),
            // Makes the share of padding exactly zero in f32.
            ("masked", -10_000.0),
        ] {
            self.graph.floats(name, &[], &[number]);
        }
    }

    /// 0 for tokens and a large negative score for padding.
    fn mask(&mut self) {
        let graph = &mut self.graph;
        graph.node("Cast", &["attention_mask"], "mask", &[("to", Attribute::Integer(1))]);
        graph.node("Unsqueeze", &["mask", "mask_axes"], "mask4", &[]);
        graph.node("Sub", &["one", "mask4"], "padding", &[]);
        graph.node("Mul", &["padding", "masked"], "mask_score", &[]);
    }

    /// Sum of token, position and segment vectors, normalised; every text is segment 0.
    fn embeddings(&mut self) -> Result<String, EmbedError> {
        let BertSizes { hidden, positions, vocabulary, .. } = *self.sizes;
        self.constant("embeddings.word_embeddings.weight", &[vocabulary, hidden])?;
        self.constant("embeddings.position_embeddings.weight", &[positions, hidden])?;
        let segments = "embeddings.token_type_embeddings.weight";
        let segment = self.weights.tensor(segments, &[2, hidden])?;
        self.graph.floats("segment", &[hidden], &segment[..hidden]);
        let graph = &mut self.graph;
        graph.node("Gather", &["embeddings.word_embeddings.weight", "input_ids"], "tokens", &[]);
        let ends = [("start", Attribute::Integer(1)), ("end", Attribute::Integer(2))];
        graph.node("Shape", &["input_ids"], "length", &ends);
        let places = ["embeddings.position_embeddings.weight", "zero", "length", "zero"];
        graph.node("Slice", &places, "places", &[]);
        graph.node("Add", &["places", "segment"], "placed", &[]);
        graph.node("Add", &["tokens", "placed"], "embedded", &[]);
        self.norm("embedded", "embeddings.LayerNorm")
    }

    fn layer(&mut self, value: &str, layer: usize) -> Result<String, EmbedError> {
        let BertSizes { hidden, inner, .. } = *self.sizes;
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let mixed = self.attention(value, &name("attention"))?;
        let output = self.linear(&mixed, &name("attention.output.dense"), hidden, hidden)?;
        let sum = self.add(&output, value);
        let middle = self.norm(&sum, &name("attention.output.LayerNorm"))?;
        let wide = self.linear(&middle, &name("intermediate.dense"), hidden, inner)?;
        let active = self.gelu(&wide);
        let narrow = self.linear(&active, &name("output.dense"), inner, hidden)?;
        let sum = self.add(&narrow, &middle);
        self.norm(&sum, &name("output.LayerNorm"))
    }

    fn attention(&mut self, value: &str, name: &str) -> Result<String, EmbedError> {
        // Keys are laid out transposed, ready for the product with the queries.
        let query = self.heads(value, &format!("{name}.self.query"), &[0, 2, 1, 3])?;
        let key = self.heads(value, &format!("{name}.self.key"), &[0, 2, 3, 1])?;
        let value = self.heads(value, &format!("{name}.self.value"), &[0, 2, 1, 3])?;
        let part = |step: &str| format!("{name}.{step}");
        let graph = &mut self.graph;
        let scores = graph.node("MatMul", &[&query, &key], &part("products"), &[]);
        let scaled = graph.node("Mul", &[&scores, "scale"], &part("scaled"), &[]);
        let masked = graph.node("Add", &[&scaled, "mask_score"], &part("scores"), &[]);
        let last = [("axis", Attribute::Integer(-1))];
        let shares = graph.node("Softmax", &[&masked], &part("shares"), &last);
        let mixed = graph.node("MatMul", &[&shares, &value], &part("mixed"), &[]);
        let order = [("perm", Attribute::Integers(&[0, 2, 1, 3]))];
        let back = graph.node("Transpose", &[&mixed], &part("back"), &order);
        Ok(graph.node("Reshape", &[&back, "joined_shape"], &part("joined"), &[]))
    }

    /// A projection cut into heads, its axes in `order`.
    fn heads(&mut self, value: &str, name: &str, order: &[i64]) -> Result<String, EmbedError> {
        let hidden = self.sizes.hidden;
        let projected = self.linear(value, name, hidden, hidden)?;
        let split = format!("{name}.split");
        self.graph.node("Reshape", &[&projected, "split_shape"], &split, &[]);
        let order = [("perm", Attribute::Integers(order))];
        Ok(self.graph.node("Transpose", &[&split], &format!("{name}.heads"), &order))
    }

    /// The exact form, x (1 + erf(x / √2)) / 2.
    fn gelu(&mut self, value: &str) -> String {
        let part = |step: &str| format!("{value}.gelu.{step}");
        let graph = &mut self.graph;
        let scaled = graph.node("Mul", &[value, "root_half"], &part("scaled"), &[]);
        let erf = graph.node("Erf", &[&scaled], &part("erf"), &[]);
        let shifted = graph.node("Add", &[&erf, "one"], &part("shifted"), &[]);
        let double = graph.node("Mul", &[value, &shifted], &part("double"), &[]);
        graph.node("Mul", &[&double, "half"], &part("value"), &[])
    }

    fn add(&mut self, left: &str, right: &str) -> String {
        self.graph.node("Add", &[left, right], &format!("{left}.sum"), &[])
    }

    fn linear(
        &mut self,
        value: &str,
        name: &str,
        from: usize,
        to: usize,
    ) -> Result<String, EmbedError> {
        let weight = self.weights.tensor(&format!("{name}.weight"), &[to, from])?;
        // Checkpoints store a row for each output, the product wants a row for each input.
        let mut transposed = vec![0.0; weight.len()];
        for (output, row) in weight.chunks_exact(from).enumerate() {
            for (input, number) in row.iter().enumerate() {
                transposed[input * to + output] = *number;
            }
        }
        let matrix = self.graph.floats(&format!("{name}.matrix"), &[from, to], &transposed);
        let bias = self.constant(&format!("{name}.bias"), &[to])?;
        let product = self.graph.node("MatMul", &[value, &matrix], &format!("{name}.product"), &[]);
        Ok(self.graph.node("Add", &[&product, &bias], &format!("{name}.value"), &[]))
    }

    fn norm(&mut self, value: &str, name: &str) -> Result<String, EmbedError> {
        let gain = self.constant(&format!("{name}.weight"), &[self.sizes.hidden])?;
        let bias = self.constant(&format!("{name}.bias"), &[self.sizes.hidden])?;
        let attributes = [
            ("axis", Attribute::Integer(-1)),
            ("epsilon", Attribute::Float(self.sizes.norm_epsilon)),
        ];
        let inputs = [value, &gain, &bias];
        Ok(self.graph.node("LayerNormalization", &inputs, &format!("{name}.value"), &attributes))
    }

    fn constant(&mut self, name: &str, shape: &[usize]) -> Result<String, EmbedError> {
        let numbers = self.weights.tensor(name, shape)?;
        Ok(self.graph.floats(name, shape, &numbers))
    }
}
