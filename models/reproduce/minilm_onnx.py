#!/usr/bin/env python3
"""Makes minilm-l6-v2-int8.onnx from the published weights of all-MiniLM-L6-v2.

    python minilm_onnx.py --source DIR --out minilm-l6-v2-int8.onnx

DIR holds the model's `model.safetensors`; see README.md in this folder for where to get it and
which package versions were used. The graph is written node by node instead of traced, so neither
torch nor transformers is needed and the result does not depend on their exporters. Pooling and
normalisation are part of it: token numbers and mask in, one vector of length 1 a text out.
"""

import argparse
import hashlib
import math
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

SOURCE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
RESULT_SHA256 = "62463c497e9bb14e28923bfbe64ebded5718b582fb116162742259ee9e0bbc10"

HIDDEN = 384
HEADS = 12
HEAD = HIDDEN // HEADS
LAYERS = 6
LAYER_NORM_EPSILON = 1e-12
# Added to the attention score of padding: its softmax is then exactly zero in f32.
MASKED_SCORE = -10000.0


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class GraphWriter:
    """Collects nodes and constants in order. A node has the name of its output."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.constants = []

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, name, *values):
        return self.constant(name, np.array(values, np.int64))

    def number(self, name, value):
        return self.constant(name, np.array(value, np.float32))

    def node(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def layer_norm(self, value, source, output):
        gain = self.constant(f"{output}_g", self.weights[f"{source}.weight"])
        bias = self.constant(f"{output}_b", self.weights[f"{source}.bias"])
        return self.node(
            "LayerNormalization", [value, gain, bias], output, axis=-1, epsilon=LAYER_NORM_EPSILON
        )

    def linear(self, value, source, output):
        weight = self.constant(f"{output}_w", self.weights[f"{source}.weight"].T)
        bias = self.constant(f"{output}_bias", self.weights[f"{source}.bias"])
        product = self.node("MatMul", [value, weight], f"{output}_mm")
        return self.node("Add", [product, bias], output)


def embeddings(graph):
    """Sum of token, position and segment vectors, normalised; all texts are segment 0."""
    graph.constant("pos_w", graph.weights["embeddings.position_embeddings.weight"])
    graph.constant("tok_w", graph.weights["embeddings.word_embeddings.weight"])
    graph.constant("type0", graph.weights["embeddings.token_type_embeddings.weight"][0])
    tokens = graph.node("Gather", ["tok_w", "input_ids"], "tok", axis=0)
    length = graph.node("Shape", ["input_ids"], "slen", start=1, end=2)
    zero = graph.integers("z0", 0)
    positions = graph.node("Slice", ["pos_w", zero, length, zero], "pos")
    constant_part = graph.node("Add", [positions, "type0"], "postype")
    total = graph.node("Add", [tokens, constant_part], "emb0")
    return graph.layer_norm(total, "embeddings.LayerNorm", "emb")


def attention_bias(graph):
    """0 for tokens and MASKED_SCORE for padding, shaped to be added to the scores."""
    graph.node("Cast", ["attention_mask"], "maskf", to=TensorProto.FLOAT)
    graph.node("Unsqueeze", ["maskf", "ax12"], "mask4")
    graph.number("one", 1)
    graph.number("neg", MASKED_SCORE)
    graph.node("Sub", ["one", "mask4"], "inv")
    return graph.node("Mul", ["inv", "neg"], "bias4")


def attention(graph, value, layer, source):
    """Multi-head self-attention before its output projection."""
    # Keys are laid out transposed, ready for the product with the queries.
    orders = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
    heads = {}
    for role, order in orders.items():
        projected = graph.linear(value, f"{source}attention.self.{role}", f"{layer}{role}")
        split = graph.node("Reshape", [projected, "shp_h"], f"{layer}{role}_r")
        heads[role] = graph.node("Transpose", [split], f"{layer}{role}_t", perm=order)
    scores = graph.node("MatMul", [heads["query"], heads["key"]], f"{layer}qk")
    scaled = graph.node("Mul", [scores, "scale"], f"{layer}qks")
    masked = graph.node("Add", [scaled, "bias4"], f"{layer}qkm")
    shares = graph.node("Softmax", [masked], f"{layer}att", axis=-1)
    mixed = graph.node("MatMul", [shares, heads["value"]], f"{layer}ctx")
    back = graph.node("Transpose", [mixed], f"{layer}ctx_t", perm=[0, 2, 1, 3])
    return graph.node("Reshape", [back, "shp_f"], f"{layer}ctx_f")


def gelu(graph, value, layer):
    """The exact form, x * (1 + erf(x / sqrt(2))) / 2, as the weights were trained with."""
    scaled = graph.node("Mul", [value, "rs2"], f"{layer}g1")
    erf = graph.node("Erf", [scaled], f"{layer}g2")
    shifted = graph.node("Add", [erf, "one"], f"{layer}g3")
    doubled = graph.node("Mul", [value, shifted], f"{layer}g4")
    return graph.node("Mul", [doubled, "half"], f"{layer}gelu")


def encoder_layer(graph, value, number):
    layer, source = f"l{number}_", f"encoder.layer.{number}."
    mixed = attention(graph, value, layer, source)
    projected = graph.linear(mixed, f"{source}attention.output.dense", f"{layer}ao")
    residual = graph.node("Add", [projected, value], f"{layer}res1")
    middle = graph.layer_norm(residual, f"{source}attention.output.LayerNorm", f"{layer}ln1")
    wide = graph.linear(middle, f"{source}intermediate.dense", f"{layer}ff")
    narrow = graph.linear(gelu(graph, wide, layer), f"{source}output.dense", f"{layer}fo")
    residual = graph.node("Add", [narrow, middle], f"{layer}res2")
    return graph.layer_norm(residual, f"{source}output.LayerNorm", f"{layer}ln2")


def mean_and_normalise(graph, value):
    """Mean over the tokens that are not padding, scaled to length 1."""
    graph.node("Unsqueeze", ["maskf", "ax_last"], "mask3")
    graph.node("Mul", [value, "mask3"], "masked")
    graph.node("ReduceSum", ["masked", "ax1"], "summed", keepdims=0)
    graph.node("ReduceSum", ["maskf", "ax1"], "cnt", keepdims=1)
    graph.node("Div", ["summed", "cnt"], "mean")
    graph.node("Mul", ["mean", "mean"], "sq")
    graph.node("ReduceSum", ["sq", "ax_last"], "ss", keepdims=1)
    graph.node("Sqrt", ["ss"], "nrm")
    graph.node("Div", ["mean", "nrm"], "sentence_embedding")


def build(weights):
    graph = GraphWriter(weights)
    graph.integers("ax_last", -1)
    graph.integers("ax1", 1)
    graph.integers("ax12", 1, 2)
    value = embeddings(graph)
    attention_bias(graph)
    graph.integers("shp_h", 0, 0, HEADS, HEAD)
    graph.integers("shp_f", 0, 0, HIDDEN)
    graph.number("scale", 1 / math.sqrt(HEAD))
    graph.number("rs2", 1 / math.sqrt(2))
    graph.number("half", 0.5)
    for number in range(LAYERS):
        value = encoder_layer(graph, value, number)
    mean_and_normalise(graph, value)

    def tokens(name):
        return helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"])

    output = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["b", HIDDEN])
    body = helper.make_graph(
        graph.nodes, "minilm", [tokens("input_ids"), tokens("attention_mask")], [output],
        graph.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def quantise(source, destination):
    """int8 weights with a scale for each output channel, activations scaled while running.

    Seven bits instead of eight (`reduce_range`): processors without VNNI add two products in 16
    bits, which would saturate. Size and speed are the same.
    """
    quantize_dynamic(
        source, destination, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--keep-float", type=pathlib.Path, help="where to keep the f32 graph")
    arguments = parser.parse_args()

    source = arguments.source / "model.safetensors"
    if sha256(source) != SOURCE_SHA256:
        sys.exit(f"{source} has SHA-256 {sha256(source)} instead of {SOURCE_SHA256}")
    model = build(load_file(source))
    with tempfile.TemporaryDirectory() as folder:
        exact = arguments.keep_float or pathlib.Path(folder) / "minilm-f32.onnx"
        onnx.save(model, exact)
        quantise(exact, arguments.out)
    found = sha256(arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, sha256 {found}")
    if found != RESULT_SHA256:
        sys.exit(f"not byte for byte the shipped file ({RESULT_SHA256}); versions may differ")


if __name__ == "__main__":
    main()
