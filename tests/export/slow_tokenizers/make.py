"""Make the folders beside this file, and what the slow tokenizers make of texts.

It needs the package sentencepiece, which nothing else here does. From the repository's root:

    python tests/export/slow_tokenizers/make.py
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unicodedata import normalize

HERE = Path(__file__).parent
SENTENCES = [
    "Le café naïf où l'été brûle déjà, mon frère.",
    "Straße über Köln und München, schön!",
    "Это просто пример текста.",
    "中国人说中文\uff0c日本人说日语。",
]
RULES = {
    **dict.fromkeys(["\t", "\n", "\u3000", "\u2581"], " "),
    **{chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F)},
    "\u200b": "",
    "\ufb01": "fi",
    "\u2460": "1",
    "\u2026": "...",
}
LINES = [
    *("", " ", "a", "  two  spaces ", "\ta\n b\u3000c", "\u2581a \u2581b", "foo" * 60),
    *(
        ">>fra<< Hello there.",
        ">>fra<<Hello",
        "</s>a<pad>b <unk>",
        "__fr__ text __de__",
        "<mask> a",
    ),
    *("中国", "I like 中国 and 中文 and 中国人", "Привет, текста", "naïve Straße café", "日本 ß"),
    *("e\u0301te\u0301", "e\u0323\u0302", "a\u0300\u0301b", "\ufb01re \u2460 \uff21\uff22\uff43"),
    *(
        "\U0001f916 \U0001f916\U0001f916",
        "\U000f0000 x\U000f0001",
        "हिन्दी",
        "a\u200bb",
        "…",
        "\r\n",
    ),
    *("\u0301leading", "x = [1, 2.5]  # a comment", "Hello , world ! it 's  ' m", "<s> a </s>"),
]
ALPHABET = "abc \u2581.,é中国ß\u0301<>/s日\u2460\ufb01\t\nЯ"
LANGUAGE = {"src_lang": "fr"}


def main() -> None:
    from transformers import M2M100Tokenizer, MarianTokenizer, PLBartTokenizer

    source, target, merged = _train()
    known = ["</s>", "<unk>", *_names(source), *_names(target), ">>fra<<", ">>deu<<", "<pad>"]
    files: dict[str, Any] = {"source.spm": source, "target.spm": target, "vocab.json": known}
    _folder("marian", "marian", {"source_lang": "en"}, files, MarianTokenizer)
    for name, model, told in (("m2m_100", source, {}), ("m2m_100_bpe", merged, LANGUAGE)):
        words = ["<s>", "<pad>", "</s>", "<unk>", *_names(model)[::-1]]
        files = {"sentencepiece.bpe.model": model, "vocab.json": words}
        _folder(name, "m2m_100", told, files, M2M100Tokenizer)
    files = {"sentencepiece.bpe.model": source}
    _folder("plbart", "plbart", {"src_lang": "python"}, files, PLBartTokenizer)


def _train() -> tuple[bytes, bytes, bytes]:
    """Sentencepiece models: of a source, of a target, and one that merges."""
    text = Path("README.md").read_text("utf-8").split("\n")
    lines, others = [line for line in text if 5 < len(line) < 300], SENTENCES * 8
    return (
        _trained(lines, vocab_size=260, character_coverage=1.0),
        _trained(others, vocab_size=160, character_coverage=1.0),
        _trained(lines + others, vocab_size=320, model_type="bpe"),
    )


def _trained(lines: Iterable[str], **options: Any) -> bytes:
    import sentencepiece

    with tempfile.TemporaryDirectory() as room:
        rules = Path(room) / "rules.tsv"
        both = {**RULES, **_joining()}
        rules.write_text("".join(f"{_codes(a)}\t{_codes(b)}\n" for a, b in both.items()))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=f"{room}/made",
            normalization_rule_tsv=str(rules),
            hard_vocab_limit=options.get("model_type") == "bpe",
            minloglevel=2,
            **options,
        )
        return (Path(room) / "made.model").read_bytes()


def _joining() -> dict[str, str]:
    """Letters with accents, as all rules that are in use join them."""
    joined = {}
    for letter in map(chr, range(0xC0, 0x2000)):
        apart = normalize("NFD", letter)
        if len(apart) > 1 and normalize("NFC", apart) == letter:
            ends = [normalize("NFC", apart[:at]) + apart[at:] for at in range(1, len(apart))]
            joined |= dict.fromkeys([apart, *ends], letter)
    return joined


def _codes(text: str) -> str:
    return " ".join(f"{ord(char):X}" for char in text)


def _names(model: bytes) -> list[str]:
    import sentencepiece

    read = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [read.IdToPiece(number) for number in range(3, len(read))]


def _folder(name: str, kind: str, told: Any, files: dict[str, Any], slow: Any) -> None:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file, content in files.items():
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        else:
            words = {word: number for number, word in enumerate(dict.fromkeys(content))}
            _write(folder / file, words)
    _write(folder / "config.json", {"model_type": kind})
    _write(folder / "tokenizer_config.json", told)
    if kind == "m2m_100":
        from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

        names = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
        _write(folder / "special_tokens_map.json", {"additional_special_tokens": names})
    tokenizer = slow.from_pretrained(folder)
    _write(folder / "expected.json", _expected(tokenizer))


def _expected(tokenizer: Any) -> dict[str, Any]:
    """Texts with their ids, ids with their texts."""
    draw = random.Random(0)
    texts = [*LINES, *SENTENCES]
    texts += ["".join(draw.choices(ALPHABET, k=draw.randint(1, 12))) for _ in range(250)]
    rows = [draw.choices(range(len(tokenizer)), k=draw.randint(1, 12)) for _ in range(150)]
    return {
        "encoded": [[text, tokenizer(text)["input_ids"]] for text in texts],
        "decoded": [[row, tokenizer.decode(row, skip_special_tokens=True)] for row in rows],
        "tokens": len(tokenizer),
    }


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
