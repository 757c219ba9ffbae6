#!/usr/bin/env python3
"""Distils a static token table from all-MiniLM-L6-v2 and fits it to the model's own output.

    python static_table.py --source DIR --float minilm-f32.onnx --out static-256 TEXTS...

DIR holds `tokenizer.json`; `minilm-f32.onnx` is what `minilm_onnx.py --keep-float` leaves; TEXTS
are files or folders of UTF-8 text that is like what will be searched. No relevance judgement and
no test collection is used: the only teacher is the model.

1. Each entry of the vocabulary goes through the model alone, between [CLS] and [SEP]; the last
   layer at its position is its raw vector. Entries are centred and weighted by a / (a + p), where
   p is how often they occur in TEXTS.
2. A gain and an offset for each entry and one linear map for all are fitted so that the mean over
   a text's entries points where the model's vector of the text points.
3. The result is reduced to 256 dimensions along the main axes of the texts' vectors, and each row
   is rounded to 8 bits with a scale of its own.

Written with numpy alone; with one seed and one machine the result is the same each time.
"""

import argparse
import pathlib
import random
import shutil

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

# Output of the last encoder layer in the graph of minilm_onnx.py.
LAST_LAYER = "l5_ln2"
HIDDEN = 384
CLS, SEP, UNKNOWN, PADDING = 101, 102, 100, 0
TOKENS_MAX = 256
FREQUENCY_WEIGHT = 1e-5
TEMPERATURE = 0.05
NEIGHBOUR_WEIGHT = 0.5


class Teacher:
    """The model, in f32."""

    def __init__(self, path, threads):
        model = onnx.load(path)
        layer = helper.make_tensor_value_info(LAST_LAYER, TensorProto.FLOAT, ["b", "s", HIDDEN])
        model.graph.output.append(layer)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def run(self, output, rows):
        length = max(len(row) for row in rows)
        tokens = np.full((len(rows), length), PADDING, np.int64)
        mask = np.zeros((len(rows), length), np.int64)
        for at, row in enumerate(rows):
            tokens[at, : len(row)] = row
            mask[at, : len(row)] = 1
        return self.session.run([output], {"input_ids": tokens, "attention_mask": mask})[0]

    def token_vectors(self, count):
        parts = []
        for start in range(0, count, 1024):
            rows = [[CLS, token, SEP] for token in range(start, min(start + 1024, count))]
            parts.append(self.run(LAST_LAYER, rows)[:, 1, :])
        return np.concatenate(parts)

    def text_vectors(self, texts):
        """Vectors of token lists, computed in order of length so that little is padded."""
        vectors = np.zeros((len(texts), HIDDEN), np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            rows = [[CLS, *texts[at][: TOKENS_MAX - 2], SEP] for at in batch]
            vectors[batch] = self.run("sentence_embedding", rows)
        return vectors


def paragraphs(paths):
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                try:
                    text = file.read_bytes().decode("utf-8")
                except UnicodeDecodeError:
                    continue
                yield from (part.strip() for part in text.split("\n\n"))


def collect(paths, count_max, source):
    """Different paragraphs of some length, and for each second one a crop as short as a query."""
    found = {text: None for text in paragraphs(paths) if 40 <= len(text) <= 2000}
    texts = list(found)
    source.shuffle(texts)
    texts = texts[:count_max]
    for text in texts[::2]:
        words = text.split()
        length = source.randint(2, 12)
        if len(words) > length:
            start = source.randrange(len(words) - length)
            texts.append(" ".join(words[start : start + length]))
    source.shuffle(texts)
    return texts


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


def softmax(rows):
    rows = np.exp(rows - rows.max(axis=1, keepdims=True))
    return rows / rows.sum(axis=1, keepdims=True)


def loss_gradient(student, teacher):
    """Loss of unit vectors and its gradient with respect to the student's.

    Direction (2 - 2 cos), telling the own teacher vector from those of the batch (InfoNCE), and
    having the same neighbours in the batch as the teacher (Kullback-Leibler divergence).
    """
    count = len(student)
    diagonal = np.arange(count)
    cosine = np.einsum("ij,ij->i", student, teacher)
    loss, gradient = 2 - 2 * cosine.mean(), -2 * teacher / count

    shares = softmax(student @ teacher.T / TEMPERATURE)
    loss -= np.log(shares[diagonal, diagonal] + 1e-12).mean()
    shares[diagonal, diagonal] -= 1
    gradient += shares @ teacher / (TEMPERATURE * count)

    near, wanted = student @ student.T / TEMPERATURE, teacher @ teacher.T / TEMPERATURE
    near[diagonal, diagonal] = wanted[diagonal, diagonal] = -1e9
    near, wanted = softmax(near), softmax(wanted)
    divergence = (wanted * (np.log(wanted + 1e-12) - np.log(near + 1e-12))).sum(axis=1).mean()
    difference = (near - wanted) / (TEMPERATURE * count)
    gradient += NEIGHBOUR_WEIGHT * (difference + difference.T) @ student
    return loss + NEIGHBOUR_WEIGHT * divergence, gradient


class Adam:
    """Adam (Kingma and Ba, 2015); rows that a step does not touch keep their moments."""

    def __init__(self, value, rate):
        self.value, self.rate, self.steps = value, rate, 0
        self.first, self.second = np.zeros_like(value), np.zeros_like(value)

    def step(self, rows, gradient):
        self.steps += 1
        self.first[rows] = 0.9 * self.first[rows] + 0.1 * gradient
        self.second[rows] = 0.999 * self.second[rows] + 0.001 * gradient**2
        first = self.first[rows] / (1 - 0.9**self.steps)
        second = self.second[rows] / (1 - 0.999**self.steps)
        self.value[rows] -= self.rate * first / (np.sqrt(second) + 1e-8)


class Table:
    """Row of token t: gain[t] * (raw[t] @ linear + offset[t])."""

    def __init__(self, raw, weights):
        self.raw = raw
        self.gain = Adam(weights.astype(np.float32)[:, None], 0.01)
        self.linear = Adam(np.eye(HIDDEN, dtype=np.float32), 0.001)
        self.offset = Adam(np.zeros_like(raw), 0.01)

    def rows(self, tokens):
        inner = self.raw[tokens] @ self.linear.value + self.offset.value[tokens]
        return self.gain.value[tokens] * inner, inner

    def train(self, texts, teacher):
        used, positions = np.unique(np.concatenate(texts), return_inverse=True)
        counts = np.zeros((len(texts), len(used)), np.float32)
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        np.add.at(counts, (owner, positions), 1)
        counts /= counts.sum(axis=1, keepdims=True)

        rows, inner = self.rows(used)
        sums = counts @ rows
        length = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        student = sums / length
        loss, gradient = loss_gradient(student, teacher)
        gradient -= student * np.einsum("ij,ij->i", student, gradient)[:, None]
        row_gradient = counts.T @ (gradient / length)

        inner_gradient = self.gain.value[used] * row_gradient
        self.gain.step(used, (row_gradient * inner).sum(axis=1, keepdims=True))
        self.linear.step(slice(None), self.raw[used].T @ inner_gradient)
        self.offset.step(used, inner_gradient)
        return loss


def embed(texts, rows):
    return unit(np.stack([rows[text].mean(axis=0) for text in texts]))


def reduce(rows, texts, dimension):
    """Main axes of the texts' vectors, not centred, so that cosines are kept."""
    vectors = embed(texts, rows)
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    return rows @ axes[:, ::-1][:, :dimension]


def quantise(rows):
    scales = np.maximum(np.abs(rows).max(axis=1), 1e-12) / 127
    return np.rint(rows / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def agreement(rows, texts, teacher):
    """How much the neighbourhoods of table and teacher agree: correlation of all cosines."""
    student = embed(texts, rows)
    upper = np.triu_indices(len(texts), 1)
    return np.corrcoef((student @ student.T)[upper], (teacher @ teacher.T)[upper])[0, 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--float", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--compare", type=pathlib.Path, help="another table to measure beside")
    parser.add_argument("--texts-max", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("texts", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()

    source = random.Random(arguments.seed)
    tokenizer = Tokenizer.from_file(str(arguments.source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = collect(arguments.texts, arguments.texts_max, source)
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    tokens = [np.array([t for t in text.ids if t != UNKNOWN][:512]) for text in encoded]
    tokens = [text for text in tokens if len(text)]
    held = max(1, min(1000, len(tokens) // 20))
    print(f"{len(tokens)} texts, {held} of them held back")

    teacher = Teacher(getattr(arguments, "float"), arguments.threads)
    wanted = teacher.text_vectors(tokens)
    raw = teacher.token_vectors(tokenizer.get_vocab_size())
    raw -= raw.mean(axis=0)
    frequency = np.bincount(np.concatenate(tokens), minlength=len(raw)) / sum(map(len, tokens))
    table = Table(raw, FREQUENCY_WEIGHT / (FREQUENCY_WEIGHT + frequency))

    probe, probe_wanted = tokens[:held], wanted[:held]
    print(f"before the fit: {agreement(table.rows(slice(None))[0], probe, probe_wanted):.4f}")
    order = list(range(held, len(tokens)))
    for epoch in range(arguments.epochs):
        source.shuffle(order)
        losses = []
        for start in range(0, len(order) - 1, arguments.batch):
            batch = order[start : start + arguments.batch]
            losses.append(table.train([tokens[at] for at in batch], wanted[batch]))
        now = agreement(table.rows(slice(None))[0], probe, probe_wanted)
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, agreement {now:.4f}", flush=True)

    rows = reduce(table.rows(slice(None))[0], tokens[held:], arguments.dimension)
    embeddings, scales = quantise(rows)
    restored = embeddings.astype(np.float32) * scales[:, None]
    print(f"reduced and rounded: {agreement(restored, probe, probe_wanted):.4f}")
    if arguments.compare:
        other = load_file(arguments.compare / "model.safetensors")
        other = other["embeddings"].astype(np.float32) * other["weights"][:, None]
        print(f"{arguments.compare}: {agreement(other, probe, probe_wanted):.4f}")

    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file({"weights": scales, "embeddings": embeddings}, arguments.out / "model.safetensors")
    shipped = pathlib.Path(__file__).resolve().parent.parent / "static-256"
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(shipped / name, arguments.out / name)


if __name__ == "__main__":
    main()
