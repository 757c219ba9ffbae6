#!/usr/bin/env python3
"""Writes the test fixtures of crates/embed: tokens and vectors by the reference implementations.

    python golden.py --source DIR --float minilm-f32.onnx --out crates/embed/tests/it/fixtures

Tokens come from the `tokenizers` package with the published `tokenizer.json`, vectors from
onnxruntime with the f32 graph that `minilm_onnx.py --keep-float` leaves: another tokeniser, another
runtime and unquantised weights, so agreement with them says something.
"""

import argparse
import json
import pathlib

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

TOKENS_MAX = 256

VECTOR_TEXTS = [
    "rust",
    "how do I restore a backup",
    "The breaker opens after five consecutive failures and lets one probe through.",
    "Ein voller Datenträger darf keine bestätigten Daten kosten.",
    "検索エンジンは文書を探します。",
    "fn add(left: u64, right: u64) -> u64 { left + right }",
    "SELECT name, count(*) FROM hits GROUP BY name HAVING count(*) > 10;",
    "for path in sorted(folder.rglob('*.py')):\n    print(path, path.stat().st_size)",
    "Naïve café – 12 °C, ½ price! 🙂",
    "A log is a file to which records are only ever appended. " * 3,
    "Each write is acknowledged when its record is durable. " * 12,
    "Search finds words; meaning needs vectors, and vectors need a model. " * 40,
]

TOKEN_TEXTS = VECTOR_TEXTS + [
    "",
    " \t\r\n ",
    "Hello, World! don't e-mail me@example.com -- ok?",
    "snake_case camelCase HTTPServer2 __init__ x+=1; a->b::c<d>",
    "ÀÉÎÕÜ àéîõü ß ẞ İ ı ſ Ǆ ǅ ŉ ﬁ ﬀ Ⅷ ② ª º",
    "e\u0301 o\u0323\u0302 q\u0307\u0323 \u0301leading mark",
    "zero\u200bwidth\u200djoiner soft\u00adhyphen bom\ufeffmark nul\x00bell\x07esc\x1b",
    "line\u2028separator paragraph\u2029separator nbsp\u00a0space ideographic\u3000space nel\u0085x",
    "replacement\ufffdcharacter private\ue000use \U0010ffff",
    "한국어 검색 엔진 日本語 検索 ひらがな カタカナ 中文搜索 漢字豈更車",
    "русский ПОИСК Ёлка ελληνικά ΑΝΑΖΉΤΗΣΗ σς",
    "हिन्दी खोज ไทยค้นหา العربية بَحْثٌ עִבְרִית",
    "👩🏽‍💻 👨‍👩‍👧 🇩🇪 ☃️ 😀x😀",
    "[CLS] [SEP] [MASK] [UNK] [PAD] [cls] [[MASK]] a[MASK]b",
    "##ing ## # ###able",
    "x" * 100 + " " + "y" * 101,
    "§ ¶ « » “quoted” ‘single’ … — – † ‡ ‰ € £ ¥ © ® ™ ° ± × ÷ ¬ ¦",
    "1234567890 3.14159 1,000,000 0x1F 1e-9 v2.0.1-rc.1",
    "https://example.org/a/b?c=d&e=f#g",
    "\u1d15e \U0001d15e \U0001d400 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U00020000 \U0002f800 \u302e\u3099",
    "\u05c8 \u061d \u166d \u1734 \U0001171e \U000111c9 \u2e52",
]


def vectors(texts, tokenizer, session):
    for text in texts:
        tokens = tokenizer.encode(text)
        inputs = {
            "input_ids": np.array([tokens.ids], np.int64),
            "attention_mask": np.array([tokens.attention_mask], np.int64),
        }
        yield session.run(["sentence_embedding"], inputs)[0][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--float", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokens = [
        {"text": text, "tokens": tokenizer.encode(text, add_special_tokens=False).ids}
        for text in TOKEN_TEXTS
    ]
    tokenizer.enable_truncation(TOKENS_MAX)
    session = onnxruntime.InferenceSession(getattr(arguments, "float"))
    rows = [
        {"text": text, "vector": [round(float(x), 5) for x in vector]}
        for text, vector in zip(VECTOR_TEXTS, vectors(VECTOR_TEXTS, tokenizer, session))
    ]
    for name, records in (("tokens.jsonl", tokens), ("minilm_vectors.jsonl", rows)):
        lines = (json.dumps(record, separators=(",", ":")) + "\n" for record in records)
        (arguments.out / name).write_text("".join(lines))


if __name__ == "__main__":
    main()
