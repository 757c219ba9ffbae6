#!/usr/bin/env python3
"""Writes a very small random BERT as test fixtures of crates/embed: safetensors and GGUF.

    python tiny_bert.py --out crates/embed/tests/it/fixtures

The expected vectors come from the plain numpy forward pass below, which shares nothing with the
graph that crates/embed writes. The GGUF file uses every element type that is read there; its
expected vectors are computed from the weights as the `gguf` package restores them.
"""

import argparse
import json
import math
import pathlib

import gguf
import numpy as np
from safetensors.numpy import save_file

HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 4, 64, 64
EPSILON = 1e-12
WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a b c d e ##a ##b ##c log frame view record disk search "
    "##ing ##s the of and to , . ( )"
).split()
# Each text as the tokeniser must cut it.
TEXTS = {
    "the log": ["the", "log"],
    "searching records, and views.": "search ##ing record ##s , and view ##s .".split(),
    "A frame of the DISK (abc)": "a frame of the disk ( a ##b ##c )".split(),
}
ELEMENTS = {
    "query": gguf.GGMLQuantizationType.Q4_0,
    "key": gguf.GGMLQuantizationType.Q4_1,
    "value": gguf.GGMLQuantizationType.Q5_0,
    "attention.output": gguf.GGMLQuantizationType.Q5_1,
    "intermediate": gguf.GGMLQuantizationType.Q8_0,
    "output": gguf.GGMLQuantizationType.F16,
    "word": gguf.GGMLQuantizationType.F16,
    "position": gguf.GGMLQuantizationType.BF16,
}


def random_weights():
    source = np.random.default_rng(1)

    def matrix(*shape):
        return (source.standard_normal(shape) / math.sqrt(HIDDEN)).astype(np.float16)

    def norm(name):
        gain = (1 + 0.1 * source.standard_normal(HIDDEN)).astype(np.float16)
        return {f"{name}.weight": gain, f"{name}.bias": matrix(HIDDEN)}

    def linear(name, inner, outer):
        return {f"{name}.weight": matrix(outer, inner), f"{name}.bias": matrix(outer)}

    weights = {
        "embeddings.word_embeddings.weight": matrix(len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": matrix(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": matrix(2, HIDDEN),
        **norm("embeddings.LayerNorm"),
    }
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        for role in ("query", "key", "value"):
            weights |= linear(f"{name}attention.self.{role}", HIDDEN, HIDDEN)
        weights |= linear(f"{name}attention.output.dense", HIDDEN, HIDDEN)
        weights |= norm(f"{name}attention.output.LayerNorm")
        weights |= linear(f"{name}intermediate.dense", HIDDEN, INNER)
        weights |= linear(f"{name}output.dense", INNER, HIDDEN)
        weights |= norm(f"{name}output.LayerNorm")
    return weights


def forward(weights, tokens):
    """One text, all tokens."""

    def linear(value, name):
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(value, name):
        centred = value - value.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def heads(value):
        return value.reshape(len(tokens), HEADS, -1).transpose(1, 0, 2)

    erf = np.vectorize(math.erf)
    value = weights["embeddings.word_embeddings.weight"][tokens]
    value = value + weights["embeddings.position_embeddings.weight"][: len(tokens)]
    value = value + weights["embeddings.token_type_embeddings.weight"][0]
    value = norm(value, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        query, key, mixed = (
            heads(linear(value, f"{name}attention.self.{role}"))
            for role in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(HIDDEN // HEADS)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = shares / shares.sum(axis=-1, keepdims=True)
        mixed = (shares @ mixed).transpose(1, 0, 2).reshape(len(tokens), HIDDEN)
        mixed = linear(mixed, f"{name}attention.output.dense")
        value = norm(value + mixed, f"{name}attention.output.LayerNorm")
        wide = linear(value, f"{name}intermediate.dense")
        wide = wide * (1 + erf(wide / math.sqrt(2))) / 2
        value = norm(value + linear(wide, f"{name}output.dense"), f"{name}output.LayerNorm")
    return value


def expected(weights, pooling):
    weights = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    for text, pieces in TEXTS.items():
        tokens = [WORDS.index(piece) for piece in ["[CLS]", *pieces, "[SEP]"]]
        value = forward(weights, tokens)
        vector = value.mean(axis=0) if pooling == "mean" else value[0]
        vector = vector / np.linalg.norm(vector)
        yield {"text": text, "vector": [round(float(x), 6) for x in vector]}


def write_lines(path, records):
    path.write_text("".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records))


def write_safetensors(folder, weights):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"bert.{name}": tensor for name, tensor in weights.items()},
              folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    config = {
        "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "intermediate_size": INNER, "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS, "vocab_size": len(WORDS), "layer_norm_eps": EPSILON,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling) + "\n")
    write_lines(folder / "vectors.jsonl", expected(weights, "first"))


def gguf_name(name, names):
    name, kind = name.rsplit(".", 1)
    return f"{names.get_name(name)}.{kind}"


def write_gguf(path, weights):
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, LAYERS)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")

    def stored(word):
        if word.startswith("[") and word.endswith("]"):
            return word
        return word[2:] if word.startswith("##") else "\u2581" + word

    writer.add_token_list([stored(word) for word in WORDS])
    restored = {}
    for name, tensor in weights.items():
        element = next((e for part, e in ELEMENTS.items() if part in name), None)
        if element is None or not name.endswith(".weight") or tensor.ndim == 1:
            element = gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(tensor.astype(np.float32), element)
        writer.add_tensor(gguf_name(name, names), data, raw_dtype=element)
        restored[name] = gguf.quants.dequantize(data, element).reshape(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_lines(path.with_suffix(".jsonl"), expected(restored, "mean"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    weights = random_weights()
    write_safetensors(arguments.out / "tiny-bert", weights)
    write_gguf(arguments.out / "tiny-bert.gguf", weights)


if __name__ == "__main__":
    main()
