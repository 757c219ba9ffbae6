#!/usr/bin/env python3
"""Compares the WordPiece of crates/embed with the reference tokeniser, token for token.

    cargo build --release -p mainstay-embed --example tokens
    python check_tokens.py --tokenizer tokenizer.json --program target/release/examples/tokens \\
        [TEXTS...]

TEXTS are files or folders of UTF-8 text: `.jsonl` by its fields "text", "title" and "body", all
else by paragraphs. Besides them every code point is tried alone and inside a word, and random
strings of characters that are known to be troublesome.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

from tokenizers import Tokenizer

# Characters around which normalisation, reordering and cutting could differ.
TROUBLE = (
    list("aA1 _-.[]<>#\t\n\r\x00\x01\x7f")
    + [chr(c) for c in (0xA0, 0xAD, 0xC5, 0xDF, 0x130, 0x131, 0x149, 0x1C5, 0x300, 0x301, 0x323)]
    + [chr(c) for c in (0x345, 0x3A3, 0x3C2, 0x5B0, 0x5B4, 0x64B, 0x651, 0x93C, 0x9BC, 0xE33)]
    + [chr(c) for c in (0xF71, 0xF72, 0x1100, 0x1161, 0x11A8, 0x1E9E, 0x200B, 0x200D, 0x2028)]
    + [chr(c) for c in (0x2029, 0x202E, 0x2126, 0x212B, 0x2260, 0x3000, 0x302E, 0x3099, 0x4E00)]
    + [chr(c) for c in (0xAC00, 0xAC01, 0xE000, 0xF900, 0xFB01, 0xFB1D, 0xFE0F, 0xFEFF, 0xFFFD)]
    + [chr(c) for c in (0x1D15E, 0x1D165, 0x1D400, 0x1F600, 0x1F3FD, 0x20000, 0x2F800, 0x10FFFF)]
    + ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "[mask]", "x" * 99, "é" * 51]
)


def code_points():
    for code in range(0x110000):
        if not 0xD800 <= code <= 0xDFFF:
            yield f"a{chr(code)}b {chr(code)} é{chr(code)}\u0323"


def trouble(count, seed):
    source = random.Random(seed)
    for _ in range(count):
        yield "".join(source.choices(TROUBLE, k=source.randint(0, 40)))


def texts_of(path):
    if path.is_dir():
        for inner in sorted(path.rglob("*")):
            if inner.is_file():
                yield from texts_of(inner)
        return
    try:
        content = path.read_bytes().decode("utf-8")
    except (UnicodeDecodeError, OSError):
        return
    if path.suffix == ".jsonl":
        for line in content.split("\n"):
            if line.strip():
                record = json.loads(line)
                for field in ("text", "title", "body"):
                    if isinstance(record.get(field), str):
                        yield record[field]
    else:
        yield from content.split("\n\n")


def compare(name, texts, reference, program):
    texts = list(texts)
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = subprocess.run([program], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    ours = [[int(n) for n in line.split()] for line in done.stdout.decode().split("\n")[:-1]]
    theirs = [e.ids for e in reference.encode_batch_fast(texts, add_special_tokens=False)]
    assert len(ours) == len(theirs) == len(texts)
    different = [n for n in range(len(texts)) if ours[n] != theirs[n]]
    print(f"{name}: {len(different)} of {len(texts)} texts differ")
    for n in different[:20]:
        print(f"  {texts[n][:80]!a}\n    ours   {ours[n][:20]}\n    theirs {theirs[n][:20]}")
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("texts", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    reference = Tokenizer.from_file(arguments.tokenizer)
    # The published file cuts and fills to 128 tokens; the cutting is the embedder's part.
    reference.no_truncation()
    reference.no_padding()
    rounds = [("code points", code_points()), ("trouble", trouble(50_000, arguments.seed))]
    rounds += [(str(path), texts_of(path)) for path in arguments.texts]
    failed = [compare(name, texts, reference, arguments.program) for name, texts in rounds]
    sys.exit(1 if any(failed) else 0)


if __name__ == "__main__":
    main()
